"""What each rank of a test's trainer does; run by torchrun, or as single processes.

``python trainer.py SCENARIO,… FOLDER``: every rank writes what it saw to ``FOLDER/rank-R.json``.
What a scenario needs beside that comes as JSON in ``TRAINER_OPTIONS``.
"""

from __future__ import annotations

import sys
import time

import fault_scenarios
import p2p_scenarios
import scenarios
import torch
from checkpoint_engine import ps
from checkpoint_engine.ps import ParameterServer
from rank_tools import OPTIONS, RANK, Report

SCENARIOS = {
    scenario.__name__: scenario
    for module in (scenarios, fault_scenarios, p2p_scenarios)
    for scenario in module.SCENARIOS
}


def main() -> None:
    torch.seed()
    if "gpus" in OPTIONS:  # simulated ones, which torch does not see
        ps._choose_device = lambda *_: 1
        ParameterServer._worker = lambda _: OPTIONS["gpus"][RANK]  # type: ignore[method-assign]
    report = Report()
    start = time.monotonic()
    try:
        with ParameterServer() as server:
            for name in sys.argv[1].split(","):
                SCENARIOS[name](server, report)
    except Exception as error:
        report.values["failure"] = f"{type(error).__name__}: {error}"
        report.values["seconds"] = time.monotonic() - start
        raise
    finally:
        report.write()


if __name__ == "__main__":
    main()
