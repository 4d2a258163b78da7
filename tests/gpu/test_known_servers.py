"""The unmodified servers of PyPI's ``checkpoint-engine`` update engines that have our worker.

``PYPI_WORKER_042`` and ``PYPI_WORKER_012`` name the folders of its unpacked wheels.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from against_pypi import Ranks, share_files
from odd_tensors import odd_tensors, write_odd
from torch_engine_process import TorchEngine

VARIABLES = {"0.4.2": "PYPI_WORKER_042", "0.1.2": "PYPI_WORKER_012"}
# The older version takes whole numbers.
BUCKET_GIB = 1
# What the readers of these versions know.
KNOWN = {"packed": False, "scales": False}


@pytest.fixture(scope="module")
def checkpoints(shared_folder):
    return [write_odd(shared_folder / f"server-{seed}", seed=seed, **KNOWN) for seed in (21, 22)]


@pytest.fixture(params=VARIABLES)
def servers(request, devices):
    """The servers of one version, and an engine whose workers are ours."""
    variable = VARIABLES[request.param]
    named = os.environ.get(variable)
    assert named, f"set {variable} to the folder of the unpacked wheel {request.param}"
    with TorchEngine(devices) as engine, Ranks(devices, Path(named), engine) as ranks:
        assert ranks.version == request.param
        yield ranks, engine


def test_every_byte_of_two_versions_arrives(servers, checkpoints):
    ranks, engine = servers
    for number, checkpoint in enumerate(checkpoints):
        shares = share_files(checkpoint, checkpoint / "links", len(engine.devices))
        # In memory of their own: the older version knows no other way.
        ranks.ask("register_copied", each=shares)
        ranks.ask("gather")
        engine.scramble()
        ranks.ask("update", BUCKET_GIB)
        found = engine.verify(checkpoint)
        assert found["tensors"] == len(odd_tensors(**KNOWN)) * len(engine.devices)
        if number == 0:
            ranks.ask("update", BUCKET_GIB)
            engine.verify(checkpoint)
        ranks.ask("unregister")


def test_a_worker_that_raises_ends_the_update_of_all(servers, checkpoints):
    ranks, engine = servers
    shares = share_files(checkpoints[0], checkpoints[0] / "links", len(engine.devices))
    ranks.ask("register_copied", each=shares)
    ranks.ask("gather")
    culprit = len(engine.devices) - 1
    engine.fault(culprit, "bucket 1", "raise")
    # The servers of these versions end with the failure; the engine's answer ends them too.
    with pytest.raises(Exception, match=r"rank \d"):
        ranks.ask("update", BUCKET_GIB)
    # Workers are free again, and take an update from whoever comes next.
    engine.request("POST", "/scramble", timeout=60)
