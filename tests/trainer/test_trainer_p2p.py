"""Two fleets of ranks on one machine: one serves what it has, the other reads it from there."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from daemon import wait_until
from ports import free_port
from test_trainer import check_got, delivered, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from launch import Ended, Launcher

SERVERS = 2
READERS = 2
START_S_MAX = 90.0
# What a rank may take to hear that nobody answers, beyond the time that sources get.
STALL_S, GRACE_S = 20.0, 15.0


class Fleet:
    """Ranks that serve until they are told to end."""

    def __init__(self, run: Launcher, first: int, versions: int) -> None:
        self.folder: Path = run.output
        self.url = f"http://127.0.0.1:{free_port()}"
        self._versions = versions
        self._ended: list[Ended] = []
        listen = {
            "CHECKPOINT_ENGINE_LISTEN": self.url.removeprefix("http://"),
            "CHECKPOINT_ENGINE_NO_TOKEN": "true",
        }
        self._thread = threading.Thread(
            target=lambda: self._ended.append(
                run.ranks(
                    "serve_versions",
                    SERVERS,
                    variables=[listen] * SERVERS,
                    first=first,
                    versions=versions,
                )
            )
        )
        self._thread.start()
        wait_until(self._serves, "the fleet serves", START_S_MAX)

    def _serves(self) -> bool:
        assert not self._ended, self._ended[0].stderr
        return (self.folder / "metas-0.json").exists()

    def end(self) -> Ended:
        for version in range(self._versions):
            (self.folder / f"done-{version}").touch()
        self._thread.join()
        self._ended[0].check()
        return self._ended[0]


@pytest.fixture
def fleets(launcher) -> Iterator[Callable[..., Fleet]]:
    """``fleets(first, versions)``: one more fleet, whose tensors are those of rank ``first`` on."""
    made: list[Fleet] = []

    def fleet(first: int = 0, versions: int = 1) -> Fleet:
        made.append(Fleet(launcher(), first, versions))
        return made[-1]

    yield fleet
    for one in made:
        with contextlib.suppress(AssertionError):
            one.end()


@pytest.fixture
def join(launcher, engines):
    """``join(scenario, fleets)``: how it ended on all readers, and what their engine got."""

    def join(scenario: str, *fleets: Fleet, **options: Any) -> tuple[Ended, list[Any]]:
        engine = engines(READERS)
        folders = [str(fleet.folder) for fleet in fleets]
        run = launcher()
        ended = run.ranks(scenario, READERS, url=engine.url, fleets=folders, **options)
        ended.check()
        return ended, list(engine.updates)

    return join


def test_a_fleet_that_starts_later(fleets, join, launcher):
    fleet = fleets()
    ended, updates = join("join_twice", fleet)
    expected = delivered(fleet.end())
    assert len(updates) == 3
    for outcomes in updates:
        check_got(outcomes, expected, READERS)
    assert ended.values("pulls") == [[1, 1, 2]] * READERS
    assert ended.values("states") == [[None]] * READERS
    assert ended.values("metas") == [list(range(SERVERS))] * READERS
    assert launcher().folders.contents() == []


def test_only_some_ranks_receive(fleets, launcher, engines):
    fleet, engine = fleets(), engines(1)
    variables = [{"CHECKPOINT_ENGINE_CPU_WORKERS": "1"}] * READERS
    launcher().ranks(
        "join_twice",
        READERS,
        variables=variables,
        url=engine.url,
        fleets=[str(fleet.folder)],
        ranks=[1],
    ).check()
    for outcomes in engine.updates:
        check_got(outcomes, delivered(fleet.end()), 1)
    assert len(engine.updates) == 3


def test_new_versions(fleets, join):
    fleet = fleets(versions=3)
    _, updates = join("follow_versions", fleet, versions=3)
    served = fleet.end()
    for place, outcomes in enumerate(updates):
        check_got(outcomes, delivered(served, place), READERS)
    assert len(updates) == 3


def test_memory_that_nobody_lends(fleets, join):
    """As from servers of PyPI's package: sessions and addresses, of two processes here."""
    both = [fleets(), fleets(first=10)]
    ended, updates = join("join_out_of_memory", *both)
    expected = merged([delivered(fleet.end()) for fleet in both])
    assert len(updates) == 3
    for outcomes in updates:
        check_got(outcomes, expected, READERS)
    assert ended.values("pulls") == [[1, 1, 1]] * READERS


