"""Fixtures of the fault tests: real programs, fake engines, small checkpoints."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from checkpoints import read_digests, write_checkpoint
from daemon import Daemon, Folders
from fake_engine import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checkpoints import Digests

WORKERS = 2


class Samples:
    """Two checkpoints of equal layout, with the digests of their tensors."""

    def __init__(self, folder: Path) -> None:
        self.first = write_checkpoint(folder / "first", seed=1)
        self.second = write_checkpoint(folder / "second", seed=2)
        self.first_digests: Digests = read_digests(self.first)
        self.second_digests: Digests = read_digests(self.second)
        self.byte_count = sum(f.stat().st_size for f in self.first.iterdir())
        assert self.first_digests.keys() == self.second_digests.keys()
        assert self.first_digests != self.second_digests


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return Samples(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def folders() -> Iterator[Folders]:
    """Private directories for the program; a test has to leave both empty."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="faults-") as shared_memory,
        tempfile.TemporaryDirectory(prefix="faults-") as runtime,
    ):
        folders = Folders(Path(shared_memory), Path(runtime))
        yield folders
        assert folders.contents() == []


@pytest.fixture
def in_memory(samples: Samples) -> Iterator[Path]:
    """The first checkpoint as files in shared memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="faults-files-") as folder:
        yield Path(shutil.copytree(samples.first, Path(folder) / "step"))


@pytest.fixture
def socket_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="faults-api-") as folder:
        yield Path(folder) / "api.sock"


@pytest.fixture
def daemon(folders: Folders, socket_path: Path) -> Iterator[Daemon]:
    """A daemon that has to stop in order in the end."""
    with Daemon(folders, socket_path) as daemon:
        yield daemon
    assert not socket_path.exists()


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[FakeEngine]:
    with FakeEngine(WORKERS) as engine:
        yield engine


@pytest.fixture
def engine(shared_engine: FakeEngine) -> FakeEngine:
    """An engine with two living workers and no faults."""
    shared_engine.reset()
    return shared_engine
