"""SGLang's calls: what they carry, what its answers mean, and sessions for models that draft."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from background import Background
from checkpoints import check_delivered
from daemon import Answer, Daemon, run, update_arguments, wait_until, write_secret
from fake_sglang import FakeSGLang
from fault_workers import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Samples
    from daemon import Folders

GRACE_S = 5


@pytest.fixture(scope="module")
def shared_server() -> Iterator[FakeSGLang]:
    with FakeSGLang(2) as server:
        yield server


@pytest.fixture
def server(shared_server: FakeSGLang) -> FakeSGLang:
    shared_server.reset()
    return shared_server


@pytest.fixture(scope="module")
def other() -> Iterator[FakeSGLang]:
    with FakeSGLang(1) as server:
        yield server


@pytest.fixture
def second(other: FakeSGLang) -> FakeSGLang:
    other.reset()
    return other


@pytest.fixture
def loaded(daemon: Daemon, samples: Samples) -> Daemon:
    assert daemon.register("step", samples.first).status == 200
    return daemon


def update(daemon: Daemon, *servers: FakeSGLang, **fields: object) -> Answer:
    instances = [{"update_url": server.url} for server in servers]
    body = {"instances": instances, "engine": "sglang", "timeout": 60, **fields}
    return daemon.request("POST", "/v1/checkpoints/step/update", body)


def check_next(daemon: Daemon, server: FakeSGLang, samples: Samples) -> None:
    """The same daemon and server take an update with a drafting model now."""
    server.reset()
    server.sglang.sessions = 2
    answer = update(daemon, server)
    assert answer.status == 200, answer.body
    check_delivered(server.sessions, samples.first_digests, len(server.workers))
    check_delivered(server.updates[-1], samples.first_digests, len(server.workers))


# Calls


def test_an_update(loaded: Daemon, server: FakeSGLang, samples: Samples) -> None:
    answer = update(loaded, server, weight_version="step-7", reset_prefix_cache=False)
    assert answer.status == 200, answer.body
    check_delivered(server.updates[-1], samples.first_digests, 2)
    assert server.requests == [{"flush_cache": False, "weight_version": "step-7"}]
    assert server.control.paths() == ["/server_info", "/update_weights_from_ipc"]
    assert answer.body["sessions"] == 1
    assert "draft" not in [stage["stage"] for stage in answer.body["stages"]]
    assert answer.body["control"]["weight_version"] == "step-7"


def test_the_defaults(loaded: Daemon, server: FakeSGLang) -> None:
    assert update(loaded, server).status == 200
    assert server.requests == [{"flush_cache": True, "weight_version": None}]


def test_the_one_shot_update_takes_a_server_that_waits_for_its_weights(
    folders: Folders, server: FakeSGLang, samples: Samples
) -> None:
    server.sglang.ping = 503
    arguments = update_arguments(samples.first, server.url, folders, "--ready-timeout", "1")
    ended = run(*arguments, "--engine", "sglang", "--weight-version", "v-1")
    assert ended.code == 0, ended.stderr
    check_delivered(server.updates[-1], samples.first_digests, 2)
    assert server.control.paths()[0] == "/ping"
    assert server.requests[0]["weight_version"] == "v-1"


def test_the_one_shot_update_does_not_take_another_server(
    folders: Folders, server: FakeSGLang, samples: Samples
) -> None:
    server.sglang.ping = 404
    arguments = update_arguments(samples.first, server.url, folders, "--ready-timeout", "1")
    ended = run(*arguments, CHECKPOINT_ENGINE_ENGINE="sglang")
    ended.check_failure(server.url, "of the kind sglang", "GET /ping answered 404", within=5)
    assert server.updates == []


@pytest.mark.parametrize("status", [200, 400])
def test_success_false_is_a_failure(
    loaded: Daemon, server: FakeSGLang, samples: Samples, status: int
) -> None:
    server.sglang.failure = status, "Weights were updated, but the cache was not flushed"
    answer = update(loaded, server)
    answer.check_failure(
        502, "engine_failed", server.url, "success: false", "the cache was not flushed"
    )
    check_next(loaded, server, samples)


@pytest.mark.parametrize(
    ("status", "words"), [(401, "--engine-token-file"), (404, "SGLang"), (500, "500")]
)
def test_a_refused_call(
    loaded: Daemon, server: FakeSGLang, samples: Samples, status: int, words: str
) -> None:
    server.script.update = status
    answer = update(loaded, server)
    answer.check_failure(502, "engine_failed", server.url, "/update_weights_from_ipc", words)
    assert "mixture" not in answer.body["error"]["message"]
    check_next(loaded, server, samples)


def test_data_parallel_servers_are_refused(loaded: Daemon, server: FakeSGLang) -> None:
    server.sglang.info = {"dp_size": 2}
    answer = update(loaded, server)
    answer.check_failure(400, "invalid_argument", server.url, "dp_size 2", "one engine for each")
    assert server.requests == []


def test_a_server_that_does_not_tell_its_size(loaded: Daemon, server: FakeSGLang) -> None:
    server.sglang.info_status = 401
    answer = update(loaded, server)
    answer.check_failure(502, "engine_failed", server.url, "/server_info", "--engine-token-file")
    instances = [{"update_url": server.url, "workers": 2, "engine": "sglang"}]
    body = {"instances": instances}
    assert loaded.request("POST", "/v1/checkpoints/step/update", body).status == 200


def test_the_key_is_sent(folders: Folders, server: FakeSGLang, samples: Samples, tmp_path) -> None:
    token = tmp_path / "token"
    write_secret(token, "sk-admin\n")
    arguments = update_arguments(samples.first, server.url, folders, "--engine", "sglang")
    assert run(*arguments, "--engine-token-file", str(token)).code == 0
    assert server.control.tokens == {"Bearer sk-admin"}


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({"pause": "abort"}, "abort"),
        ({"pause": "keep"}, "retract"),
        ({"pause": "keep", "reset_prefix_cache": False}, "in_place"),
    ],
)
def test_pauses(loaded: Daemon, server: FakeSGLang, fields: dict[str, object], mode: str) -> None:
    answer = update(loaded, server, **fields)
    assert answer.status == 200, answer.body
    assert server.control.calls[0] == f'POST /pause_generation {{"mode":"{mode}"}}'
    assert server.control.paths() == [
        "/pause_generation",
        "/server_info",
        "/update_weights_from_ipc",
        "/continue_generation",
    ]
    assert server.control.paused is None


def test_a_pause_that_waits_is_refused(loaded: Daemon, server: FakeSGLang) -> None:
    answer = update(loaded, server, pause="wait")
    answer.check_failure(400, "invalid_argument", "SGLang", "by itself", "abort or keep")
    assert server.control.calls == []


def test_sleeping_servers_are_woken(loaded: Daemon, server: FakeSGLang) -> None:
    server.control.asleep = {"weights", "kv_cache"}
    answer = update(loaded, server, wake=True, pause="abort")
    assert answer.status == 200, answer.body
    assert [call for call in server.control.calls if "memory" in call] == [
        'POST /resume_memory_occupation {"tags":["weights"]}',
        'POST /resume_memory_occupation {"tags":["kv_cache"]}',
    ]
    assert server.control.paths()[-2:] == ["/resume_memory_occupation", "/continue_generation"]
    assert answer.body["control"]["woken"] == [server.url]


# Models that draft


@pytest.mark.parametrize("sessions", [2, 3])
def test_every_session_gets_every_byte(
    loaded: Daemon, server: FakeSGLang, samples: Samples, sessions: int
) -> None:
    server.sglang.sessions = sessions
    answer = update(loaded, server)
    assert answer.status == 200, answer.body
    assert answer.body["sessions"] == sessions
    stages = [stage["stage"] for stage in answer.body["stages"]]
    assert stages[-3:] == ["commit", "draft", "finish"]
    assert len(server.sessions) == 2 * (sessions - 1)
    for number in range(2):
        own = [outcome for outcome in server.sessions if outcome.rank == number]
        for outcome in own:
            assert outcome.committed
            assert outcome.digests == samples.first_digests
    check_delivered(server.updates[-1], samples.first_digests, 2)


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("sessions", [1, 3])
def test_a_client_that_calls_the_server_itself(
    loaded: Daemon, server: FakeSGLang, samples: Samples, sessions: int, calls: int
) -> None:
    # Whether it drafts only the server knows; a client may report more calls than it has made.
    server.sglang.sessions = sessions
    workers = [f"CPU-{rank}" for rank in range(len(server.workers))]
    body = {"workers": workers, "calls": calls, "timeout": 30}
    opened = loaded.request("POST", "/v1/checkpoints/step/open-update", body)
    assert opened.status == 202, opened.body
    update = opened.body["update"]
    addresses = dict(zip(workers, opened.body["sockets"], strict=True))
    reports = f"/v1/updates/{update}/calls"
    for call in range(1, calls):
        assert loaded.request("POST", f"{reports}/{call}", {}).status == 200
    answer = server.update(addresses)
    assert answer is not None
    assert answer[0] == 200, answer
    assert loaded.request("POST", f"{reports}/0", {}).status == 200
    ended = loaded.request("GET", f"/v1/updates/{update}?wait=20").body
    assert ended["state"] == "succeeded", ended
    assert ended["sessions"] == sessions
    if sessions > 1:
        check_delivered(server.sessions[-len(workers) :], samples.first_digests, len(workers))
    check_delivered(server.updates[-1], samples.first_digests, len(workers))


def test_one_of_two_servers_drafts(
    loaded: Daemon, server: FakeSGLang, second: FakeSGLang, samples: Samples
) -> None:
    server.sglang.sessions = 2
    answer = update(loaded, server, second)
    assert answer.status == 200, answer.body
    check_delivered(server.sessions, samples.first_digests, 2)
    check_delivered(server.updates[-1], samples.first_digests, 2)
    check_delivered(second.updates[-1], samples.first_digests, 1)
    assert second.sessions == []


def test_both_servers_draft(
    loaded: Daemon, server: FakeSGLang, second: FakeSGLang, samples: Samples
) -> None:
    server.sglang.sessions = second.sglang.sessions = 3
    answer = update(loaded, server, second)
    assert answer.status == 200, answer.body
    assert len(server.sessions) == 4
    assert len(second.sessions) == 2
    for outcome in [*server.sessions, *second.sessions]:
        assert outcome.digests == samples.first_digests
    check_delivered(server.updates[-1], samples.first_digests, 2)
    check_delivered(second.updates[-1], samples.first_digests, 1)


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (Fault("kill", "start"), "engine_failed", "died unexpectedly"),
        (Fault("kill", "hello"), "worker_lost", "CPU-1"),
        (Fault("kill", "bucket", 2), "worker_lost", "CPU-1"),
        (Fault("raise", "bucket", 3), "worker_failed", "the loader refuses at bucket 3"),
        (Fault("raise", "commit"), "worker_failed", "the loader refuses at commit"),
    ],
)
def test_faults_in_the_second_session(
    loaded: Daemon, server: FakeSGLang, samples: Samples, fault: Fault, code: str, words: str
) -> None:
    server.sglang.sessions = 2
    server.sglang.faults[1, 1] = fault
    answer = update(loaded, server)
    answer.check_failure(502, code, server.url, words, "mixture")
    check_delivered(server.sessions, samples.first_digests, 2)
    outcomes = server.wait_for_update(1, 10)
    # Commits are sent at once: the other worker may have got its own.
    assert fault.at == "commit" or not any(outcome.committed for outcome in outcomes)
    check_next(loaded, server, samples)


def test_a_fault_of_the_first_session_has_no_second(
    loaded: Daemon, server: FakeSGLang, samples: Samples
) -> None:
    server.sglang.sessions = 2
    server.sglang.faults[0, 0] = Fault("raise", "bucket", 1)
    answer = update(loaded, server)
    answer.check_failure(502, "worker_failed", "the loader refuses at bucket 1")
    assert server.sessions == []
    check_next(loaded, server, samples)


def test_the_server_never_answers_after_its_sessions(
    loaded: Daemon, server: FakeSGLang, samples: Samples
) -> None:
    server.script.update = "hang after workers"
    answer = update(loaded, server, timeout=2)
    answer.check_failure(
        504, "deadline_exceeded", server.url, "every worker has committed", within=2 + GRACE_S
    )
    check_delivered(server.wait_for_update(1, 10), samples.first_digests, 2)
    check_next(loaded, server, samples)


def test_one_worker_does_not_come_back(
    loaded: Daemon, server: FakeSGLang, samples: Samples
) -> None:
    """The one that is back is told why nothing comes, and does not wait for its own timeout."""
    server.sglang.sessions = 2
    server.sglang.faults[1, 1] = Fault("pause", "start")
    answer = update(loaded, server, timeout=2)
    answer.check_failure(504, "deadline_exceeded", server.url, within=2 + GRACE_S)
    server.workers[1].resumed.set()
    told = {outcome.rank: outcome.error for outcome in server.wait_for_update(1, 10)}
    assert told[0] is not None
    assert "AbortedError" in told[0], told
    check_next(loaded, server, samples)


def test_cancelled_between_two_sessions(
    loaded: Daemon, server: FakeSGLang, samples: Samples
) -> None:
    server.sglang.sessions = 2
    server.sglang.faults[1, 1] = Fault("pause", "start")
    background = Background(loaded, server, engine="sglang", timeout=60)
    worker = server.workers[1]
    wait_until(worker.paused.is_set, "one worker stands between its sessions")
    assert loaded.request("DELETE", "/v1/updates/update-1").status == 202
    background.answer().check_failure(503, "cancelled", "DELETE", "mixture")
    worker.resumed.set()
    check_next(loaded, server, samples)


def test_a_slow_second_session_keeps_the_engine_busy(
    loaded: Daemon, server: FakeSGLang, samples: Samples
) -> None:
    """Longer than the time that other engines have to answer: it is waited for."""
    server.sglang.sessions = 2
    server.sglang.faults[0, 1] = Fault("pause", "bucket", 2)
    background = Background(loaded, server, engine="sglang", timeout=60)
    worker = server.workers[0]
    wait_until(worker.paused.is_set, "the second session loads")
    assert loaded.request("GET", "/v1/updates/update-1").body["stage"] == "draft"
    update(loaded, server).check_failure(409, "busy", "step")
    threading.Timer(GRACE_S + 0.5, worker.resumed.set).start()
    answer = background.answer(GRACE_S + 10)
    assert answer.status == 200, answer.body
    check_delivered(server.updates[-1], samples.first_digests, 2)
