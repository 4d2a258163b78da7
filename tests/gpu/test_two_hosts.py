"""Two daemons with half of the GPUs each, as two hosts, that update their engines together."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import DEVICES
from daemon import Answer, Daemon, Folders, wait_until
from odd_tensors import odd_tensors, write_odd
from ports import free_port
from torch_engine_process import TorchEngine, zmq_flags

# Two hosts need two GPUs; machines with one have no such test.
pytestmark = pytest.mark.skipif(len(DEVICES) < 2, reason="one GPU is one host")

HALF = len(DEVICES) // 2
# How long after the cause a failure may take to reach the other host.
PROMPT_S = 20.0


class Host:
    """One daemon, its GPUs and the engine on them."""

    def __init__(self, rank: int, port: int, folder: Path, engine: TorchEngine) -> None:
        self.engine = engine
        self._rank = rank
        self._port = port
        self._folder = folder
        self.devices = engine.devices
        self.daemon = self._start()

    def _start(self, *more: str) -> Daemon:
        shared, runtime = self._folder / "shared", self._folder / "runtime"
        for path in (shared, runtime):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        return Daemon(
            Folders(shared, runtime),
            self._folder / "api.sock",
            *("--bucket-size", "64MiB", "--rendezvous", f"127.0.0.1:{self._port}"),
            *("--hosts", "2", "--host-rank", str(self._rank)),
            *zmq_flags(),
            *more,
            CUDA_VISIBLE_DEVICES=",".join(self.devices),
            NCCL_HOSTID=f"host-{self._rank}",
            NCCL_SOCKET_IFNAME="lo",
        )

    def restart(self, *more: str) -> None:
        self.daemon.program.kill()
        self.daemon = self._start(*more)

    def update(self, name: str, timeout: float = 60.0) -> Answer:
        body = {**self.engine.instance, "timeout": timeout}
        return self.daemon.request(
            "POST", f"/v1/checkpoints/{name}/update", body, timeout=timeout + 30
        )


@pytest.fixture(scope="module")
def engines(devices):
    with TorchEngine(DEVICES[:HALF]) as first, TorchEngine(DEVICES[HALF : 2 * HALF]) as second:
        yield first, second


@pytest.fixture
def hosts(engines):
    with ExitStack() as stack:
        port = free_port()
        made = []
        for rank, engine in enumerate(engines):
            engine.respawn()
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(dir="/dev/shm", prefix=f"host-{rank}-")
            )
            made.append(Host(rank, port, Path(folder), engine))
        yield made
        for host in made:
            ended = host.daemon.stop()
            ended.check_orderly()
            assert ended.code == 0, ended.stderr


@pytest.fixture(scope="module")
def checkpoints(shared_folder):
    return [write_odd(shared_folder / f"hosts-{seed}", seed=seed) for seed in (11, 12)]


def parts(checkpoint: Path) -> list[list[Path]]:
    """The files of each host: every second one."""
    files = sorted(checkpoint.glob("*.safetensors"))
    return [files[0::2], files[1::2]]


def register_parts(hosts: list[Host], name: str, checkpoint: Path) -> None:
    for host, files in zip(hosts, parts(checkpoint), strict=True):
        assert host.daemon.register(name, *files).status == 200


def update_all(hosts: list[Host], name: str, timeout: float = 60.0) -> list[Answer]:
    """The answers of updates that begin at the same time."""
    answers: dict[int, Answer] = {}

    def run(rank: int) -> None:
        answers[rank] = hosts[rank].update(name, timeout)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(hosts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[rank] for rank in range(len(hosts))]


def deliver(hosts: list[Host], name: str, checkpoint: Path) -> float:
    """A successful update of both after which every byte is right; its seconds."""
    answers = update_all(hosts, name)
    for host, answer in zip(hosts, answers, strict=True):
        assert answer.status == 200, answer.body
        assert answer.body["tensors"] == len(odd_tensors())
        host.engine.verify(checkpoint)
    return max(answer.seconds for answer in answers)


def test_each_host_has_a_part(hosts, checkpoints):
    for name, checkpoint in zip(("one", "two"), checkpoints, strict=True):
        register_parts(hosts, name, checkpoint)
    deliver(hosts, "one", checkpoints[0])
    for host in hosts:
        host.engine.scramble()
    # The rails are there by now.
    assert deliver(hosts, "two", checkpoints[1]) < 5.0
    deliver(hosts, "one", checkpoints[0])


def test_every_host_has_everything(hosts, checkpoints):
    for host in hosts:
        assert host.daemon.register("whole", checkpoints[0]).status == 200
        host.engine.scramble()
    deliver(hosts, "whole", checkpoints[0])


@pytest.mark.parametrize("stage", ["bucket 3", "commit"])
def test_a_failure_of_one_host_ends_the_update_of_both(hosts, checkpoints, stage):
    register_parts(hosts, "one", checkpoints[0])
    deliver(hosts, "one", checkpoints[0])
    hosts[1].engine.fault(0, stage, "raise")
    first, second = update_all(hosts, "one")
    second.check_failure(502, "worker_failed", f"refuses at {stage}", within=PROMPT_S)
    first.check_failure(502, "host_failed", "host 1", f"refuses at {stage}", within=PROMPT_S)
    deliver(hosts, "one", checkpoints[0])


def test_a_host_that_dies_fails_the_update_by_its_name(hosts, checkpoints):
    register_parts(hosts, "one", checkpoints[0])
    deliver(hosts, "one", checkpoints[0])
    before = [host.engine.memory() for host in hosts]
    # Its worker keeps the update in the middle.
    hosts[1].engine.fault(0, "bucket 3", "hang", seconds=8.0)
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(hosts[0].update("one")))
    other = threading.Thread(target=lambda: _ignored(lambda: hosts[1].update("one")))
    thread.start()
    other.start()
    time.sleep(1.5)
    killed = time.monotonic()
    hosts[1].restart()
    thread.join()
    other.join()
    assert time.monotonic() - killed < PROMPT_S
    answers[0].check_failure(502, "host_failed", "host 1", within=PROMPT_S + 5)
    files = parts(checkpoints[0])[1]
    assert hosts[1].daemon.register("one", *files).status == 200
    wait_until(lambda: hosts[1].engine.respawn() == [], "the workers live", timeout=30)
    time.sleep(8.0)
    deliver(hosts, "one", checkpoints[0])
    for host, old in zip(hosts, before, strict=True):
        for worker, memory in zip(old, host.engine.memory(), strict=True):
            assert abs(worker["free"] - memory["free"]) < 256 << 20


def test_a_host_that_does_not_come_is_named(hosts, checkpoints):
    register_parts(hosts, "one", checkpoints[0])
    answer = hosts[0].update("one", timeout=2.0)
    answer.check_failure(504, "deadline_exceeded", "host 1", within=PROMPT_S)


def test_another_plan_is_refused(hosts, checkpoints):
    hosts[1].restart("--bucket-size", "512MiB")
    for host in hosts:
        assert host.daemon.register("whole", checkpoints[0]).status == 200
    for answer in update_all(hosts, "whole"):
        assert answer.status == 502, answer.body
        assert "another plan" in answer.body["error"]["message"]


def _ignored(action) -> None:
    try:
        action()
    except (OSError, ValueError):
        return
