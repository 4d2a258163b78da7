"""Workers that die, raise or hang: the update ends in time, names them, and the next one works."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import zmq
from background import Background, check_next_update
from checkpoints import check_delivered
from conftest import WORKERS
from daemon import run, update_arguments
from fault_workers import Fault

if TYPE_CHECKING:
    from conftest import Samples
    from daemon import Daemon, Folders
    from fake_engine import FakeEngine

CULPRIT = 1
# Far beyond what the tests allow: nothing may end by it.
FAR_DEADLINE_S = 120
# Where the update was then, as the daemon sees it: the last answers of a killed process are lost.
KILLS = {
    "hello": (Fault("kill", "hello"), "the handshake"),
    "first bucket": (Fault("kill", "bucket", 0), "bucket 0 of"),
    "between buckets": (Fault("kill", "bucket", 3), "bucket [0-3] of"),
    "before commit": (Fault("kill", "commit"), "the commit"),
}


def test_update_without_faults(daemon: Daemon, engine: FakeEngine, samples: Samples) -> None:
    assert daemon.register("step", samples.first).status == 200
    assert daemon.register("other", samples.second).status == 200
    for name, digests in [
        ("step", samples.first_digests),
        ("other", samples.second_digests),
        ("step", samples.first_digests),
    ]:
        answer = daemon.update(name, engine.url)
        assert answer.status == 200, answer.body
        check_delivered(engine.updates[-1], digests, WORKERS)


def test_worker_killed_before_it_connects(
    daemon: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    assert daemon.register("step", samples.first).status == 200
    engine.script.workers = {CULPRIT: Fault("kill", "start")}
    answer = daemon.update("step", engine.url, timeout=FAR_DEADLINE_S)
    answer.check_failure(502, "engine_failed", engine.url, "500", f"worker {CULPRIT} died")
    check_next_update(daemon, engine, samples)


def test_worker_killed_before_it_connects_and_the_engine_hangs(
    daemon: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    """Nobody can tell of a worker that never came: the deadline ends the update."""
    assert daemon.register("step", samples.first).status == 200
    engine.script.workers = {CULPRIT: Fault("kill", "start")}
    engine.script.notices_dead_workers = False
    answer = daemon.update("step", engine.url, timeout=2)
    answer.check_failure(
        504, "deadline_exceeded", f"CPU-{CULPRIT}", engine.url, "handshake", within=2 + 6
    )
    assert answer.seconds > 1.9
    check_next_update(daemon, engine, samples)


@pytest.mark.parametrize(
    ("where", "engine_is"),
    [*((where, "aware") for where in KILLS), ("hello", "hung"), ("between buckets", "hung")],
)
def test_worker_killed(
    daemon: Daemon, engine: FakeEngine, samples: Samples, where: str, engine_is: str
) -> None:
    assert daemon.register("step", samples.first).status == 200
    fault, position = KILLS[where]
    pid = engine.workers[CULPRIT].pid
    engine.script.workers = {CULPRIT: fault}
    engine.script.notices_dead_workers = engine_is == "aware"
    answer = daemon.update("step", engine.url, timeout=FAR_DEADLINE_S)
    # Before its hello a worker is known by its id only.
    pid_words = [] if fault.at == "hello" else [f"pid {pid}"]
    answer.check_failure(502, "worker_lost", f"CPU-{CULPRIT}", engine.url, *pid_words, within=8)
    assert re.search(position, answer.body["error"]["message"])
    record = daemon.request("GET", f"/v1/updates/{answer.body['update']}").body
    assert record["state"] == "failed"
    assert record["error"]["code"] == "worker_lost"
    check_next_update(daemon, engine, samples)


def test_killed_worker_ends_the_one_shot_update(
    folders: Folders, engine: FakeEngine, samples: Samples
) -> None:
    engine.script.workers = {CULPRIT: Fault("kill", "bucket", 3)}
    pid = engine.workers[CULPRIT].pid
    ended = run(*update_arguments(samples.first, engine.url, folders))
    ended.check_failure(f"CPU-{CULPRIT}", f"pid {pid}", engine.url, " of 13", "mixture")
    assert folders.contents() == []
    engine.reset()
    ended = run(*update_arguments(samples.second, engine.url, folders))
    assert ended.code == 0, ended.stderr
    check_delivered(engine.updates[-1], samples.second_digests, WORKERS)


RAISES = {
    "bucket": (Fault("raise", "bucket", 3), "bucket 3 of", "_load"),
    "commit": (Fault("raise", "commit"), "commit", "_commit"),
}


@pytest.mark.parametrize("where", RAISES)
def test_worker_raises(daemon: Daemon, engine: FakeEngine, samples: Samples, where: str) -> None:
    assert daemon.register("step", samples.first).status == 200
    fault, position, function = RAISES[where]
    engine.script.workers = {CULPRIT: fault}
    answer = daemon.update("step", engine.url, timeout=FAR_DEADLINE_S)
    pid = engine.workers[CULPRIT].pid
    answer.check_failure(502, "worker_failed", f"CPU-{CULPRIT} (pid {pid})", engine.url, position)
    error = answer.body["error"]
    assert "LoaderRefusalError: the loader refuses" in error["message"]
    assert error["cause"].startswith("Traceback (most recent call last)")
    assert function in error["cause"]
    assert "fault_workers.py" in error["cause"]
    # The worker that did its part is told who failed, and its call fails too.
    [other] = [o for o in engine.wait_for_update(1, 10) if o.rank != CULPRIT]
    if where == "bucket":
        assert f"CPU-{CULPRIT}" in (other.error or "")
        assert "AbortedError" in (other.error or "")
    check_next_update(daemon, engine, samples)


def test_traceback_reaches_the_one_shot_update(
    folders: Folders, engine: FakeEngine, samples: Samples
) -> None:
    engine.script.workers = {CULPRIT: Fault("raise", "bucket", 3)}
    ended = run(*update_arguments(samples.first, engine.url, folders))
    ended.check_failure(
        f"CPU-{CULPRIT} (pid {engine.workers[CULPRIT].pid})",
        "Traceback (most recent call last)",
        "LoaderRefusalError: the loader refuses",
        "fault_workers.py",
        "reload",
    )


@pytest.mark.parametrize("at", ["start", "bucket", "commit"])
def test_worker_hangs_beyond_the_deadline(
    daemon: Daemon, engine: FakeEngine, samples: Samples, at: str
) -> None:
    assert daemon.register("step", samples.first).status == 200
    bucket = 3 if at == "bucket" else 0
    engine.script.workers = {CULPRIT: Fault("pause", at, bucket)}  # type: ignore[arg-type]
    answer = daemon.update("step", engine.url, timeout=2)
    # The deadline, then at most five seconds for the workers to acknowledge the end.
    answer.check_failure(504, "deadline_exceeded", f"CPU-{CULPRIT}", engine.url, within=2 + 6)
    assert f"CPU-{1 - CULPRIT}" not in answer.body["error"]["message"]
    # The process lives on, and its call fails as soon as it looks; one that has yet to connect
    # gives a server five seconds to be there.
    pid = engine.workers[CULPRIT].pid
    engine.workers[CULPRIT].resumed.set()
    outcome = engine.wait_for_update(1, 10)[CULPRIT]
    # One that has loaded everything may end its commit without looking.
    assert outcome.committed if at == "commit" else outcome.error is not None
    assert outcome.seconds_after_pause < (6 if at == "start" else 2)
    check_next_update(daemon, engine, samples)
    assert engine.workers[CULPRIT].pid == pid


def test_second_worker_on_one_address(daemon: Daemon, engine: FakeEngine, samples: Samples) -> None:
    assert daemon.register("step", samples.first).status == 200
    engine.script.workers = {CULPRIT: Fault("pause", "bucket", 2)}
    update = Background(daemon, engine, timeout=FAR_DEADLINE_S)
    assert engine.workers[CULPRIT].paused.wait(10)
    with zmq.Context() as context, context.socket(zmq.REP) as intruder:
        intruder.linger = 0
        with intruder.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED) as monitor:
            intruder.connect(engine.addresses[f"CPU-{CULPRIT}"])
            # What is left of the update may take less time than it takes to connect.
            assert monitor.poll(10_000), "the second worker was not let in"
            intruder.disable_monitor()
        engine.workers[CULPRIT].resumed.set()
        answer = update.answer()
    answer.check_failure(
        answer.status, "worker_failed", "second worker", f"CPU-{CULPRIT}", engine.url
    )
    assert answer.status == 502
    check_next_update(daemon, engine, samples)


def test_worker_with_the_wrong_id(daemon: Daemon, engine: FakeEngine, samples: Samples) -> None:
    """Two ranks of the engine are mixed up: nobody may load what is meant for another."""
    assert daemon.register("step", samples.first).status == 200
    engine.script.swaps_addresses = True
    answer = daemon.update("step", engine.url, timeout=FAR_DEADLINE_S)
    answer.check_failure(502, answer.body["error"]["code"], "CPU-0", "CPU-1", engine.url)
    assert all(outcome.buckets == 0 for outcome in engine.wait_for_update(1, 10))
    check_next_update(daemon, engine, samples)
