"""Signals: what was asked to stop leaves nothing behind, and what was killed is swept up."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from background import Background, check_next_update
from bad_files import sparse_checkpoint
from checkpoints import check_delivered
from daemon import Daemon, Folders, Program, update_arguments, wait_until
from fault_workers import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Samples
    from fake_engine import FakeEngine

# Reading it takes seconds, and nobody waits for the end of it.
BIG_BYTES = 6 << 30
PAUSE = {0: Fault("pause", "bucket", 2)}
SIGNALS = pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    return sparse_checkpoint(tmp_path / "big", BIG_BYTES)


def is_reading(folders: Folders) -> bool:
    """Whether a registration has begun to fill its memory."""
    return any(segment.st_blocks > 0 for segment in folders.segments().values())


@SIGNALS
def test_update_is_stopped_while_it_reads(
    folders: Folders, engine: FakeEngine, big: Path, number: signal.Signals, code: int
) -> None:
    program = Program(*update_arguments(big, engine.url, folders, "--read-threads", "1"))
    wait_until(lambda: is_reading(folders), "the registration has begun")
    program.send(number)
    ended = program.wait(10)
    ended.check_orderly()
    assert ended.code == code, ended.stderr
    assert folders.contents() == []
    assert engine.updates == []


@SIGNALS
def test_update_is_stopped_while_it_delivers(
    folders: Folders, engine: FakeEngine, samples: Samples, number: signal.Signals, code: int
) -> None:
    engine.script.workers = PAUSE
    program = Program(*update_arguments(samples.first, engine.url, folders))
    assert engine.workers[0].paused.wait(10)
    program.send(number)
    program.send(number)  # an impatient second one may not cut the clean-up short
    # The other worker has been told: the update is over, whatever this one does.
    wait_until(lambda: not engine.workers[1].busy.locked(), "the update is ended")
    engine.workers[0].resumed.set()
    ended = program.wait(10)
    ended.check_orderly()
    assert ended.code == code, ended.stderr
    assert folders.contents() == []
    for outcome in engine.wait_for_update(1, 10):
        assert "AbortedError" in (outcome.error or ""), outcome
        assert not outcome.committed


def test_update_is_stopped_while_a_worker_hangs(
    folders: Folders, engine: FakeEngine, samples: Samples
) -> None:
    """A worker that does not react gets five seconds, not the deadline."""
    engine.script.workers = PAUSE
    program = Program(*update_arguments(samples.first, engine.url, folders))
    assert engine.workers[0].paused.wait(10)
    program.send(signal.SIGINT)
    ended = program.wait(15)
    ended.check_orderly()
    assert ended.code == 130, ended.stderr
    assert ended.seconds < 12
    assert folders.contents() == []
    engine.workers[0].resumed.set()
    [first, _] = engine.wait_for_update(1, 10)
    assert first.error is not None
    assert first.seconds_after_pause < 2


@SIGNALS
def test_update_is_stopped_while_it_waits_for_the_engine(
    folders: Folders, engine: FakeEngine, samples: Samples, number: signal.Signals, code: int
) -> None:
    engine.script.health = "hang"
    program = Program(*update_arguments(samples.first, engine.url, folders))
    assert engine.hung.wait(10)
    program.send(number)
    ended = program.wait(10)
    ended.check_orderly()
    assert ended.code == code, ended.stderr
    assert folders.contents() == []


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        yield server


@pytest.mark.parametrize("waits_for", ["engine", "source", "metas", "worker"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_update_is_stopped_whatever_it_waits_for(
    folders: Folders,
    engine: FakeEngine,
    samples: Samples,
    silent: socket.socket,
    waits_for: str,
    number: signal.Signals,
) -> None:
    """Within two seconds, though every deadline is far away."""
    url = f"http://127.0.0.1:{silent.getsockname()[1]}"
    arguments = update_arguments(samples.first, engine.url, folders)
    match waits_for:
        case "engine":
            arguments = update_arguments(samples.first, url, folders)
        case "source":
            arguments += ["--update-method", "p2p", "--source", url]
        case "metas":
            arguments += ["--update-method", "p2p", "--metas-url", url]
        case "worker":
            engine.script.update = "hang"
    program = Program(*arguments, "--timeout", "300", "--stall-timeout", "300")
    if waits_for == "worker":
        assert engine.hung.wait(20)
    else:
        connection, _ = silent.accept()
    sent = time.monotonic()
    program.send(number)
    ended = program.wait(20)
    ended.check_orderly()
    assert time.monotonic() - sent < 2
    assert ended.code == 128 + number, ended.stderr
    assert "stopping" in ended.stderr
    assert folders.contents() == []
    if waits_for != "worker":
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_daemon_is_stopped_while_it_reads(
    folders: Folders, socket_path: Path, big: Path, number: signal.Signals
) -> None:
    daemon = Daemon(folders, socket_path, "--read-threads", "1")
    client = daemon.connection()
    body = f'{{"files": ["{big}"]}}'
    client.request("POST", "/v1/checkpoints/big/files", body)
    wait_until(lambda: is_reading(folders), "the registration has begun")
    ended = daemon.stop(number)
    ended.check_orderly()
    assert ended.code == 0, ended.stderr
    answer = client.getresponse()
    assert answer.status == 503
    assert b"cancelled" in answer.read()
    client.close()
    assert folders.contents() == []
    assert not socket_path.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_daemon_is_stopped_while_it_delivers(
    folders: Folders,
    socket_path: Path,
    engine: FakeEngine,
    samples: Samples,
    number: signal.Signals,
) -> None:
    daemon = Daemon(folders, socket_path)
    assert daemon.register("step", samples.first).status == 200
    engine.script.workers = PAUSE
    update = Background(daemon, engine)
    assert engine.workers[0].paused.wait(10)
    daemon.program.send(number)
    # What is refused because the daemon is stopping tells that its updates have been ended.
    wait_until(lambda: daemon.register("late", samples.first).status == 503, "it is stopping")
    engine.workers[0].resumed.set()
    # The client that waits is told before the server goes.
    update.answer().check_failure(503, "cancelled", "stopping")
    ended = daemon.program.wait(10)
    ended.check_orderly()
    assert ended.code == 0, ended.stderr
    assert folders.contents() == []
    assert not socket_path.exists()
    for outcome in engine.wait_for_update(1, 10):
        assert "AbortedError" in (outcome.error or ""), outcome


def test_workers_notice_a_killed_daemon_at_once(
    folders: Folders, socket_path: Path, engine: FakeEngine, samples: Samples
) -> None:
    daemon = Daemon(folders, socket_path)
    assert daemon.register("step", samples.first).status == 200
    engine.script.workers = PAUSE
    update = Background(daemon, engine, timeout=300)
    assert engine.workers[0].paused.wait(10)
    daemon.program.send(signal.SIGKILL)
    daemon.program.wait()
    with pytest.raises(OSError, match=r".*"):
        update.answer()
    engine.workers[0].resumed.set()
    for outcome in engine.wait_for_update(1, 5):
        assert "ServerLostError" in (outcome.error or ""), outcome
        assert outcome.seconds_after_pause < 2
    left = folders.contents()
    assert [path for path in left if "segment-" in path], "a killed process cannot clean up"

    # The next daemon sweeps, and the same workers take its update.
    engine.reset()
    with Daemon(folders, socket_path) as again:
        assert not set(left) & set(folders.contents())
        assert again.register("step", samples.first).status == 200
        check_next_update(again, engine, samples)


def test_a_start_keeps_the_folders_of_those_that_run(
    daemon: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    assert daemon.register("step", samples.first).status == 200
    before = set(daemon.folders.contents())
    with (
        tempfile.TemporaryDirectory(prefix="faults-api-") as folder,
        Daemon(daemon.folders, Path(folder) / "other.sock") as other,
    ):
        assert before < set(daemon.folders.contents())
        assert other.register("step", samples.second).status == 200
        assert other.update("step", engine.url).status == 200
        check_delivered(engine.updates[-1], samples.second_digests, 2)
    assert set(daemon.folders.contents()) == before
    check_next_update(daemon, engine, samples)


@pytest.fixture
def foreign_folders(folders: Folders) -> Iterator[list[Path]]:
    """Things beside the daemon's own that look alike and are none of its."""
    precious = [
        folders.shared_memory / "checkpoint-engine-notes" / "precious",
        folders.runtime / "ce-0-1-2-file",
        folders.runtime / "other" / "precious",
    ]
    for path in precious:
        path.parent.mkdir(exist_ok=True)
        path.write_text("precious")
    target = folders.runtime / "other"
    link = folders.runtime / "ce-0-999999-link"
    link.symlink_to(target)
    yield precious
    link.unlink()
    for path in precious:
        path.unlink()
        if path.parent not in (folders.shared_memory, folders.runtime):
            path.parent.rmdir()


