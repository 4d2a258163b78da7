"""Shared memory: what is used in place, deleted, reused and given back."""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from background import Background, check_next_update
from bad_files import entry, file, sparse_checkpoint
from checkpoints import check_delivered
from daemon import PROMPT_S, run, update_arguments
from fault_workers import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Samples
    from daemon import Daemon, Folders
    from fake_engine import FakeEngine


def files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, length and time of modification of every file."""
    found = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (s.st_ino, s.st_size, s.st_mtime_ns) for name, s in found.items()}


def test_files_in_shared_memory_are_used_in_place(
    daemon: Daemon, engine: FakeEngine, samples: Samples, in_memory: Path
) -> None:
    before = files(in_memory)
    answer = daemon.register("step", in_memory)
    assert answer.status == 200
    assert answer.body["pooled_bytes"] == 0
    assert answer.body["in_place_bytes"] >= answer.body["bytes"]
    assert daemon.folders.segments() == {}
    check_next_update(daemon, engine, samples)
    assert daemon.unregister("step").status == 200
    assert daemon.folders.segments() == {}
    assert files(in_memory) == before


def test_files_on_disk_and_in_memory_make_one_checkpoint(
    daemon: Daemon, engine: FakeEngine, samples: Samples, in_memory: Path
) -> None:
    [first, *_] = sorted(in_memory.iterdir())
    [_, *others] = sorted(samples.first.iterdir())
    answer = daemon.register("step", first, *others)
    assert answer.status == 200, answer.body
    assert len(daemon.folders.segments()) == len(others)
    check_next_update(daemon, engine, samples)


def test_without_consume_nothing_is_deleted(
    folders: Folders, engine: FakeEngine, samples: Samples, in_memory: Path
) -> None:
    before = files(in_memory)
    ended = run(*update_arguments(in_memory, engine.url, folders))
    assert ended.code == 0, ended.stderr
    check_delivered(engine.updates[-1], samples.first_digests, 2)
    assert files(in_memory) == before


@pytest.mark.parametrize("kind", ["raise", "kill"])
def test_consume_deletes_only_after_success(
    folders: Folders, engine: FakeEngine, samples: Samples, in_memory: Path, kind: str
) -> None:
    before = files(in_memory)
    engine.script.workers = {1: Fault(kind, "commit")}  # type: ignore[arg-type]
    arguments = update_arguments(in_memory, engine.url, folders, "--consume")
    run(*arguments).check_failure("CPU-1")
    assert files(in_memory) == before
    engine.reset()
    ended = run(*arguments)
    assert ended.code == 0, ended.stderr
    check_delivered(engine.updates[-1], samples.first_digests, 2)
    assert files(in_memory) == {}


def test_consume_never_deletes_files_on_disk(
    folders: Folders, engine: FakeEngine, samples: Samples
) -> None:
    before = files(samples.first)
    ended = run(*update_arguments(samples.first, engine.url, folders, "--consume"))
    assert ended.code == 0, ended.stderr
    assert files(samples.first) == before


def test_consume_over_http(
    daemon: Daemon, engine: FakeEngine, samples: Samples, in_memory: Path
) -> None:
    before = files(in_memory)
    assert daemon.register("step", in_memory, consume=True).status == 200
    engine.script.workers = {1: Fault("raise", "bucket", 1)}
    assert daemon.update("step", engine.url).status == 502
    assert daemon.unregister("step").status == 200
    assert files(in_memory) == before, "no update has succeeded"

    assert daemon.register("step", in_memory, consume=True).status == 200
    check_next_update(daemon, engine, samples)
    assert daemon.unregister("step").status == 200
    assert files(in_memory) == {}


def test_a_version_of_equal_layout_takes_the_same_memory(
    daemon: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    assert daemon.register("step", samples.second).status == 200
    before = {path: status.st_ino for path, status in daemon.folders.segments().items()}
    used = sum(status.st_blocks for status in daemon.folders.segments().values())
    for path in (samples.first, samples.second, samples.first):
        assert daemon.unregister("step").status == 200
        assert daemon.register("step", path).status == 200
        after = daemon.folders.segments()
        assert {path: status.st_ino for path, status in after.items()} == before
        assert sum(status.st_blocks for status in after.values()) == used
    check_next_update(daemon, engine, samples)


def test_more_files_than_descriptors(daemon: Daemon, engine: FakeEngine, tmp_path: Path) -> None:
    """Neither what is registered nor what is kept for the next version holds files open."""
    count, limit = 300, 128
    for number in range(count):
        path = tmp_path / f"model-{number + 1}-of-{count}.safetensors"
        path.write_bytes(file(**{f"tensor-{number}": entry()}))
    resource.prlimit(daemon.program.pid, resource.RLIMIT_NOFILE, (limit, limit))
    for _ in range(3):
        assert daemon.register("step", tmp_path).status == 200
        assert daemon.unregister("step").status == 200
    assert daemon.register("step", tmp_path).status == 200
    opened = [link.readlink() for link in Path(f"/proc/{daemon.program.pid}/fd").iterdir()]
    assert not [path for path in opened if path.name.startswith("segment-")]
    answer = daemon.update("step", engine.url)
    assert answer.status == 200, answer.body
    assert answer.body["tensors"] == count


def test_files_with_holes_claim_more_than_there_is(
    daemon: Daemon, engine: FakeEngine, samples: Samples
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="faults-files-") as folder:
        huge = sparse_checkpoint(Path(folder) / "huge", 1 << 62)
        for name in ("one", "other"):
            daemon.register(name, huge).check_failure(422, "invalid_checkpoint", "too large")
        # As many as one may have, more often than a counter has room for.
        large = sparse_checkpoint(Path(folder) / "large", 1 << 56)
        for number in range(130):
            assert daemon.register(f"s{number}", large).status == 200
        assert daemon.request("GET", "/metrics").status == 200
        assert daemon.register("step", samples.first).status == 200
        check_next_update(daemon, engine, samples)


def test_memory_is_given_back_on_request(daemon: Daemon, samples: Samples) -> None:
    assert daemon.register("step", samples.first).status == 200
    assert daemon.unregister("step").status == 200
    assert len(daemon.folders.segments()) == 3
    assert daemon.register("step", samples.first).status == 200
    assert daemon.unregister("step", release=True).status == 200
    assert daemon.folders.segments() == {}


def test_what_is_ours_is_for_our_user_only(daemon: Daemon, samples: Samples) -> None:
    assert daemon.register("step", samples.first).status == 200
    for path in daemon.folders.shared_memory.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    for path in daemon.folders.runtime.iterdir():
        assert path.stat().st_mode & 0o777 == 0o700, path


def _replace(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("change", [_replace, _truncate, os.unlink], ids=lambda f: f.__name__)
def test_a_file_in_place_that_has_changed_is_not_delivered(
    daemon: Daemon, engine: FakeEngine, samples: Samples, in_memory: Path, change: object
) -> None:
    assert daemon.register("step", in_memory).status == 200
    victim = sorted(in_memory.iterdir())[1]
    change(victim)  # type: ignore[operator]
    answer = daemon.update("step", engine.url)
    answer.check_failure(answer.status, "invalid_checkpoint", victim.name)
    assert answer.status == 422
    assert engine.updates == []
    assert daemon.unregister("step").status == 200
    assert daemon.register("step", samples.first).status == 200
    check_next_update(daemon, engine, samples)


def _write(path: Path) -> None:
    """Other values, and the time of modification that the file had."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\xff" * 8)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("at", ["bucket", "commit"])
