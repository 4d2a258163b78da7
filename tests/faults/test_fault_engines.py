"""Engines whose HTTP refuses, hangs or lies: the update ends in time and names the engine."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from background import check_next_update
from checkpoints import check_delivered
from daemon import run, update_arguments
from fake_engine import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Samples
    from daemon import Daemon, Folders

# How long an engine may leave the daemon without an answer after the workers' last words.
GRACE_S = 5


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine on which nobody listens, and nobody else will."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_nobody_listens(
    daemon: Daemon, engine: FakeEngine, samples: Samples, closed_port: int
) -> None:
    assert daemon.register("step", samples.first).status == 200
    url = f"http://127.0.0.1:{closed_port}"
    answer = daemon.update("step", url, timeout=60)
    answer.check_failure(503, "engine_unreachable", url)
    check_next_update(daemon, engine, samples)


def test_nobody_listens_on_the_unix_socket(
    daemon: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    assert daemon.register("step", samples.first).status == 200
    answer = daemon.update("step", "http://localhost", uds="/nonexistent/engine.sock", timeout=60)
    answer.check_failure(503, "engine_unreachable", "/nonexistent/engine.sock")
    check_next_update(daemon, engine, samples)


@pytest.mark.parametrize(
    ("health", "words"),
    [(401, "--engine-token-file"), (403, "--engine-token-file"), (404, "all of its URL")],
)
def test_answers_that_waiting_does_not_change(
    folders: Folders, engine: FakeEngine, samples: Samples, health: int, words: str
) -> None:
    engine.script.health = health
    ended = run(*update_arguments(samples.first, engine.url, folders, "--ready-timeout", "60"))
    ended.check_failure(engine.url, f"GET /health answered {health}", words, within=5)
    assert engine.updates == []


@pytest.mark.parametrize("count", ["1", "3"])
def test_another_number_of_workers_than_the_engine_tells(
    folders: Folders, engine: FakeEngine, samples: Samples, count: str
) -> None:
    ended = run(
        *update_arguments(samples.first, engine.url, folders, "--inference-parallel-size", count)
    )
    words = f"names {count} workers of {engine.url}, which tells that it has 2"
    ended.check_failure(words, within=5)
    assert engine.updates == []


def test_the_one_shot_update_waits_for_the_engine_in_vain(
    folders: Folders, samples: Samples, closed_port: int
) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    ended = run(*update_arguments(samples.first, url, folders, "--ready-timeout", "1"))
    ended.check_failure(url, "not ready", within=5)


@pytest.mark.parametrize("health", ["hang", "drop", 500])
def test_the_engine_is_never_ready(
    folders: Folders, engine: FakeEngine, samples: Samples, health: str | int
) -> None:
    engine.script.health = health  # type: ignore[assignment]
    ended = run(*update_arguments(samples.first, engine.url, folders, "--ready-timeout", "1"))
    ended.check_failure(engine.url, "not ready", "/health", within=5)
    if isinstance(health, int):
        assert f"answered {health}" in ended.stderr
    assert engine.updates == []


@pytest.mark.parametrize("status", [404, 500, 503])
def test_the_engine_refuses_the_update(
    daemon: Daemon, engine: FakeEngine, samples: Samples, status: int
) -> None:
    assert daemon.register("step", samples.first).status == 200
    engine.script.update = status
    answer = daemon.update("step", engine.url, timeout=60)
    answer.check_failure(
        502, "engine_failed", engine.url, "/collective_rpc", str(status), "scripted to answer"
    )
    if status == 404:
        assert "VLLM_SERVER_DEV_MODE=1" in answer.body["error"]["message"]
    assert "mixture" not in answer.body["error"]["message"]
    check_next_update(daemon, engine, samples)


def test_the_one_shot_update_is_refused(
    folders: Folders, engine: FakeEngine, samples: Samples
) -> None:
    engine.script.update = 500
    ended = run(*update_arguments(samples.first, engine.url, folders))
    ended.check_failure(engine.url, "500", "scripted to answer 500")


def test_the_engine_closes_the_connection(
    daemon: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    assert daemon.register("step", samples.first).status == 200
    engine.script.update = "drop"
    answer = daemon.update("step", engine.url, timeout=60)
    answer.check_failure(502, "engine_failed", engine.url, "closed the connection")
    check_next_update(daemon, engine, samples)


def test_the_engine_never_answers(daemon: Daemon, engine: FakeEngine, samples: Samples) -> None:
    assert daemon.register("step", samples.first).status == 200
    engine.script.update = "hang"
    answer = daemon.update("step", engine.url, timeout=2)
    answer.check_failure(504, "deadline_exceeded", engine.url, within=2 + GRACE_S + 1)
    assert answer.seconds > 1.9
    check_next_update(daemon, engine, samples)


def test_the_engine_never_answers_although_its_workers_have_committed(
    daemon: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    assert daemon.register("step", samples.first).status == 200
    engine.script.update = "hang after workers"
    answer = daemon.update("step", engine.url, timeout=60)
    answer.check_failure(502, "engine_failed", "committed", "did not answer", within=GRACE_S + 3)
    check_delivered(engine.wait_for_update(1, 1), samples.first_digests, 2)
    check_next_update(daemon, engine, samples)


def test_the_engine_is_done_but_its_workers_never_came(
    daemon: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    assert daemon.register("step", samples.first).status == 200
    engine.script.update = "ok without workers"
    answer = daemon.update("step", engine.url, timeout=60)
    answer.check_failure(
        502, "worker_lost", engine.url, "CPU-0", "CPU-1", "worker extension", within=GRACE_S + 3
    )
    check_next_update(daemon, engine, samples)


@pytest.mark.parametrize("reset", [500, "drop"])
def test_the_prefix_cache_is_not_reset(
    daemon: Daemon, engine: FakeEngine, samples: Samples, reset: str | int
) -> None:
    assert daemon.register("step", samples.first).status == 200
    engine.script.reset = reset  # type: ignore[assignment]
    answer = daemon.update("step", engine.url, timeout=60)
    answer.check_failure(502, "engine_failed", engine.url, "/reset_prefix_cache")
    check_delivered(engine.updates[-1], samples.first_digests, 2)
    check_next_update(daemon, engine, samples)


def test_an_engine_without_a_prefix_cache(
    daemon: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    assert daemon.register("step", samples.first).status == 200
    engine.script.reset = 404
    assert daemon.update("step", engine.url).status == 200
    check_delivered(engine.updates[-1], samples.first_digests, 2)


@pytest.mark.parametrize("answer", [404, 500])
def test_the_engine_does_not_tell_its_size(
    folders: Folders, engine: FakeEngine, samples: Samples, answer: int
) -> None:
    engine.script.world_size = answer
    ended = run(
        *update_arguments(samples.first, engine.url, folders, "--inference-parallel-size", "2")
    )
    assert ended.code == 0, ended.stderr
    check_delivered(engine.updates[-1], samples.first_digests, 2)


def test_one_of_two_engines_refuses(daemon: Daemon, engine: FakeEngine, samples: Samples) -> None:
    """The update is one: no worker commits when the other engine's cannot."""
    assert daemon.register("step", samples.first).status == 200
    with tempfile.TemporaryDirectory(prefix="faults-engine-") as folder:
        socket_path = Path(folder) / "engine.sock"
        with FakeEngine(1, socket_path) as other:
            instances = [
                {"update_url": engine.url},
                {"update_url": other.url, "uds": str(socket_path)},
            ]
            other.script.update = 500
            answer = daemon.request(
                "POST", "/v1/checkpoints/step/update", {"instances": instances, "timeout": 60}
            )
            answer.check_failure(502, "engine_failed", str(socket_path), "500")
            assert not any(outcome.committed for outcome in engine.wait_for_update(1, 10))

            engine.reset()
            other.reset()
            answer = daemon.request(
                "POST", "/v1/checkpoints/step/update", {"instances": instances, "timeout": 60}
            )
            assert answer.status == 200, answer.body
            check_delivered(engine.updates[-1], samples.first_digests, 2)
            check_delivered(other.updates[-1], samples.first_digests, 1)
