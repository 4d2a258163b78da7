"""Groups of NCCL under the daemon: rails between two hosts that have half of the tensors each, and
one host whose GPUs exchange over NCCL."""

from __future__ import annotations

import signal
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import FIRST_DEVICE
from daemon import Answer, Daemon, Folders, wait_until
from ports import free_port
from reference import deliver as deliver_alone
from reference import device_bytes, files_of
from reference import start_update as start_update_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reference import SimulatedEngine

    StartDaemon = Callable[..., Daemon]
    StartEngine = Callable[..., SimulatedEngine]
    StartHosts = Callable[..., list["Host"]]

# How long after the cause a failure may take to reach the other host.
PROMPT_S = 15.0
MIB = 1 << 20


def group_files(*pids: int) -> set[str]:
    """Files of groups that processes have named."""
    folder = Path("/dev/shm")
    return {path.name for pid in pids for path in folder.glob(f"simulated-nccl-{pid}-*")}


class Host:
    """One daemon, its GPUs and the engine on them."""

    def __init__(
        self, rank: int, flags: list[str], folder: Path, engine: SimulatedEngine, **variables: str
    ) -> None:
        self.rank = rank
        self.engine = engine
        shared, runtime = folder / "shared", folder / "runtime"
        shared.mkdir()
        runtime.mkdir()
        first = FIRST_DEVICE + 2 * rank
        devices = ",".join(str(first + place) for place in range(len(engine.gpus)))
        self.daemon = Daemon(
            Folders(shared, runtime),
            folder / "api.sock",
            *(*flags, "--host-rank", str(rank)),
            CUDA_VISIBLE_DEVICES=devices,
            NCCL_HOSTID=f"host-{rank}",
            **variables,
        )

    def update(self, name: str, timeout: float = 30, **fields: object) -> Answer:
        instance = {**self.engine.instance, "ranks": list(range(len(self.engine.gpus)))}
        body = {"instances": [instance], "timeout": timeout, **fields}
        return self.daemon.request("POST", f"/v1/checkpoints/{name}/update", body, timeout=90)

    def register(self, name: str, checkpoint: Path, *, whole: bool = False) -> None:
        """Every second file of the checkpoint, another half on each host."""
        files = sorted(checkpoint.glob("*.safetensors"))
        assert len(files) > 2
        kept = files if whole else files[self.rank :: 2]
        assert self.daemon.register(name, *kept).status == 200


@pytest.fixture
def start_hosts(cuda_library: str, start_engine: StartEngine) -> Iterator[StartHosts]:
    """Starts two hosts; variables are those of host 0 or 1 by the name of the argument."""
    with ExitStack() as stack:
        made: list[Host] = []

        def start(
            *more: str, workers: tuple[int, int] = (2, 2), **of: dict[str, str]
        ) -> list[Host]:
            flags = ["--device", "cuda", "--cuda-library", cuda_library]
            flags += ["--nccl-library", cuda_library, "--bucket-size", "1MiB"]
            flags += ["--rendezvous", f"127.0.0.1:{free_port()}", "--hosts", "2", *more]
            for rank in range(2):
                folder = stack.enter_context(
                    tempfile.TemporaryDirectory(dir="/dev/shm", prefix=f"simulated-rails-{rank}-")
                )
                engine = start_engine(workers[rank], first_gpu=2 * rank)
                variables = of.get(f"host_{rank}", {})
                made.append(Host(rank, flags, Path(folder), engine, **variables))
            return made

        yield start
        for host in made:
            if host.daemon.program.is_running:
                ended = host.daemon.stop()
                ended.check_orderly()
                assert ended.code == 0, ended.stderr
                assert files_of(host.daemon.program.pid) == {}
        assert group_files(*(host.daemon.program.pid for host in made)) == set()


