"""Fixtures of the tests of the examples."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from example_runs import BINARY, WORKERS, Engine, environment

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def engine() -> Iterator[Engine]:
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