def test_parts_of_two_fleets(fleets, join):
    """Daemons that have different tensors; all of them together are the checkpoint."""
    both = [fleets(), fleets(first=10)]
    _, updates = join("join_twice", *both)
    expected = merged([delivered(fleet.end()) for fleet in both])
    assert len(updates) == 3
    for outcomes in updates:
        check_got(outcomes, expected, READERS)


def test_the_daemon_is_killed_between(fleets, join):
    fleet = fleets()
    _, updates = join("join_after_a_kill", fleet)
    expected = delivered(fleet.end())
    assert len(updates) == 2
    for outcomes in updates:
        check_got(outcomes, expected, READERS)


def test_own_tensors_take_the_place(fleets, join):
    fleet = fleets()
    ended, updates = join("own_after_theirs", fleet)
    check_got(updates[0], delivered(fleet.end()), READERS)
    check_got(updates[1], merged(ended.values("own")), READERS)


def test_wrong_metas(fleets, join):
    fleet = fleets()
    gone = f"http://127.0.0.1:{free_port()}"
    ended, updates = join("wrong_metas", fleet, gone=gone)
    for kinds, text, seconds, _ in ended.errors(0).values():
        assert "UpdateError" in kinds
        assert f"none of the sources has step to read: {gone} cannot be reached" in text
        assert seconds < STALL_S + GRACE_S
    for kinds, text, seconds, _ in ended.errors(1).values():
        assert "MetasError" in kinds
        assert "name no daemon that the tensors of rank 0 can be read from, and no memory" in text
        assert seconds < GRACE_S
    for kinds, text, seconds, _ in ended.errors(2).values():
        assert "UpdateError" in kinds
        assert f"{fleet.url} answered 404" in text
        assert seconds < GRACE_S
    for kinds, text, seconds, _ in ended.errors(3).values():
        assert "MetasError" in kinds
        assert "the metas of rank 0 name daemons, those of rank 1 only the memory" in text
        assert seconds < GRACE_S
    for kinds, text, seconds, _ in ended.errors(4).values():
        assert "UpdateError" in kinds
        assert gone.removeprefix("http://") in text
        assert seconds < STALL_S + GRACE_S
    for kinds, text, _, _ in ended.errors(5).values():
        assert "ArgumentError" in kinds
        assert "the ranks disagree on where step is read from" in text
    # Memory cannot be asked: that it is gone is noticed when the engine waits for its bytes.
    assert len(updates) == 2
    check_got(updates[1], delivered(fleet.end()), READERS)


def test_nothing_is_loaded(join):
    ended, updates = join("no_metas")
    for kinds, text, _, _ in ended.errors(0).values():
        assert "UpdateError" in kinds
        assert "step has not been gathered" in text
        assert "load_metas" in text
    assert updates == []


def test_a_name_that_is_taken(fleets, join):
    ended, updates = join("taken_name", fleets())
    for kinds, text, _, _ in ended.errors(0).values():
        assert "UpdateError" in kinds or "CheckpointNameError" in kinds
        assert "other.rank1" in text
    assert ended.values("state") == ["ready"] * READERS
    assert updates == []


class _Healthy(BaseHTTPRequestHandler):
    """Answers as a daemon that is well."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "ok"}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Tests print what matters."""


@pytest.mark.parametrize(
    ("listen", "kind", "words"),
    [
        (None, "DaemonStartError", "cannot listen on"),
        ("0.0.0.0:18999", "ArgumentError", "does not tell other hosts where this one is"),
        ("127.0.0.1", "ArgumentError", "expected HOST:PORT"),
        ("127.0.0.1:0", "ArgumentError", "with a port above 0"),
    ],
)
def test_impossible_addresses(launcher, listen, kind, words):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Healthy) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        address = listen or f"127.0.0.1:{other.server_address[1]}"
        run = launcher()
        listen = {"CHECKPOINT_ENGINE_LISTEN": address, "CHECKPOINT_ENGINE_NO_TOKEN": "true"}
        ended = run.ranks("idle", 2, variables=[listen] * 2)
        other.shutdown()
    assert ended.codes == [1, 1]
    first, second = ended.values("failure")
    assert first.startswith(kind)
    for failure in (first, second):
        assert words in failure
        assert address in failure
    assert run.folders.contents() == []


def test_an_address_without_a_token(launcher):
    variables = [{"CHECKPOINT_ENGINE_LISTEN": f"127.0.0.1:{free_port()}"}] * 2
    ended = launcher().ranks("idle", 2, variables=variables)
    assert ended.codes == [1, 1]
    for failure in ended.values("failure"):
        assert "CHECKPOINT_ENGINE_TOKEN_FILE" in failure
        assert "CHECKPOINT_ENGINE_NO_TOKEN" in failure
