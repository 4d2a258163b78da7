"""Fixtures of the tests with trainers: launchers, and engines whose workers tell what they got."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / name) for name in ("faults", "simulated", "pull")]
sys.path.append(str(TESTS.parent / "Benchmarks"))

from daemon import Folders  # noqa: E402
from fake_engine import FakeEngine  # noqa: E402
from launch import Launcher  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def engines() -> Iterator[Callable[..., FakeEngine]]:
    """``engines(workers, number)``: engine ``number`` with that many workers, without faults."""
    made: dict[tuple[int, int], FakeEngine] = {}

    def engine(workers: int, number: int = 0) -> FakeEngine:
        key = (workers, number)
        if key not in made:
            made[key] = FakeEngine(workers)
        made[key].reset()
        return made[key]

    yield engine
    for one in made.values():
        one.__exit__()


@pytest.fixture(scope="session")
def folders() -> Iterator[Folders]:
    """Private directories for daemons and tensors."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="trainer-") as shared_memory,
        tempfile.TemporaryDirectory(prefix="trainer-") as runtime,
    ):
        yield Folders(Path(shared_memory), Path(runtime))


@pytest.fixture(scope="session")
def launcher(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Launcher]:
    """``launcher()``: one for a new run."""
    return lambda: Launcher(folders, tmp_path_factory.mktemp("reports"))
