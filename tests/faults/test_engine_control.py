"""What happens to vLLM engines around an update: pauses, sleep, caches and versions."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from background import Background
from checkpoints import check_delivered
from daemon import Answer, Daemon, run, update_arguments, wait_until, write_secret
from fake_engine import FakeEngine
from fault_workers import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Samples
    from daemon import Folders

SIZE = "/get_world_size"
UPDATE = "/collective_rpc"
RESET = "/reset_prefix_cache"


@pytest.fixture
def loaded(daemon: Daemon, samples: Samples) -> Daemon:
    assert daemon.register("step", samples.first).status == 200
    return daemon


@pytest.fixture(scope="module")
def shared_other() -> Iterator[FakeEngine]:
    with FakeEngine(1) as engine:
        yield engine


@pytest.fixture
def other(shared_other: FakeEngine) -> FakeEngine:
    shared_other.reset()
    return shared_other


def update(daemon: Daemon, *engines: FakeEngine, **fields: object) -> Answer:
    instances = [{"update_url": engine.url} for engine in engines]
    body = {"instances": instances, "timeout": 60, **fields}
    return daemon.request("POST", "/v1/checkpoints/step/update", body)


def check_next(daemon: Daemon, engine: FakeEngine, samples: Samples, **fields: object) -> None:
    """The same daemon and engine take an update now, with the engine as it stands."""
    control = engine.control
    engine.reset()
    engine.control = control
    control.answers.clear()
    answer = update(daemon, engine, **fields)
    assert answer.status == 200, answer.body
    check_delivered(engine.updates[-1], samples.first_digests, len(engine.workers))


# The order of things


@pytest.mark.parametrize("mode", ["abort", "wait", "keep"])
def test_a_pause(loaded: Daemon, engine: FakeEngine, samples: Samples, mode: str) -> None:
    answer = update(loaded, engine, pause=mode, weight_version="step-3")
    assert answer.status == 200, answer.body
    check_delivered(engine.updates[-1], samples.first_digests, 2)
    control = engine.control
    assert control.paths() == [
        "/pause",
        SIZE,
        UPDATE,
        RESET,
        "/update_weight_version",
        "/resume",
    ]
    assert control.calls[0] == f"POST /pause?mode={mode}&clear_cache=true"
    # Requests that are kept hold the cache; they are computed anew.
    query = "?reset_running_requests=true" if mode == "keep" else ""
    assert control.calls[3] == f"POST {RESET}{query}"
    assert (control.paused, control.version) == (None, "step-3")
    told = answer.body["control"]
    assert 0 < told.pop("paused_seconds") <= answer.body["seconds"]
    assert told == {"pause": mode, "still_paused": [], "woken": [], "weight_version": "step-3"}


def test_stages_tell_the_time_of_a_pause(loaded: Daemon, engine: FakeEngine) -> None:
    answer = update(loaded, engine, pause="abort")
    stages = answer.body["stages"]
    names = [stage["stage"] for stage in stages]
    assert names[:3] == ["pause", "handshake", "catalog"]
    assert names[-2:] == ["finish", "resume"]
    assert stages[0]["start"] == 0
    assert [stage["start"] for stage in stages] == sorted(stage["start"] for stage in stages)
    trace = loaded.request("GET", f"/v1/updates/{answer.body['id']}/trace").body
    spans = {event["name"] for event in trace["traceEvents"] if event["ph"] == "X"}
    assert {"pause", "resume"} <= spans


def test_nothing_is_asked_by_default(loaded: Daemon, engine: FakeEngine) -> None:
    answer = update(loaded, engine)
    assert engine.control.paths() == [SIZE, UPDATE, RESET]
    assert engine.control.tokens == {None}
    assert "control" not in answer.body
    stages = [stage["stage"] for stage in answer.body["stages"]]
    assert (stages[0], stages[-1]) == ("handshake", "finish")


def test_a_pause_without_a_reset(loaded: Daemon, engine: FakeEngine) -> None:
    assert update(loaded, engine, pause="keep", reset_prefix_cache=False).status == 200
    assert engine.control.calls[0] == "POST /pause?mode=keep&clear_cache=false"
    assert engine.control.paths() == ["/pause", SIZE, UPDATE, "/resume"]


def test_flags_and_variables(
    folders: Folders, engine: FakeEngine, samples: Samples, tmp_path
) -> None:
    token = tmp_path / "token"
    write_secret(token, "secret-7")
    arguments = update_arguments(samples.first, engine.url, folders, "--pause", "wait", "--wake")
    ended = run(
        *arguments,
        CHECKPOINT_ENGINE_PAUSE="keep",
        CHECKPOINT_ENGINE_WEIGHT_VERSION="v2",
        CHECKPOINT_ENGINE_ENGINE_TOKEN_FILE=str(token),
    )
    assert ended.code == 0, ended.stderr
    assert engine.control.calls[1] == "POST /pause?mode=wait&clear_cache=true"
    assert "/is_sleeping" in engine.control.paths()
    assert engine.control.version == "v2"
    assert engine.control.tokens == {"Bearer secret-7"}


def test_two_engines_stand_still_before_the_first_byte(
    loaded: Daemon, engine: FakeEngine, other: FakeEngine, samples: Samples
) -> None:
    """And go on after the last one: neither is called to update, or resumed, before the other."""
    other.control.holds["/pause"] = threading.Event()
    other.script.workers[0] = Fault("pause", "commit")
    instances = [{"update_url": engine.url}, {"update_url": other.url}]
    body = {"instances": instances, "pause": "keep", "wait": False}
    assert loaded.request("POST", "/v1/checkpoints/step/update", body).status == 202
    wait_until(lambda: engine.control.paused, "the first engine is paused")
    wait_until(lambda: other.control.calls, "the second engine is asked")
    status = loaded.request("GET", "/v1/updates/update-1").body
    assert status["stage"] == "pause"
    assert UPDATE not in engine.control.paths()

    other.control.holds["/pause"].set()
    wait_until(other.workers[0].paused.is_set, "the second engine commits")
    wait_until(lambda: engine.updates, "the first engine has committed")
    assert "/resume" not in engine.control.paths()
    other.workers[0].resumed.set()
    wait_until(lambda: other.control.paused is None, "the second engine goes on")
    wait_until(lambda: engine.control.paused is None, "the first engine goes on")
    check_delivered(engine.updates[-1], samples.first_digests, 2)
    check_delivered(other.updates[-1], samples.first_digests, 1)


# Failures


@pytest.mark.parametrize("at", ["start", "hello"])
def test_after_a_failure_that_touched_nothing_engines_go_on(
    loaded: Daemon, engine: FakeEngine, samples: Samples, at: str
) -> None:
    engine.script.workers[1] = Fault("kill", at)  # type: ignore[arg-type]
    answer = update(loaded, engine, pause="abort")
    assert answer.status == 502, answer.body
    assert engine.control.paused is None
    assert engine.control.paths()[-1] == "/resume"
    assert RESET not in engine.control.paths()
    message = answer.body["error"]["message"]
    assert "paused" not in message
    assert "mixture" not in message
    check_next(loaded, engine, samples)


@pytest.mark.parametrize("at", ["bucket", "commit"])
def test_after_a_failure_that_touched_weights_they_stay_paused(
    loaded: Daemon, engine: FakeEngine, samples: Samples, at: str
) -> None:
    engine.script.workers[0] = Fault("raise", at)  # type: ignore[arg-type]
    answer = update(loaded, engine, pause="abort")
    answer.check_failure(
        502, "worker_failed", f"{engine.url} stays paused", "POST /resume", "mixture"
    )
    assert engine.control.paused == "abort"
    status = loaded.request("GET", f"/v1/updates/{answer.body['update']}").body
    assert status["control"]["still_paused"] == [engine.url]

    check_next(loaded, engine, samples, pause="abort")
    assert engine.control.paused is None


def test_the_one_shot_update_tells_who_stays_paused(
    folders: Folders, engine: FakeEngine, samples: Samples
) -> None:
    engine.script.workers[0] = Fault("raise", "bucket", 1)
    ended = run(*update_arguments(samples.first, engine.url, folders, "--pause", "keep"))
    ended.check_failure(f"{engine.url} stays paused", "POST /resume")
    assert engine.control.paused == "keep"


@pytest.mark.parametrize("path", [RESET, "/update_weight_version", "/resume"])
def test_a_failure_after_the_commit_leaves_the_engine_paused(
    loaded: Daemon, engine: FakeEngine, samples: Samples, path: str
) -> None:
    engine.control.answers[path] = 500
    answer = update(loaded, engine, pause="keep", weight_version="v")
    answer.check_failure(502, "engine_failed", path, "answered 500", "stays paused")
    assert engine.control.paused == "keep"
    check_next(loaded, engine, samples, pause="keep")
    assert engine.control.paused is None


@pytest.mark.parametrize("path", ["/pause", "/is_sleeping"])
def test_a_call_that_the_engine_lacks(
    loaded: Daemon, engine: FakeEngine, other: FakeEngine, samples: Samples, path: str
) -> None:
    """Nothing is delivered, and the other engine goes on."""
    engine.control.answers[path] = 404
    answer = update(loaded, engine, other, pause="abort", wake=True)
    answer.check_failure(502, "engine_failed", engine.url, path, "VLLM_SERVER_DEV_MODE=1")
    assert UPDATE not in engine.control.paths() + other.control.paths()
    assert engine.control.paused is None
    assert other.control.paused is None
    check_next(loaded, engine, samples)


def test_a_version_that_the_engine_does_not_take(
    loaded: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    engine.control.answers["/update_weight_version"] = 404
    answer = update(loaded, engine, weight_version="v")
    answer.check_failure(
        502, "engine_failed", engine.url, "/update_weight_version", "VLLM_SERVER_DEV_MODE=1"
    )
    check_delivered(engine.updates[-1], samples.first_digests, 2)
    check_next(loaded, engine, samples)


def test_an_engine_that_does_not_answer_the_pause(
    loaded: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    """It may have paused all the same, so that it is told to go on."""
    engine.control.answers["/pause"] = "hang"
    answer = update(loaded, engine, pause="wait", timeout=1)
    answer.check_failure(504, "deadline_exceeded", engine.url, "/pause", within=8)
    assert engine.control.paths() == ["/pause", "/resume"]
    check_next(loaded, engine, samples)


def test_an_engine_that_does_not_go_on_after_a_failure(
    loaded: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    engine.script.update = 500
    engine.control.answers["/resume"] = 500
    answer = update(loaded, engine, pause="abort")
    answer.check_failure(
        502, "engine_failed", UPDATE, "did not resume", f"{engine.url} stays paused"
    )
    check_next(loaded, engine, samples, pause="abort")


def test_cancelled_while_it_is_paused(loaded: Daemon, engine: FakeEngine, samples: Samples) -> None:
    engine.script.workers[0] = Fault("pause", "start")
    background = Background(loaded, engine, pause="keep", timeout=60)
    wait_until(engine.workers[0].paused.is_set, "a worker is about to connect")
    assert loaded.request("DELETE", "/v1/updates/update-1").status == 202
    background.answer().check_failure(503, "cancelled", "DELETE")
    assert engine.control.paused is None
    check_next(loaded, engine, samples)


# Sleep


def test_a_sleeping_engine_is_woken(loaded: Daemon, engine: FakeEngine, samples: Samples) -> None:
    engine.control.asleep = {"weights", "kv_cache"}
    answer = update(loaded, engine, wake=True, pause="abort")
    assert answer.status == 200, answer.body
    calls = engine.control.calls
    assert engine.control.paths() == [
        "/pause",
        "/is_sleeping",
        "/wake_up",
        SIZE,
        UPDATE,
        RESET,
        "/wake_up",
        "/resume",
    ]
    assert [call for call in calls if "wake_up" in call] == [
        "POST /wake_up?tags=weights",
        "POST /wake_up?tags=kv_cache",
    ]
    assert answer.body["control"]["woken"] == [engine.url]
    check_delivered(engine.updates[-1], samples.first_digests, 2)


def test_an_engine_that_is_awake_is_left_alone(loaded: Daemon, engine: FakeEngine) -> None:
    answer = update(loaded, engine, wake=True)
    assert answer.status == 200, answer.body
    assert engine.control.paths() == ["/is_sleeping", SIZE, UPDATE, RESET]
    assert answer.body["control"]["woken"] == []


def test_an_engine_without_sleep_mode(loaded: Daemon, engine: FakeEngine, samples: Samples) -> None:
    engine.control.asleep = {"weights", "kv_cache"}
    engine.control.answers["/wake_up"] = 500
    answer = update(loaded, engine, wake=True)
    answer.check_failure(502, "engine_failed", engine.url, "/wake_up", "--enable-sleep-mode")
    engine.control.asleep.clear()
    check_next(loaded, engine, samples)


@pytest.mark.parametrize("at", ["hello", "bucket"])
def test_a_half_awake_engine_is_not_let_go(
    loaded: Daemon, engine: FakeEngine, samples: Samples, at: str
) -> None:
    """Its cache has no memory: requests that went on would end it."""
    engine.control.asleep = {"weights", "kv_cache"}
    engine.script.workers[0] = Fault("kill", at)  # type: ignore[arg-type]
    answer = update(loaded, engine, wake=True, pause="abort")
    answer.check_failure(502, "worker_lost", engine.url, "tag kv_cache", "POST /resume")
    assert engine.control.paused == "abort"
    assert engine.control.asleep == {"kv_cache"}


# The cache


def test_a_cache_that_is_held_for_a_while(loaded: Daemon, engine: FakeEngine) -> None:
    engine.control.held_resets = 2
    assert update(loaded, engine).status == 200
    assert engine.cache_resets == 3


def test_a_cache_that_is_held_until_the_deadline(
    loaded: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    engine.control.held_resets = 1000
    answer = update(loaded, engine, pause="wait", timeout=2)
    answer.check_failure(504, "deadline_exceeded", engine.url, "held its prefix cache", within=4)
    assert engine.control.paused == "wait"
    engine.control.held_resets = 0
    check_next(loaded, engine, samples, pause="wait")