@pytest.mark.parametrize("change", [_write, _replace, os.unlink], ids=lambda f: f.__name__)
def test_a_file_in_place_that_changes_during_an_update(
    daemon: Daemon,
    engine: FakeEngine,
    samples: Samples,
    in_memory: Path,
    change: Callable[[Path], None],
    at: Literal["bucket", "commit"],
) -> None:
    """No worker commits what it may have read half of, or else the update fails."""
    assert daemon.register("step", in_memory).status == 200
    victim = sorted(in_memory.iterdir())[1]
    engine.script.workers = {1: Fault("pause", at)}
    update = Background(daemon, engine)
    assert engine.workers[1].paused.wait(PROMPT_S)
    change(victim)
    engine.workers[1].resumed.set()
    answer = update.answer()
    # Workers notice another file, or none, when they come to its next tensors, but no contents.
    if answer.status == 502 and change is not _write:
        answer.check_failure(502, "worker_failed", victim.name, "mixture")
    else:
        answer.check_failure(422, "invalid_checkpoint", victim.name, "mixture")
    if at == "bucket":
        for outcome in engine.wait_for_update(1, PROMPT_S):
            assert not outcome.committed
    assert daemon.unregister("step").status == 200
    assert daemon.register("step", samples.first).status == 200
    check_next_update(daemon, engine, samples)


def test_a_file_in_place_that_becomes_shorter_ends_no_worker(
    daemon: Daemon, engine: FakeEngine, samples: Samples, in_memory: Path
) -> None:
    assert daemon.register("step", in_memory).status == 200
    engine.script.workers = {rank: Fault("pause", "bucket", 1) for rank in range(2)}
    update = Background(daemon, engine)
    for worker in engine.workers:
        assert worker.paused.wait(PROMPT_S)
    for victim in in_memory.iterdir():
        # The page that the bucket in the workers' hands may lie in stays.
        _truncate(victim)
    for worker in engine.workers:
        worker.resumed.set()
    update.answer().check_failure(502, "worker_failed", "SegmentError", "not over them")
    for outcome in engine.wait_for_update(1, PROMPT_S):
        assert not outcome.committed
    assert daemon.unregister("step").status == 200
    assert daemon.register("step", samples.first).status == 200
    check_next_update(daemon, engine, samples)
