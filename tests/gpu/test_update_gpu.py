"""The daemon delivers odd checkpoints to torch workers on all GPUs, and survives their faults."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from daemon import wait_until
from odd_tensors import odd_tensors, write_odd
from torch_engine_process import EngineCallError

MEMORY_SLACK_BYTES = 64 << 20
# How long after the cause a failure may take to reach everybody.
PROMPT_S = 20.0


@pytest.fixture(scope="module")
def first(shared_folder):
    return write_odd(shared_folder / "first", seed=1)


@pytest.fixture(scope="module")
def second(shared_folder):
    return write_odd(shared_folder / "second", seed=2)


def _start_update(daemon, name, engine, **fields):
    body = {**engine.instance, **fields}
    return daemon.request("POST", f"/v1/checkpoints/{name}/update", body, timeout=120)


def _deliver(daemon, name, engine, checkpoint):
    """A successful update after which every byte is right."""
    answer = _start_update(daemon, name, engine)
    assert answer.status == 200, answer.body
    assert answer.body["state"] == "succeeded"
    assert answer.body["tensors"] == len(odd_tensors())
    assert all(worker["committed"] for worker in answer.body["workers"])
    assert len(answer.body["workers"]) == len(engine.devices)
    found = engine.verify(checkpoint)
    assert found["tensors"] == len(odd_tensors()) * len(engine.devices)


def _check_equal(before, after):
    for rank, (old, new) in enumerate(zip(before, after, strict=True)):
        for key in ("free", "allocated", "reserved"):
            change = new.get(key, 0) - old.get(key, 0)
            assert abs(change) <= MEMORY_SLACK_BYTES, f"{key} of worker {rank} changed by {change}"


def _identity(engine, rank):
    return engine.request("GET", "/workers")["workers"][rank]["id"]


def test_every_byte_of_two_versions_arrives(engine, daemon_place, first, second):
    with daemon_place.start() as daemon:
        assert daemon.register("first", first).status == 200
        _deliver(daemon, "first", engine, first)
        with pytest.raises(EngineCallError, match="differs"):
            engine.verify(second)
        assert daemon.register("second", second).status == 200
        _deliver(daemon, "second", engine, second)
        engine.scramble()
        with pytest.raises(EngineCallError, match="differs"):
            engine.verify(second)
        _deliver(daemon, "second", engine, second)
        _deliver(daemon, "first", engine, first)


@pytest.mark.parametrize("bucket_size", ["1MiB", "512MiB"])
def test_every_byte_arrives_in_buckets_of_other_sizes(
    engine, daemon_place, first, second, bucket_size
):
    with daemon_place.start(bucket_size) as daemon:
        for name, checkpoint in (("first", first), ("second", second)):
            assert daemon.register(name, checkpoint).status == 200
            _deliver(daemon, name, engine, checkpoint)


def test_updates_leave_the_memory_of_gpus_as_it_was(engine, daemon_place, first, second):
    with daemon_place.start() as daemon:
        assert daemon.register("first", first).status == 200
        _deliver(daemon, "first", engine, first)  # the workers have their parameters now
    before = engine.memory()
    with daemon_place.start() as daemon:
        assert daemon.register("second", second).status == 200
        _deliver(daemon, "second", engine, second)
        after_one = engine.memory()
        for _ in range(3):
            assert _start_update(daemon, "second", engine).status == 200
        _check_equal(after_one, engine.memory())
        assert daemon.unregister("second", release=True).status == 200
    _check_equal(before, engine.memory())


@pytest.mark.parametrize("stage", ["bucket 3", "commit"])
def test_a_worker_that_raises_is_named_and_the_next_update_repairs(
    engine, daemon_place, first, second, stage
):
    culprit = len(engine.devices) - 1
    with daemon_place.start() as daemon:
        assert daemon.register("first", first).status == 200
        assert daemon.register("second", second).status == 200
        _deliver(daemon, "first", engine, first)
        engine.fault(culprit, stage, "raise")
        answer = _start_update(daemon, "second", engine)
        answer.check_failure(
            502,
            "worker_failed",
            _identity(engine, culprit),
            f"worker {culprit} refuses at {stage}",
            "Traceback",
            "InjectedFaultError",
            within=PROMPT_S,
        )
        _deliver(daemon, "second", engine, second)


@pytest.mark.parametrize("stage", ["bucket 3", "commit"])
def test_a_worker_that_exits_is_named_and_the_next_update_repairs(
    engine, daemon_place, first, second, stage
):
    culprit = len(engine.devices) - 1
    with daemon_place.start() as daemon:
        assert daemon.register("first", first).status == 200
        assert daemon.register("second", second).status == 200
        _deliver(daemon, "first", engine, first)
        name = _identity(engine, culprit)
        engine.fault(culprit, stage, "exit")
        answer = _start_update(daemon, "second", engine)
        answer.check_failure(502, "worker_lost", name, within=PROMPT_S)
        # Its connection is gone before its process.
        wait_until(lambda: engine.respawn() == [culprit], "the worker is replaced", PROMPT_S)
        _deliver(daemon, "second", engine, second)


def test_a_worker_that_hangs_runs_into_the_deadline(engine, daemon_place, first, second):
    timeout, pause = 5.0, 15.0
    culprit = len(engine.devices) - 1
    with daemon_place.start() as daemon:
        assert daemon.register("first", first).status == 200
        assert daemon.register("second", second).status == 200
        _deliver(daemon, "first", engine, first)
        engine.fault(culprit, "bucket 3", "hang", seconds=pause)
        answer = _start_update(daemon, "second", engine, timeout=timeout)
        answer.check_failure(504, "deadline_exceeded", within=timeout + PROMPT_S / 2)
        assert _identity(engine, culprit) in str(answer.body)
        # The next call waits in the engine until the worker is back.
        _deliver(daemon, "second", engine, second)


def test_workers_let_go_of_a_daemon_that_is_killed(engine, daemon_place, first, second):
    with daemon_place.start() as daemon:
        assert daemon.register("first", first).status == 200
        _deliver(daemon, "first", engine, first)
    before = engine.memory()
    daemon = daemon_place.start()
    assert daemon.register("second", second).status == 200
    # A pause of one worker holds the update where the daemon is killed.
    engine.fault(0, "bucket 3", "hang", seconds=3.0)

    def update():
        with pytest.raises(OSError, match=r".*"):
            _start_update(daemon, "second", engine)

    caller = threading.Thread(target=update)
    caller.start()
    time.sleep(1.5)
    killed_at = time.monotonic()
    daemon.program.send(signal.SIGKILL)
    daemon.program.kill()
    caller.join(PROMPT_S)
    assert not caller.is_alive()
    wait_until(lambda: engine.last()["failure"], "the workers' calls have failed", timeout=PROMPT_S)
    engine.memory()  # waits for the workers that are still busy
    assert time.monotonic() - killed_at < 3.0 + PROMPT_S
    assert engine.last()["succeeded"].count(True) == 0
    with daemon_place.start() as daemon:
        assert daemon.register("second", second).status == 200
        _deliver(daemon, "second", engine, second)
    _check_equal(before, engine.memory())