def update_all(hosts: list[Host], name: str, timeout: float = 30) -> list[Answer]:
    """The answers of updates that begin at the same time."""
    answers: dict[int, Answer] = {}

    def run(host: Host) -> None:
        answers[host.rank] = host.update(name, timeout)

    threads = [threading.Thread(target=run, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[host.rank] for host in hosts]


def deliver(hosts: list[Host], name: str, checkpoint: Path) -> None:
    """A successful update of both hosts; every byte of every worker is right."""
    for host in hosts:
        host.engine.ask("fill 90")
    for host, answer in zip(hosts, update_all(hosts, name), strict=True):
        assert answer.status == 200, answer.body
        host.engine.check_holds(checkpoint)


def test_rails_carry_what_one_host_has_and_stay(
    start_hosts: StartHosts, checkpoints: list[Path]
) -> None:
    """A second joining of rails would fail."""
    once = {"SIMULATED_CUDA_FAIL": "ncclCommInitRankConfig:3:2"}
    hosts = start_hosts(host_0=once, host_1=once)
    for number, checkpoint in enumerate(checkpoints):
        for host in hosts:
            host.register(f"step-{number}", checkpoint)
        deliver(hosts, f"step-{number}", checkpoint)
        assert all(host.engine.fails_to_hold(checkpoints[(number + 1) % 3]) for host in hosts)
    deliver(hosts, "step-0", checkpoints[0])


def test_rails_that_are_too_slow_for_a_race(
    start_hosts: StartHosts, checkpoints: list[Path]
) -> None:
    """Copies take their time on both hosts: whoever reads or overwrites too early is found."""
    fast = {"SIMULATED_CUDA_COPY_BYTES_PER_SECOND": str(400 * MIB)}
    slow = {"SIMULATED_CUDA_COPY_BYTES_PER_SECOND": str(100 * MIB)}
    hosts = start_hosts(host_0=fast, host_1=slow)
    for number in (0, 1):
        for host in hosts:
            host.register(f"step-{number}", checkpoints[number])
        deliver(hosts, f"step-{number}", checkpoints[number])


@pytest.mark.parametrize("workers", [(2, 1), (1, 2), (1, 1)])
def test_hosts_with_other_numbers_of_gpus(
    start_hosts: StartHosts, checkpoints: list[Path], workers: tuple[int, int]
) -> None:
    hosts = start_hosts(workers=workers)
    for number in (0, 1):
        for host in hosts:
            host.register(f"step-{number}", checkpoints[number])
        deliver(hosts, f"step-{number}", checkpoints[number])


def test_one_host_has_all_and_the_other_a_half(
    start_hosts: StartHosts, checkpoints: list[Path]
) -> None:
    hosts = start_hosts()
    hosts[0].register("step", checkpoints[0], whole=True)
    hosts[1].register("step", checkpoints[0])
    deliver(hosts, "step", checkpoints[0])
    # Without anything for the rails, between updates that have.
    for host in hosts:
        host.register("whole", checkpoints[1], whole=True)
    deliver(hosts, "whole", checkpoints[1])
    deliver(hosts, "step", checkpoints[0])


@pytest.mark.parametrize("kind", ["kill", "raise"])
@pytest.mark.parametrize("step", ["bucket-0", "bucket-9", "commit"])
def test_a_worker_that_fails_ends_the_update_of_both(
    start_hosts: StartHosts, checkpoints: list[Path], kind: str, step: str
) -> None:
    hosts = start_hosts()
    for host in hosts:
        host.register("step", checkpoints[0])
    deliver(hosts, "step", checkpoints[0])
    hosts[1].engine.ask(f"fault {kind} {step}", 1)
    first, second = update_all(hosts, "step")
    code = "worker_lost" if kind == "kill" else "worker_failed"
    second.check_failure(502, code, within=PROMPT_S)
    first.check_failure(502, "host_failed", "host 1", within=PROMPT_S)
    assert all(device_bytes(host.daemon.program.pid) == 0 for host in hosts)
    hosts[1].engine.respawned()
    deliver(hosts, "step", checkpoints[0])


def test_a_worker_that_hangs_runs_into_the_deadline_of_both(
    start_hosts: StartHosts, checkpoints: list[Path]
) -> None:
    hosts = start_hosts()
    for host in hosts:
        host.register("step", checkpoints[0])
    deliver(hosts, "step", checkpoints[0])
    hosts[0].engine.ask("fault pause bucket-5", 0)
    for answer in update_all(hosts, "step", timeout=1):
        assert answer.status in {502, 504}, answer.body
        assert answer.seconds < 1 + PROMPT_S
    deliver(hosts, "step", checkpoints[0])


def test_a_host_that_is_killed_in_the_middle(
    start_hosts: StartHosts, checkpoints: list[Path]
) -> None:
    """The rails wait for it when it dies; the other host ends, and its workers go on."""
    hosts = start_hosts()
    for host in hosts:
        host.register("step", checkpoints[0])
    deliver(hosts, "step", checkpoints[0])
    hosts[1].engine.ask("fault pause bucket-5", 1)
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(hosts[0].update("step", timeout=60)))
    thread.start()
    path = f"/v1/updates/{hosts[1].update('step', wait=False).body['id']}"
    wait_until(lambda: hosts[1].daemon.request("GET", path).body["stage"] == "reload", "reload")
    hosts[1].daemon.program.kill()
    thread.join()
    answers[0].check_failure(502, "host_failed", "host 1", within=PROMPT_S)
    assert device_bytes(hosts[0].daemon.program.pid) == 0
    for host in hosts:
        host.engine.ask("fill 90")