def test_a_start_sweeps_nothing_of_others(
    folders: Folders, foreign_folders: list[Path], socket_path: Path
) -> None:
    with Daemon(folders, socket_path):
        assert all(path.read_text() == "precious" for path in foreign_folders)
    assert all(path.read_text() == "precious" for path in foreign_folders)


def own_leftovers(pid: int) -> list[Path]:
    """The private directories of a process that does not take other places for them."""
    return [
        path
        for parent in (Path("/dev/shm"), Path("/tmp"))
        for path in parent.glob(f"c*e-*-{pid}-*")
    ]


@pytest.mark.parametrize("line", ["engine ready", "registered demo-step-1", "updated in"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_demo_is_stopped(line: str, number: signal.Signals) -> None:
    program = Program("demo")
    program.read_until(line)
    assert own_leftovers(program.pid)
    program.send(number)
    ended = program.wait(10)
    ended.check_orderly()
    assert ended.code == 128 + number, ended.stderr
    assert own_leftovers(program.pid) == []


def test_reference_engine_is_stopped(socket_path: Path) -> None:
    program = Program("reference-engine", "--uds", str(socket_path))
    wait_until(socket_path.is_socket, "the engine listens")
    assert own_leftovers(program.pid)
    program.send(signal.SIGTERM)
    ended = program.wait(10)
    ended.check_orderly()
    assert ended.code == 0, ended.stderr
    assert own_leftovers(program.pid) == []


def test_a_daemon_ends_with_the_process_that_it_belongs_to(
    folders: Folders, tmp_path: Path
) -> None:
    # Nobody waits for it yet: it has ended, and is in the table of processes all the same.
    owner = subprocess.Popen(["sleep", "60"])
    try:
        daemon = Daemon(folders, tmp_path / "api.sock", "--until-exit-of", str(owner.pid))
        assert daemon.program.is_running
        owner.kill()
        ended = daemon.program.wait(20)
    finally:
        owner.kill()
        owner.wait()
    ended.check_orderly()
    assert ended.code == 0, ended.stderr
    assert str(owner.pid) in ended.stderr


def test_a_daemon_of_a_process_that_is_gone_does_not_start(folders: Folders) -> None:
    owner = subprocess.Popen(["true"])
    owner.wait()
    socket = folders.runtime / "api.sock"
    arguments = ["serve", "--uds", str(socket), "--until-exit-of", str(owner.pid)]
    Program(*arguments, *folders.flags).wait(20).check_failure(str(owner.pid))
