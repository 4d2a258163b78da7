"""SGLang's sessions for models that draft, on simulated GPUs: the copies run once more for each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from reference import TENSORS, device_bytes
from sglang_server import SGLangServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon import Answer, Daemon

    StartDaemon = Callable[..., Daemon]
    StartServer = Callable[..., SGLangServer]

MIB = 1 << 20
PROMPT_S = 12.0


@pytest.fixture
def start_server(cuda_library: str) -> Iterator[StartServer]:
    """Starts servers; they end with the test."""
    servers: list[SGLangServer] = []
    [zmq] = Path(sys.prefix).glob("lib/python*/site-packages/pyzmq.libs/libzmq*")

    def start(*gpus: int) -> SGLangServer:
        servers.append(SGLangServer(gpus, cuda_library, str(zmq)))
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__()


def update(daemon: Daemon, name: str, *servers: SGLangServer, **fields: object) -> Answer:
    body = {"instances": [server.instance for server in servers], "timeout": 60, **fields}
    return daemon.request("POST", f"/v1/checkpoints/{name}/update", body, timeout=90)


def deliver(daemon: Daemon, name: str, checkpoint: Path, *servers: SGLangServer) -> Any:
    """A successful update; every worker compares every byte after each of its sessions."""
    for server in servers:
        server.checkpoint = checkpoint
        server.compared = []
    answer = update(daemon, name, *servers)
    assert answer.status == 200, answer.body
    assert answer.body["tensors"] == TENSORS
    for server in servers:
        assert len(server.compared) == server.sessions * len(server.workers)
        assert all(count > MIB for count in server.compared)
    return answer.body


@pytest.mark.parametrize("sessions", [1, 2, 3])
def test_every_byte_of_every_session(
    start_daemon: StartDaemon,
    start_server: StartServer,
    checkpoints: list[Path],
    sessions: int,
) -> None:
    server = start_server(0, 1)
    server.sessions = sessions
    with start_daemon() as daemon:
        for number in (0, 1):
            name = f"step-{number}"
            assert daemon.register(name, checkpoints[number]).status == 200
            status = deliver(daemon, name, checkpoints[number], server)
            assert status["sessions"] == sessions
            assert status["buckets"] > 4
            trace = daemon.request("GET", f"/v1/updates/{status['id']}/trace").body
            names = [event["name"] for event in trace["traceEvents"] if event["ph"] == "X"]
            assert ("draft" in names) == (sessions > 1)
            assert names.count("bucket 0") >= sessions


def test_slow_copies_are_waited_for_in_every_session(
    start_daemon: StartDaemon, start_server: StartServer, checkpoints: list[Path]
) -> None:
    server = start_server(0, 1, 2)
    server.sessions = 2
    with start_daemon(SIMULATED_CUDA_COPY_BYTES_PER_SECOND=str(200 * MIB)) as daemon:
        assert daemon.register("step", checkpoints[2]).status == 200
        deliver(daemon, "step", checkpoints[2], server)


def test_two_servers_with_and_without_a_drafting_model(
    start_daemon: StartDaemon, start_server: StartServer, checkpoints: list[Path]
) -> None:
    servers = [start_server(0, 1), start_server(2, 3)]
    with start_daemon() as daemon:
        assert daemon.register("step", checkpoints[0]).status == 200
        for counts in [(1, 2), (2, 1), (3, 2)]:
            for server, count in zip(servers, counts, strict=True):
                server.sessions = count
            deliver(daemon, "step", checkpoints[0], *servers)


@pytest.mark.parametrize("kind", ["raise", "kill"])
@pytest.mark.parametrize("step", ["hello", "catalog", "bucket-4", "commit"])
def test_faults_in_the_second_session(
    start_daemon: StartDaemon,
    start_server: StartServer,
    checkpoints: list[Path],
    kind: str,
    step: str,
) -> None:
    server = start_server(0, 1)
    server.sessions = 2
    culprit = server.workers[1].id
    with start_daemon() as daemon:
        assert daemon.register("step", checkpoints[1]).status == 200
        server.before[1, 1] = f"fault {kind} {step}"
        answer = update(daemon, "step", server)
        answer.check_failure(
            502,
            "worker_failed" if kind == "raise" else "worker_lost",
            culprit,
            "mixture",
            within=PROMPT_S,
        )
        assert device_bytes(daemon.program.pid) == 0
        server.before.clear()
        if kind == "kill":
            server = start_server(2, 3)
            server.sessions = 2
        deliver(daemon, "step", checkpoints[1], server)


def test_a_copy_that_fails_in_the_second_session(
    start_daemon: StartDaemon, start_server: StartServer, checkpoints: list[Path]
) -> None:
    """One session makes more than 30 and less than 60 copies, so that this one is of the second."""
    server = start_server(0, 1)
    server.sessions = 2
    with start_daemon(SIMULATED_CUDA_FAIL="cuMemcpyHtoDAsync_v2:60:700") as daemon:
        assert daemon.register("step", checkpoints[0]).status == 200
        server.checkpoint = checkpoints[0]
        answer = update(daemon, "step", server)
        assert answer.status != 200, "the copy was to fail"
        status = daemon.request("GET", "/v1/updates/update-1").body
        assert status["sessions"] == 2, "the copy was to fail in the second session"
        assert len(server.compared) == 2
        assert "cuMemcpyHtoDAsync" in str(answer.body), answer.body
        assert answer.seconds < PROMPT_S
        assert device_bytes(daemon.program.pid) == 0
        deliver(daemon, "step", checkpoints[0], server)
