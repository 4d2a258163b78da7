"""Fixtures of the tests on simulated GPUs: daemon, engines, checkpoints. No GPU and no torch."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "faults"), str(TESTS.parent / "Benchmarks")]

from daemon import Daemon, Folders  # noqa: E402
from native_engine import NativeEngine  # noqa: E402
from reference import (  # noqa: E402
    DEVICES,
    SimulatedEngine,
    files_of,
    small_checkpoint,
)
from simulated_gpu import Library  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Device memory is counted by device and over all processes of a machine: these tests have devices
# of their own, and so has each of the two processes that they may run in.
PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
FIRST_DEVICE = 48 + PROCESS * DEVICES


@pytest.fixture(scope="session")
def cuda_library() -> str:
    command = [str(TESTS.parent / "scripts/build-simulated-cuda")]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    return made.stdout.strip()


@pytest.fixture
def library(cuda_library: str) -> Library:
    """The simulation in the process of the tests."""
    return Library(cuda_library)


@pytest.fixture(autouse=True)
def simulated_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """What every program that a test starts sees."""
    visible = range(FIRST_DEVICE, FIRST_DEVICE + DEVICES)
    monkeypatch.setenv("SIMULATED_CUDA_DEVICES", str(FIRST_DEVICE + DEVICES))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, visible)))
    for name in ("FAIL", "MEMORY", "COPY_BYTES_PER_SECOND"):
        monkeypatch.delenv(f"SIMULATED_CUDA_{name}", raising=False)


@pytest.fixture(scope="session")
def checkpoints() -> Iterator[list[Path]]:
    """Three checkpoints of one layout in shared memory, with different bytes."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="simulated-files-") as folder:
        yield [small_checkpoint(Path(folder) / f"step-{seed}", seed) for seed in range(3)]


@pytest.fixture
def folders() -> Iterator[Folders]:
    """Private directories for the daemon; a test has to leave both empty."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="simulated-") as shared_memory,
        tempfile.TemporaryDirectory(prefix="simulated-") as runtime,
    ):
        folders = Folders(Path(shared_memory), Path(runtime))
        yield folders
        assert folders.contents() == []


@pytest.fixture
def sockets() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="simulated-api-") as folder:
        yield Path(folder)


@pytest.fixture
def start_daemon(
    folders: Folders, sockets: Path, cuda_library: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Daemon]:
    """Starts a daemon, with variables of the simulation that nobody else gets."""

    def start(*more: str, bucket_size: str = "4MiB", **variables: str) -> Daemon:
        arguments = ["--device", "cuda", "--cuda-library", cuda_library]
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            return Daemon(
                folders, sockets / "api.sock", "--bucket-size", bucket_size, *arguments, *more
            )

    return start


@pytest.fixture
def start_engine(
    sockets: Path, cuda_library: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., SimulatedEngine]]:
    """Starts reference engines with workers on simulated GPUs; they end with the test."""
    engines: list[SimulatedEngine] = []

    def start(workers: int = 2, first_gpu: int = 0, **variables: str) -> SimulatedEngine:
        uds = sockets / f"engine-{len(engines)}.sock"
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            engine = SimulatedEngine(uds, cuda_library, range(first_gpu, first_gpu + workers))
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        engine.stop()
        assert files_of(*engine.pids) == {}


@pytest.fixture
def start_native_engine(cuda_library: str) -> Iterator[Callable[..., NativeEngine]]:
    """Starts stand-ins for vLLM's native weight transfer; they end with the test."""
    engines: list[NativeEngine] = []

    def start(workers: int = 2, first_gpu: int = 1, **options: float) -> NativeEngine:
        gpus = range(first_gpu, first_gpu + workers)
        engines.append(NativeEngine(cuda_library, gpus, **options))
        return engines[-1]

    yield start
    pids = [pid for engine in engines for pid in engine.pids]
    for engine in engines:
        engine.stop()
    assert files_of(*pids) == {}