def test_a_host_that_stands_still_runs_into_the_deadline(
    start_hosts: StartHosts, checkpoints: list[Path]
) -> None:
    """Its process lives, so the rails wait for it; afterwards both go on, over new rails."""
    hosts = start_hosts()
    for host in hosts:
        host.register("step", checkpoints[0])
    deliver(hosts, "step", checkpoints[0])
    hosts[1].engine.ask("fault pause bucket-5", 1)
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(hosts[0].update("step", timeout=2)))
    thread.start()
    path = f"/v1/updates/{hosts[1].update('step', timeout=2, wait=False).body['id']}"
    daemon = hosts[1].daemon
    wait_until(lambda: daemon.request("GET", path).body["stage"] == "reload", "reload")
    daemon.program.send(signal.SIGSTOP)
    thread.join()
    daemon.program.send(signal.SIGCONT)
    assert answers[0].status in {502, 504}, answers[0].body
    assert answers[0].seconds < 2 + PROMPT_S
    wait_until(lambda: daemon.request("GET", path).body["state"] == "failed", "its end")
    deliver(hosts, "step", checkpoints[0])


def test_a_host_that_does_not_come_is_named(
    start_hosts: StartHosts, checkpoints: list[Path]
) -> None:
    hosts = start_hosts()
    for host in hosts:
        host.register("step", checkpoints[0])
    answer = hosts[0].update("step", timeout=1)
    answer.check_failure(504, "deadline_exceeded", "host 1", within=PROMPT_S)
    deliver(hosts, "step", checkpoints[0])


def test_rails_that_are_given_back_are_made_again(
    start_hosts: StartHosts, checkpoints: list[Path]
) -> None:
    hosts = start_hosts("--release-gpu-memory")
    for number in range(3):
        for host in hosts:
            host.register(f"step-{number}", checkpoints[number])
        deliver(hosts, f"step-{number}", checkpoints[number])
        assert all(device_bytes(host.daemon.program.pid) == 0 for host in hosts)


@pytest.mark.parametrize(
    ("script", "call"),
    [
        ("ncclCommInitRankConfig:1:2", "ncclCommInitRankConfig"),
        ("ncclCommInitRankConfig:2:2", "ncclCommInitRankConfig"),
        ("ncclBroadcast:7:1", "ncclBroadcast"),
        ("ncclGroupEnd:7:3", "ncclBroadcast"),
        ("ncclCommGetAsyncError:40:6", "ncclCommGetAsyncError"),
    ],
)
def test_a_call_of_nccl_that_fails_on_one_host(
    start_hosts: StartHosts, checkpoints: list[Path], script: str, call: str
) -> None:
    hosts = start_hosts(host_1={"SIMULATED_CUDA_FAIL": script})
    for host in hosts:
        host.register("step", checkpoints[0])
    first, second = update_all(hosts, "step")
    second.check_failure(500, "system", call, within=PROMPT_S)
    first.check_failure(502, "host_failed", "host 1", call, within=PROMPT_S)
    deliver(hosts, "step", checkpoints[0])


@pytest.mark.parametrize("gpus", [2, 4])
def test_one_host_over_nccl(
    start_daemon: StartDaemon,
    start_engine: StartEngine,
    checkpoints: list[Path],
    cuda_library: str,
    gpus: int,
) -> None:
    """Bit for bit, and the group is made once."""
    engine = start_engine(gpus)
    flags = ["--gather-transport", "nccl", "--nccl-library", cuda_library]
    script = f"ncclCommInitRankConfig:{gpus + 1}:2"
    with start_daemon(*flags, SIMULATED_CUDA_FAIL=script) as daemon:
        for number in (0, 1):
            assert daemon.register(f"step-{number}", checkpoints[number]).status == 200
            deliver_alone(daemon, f"step-{number}", checkpoints[number], engine)
            assert engine.fails_to_hold(checkpoints[1 - number])
    assert group_files(daemon.program.pid) == set()


@pytest.mark.parametrize("script", ["ncclBroadcast:9:1", "ncclCommInitRankConfig:2:5"])
def test_one_host_whose_nccl_fails(
    start_daemon: StartDaemon,
    start_engine: StartEngine,
    checkpoints: list[Path],
    cuda_library: str,
    script: str,
) -> None:
    engine = start_engine(2)
    flags = ["--gather-transport", "nccl", "--nccl-library", cuda_library]
    with start_daemon(*flags, SIMULATED_CUDA_FAIL=script) as daemon:
        assert daemon.register("step", checkpoints[0]).status == 200
        answer = start_update_alone(daemon, "step", engine)
        answer.check_failure(500, "system", script.split(":", maxsplit=1)[0], within=PROMPT_S)
        assert device_bytes(daemon.program.pid) == 0
        deliver_alone(daemon, "step", checkpoints[0], engine)
    assert group_files(daemon.program.pid) == set()
