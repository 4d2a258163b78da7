"""Two daemons with two simulated GPUs each, as two hosts that have the whole checkpoint."""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import FIRST_DEVICE
from daemon import Answer, Daemon, Folders
from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reference import SimulatedEngine

# How long after the cause a failure may take to reach the other host.
PROMPT_S = 15.0
# How long after it was asked a wait may take to end.
CANCEL_S = 2.0


class Host:
    """One daemon, its two GPUs and the engine on them."""

    def __init__(
        self, rank: int, port: int, folder: Path, cuda_library: str, engine: SimulatedEngine
    ) -> None:
        self.engine = engine
        shared, runtime = folder / "shared", folder / "runtime"
        shared.mkdir()
        runtime.mkdir()
        first = FIRST_DEVICE + 2 * rank
        self.daemon = Daemon(
            Folders(shared, runtime),
            folder / "api.sock",
            *("--device", "cuda", "--cuda-library", cuda_library, "--bucket-size", "4MiB"),
            *("--rendezvous", f"127.0.0.1:{port}", "--hosts", "2", "--host-rank", str(rank)),
            CUDA_VISIBLE_DEVICES=f"{first},{first + 1}",
        )


@pytest.fixture
def hosts(cuda_library: str, start_engine: Callable[..., SimulatedEngine]) -> Iterator[list[Host]]:
    port = free_port()
    with ExitStack() as stack:
        made = []
        for rank in range(2):
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(dir="/dev/shm", prefix=f"simulated-host-{rank}-")
            )
            engine = start_engine(2, first_gpu=2 * rank)
            made.append(Host(rank, port, Path(folder), cuda_library, engine))
        yield made
        for host in made:
            if host.daemon.program.is_running:
                ended = host.daemon.stop()
                ended.check_orderly()
                assert ended.code == 0, ended.stderr


def start_update(host: Host, name: str, timeout: float = 30) -> Answer:
    """The engine's workers are on the first two GPUs that the daemon sees."""
    instance = {**host.engine.instance, "ranks": [0, 1]}
    body = {"instances": [instance], "timeout": timeout}
    return host.daemon.request("POST", f"/v1/checkpoints/{name}/update", body, timeout=90)


def update_all(hosts: list[Host], name: str) -> list[Answer]:
    """The answers of updates that begin at the same time."""
    answers: dict[int, Answer] = {}

    def run(rank: int) -> None:
        answers[rank] = start_update(hosts[rank], name)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(hosts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[rank] for rank in range(len(hosts))]


def deliver(hosts: list[Host], name: str, checkpoint: Path) -> None:
    for host in hosts:
        host.engine.ask("fill 90")
    for host, answer in zip(hosts, update_all(hosts, name), strict=True):
        assert answer.status == 200, answer.body
        host.engine.check_holds(checkpoint)


def test_both_hosts_are_updated(hosts: list[Host], checkpoints: list[Path]) -> None:
    for number, checkpoint in enumerate(checkpoints):
        for host in hosts:
            assert host.daemon.register(f"step-{number}", checkpoint).status == 200
        deliver(hosts, f"step-{number}", checkpoint)


def test_a_host_that_does_not_come_is_named(hosts: list[Host], checkpoints: list[Path]) -> None:
    for host in hosts:
        assert host.daemon.register("step", checkpoints[0]).status == 200
        host.engine.ask("fill 90")
    answer = start_update(hosts[0], "step", timeout=1.0)
    answer.check_failure(504, "deadline_exceeded", "host 1", within=PROMPT_S)
    deliver(hosts, "step", checkpoints[0])


@pytest.mark.parametrize("way", ["delete", "stop"])
def test_a_wait_for_another_host_ends_with_its_update(
    hosts: list[Host], checkpoints: list[Path], way: str
) -> None:
    for host in hosts:
        assert host.daemon.register("step", checkpoints[0]).status == 200
    instance = {**hosts[0].engine.instance, "ranks": [0, 1]}
    body = {"instances": [instance], "timeout": 60, "wait": False}
    started = hosts[0].daemon.request("POST", "/v1/checkpoints/step/update", body)
    path = f"/v1/updates/{started.body['id']}"
    if way == "stop":
        ended = hosts[0].daemon.stop(timeout=5)
        ended.check_orderly()
        assert ended.code == 0, ended.stderr
        return
    assert hosts[0].daemon.request("DELETE", path).status == 202
    answer = hosts[0].daemon.request("GET", f"{path}?wait=5")
    assert answer.seconds < CANCEL_S
    assert answer.body["error"]["code"] == "cancelled", answer.body
    deliver(hosts, "step", checkpoints[0])


def test_a_worker_of_one_host_ends_the_update_of_both(
    hosts: list[Host], checkpoints: list[Path]
) -> None:
    for host in hosts:
        assert host.daemon.register("step", checkpoints[0]).status == 200
    deliver(hosts, "step", checkpoints[0])
    hosts[1].engine.ask("fault kill bucket-5", 1)
    first, second = update_all(hosts, "step")
    second.check_failure(502, "worker_lost", within=PROMPT_S)
    first.check_failure(502, "host_failed", "host 1", within=PROMPT_S)
    hosts[1].engine.respawned()
    deliver(hosts, "step", checkpoints[0])


def test_a_host_that_is_killed_is_named(hosts: list[Host], checkpoints: list[Path]) -> None:
    for host in hosts:
        assert host.daemon.register("step", checkpoints[0]).status == 200
    hosts[1].engine.ask("fault pause bucket-5", 1)
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: answers.append(start_update(hosts[0], "step", timeout=60))),
        threading.Thread(target=lambda: _lost(hosts[1])),
    ]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    hosts[1].daemon.program.kill()
    for thread in threads:
        thread.join()
    answers[0].check_failure(502, "host_failed", "host 1", within=PROMPT_S)
    # Its workers let go, and answer again.
    hosts[1].engine.ask("fill 90")


def _lost(host: Host) -> None:
    """An update whose daemon is killed."""
    with pytest.raises((OSError, ValueError)):
        start_update(host, "step", timeout=60)
