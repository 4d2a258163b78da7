"""Faults of simulated GPUs and of workers on them: told, cleaned up, the next update works."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from daemon import run, wait_until
from reference import deliver, device_bytes, start_update

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from daemon import Answer, Daemon
    from reference import SimulatedEngine

    StartDaemon = Callable[..., Daemon]
    StartEngine = Callable[..., SimulatedEngine]

CULPRIT = 1
STEPS = ["hello", "catalog", "bucket-0", "bucket-5", "release", "commit"]
PROMPT_S = 10.0


def check_culprit(answer: Answer, engine: SimulatedEngine) -> None:
    """The update has failed in time, and its message names the worker."""
    assert answer.status == 502, answer.body
    assert answer.seconds < PROMPT_S
    text = str(answer.body["error"])
    assert engine.ids[CULPRIT] in text or f"worker {CULPRIT}" in text, text


@pytest.mark.parametrize("kind", ["kill", "raise"])
def test_a_worker_that_fails_in_any_step(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path], kind: str
) -> None:
    engine = start_engine(2)
    with start_daemon() as daemon:
        for number in (0, 1):
            assert daemon.register(f"step-{number}", checkpoints[number]).status == 200
        deliver(daemon, "step-0", checkpoints[0], engine)
        assert daemon.request("POST", "/v1/gpus/release").status == 200
        for step in STEPS:
            engine.ask(f"fault {kind} {step}", CULPRIT)
            answer = start_update(daemon, "step-1", engine)
            check_culprit(answer, engine)
            assert device_bytes(daemon.program.pid) == 0, step
            engine.respawned()
        # Both workers take the update that was refused so often.
        deliver(daemon, "step-1", checkpoints[1], engine)
        deliver(daemon, "step-0", checkpoints[0], engine)


def test_a_worker_that_hangs_runs_into_the_deadline(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path]
) -> None:
    engine = start_engine(2)
    with start_daemon() as daemon:
        assert daemon.register("step", checkpoints[0]).status == 200
        engine.ask("fault pause bucket-3", CULPRIT)
        answer = start_update(daemon, "step", engine, timeout=1)
        answer.check_failure(504, "deadline_exceeded", engine.ids[CULPRIT], within=1 + 6)
        assert device_bytes(daemon.program.pid) == 0
        deliver(daemon, "step", checkpoints[0], engine)


# What fails in the daemon, and what the answer has to tell. The first stream and event calls are
# made at the start, so that later ones fail.
DAEMON_FAULTS = {
    "no memory for a ring": ("cuMemAlloc_v2:2:2", 507, "cuMemAlloc_v2", "OUT_OF_MEMORY"),
    "no handle for a ring": ("cuIpcGetMemHandle:1:999", 500, "cuIpcGetMemHandle", "UNKNOWN"),
    "copy from the host": ("cuMemcpyHtoDAsync_v2:30:700", 500, "cuMemcpyHtoDAsync_v2", "ILLEGAL"),
    "copy to a peer": ("cuMemcpyDtoDAsync_v2:9:719", 500, "cuMemcpyDtoDAsync_v2", "LAUNCH"),
    "lost event": ("cuEventRecord:40:214", 500, "cuEventRecord", "ECC"),
    "failed wait": ("cuEventSynchronize:5:700", 500, "cuEventSynchronize", "ILLEGAL"),
}


@pytest.mark.parametrize("fault", DAEMON_FAULTS)
def test_a_call_that_fails_in_the_daemon(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path], fault: str
) -> None:
    engine = start_engine(2)
    script, status, call, word = DAEMON_FAULTS[fault]
    with start_daemon(SIMULATED_CUDA_FAIL=script) as daemon:
        for number in (0, 1):
            assert daemon.register(f"step-{number}", checkpoints[number]).status == 200
        answer = start_update(daemon, "step-0", engine)
        assert answer.status == status, answer.body
        text = str(answer.body["error"])
        assert all(part in text for part in (call, word, "GPU")), text
        assert answer.seconds < PROMPT_S
        assert device_bytes(daemon.program.pid) == 0
        deliver(daemon, "step-1", checkpoints[1], engine)


@pytest.mark.parametrize(
    ("script", "call"),
    [
        ("cuIpcOpenMemHandle_v2:1:205", "cuIpcOpenMemHandle_v2"),
        ("cuMemAlloc_v2:1:2", "cuMemAlloc_v2"),
        ("cuMemcpyDtoDAsync_v2:20:719", "cuMemcpyDtoDAsync_v2"),
        ("cuMemcpy2DAsync_v2:3:719", "cuMemcpy2DAsync_v2"),
        ("cuStreamSynchronize:4:700", "cuStreamSynchronize"),
    ],
)
def test_a_call_that_fails_in_a_worker(
    start_daemon: StartDaemon,
    start_engine: StartEngine,
    checkpoints: list[Path],
    script: str,
    call: str,
) -> None:
    engine = start_engine(1, SIMULATED_CUDA_FAIL=script)
    other = start_engine(1, first_gpu=1)
    with start_daemon() as daemon:
        assert daemon.register("step", checkpoints[0]).status == 200
        answer = start_update(daemon, "step", engine, other)
        answer.check_failure(502, "worker_failed", call, engine.ids[0], within=PROMPT_S)
        assert device_bytes(daemon.program.pid) == 0
        deliver(daemon, "step", checkpoints[0], engine, other)


def test_memory_that_cannot_be_pinned(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path]
) -> None:
    """The second of three files cannot be pinned: nothing of the registration is left."""
    engine = start_engine(1)
    with start_daemon(SIMULATED_CUDA_FAIL="cuMemHostRegister_v2:2:2") as daemon:
        answer = daemon.register("step", checkpoints[0])
        answer.check_failure(507, "insufficient_memory", "cuMemHostRegister_v2", "ulimit -l")
        assert daemon.request("GET", "/v1/checkpoints/step").status == 404
        assert daemon.register("step", checkpoints[0]).status == 200
        deliver(daemon, "step", checkpoints[0], engine)


def test_memory_of_files_on_disk_that_cannot_be_pinned(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path], tmp_path: Path
) -> None:
    engine = start_engine(1)
    for path in checkpoints[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with start_daemon(SIMULATED_CUDA_FAIL="cuMemHostRegister_v2:1:2") as daemon:
        answer = daemon.register("step", tmp_path)
        answer.check_failure(507, "insufficient_memory", "cuMemHostRegister_v2")
        assert daemon.folders.segments() == {}
        assert daemon.register("step", tmp_path).status == 200
        deliver(daemon, "step", checkpoints[0], engine)


def test_a_daemon_without_a_gpu_tells_why(cuda_library: str, sockets: Path) -> None:
    arguments = ["serve", "--uds", str(sockets / "none.sock"), "--device", "cuda"]
    ended = run(*arguments, "--cuda-library", cuda_library, CUDA_VISIBLE_DEVICES="")
    ended.check_failure("CUDA_VISIBLE_DEVICES")
    ended = run(*arguments, "--cuda-library", "/nonexistent/libcuda.so")
    ended.check_failure("/nonexistent/libcuda.so", "--device host")
    ended = run(
        *arguments,
        "--cuda-library",
        cuda_library,
        SIMULATED_CUDA_FAIL="cuDevicePrimaryCtxRetain:2:2",
    )
    ended.check_failure("cuDevicePrimaryCtxRetain", "GPU")


def test_gpus_that_do_not_reach_each_other(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path]
) -> None:
    engine = start_engine(2)
    with start_daemon(SIMULATED_CUDA_FAIL="cuCtxEnablePeerAccess:1:217") as daemon:
        assert daemon.register("step", checkpoints[0]).status == 200
        answer = start_update(daemon, "step", engine)
        answer.check_failure(500, "system", "cuCtxEnablePeerAccess", "GPU")
        deliver(daemon, "step", checkpoints[0], engine)


def test_an_update_is_cancelled(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path]
) -> None:
    engine = start_engine(2)
    with start_daemon() as daemon:
        assert daemon.register("step", checkpoints[0]).status == 200
        engine.ask("fault pause bucket-3", CULPRIT)
        update = start_update(daemon, "step", engine, wait=False).body["id"]
        path = f"/v1/updates/{update}"
        wait_until(lambda: daemon.request("GET", path).body["stage"] == "reload", "the reload")
        assert daemon.request("DELETE", path).status < 300
        wait_until(lambda: daemon.request("GET", path).body["state"] == "failed", "its end")
        assert daemon.request("GET", path).body["error"]["code"] == "cancelled"
        assert device_bytes(daemon.program.pid) == 0
        deliver(daemon, "step", checkpoints[0], engine)


def test_a_daemon_that_is_stopped_leaves_nothing(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path]
) -> None:
    engine = start_engine(2)
    daemon = start_daemon()
    assert daemon.register("step", checkpoints[0]).status == 200
    engine.ask("fault pause bucket-3", CULPRIT)
    update = start_update(daemon, "step", engine, wait=False).body["id"]
    path = f"/v1/updates/{update}"
    wait_until(lambda: daemon.request("GET", path).body["stage"] == "reload", "the reload")
    ended = daemon.stop(signal.SIGTERM)
    ended.check_orderly()
    assert ended.code == 0, ended.stderr
    assert device_bytes(daemon.program.pid) == 0
    with start_daemon() as again:
        assert again.register("step", checkpoints[1]).status == 200
        deliver(again, "step", checkpoints[1], engine)
