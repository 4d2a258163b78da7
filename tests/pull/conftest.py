"""Fixtures of the tests of pull: real daemons, real agents, engines that tell what they got."""

from __future__ import annotations

import itertools
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "faults")]

from checkpoints import check_delivered  # noqa: E402
from daemon import BUCKET_SIZE, Folders, wait_until  # noqa: E402
from fake_engine import FakeEngine  # noqa: E402
from network import Host, Network, missing  # noqa: E402
from nodes import PORT, TOKEN, Node, agent_variables, free_port, processes_with  # noqa: E402
from pull_samples import Samples  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from checkpoints import Digests

HOSTS = 4
LINK_MEGABITS = 250
WORKERS = 2


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Small ones, with every kind of tensor."""
    return Samples(tmp_path_factory.mktemp("small"), is_large=False)


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Those that take a link seconds."""
    return Samples(tmp_path_factory.mktemp("large"), is_large=True)


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    if (why := missing()) is not None:
        pytest.fail(why)
    with Network(HOSTS) as network:
        yield network


@pytest.fixture
def hosts(network: Network) -> Iterator[list[Host]]:
    """Hosts whose links are whole and shaped; what runs there afterwards is killed."""
    for host in network.hosts:
        host.shape(LINK_MEGABITS)
        host.restore()
    yield network.hosts
    for host in network.hosts:
        host.restore()
        host.end_processes()


@pytest.fixture
def start() -> Iterator[Callable[..., Node]]:
    """``start(host, *flags)`` starts a daemon, on loopback without a host.

    All that still run have to stop in order in the end, and to leave nothing: no file, no agent.
    """
    mark = f"PULL_TEST={uuid.uuid4()}"
    nodes: list[Node] = []
    numbers = itertools.count(1)
    with (
        tempfile.TemporaryDirectory(prefix="pull-") as folder,
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="pull-") as shared_memory,
    ):

        def begin(
            host: Host | None = None,
            *more: str,
            command: str = "serve",
            bucket_size: str = BUCKET_SIZE,
            waits: bool = True,
            **variables: str,
        ) -> Node:
            number = next(numbers)
            home = Path(folder) / f"node-{number}"
            home.mkdir()
            node = Node(
                home,
                Path(shared_memory) / f"node-{number}",
                host,
                PORT if host else free_port(),
                *("--bucket-size", bucket_size, *more),
                command=command,
                variables=agent_variables(mark.partition("=")[2]) | variables,
            )
            nodes.append(node)
            if waits:
                node.wait_until_up()
            return node

        yield begin
        try:
            for node in reversed(nodes):
                node.close()
            wait_until(lambda: not processes_with(mark), "no process is left")
        finally:
            for node in nodes:
                if node.program.is_running:
                    node.kill()


@pytest.fixture
def start_large(start: Callable[..., Node]) -> Callable[..., Node]:
    """The same for large checkpoints."""

    def begin(host: Host | None = None, *more: str, **fields: object) -> Node:
        return start(host, *more, bucket_size="4MiB", **fields)

    return begin


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """A file with the token of all daemons."""
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return path


@pytest.fixture
def folders() -> Iterator[Folders]:
    """Private directories for the one-shot update; a test has to leave both empty."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="pull-") as shared_memory,
        tempfile.TemporaryDirectory(prefix="pull-") as runtime,
    ):
        folders = Folders(Path(shared_memory), Path(runtime))
        yield folders
        assert folders.contents() == []


class Engine:
    """An engine on a unix socket, which a daemon reaches out of every namespace."""

    def __init__(self, fake: FakeEngine) -> None:
        self.fake = fake
        assert fake.uds is not None
        self.flags = ("--endpoint", fake.url, "--uds", str(fake.uds))
        self.place = {"update_url": fake.url, "uds": str(fake.uds)}

    def check_takes(self, node: Node, name: str, expected: Digests) -> None:
        """An update from ``node`` puts exactly these bytes into every worker."""
        self.fake.reset()
        answer = node.request("POST", f"/v1/checkpoints/{name}/update", self.place)
        assert answer.status == 200, answer.body
        self.check_has(expected)

    def check_has(self, expected: Digests) -> None:
        """What the last update has brought."""
        check_delivered(self.fake.updates[-1], expected, len(self.fake.workers))


@pytest.fixture(scope="session")
def shared_engines() -> Iterator[list[Engine]]:
    with (
        tempfile.TemporaryDirectory(prefix="pull-engines-") as folder,
        FakeEngine(WORKERS, Path(folder) / "0.sock") as first,
        FakeEngine(1, Path(folder) / "1.sock") as second,
    ):
        yield [Engine(first), Engine(second)]


@pytest.fixture
def engines(shared_engines: list[Engine]) -> list[Engine]:
    """One with two workers, one with one; without faults."""
    for engine in shared_engines:
        engine.fake.reset()
    return shared_engines


@pytest.fixture
def engine(engines: list[Engine]) -> Engine:
    return engines[0]
