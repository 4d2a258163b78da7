"""Clients that go away, collide or ask for too much: nothing that is there is harmed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from background import Background, check_next_update
from bad_files import sparse_checkpoint
from checkpoints import check_delivered
from daemon import Daemon, run, update_arguments, wait_until
from fault_workers import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Samples
    from daemon import Folders
    from fake_engine import FakeEngine

PAUSE = {0: Fault("pause", "bucket", 2)}


def metric(daemon: Daemon, name: str) -> float:
    """The sum of a metric over its labels."""
    lines = daemon.request("GET", "/metrics").body.splitlines()
    values = [float(line.split()[-1]) for line in lines if line.split("{")[0].split()[0] == name]
    assert values, f"there is no metric {name}"
    return sum(values)


def test_the_client_goes_away_during_the_update(
    daemon: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    assert daemon.register("step", samples.first).status == 200
    engine.script.workers = PAUSE
    client = daemon.connection()
    client.request("POST", "/v1/checkpoints/step/update", json.dumps({"update_url": engine.url}))
    assert engine.workers[0].paused.wait(10)
    assert daemon.state("step") == "updating"
    client.close()
    engine.workers[0].resumed.set()
    # The update goes on to its end.
    check_delivered(engine.wait_for_update(1, 10), samples.first_digests, 2)
    wait_until(lambda: daemon.state("step") == "ready", "the update has ended")
    record = daemon.request("GET", "/v1/updates/update-1").body
    assert record["state"] == "succeeded"
    check_next_update(daemon, engine, samples)


def test_the_client_goes_away_during_an_update_that_fails(
    daemon: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    assert daemon.register("step", samples.first).status == 200
    engine.script.workers = {**PAUSE, 1: Fault("raise", "bucket", 1)}
    client = daemon.connection()
    client.request("POST", "/v1/checkpoints/step/update", json.dumps({"update_url": engine.url}))
    assert engine.workers[1].paused.wait(10)
    client.close()
    engine.workers[0].resumed.set()
    wait_until(lambda: daemon.state("step") == "ready", "the update has ended")
    record = daemon.request("GET", "/v1/updates/update-1").body
    assert record["state"] == "failed"
    assert "CPU-1" in record["error"]["message"]
    check_next_update(daemon, engine, samples)


def test_the_client_goes_away_during_the_registration(
    daemon: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    client = daemon.connection()
    body = json.dumps({"files": [str(samples.first)]})
    client.request("POST", "/v1/checkpoints/step/files", body)
    client.close()
    wait_until(lambda: daemon.state("step") == "ready", "the registration has ended")
    check_next_update(daemon, engine, samples)


def test_two_updates_at_once(daemon: Daemon, engine: FakeEngine, samples: Samples) -> None:
    assert daemon.register("step", samples.first).status == 200
    assert daemon.register("other", samples.second).status == 200
    engine.script.workers = PAUSE
    update = Background(daemon, engine)
    assert engine.workers[0].paused.wait(10)
    # The same checkpoint, and another one for the same engine.
    daemon.update("step", engine.url).check_failure(409, "busy", "step", within=1)
    daemon.update("other", engine.url).check_failure(409, "busy", engine.url, within=1)
    daemon.unregister("step").check_failure(409, "busy", "step", within=1)
    engine.workers[0].resumed.set()
    assert update.answer().status == 200
    [outcomes] = engine.updates
    check_delivered(outcomes, samples.first_digests, 2)
    check_next_update(daemon, engine, samples)


def test_a_cancelled_update(daemon: Daemon, engine: FakeEngine, samples: Samples) -> None:
    assert daemon.register("step", samples.first).status == 200
    engine.script.workers = PAUSE
    update = Background(daemon, engine)
    assert engine.workers[0].paused.wait(10)
    assert daemon.request("DELETE", "/v1/updates/update-1").status == 202
    engine.workers[0].resumed.set()
    update.answer().check_failure(503, "cancelled", "DELETE /v1/updates/update-1")
    outcomes = engine.wait_for_update(1, 10)
    assert all("AbortedError" in (outcome.error or "") for outcome in outcomes)
    check_next_update(daemon, engine, samples)


def test_a_taken_name(daemon: Daemon, engine: FakeEngine, samples: Samples) -> None:
    assert daemon.register("step", samples.first).status == 200
    before = daemon.request("GET", "/v1/checkpoints/step").body
    segments = daemon.folders.segments()
    daemon.register("step", samples.second).check_failure(409, "already_exists", "step")
    daemon.register("step", samples.first).check_failure(409, "already_exists", "step")
    assert daemon.request("GET", "/v1/checkpoints/step").body == before
    assert daemon.folders.segments().keys() == segments.keys()
    check_next_update(daemon, engine, samples)


def test_a_name_that_is_being_registered(daemon: Daemon, samples: Samples, tmp_path: Path) -> None:
    """A race of many registrations under one name has one winner, and the others harm nothing."""
    files = [samples.first if number % 2 else samples.second for number in range(8)]
    clients = [daemon.connection() for _ in files]
    for client, path in zip(clients, files, strict=True):
        body = json.dumps({"files": [str(path)]})
        client.request("POST", "/v1/checkpoints/step/files", body)
    statuses = [client.getresponse().status for client in clients]
    for client in clients:
        client.close()
    assert sorted(statuses) == [200] + [409] * 7
    assert metric(daemon, "checkpoint_engine_checkpoints") == 1
    assert daemon.state("step") == "ready"
    assert len(daemon.folders.segments()) == 3


def test_what_does_not_fit_is_refused_before_it_is_read(
    folders: Folders, socket_path: Path, engine: FakeEngine, samples: Samples, tmp_path: Path
) -> None:
    big = sparse_checkpoint(tmp_path / "big", byte_count=64 << 30)
    with Daemon(folders, socket_path, "--memory-limit", "8MiB") as daemon:
        assert daemon.register("step", samples.first).status == 200
        answer = daemon.register("big", big)
        answer.check_failure(
            507, "insufficient_memory", str(64 << 30), str(8 << 20), "--memory-limit", within=1
        )
        # What is retained for the next version makes room; what is in use does not.
        assert len(folders.segments()) == 3
        assert daemon.register("again", samples.second).status == 200
        check_next_update(daemon, engine, samples)
    ended = run(*update_arguments(samples.first, engine.url, folders, "--memory-limit", "256KiB"))
    ended.check_failure("--memory-limit", str(256 << 10), within=3)


def test_what_the_machine_does_not_have_is_refused(
    daemon: Daemon, engine: FakeEngine, samples: Samples, tmp_path: Path
) -> None:
    assert daemon.register("step", samples.first).status == 200
    big = sparse_checkpoint(tmp_path / "big", byte_count=1 << 42)
    daemon.register("big", big).check_failure(
        507, "insufficient_memory", str(1 << 42), "unregister", within=1
    )
    assert len(daemon.folders.segments()) == 3
    check_next_update(daemon, engine, samples)
