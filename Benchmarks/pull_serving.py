"""Measures what readers cost a daemon's own engine: its updates alone, while another daemon reads
the same checkpoint over TCP on loopback, and while mooncake alone reads other memory.

With GPUs the engine's workers are torch processes on all of them, whose bytes are compared in the
end; without, or with ``--device host``, two reference workers that copy on the processor. The
reader computes on the same machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from figures import Figures, median
from host import conclude
from measured_daemon import ReferenceEngine
from pull import AHEAD_S, NAME, TENSORS, WORKERS, Cluster, update_seconds
from pull_daemon import PullDaemon
from sample_files import write_checkpoint
from torch_engine_process import TorchEngine
from transfer_ceiling import GIB, Ceiling

# Updates in each turn: one alone, so many beside readers.
UPDATES = 3


def _measure(figures: Figures, at: Cluster, engine: ReferenceEngine | TorchEngine) -> None:
    seconds = update_seconds(at, engine, UPDATES)
    what = "an update by the source while it is read / alone"
    figures.add("serving_update_ratio", seconds.ratio("read", "alone"), "x", what, **seconds.of)
    what = "the same while mooncake alone reads other memory"
    figures.add("serving_update_beside_ratio", seconds.ratio("beside", "alone"), "x", what)
    figures.add("serving_update_ms", median(seconds.of["alone"]) * 1e3, "ms", "an update alone")


def _run(figures: Figures, arguments: argparse.Namespace, devices: list[str]) -> None:
    with ExitStack() as stack:

        def folder(parent: Path | None) -> Path:
            name = tempfile.TemporaryDirectory(prefix="checkpoint-engine-bench-", dir=parent)
            return Path(stack.enter_context(name))

        files = write_checkpoint(
            folder(Path("/dev/shm")) / "files",
            arguments.gibibytes * GIB,
            files=4,
            tensors=TENSORS * arguments.gibibytes,
        )
        flags = ["--checksums", "ahead"]
        engine: ReferenceEngine | TorchEngine
        if devices:
            flags += ["--device", "cuda"]
            engine = stack.enter_context(TorchEngine(devices))
        else:
            engine = stack.enter_context(ReferenceEngine(folder(None), WORKERS))
        ceiling = stack.enter_context(Ceiling())
        source = stack.enter_context(PullDaemon(*flags))
        reader = stack.enter_context(PullDaemon())
        at = Cluster(ceiling, source, reader, arguments.rounds)
        source.register(NAME, files)
        time.sleep(AHEAD_S)
        _measure(figures, at, engine)
        if isinstance(engine, TorchEngine):
            engine.verify(files)


def _devices(wanted: str) -> list[str]:
    if wanted == "host":
        return []
    try:
        import torch
    except ImportError:
        return []
    return [str(number) for number in range(torch.cuda.device_count())]


def main() -> int:
    """Measures, shows, writes; the exit code tells whether the threshold is met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="write all figures to this file, as JSON")
    parser.add_argument("--rounds", type=int, default=9, help="of each measurement")
    parser.add_argument("--gibibytes", type=int, default=8, help="of the checkpoint")
    parser.add_argument("--device", choices=["auto", "host"], default="auto")
    parser.add_argument("--no-thresholds", action="store_true", help="exit with 0 in any case")
    arguments = parser.parse_args()
    figures = Figures(Path(__file__).with_name("serving_thresholds.json"))
    start = time.time()
    _run(figures, arguments, _devices(arguments.device))
    return conclude(figures, start, arguments, load=os.getloadavg()[0])


if __name__ == "__main__":
    sys.exit(main())
