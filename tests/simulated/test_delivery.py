"""Updates of workers on simulated GPUs: every byte, every ring, memory that is given back."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from daemon import wait_until
from reference import deliver, device_bytes, files_of, start_update

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon import Daemon
    from reference import SimulatedEngine

    StartDaemon = Callable[..., Daemon]
    StartEngine = Callable[..., SimulatedEngine]

MIB = 1 << 20
# What the daemon leaves to engines on every GPU, and what is free for the ring then.
HEADROOM = 128 * MIB


@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_two_updates_bit_for_bit(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path], gpus: int
) -> None:
    engine = start_engine(gpus)
    with start_daemon() as daemon:
        for number in (0, 1):
            assert daemon.register(f"step-{number}", checkpoints[number]).status == 200
            status = deliver(daemon, f"step-{number}", checkpoints[number], engine)
            assert engine.fails_to_hold(checkpoints[1 - number])
            assert status["ring"]["bytes"] == 8 * MIB
            assert status["ring"]["gpus"] == engine.ids
            assert status["buckets"] > 8
        # The first one again, from what is pinned already.
        deliver(daemon, "step-0", checkpoints[0], engine)


def test_two_engines_at_once(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path]
) -> None:
    engines = [start_engine(2, first_gpu=first) for first in (2, 0)]
    with start_daemon() as daemon:
        assert daemon.register("step", checkpoints[0]).status == 200
        deliver(daemon, "step", checkpoints[0], *engines)


@pytest.mark.parametrize("bucket_size", ["64KiB", "64MiB"])
def test_other_bucket_sizes(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path], bucket_size: str
) -> None:
    engine = start_engine(2)
    with start_daemon(bucket_size=bucket_size) as daemon:
        for number in (0, 1):
            assert daemon.register(f"step-{number}", checkpoints[number]).status == 200
            deliver(daemon, f"step-{number}", checkpoints[number], engine)


def test_slow_copies_are_waited_for(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path]
) -> None:
    """Copies take their time: whoever reads or overwrites a bucket too early is found."""
    rate = str(200 * MIB)
    engine = start_engine(2, SIMULATED_CUDA_COPY_BYTES_PER_SECOND=rate)
    with start_daemon(SIMULATED_CUDA_COPY_BYTES_PER_SECOND=rate) as daemon:
        for number in (0, 1):
            assert daemon.register(f"step-{number}", checkpoints[number]).status == 200
            deliver(daemon, f"step-{number}", checkpoints[number], engine)


def test_little_memory_makes_a_smaller_ring(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path]
) -> None:
    engine = start_engine(2)
    with start_daemon() as daemon:
        assert daemon.register("step", checkpoints[0]).status == 200
        usual = deliver(daemon, "step", checkpoints[0], engine)["ring"]["bytes"]
    used = max(files_of(*engine.pids).values())
    room = 3 * MIB
    with start_daemon(SIMULATED_CUDA_MEMORY=str(used + HEADROOM + room)) as daemon:
        assert daemon.register("step", checkpoints[1]).status == 200
        status = deliver(daemon, "step", checkpoints[1], engine)
        assert status["ring"]["bytes"] <= room < usual
        assert status["ring"]["bucket_bytes"] < status["ring"]["bytes"]


def test_too_little_memory_is_told_with_the_numbers(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path]
) -> None:
    engine = start_engine(2)
    total = HEADROOM + MIB
    with start_daemon(SIMULATED_CUDA_MEMORY=str(total)) as daemon:
        assert daemon.register("step", checkpoints[0]).status == 200
        answer = start_update(daemon, "step", engine)
        answer.check_failure(
            507,
            "insufficient_memory",
            f"{total} bytes free",
            str(HEADROOM),
            "lm_head.weight",
            engine.ids[0],
        )
        assert device_bytes(daemon.program.pid) == 0
    with start_daemon() as daemon:
        assert daemon.register("step", checkpoints[0]).status == 200
        deliver(daemon, "step", checkpoints[0], engine)


def test_device_memory_is_given_back(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path]
) -> None:
    engine = start_engine(2)
    with start_daemon() as daemon:
        pid = daemon.program.pid
        assert daemon.register("step", checkpoints[0]).status == 200
        assert device_bytes(pid) == 0
        ring = deliver(daemon, "step", checkpoints[0], engine)["ring"]["bytes"]
        assert device_bytes(pid) == 2 * ring
        assert daemon.request("POST", "/v1/gpus/release").body == {"held_bytes": 0}
        assert device_bytes(pid) == 0
        deliver(daemon, "step", checkpoints[0], engine)
        assert device_bytes(pid) == 2 * ring
    with start_daemon("--release-gpu-memory") as daemon:
        assert daemon.register("step", checkpoints[1]).status == 200
        deliver(daemon, "step", checkpoints[1], engine)
        assert device_bytes(daemon.program.pid) == 0


def test_unregister_unpins(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path]
) -> None:
    engine = start_engine(1)
    with start_daemon() as daemon:
        assert daemon.register("step", checkpoints[0]).status == 200
        deliver(daemon, "step", checkpoints[0], engine)
        size = sum(path.stat().st_size for path in checkpoints[0].glob("*.safetensors"))
        assert pinned_bytes(daemon) == size
        assert daemon.unregister("step").status == 200
        assert pinned_bytes(daemon) == size
        assert daemon.register("step", checkpoints[0]).status == 200
        assert daemon.unregister("step", release=True).status == 200
        assert pinned_bytes(daemon) == 0
        maps = Path(f"/proc/{daemon.program.pid}/maps").read_text()
        assert str(checkpoints[0]) not in maps


def pinned_bytes(daemon: Daemon) -> int:
    """What the daemon's metrics tell."""
    text = daemon.request("GET", "/metrics").body
    [line] = [line for line in text.splitlines() if line.startswith("checkpoint_engine_pinned")]
    return int(float(line.split()[-1]))


def test_a_killed_daemon_ends_the_update_of_its_workers(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path]
) -> None:
    engine = start_engine(2)
    daemon = start_daemon()
    assert daemon.register("step", checkpoints[0]).status == 200
    deliver(daemon, "step", checkpoints[0], engine)
    # One worker stays inside a bucket, so that the update is under way when the daemon dies.
    engine.ask("fault pause bucket-2", 1)
    update = start_update(daemon, "step", engine, wait=False).body["id"]
    path = f"/v1/updates/{update}"
    wait_until(lambda: daemon.request("GET", path).body["stage"] == "reload", "the reload")
    daemon.program.send(signal.SIGKILL)
    daemon.program.wait()
    # Lines are answered in order: this one after the update has ended on every worker.
    assert engine.ask("id") == engine.ids
    with start_daemon() as again:
        assert files_of(daemon.program.pid) == {}, "a start sweeps what killed ones have left"
        assert again.register("step", checkpoints[1]).status == 200
        deliver(again, "step", checkpoints[1], engine)
