"""Fixtures of the tests of pull: real daemons, real agents, engines that tell what they got."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "faults")]

from checkpoints import check_delivered  # noqa: E402
from daemon import Folders, write_secret  # noqa: E402
from fake_engine import FakeEngine  # noqa: E402
from network import Host, Network, missing  # noqa: E402
from nodes import TOKEN, Node, starting_nodes  # noqa: E402
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
    """``start(host, *flags)`` starts a daemon, on loopback without a host."""
    with starting_nodes() as start:
        yield start


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
    write_secret(path, TOKEN)
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
