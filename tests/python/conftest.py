"""Fixtures of the tests of the Python package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import scripted_server
from worker_thread import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.append(str(Path(__file__).resolve().parents[1] / "faults"))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def server() -> Iterator[scripted_server.Server]:
    with scripted_server.Server() as server:
        yield server


@pytest.fixture
def memory() -> Iterator[Path]:
    with scripted_server.shared_memory() as folder:
        yield folder
