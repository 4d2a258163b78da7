"""Fixtures of the tests of the examples."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from example_runs import BINARY, WORKERS, Engine, environment

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def running_engine() -> Iterator[Engine]:
    from engine_http import wait_until_ready

    with tempfile.TemporaryDirectory(prefix="examples-") as folder:
        uds = Path(folder) / "engine.sock"
        command = [BINARY, "reference-engine", "--workers", str(WORKERS), "--uds", str(uds)]
        process = subprocess.Popen(command, env=environment())
        try:
            wait_until_ready("http://localhost", str(uds), 30)
            yield Engine(uds)
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


@pytest.fixture
def late_engine() -> Iterator[Engine]:
    """Another one, which starts when the first has its weights."""
    with running_engine() as engine:
        yield engine


@pytest.fixture
def shared_memory() -> Iterator[Path]:
    """Where a trainer and its daemon keep tensors; they have to leave it empty."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="examples-") as folder:
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []
