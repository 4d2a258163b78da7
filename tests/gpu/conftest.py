"""Fixtures of the tests on GPUs: the real daemon, torch workers on every GPU, odd checkpoints.

Without a GPU nothing is collected, and a line says so. With one, whatever is missing is a failure,
but for tests that are marked ``needs_gpus`` and need more: they are deselected, and a line says so.
``CHECKPOINT_ENGINE_TEST_DEVICES``, such as ``0,1`` or ``cpu,cpu``, names other devices than all.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "faults"), str(TESTS.parent / "Benchmarks")]
sys.path += [str(TESTS / "trainer"), str(TESTS / "vllm"), str(TESTS / "pull")]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from launch import Launcher
    from pull_places import Places
    from torch_engine_process import TorchEngine

SHARED_MEMORY_BYTES = 8 << 30


def _devices() -> list[str]:
    if named := os.environ.get("CHECKPOINT_ENGINE_TEST_DEVICES"):
        return named.split(",")
    try:
        import torch
    except ImportError:
        return []
    if not torch.cuda.is_available():
        return []
    return [str(number) for number in range(torch.cuda.device_count())]


DEVICES = _devices()
collect_ignore_glob = [] if DEVICES else ["test_*.py"]


GPU_COUNT = 0 if "cpu" in DEVICES else len(DEVICES)
LEFT_OUT: list[tuple[str, int]] = []


def pytest_configure(config):
    config.addinivalue_line("markers", "needs_gpus(count): on how many GPUs a test can run")


def pytest_collection_modifyitems(config, items):
    left_out = []
    for item in items:
        count = max((mark.args[0] for mark in item.iter_markers("needs_gpus")), default=0)
        if count > GPU_COUNT:
            left_out.append(item)
            LEFT_OUT.append((item.nodeid, count))
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter):
    if not DEVICES:
        terminalreporter.write_line(
            "tests/gpu: nothing collected, since torch sees no GPU here", yellow=True
        )
    for name, count in LEFT_OUT:
        terminalreporter.write_line(
            f"{name}: not run (GPUs needed: {count}, under test: {GPU_COUNT})", yellow=True
        )


@pytest.fixture(scope="session")
def devices() -> list[str]:
    """The devices under test; their machine has everything that the tests need."""
    missing = [name for name in ("numpy", "torch", "zmq") if find_spec(name) is None]
    assert not missing, f"Python modules are missing: {', '.join(missing)}"
    import daemon
    import torch

    assert daemon.BINARY.is_file(), f"{daemon.BINARY} is missing; set CHECKPOINT_ENGINE_BIN"
    free = shutil.disk_usage("/dev/shm").free
    assert free >= SHARED_MEMORY_BYTES, f"/dev/shm has only {free} bytes free"
    if "cpu" not in DEVICES:
        for device in DEVICES:
            torch.empty(1, device=f"cuda:{device}")
    return DEVICES


@pytest.fixture(scope="session")
def shared_folder() -> Iterator[Path]:
    """A folder in shared memory for checkpoints."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="gpu-files-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def shared_engine(devices) -> Iterator[TorchEngine]:
    from torch_engine_process import TorchEngine

    with TorchEngine(devices) as engine:
        yield engine


@pytest.fixture
def engine(shared_engine) -> TorchEngine:
    """An engine whose workers all live and are not busy."""
    shared_engine.respawn()
    return shared_engine


@pytest.fixture
def daemon_place() -> Iterator[DaemonPlace]:
    """Where daemons of one test run; they have to leave it empty."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="gpu-daemon-") as shared_memory,
        tempfile.TemporaryDirectory(prefix="gpu-daemon-") as runtime,
        tempfile.TemporaryDirectory(prefix="gpu-api-") as api,
    ):
        place = DaemonPlace(Path(shared_memory), Path(runtime), Path(api) / "api.sock")
        yield place
        assert place.folders.contents() == []


@pytest.fixture(scope="session")
def versions(shared_folder) -> list[Path]:
    """Two checkpoints of one layout."""
    from odd_tensors import write_odd

    return [write_odd(shared_folder / f"version-{seed}", seed=seed) for seed in (31, 32)]


@pytest.fixture
def places() -> Iterator[Places]:
    """Starts daemons on loopback that read from one another; all have to end in order."""
    from nodes import starting_nodes
    from pull_places import Places

    with starting_nodes("64MiB") as start:
        yield Places(start)


@pytest.fixture
def trainer_launcher(tmp_path) -> Iterator[Launcher]:
    """A launcher of a trainer's ranks; its directories have to be empty in the end."""
    from daemon import Folders
    from launch import Launcher

    with (
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="gpu-trainer-") as shared_memory,
        tempfile.TemporaryDirectory(prefix="gpu-trainer-") as runtime,
    ):
        folders = Folders(Path(shared_memory), Path(runtime))
        yield Launcher(folders, tmp_path)
        assert folders.contents() == []


class DaemonPlace:
    """Starts daemons in folders of their own."""

    def __init__(self, shared_memory: Path, runtime: Path, socket_path: Path) -> None:
        from daemon import Folders

        self.folders = Folders(shared_memory, runtime)
        self._socket = socket_path

    def start(self, bucket_size: str = "64MiB", *more: str, **variables: str):
        """A daemon, as a context that has to end in order."""
        from daemon import Daemon
        from torch_engine_process import zmq_flags

        flags = ["--bucket-size", bucket_size, *zmq_flags(), *more]
        return Daemon(self.folders, self._socket, *flags, **variables)
