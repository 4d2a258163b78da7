"""The unmodified workers of PyPI's ``checkpoint-engine`` take updates from the daemon.

``PYPI_WORKER_042`` and ``PYPI_WORKER_012`` name the folders of its unpacked wheels.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from odd_tensors import odd_tensors, write_odd
from torch_engine_process import TorchEngine

VARIABLES = {"0.4.2": "PYPI_WORKER_042", "0.1.2": "PYPI_WORKER_012"}
PROMPT_S = 30.0
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def checkpoints(shared_folder):
    return [
        write_odd(shared_folder / f"known-{seed}", seed=seed, packed=False) for seed in (11, 12)
    ]


@pytest.fixture(scope="module", params=VARIABLES)
def known_version(request):
    return request.param


@pytest.fixture(scope="module")
def known_engine(known_version, devices):
    variable = VARIABLES[known_version]
    named = os.environ.get(variable)
    assert named, f"set {variable} to the folder of the unpacked wheel {known_version}"
    worker = Path(named) / "checkpoint_engine/worker.py"
    assert worker.is_file(), f"{variable}: {worker} is missing"
    with TorchEngine(devices, Path(named)) as engine:
        yield engine


def _start_update(daemon, name, engine):
    body = {**engine.instance, "timeout": TIMEOUT_S}
    return daemon.request("POST", f"/v1/checkpoints/{name}/update", body, timeout=2 * TIMEOUT_S)


def _deliver(daemon, name, engine, checkpoint):
    answer = _start_update(daemon, name, engine)
    assert answer.status == 200, answer.body
    assert answer.body["state"] == "succeeded"
    found = engine.verify(checkpoint)
    count = len(odd_tensors(packed=False))
    assert found["tensors"] == count * len(engine.devices)


def test_every_byte_of_two_versions_arrives(known_engine, daemon_place, checkpoints):
    known_engine.respawn(kill_all=True)
    with daemon_place.start() as daemon:
        for number, checkpoint in enumerate(checkpoints):
            assert daemon.register(f"step-{number}", checkpoint).status == 200
            _deliver(daemon, f"step-{number}", known_engine, checkpoint)
        known_engine.scramble()
        _deliver(daemon, "step-0", known_engine, checkpoints[0])


def test_a_worker_that_raises_fails_the_update_and_the_next_repairs(
    known_engine, known_version, daemon_place, checkpoints
):
    known_engine.respawn(kill_all=True)
    # The engine answers with the first failure by rank: that of the one that caused the others.
    culprit = 0
    identity = known_engine.request("GET", "/workers")["workers"][culprit]["id"]
    with daemon_place.start() as daemon:
        assert daemon.register("step", checkpoints[1]).status == 200
        _deliver(daemon, "step", known_engine, checkpoints[1])
        known_engine.fault(culprit, "bucket 3", "raise")
        answer = _start_update(daemon, "step", known_engine)
        assert answer.status == 502, answer.body
        assert answer.seconds < PROMPT_S
        text = str(answer.body)
        refusal = f"worker {culprit} refuses at bucket 3"
        # Workers of 0.1.2 do not reply; they disconnect, and the engine tells why.
        assert refusal in text or (known_version == "0.1.2" and identity in text), text
        # Waits until every worker has left the failed update.
        known_engine.request("POST", "/scramble", timeout=TIMEOUT_S)
        _deliver(daemon, "step", known_engine, checkpoints[1])
