"""The simulated NCCL where members differ, leave, die or are wrong: told, and ended by an abort."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from daemon import wait_until
from nccl_members import WAIT_S, Member, codes, group_files, run, succeed
from simulated_gpu import (
    FLOAT32,
    INVALID_ARGUMENT,
    INVALID_USAGE,
    REMOTE_ERROR,
    UINT8,
    Communicator,
    Gpu,
    Library,
    NcclError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

BFLOAT16 = 9


def _differ_in_count(member: Member, buffer: int) -> None:
    member.group.broadcast(buffer, buffer, 100 + member.rank, 0, member.stream)


def _differ_in_type(member: Member, buffer: int) -> None:
    dtype = FLOAT32 if member.rank else UINT8
    member.group.broadcast(buffer, buffer, 100, 0, member.stream, dtype)


def _differ_in_root(member: Member, buffer: int) -> None:
    member.group.broadcast(buffer, buffer, 100, member.rank % 2, member.stream)


def _differ_in_kind(member: Member, buffer: int) -> None:
    if member.rank == 0:
        member.group.broadcast(buffer, buffer, 100, 0, member.stream)
    else:
        member.group.all_reduce(buffer, buffer, 100, member.stream, UINT8)


@pytest.mark.parametrize(
    "call", [_differ_in_count, _differ_in_type, _differ_in_root, _differ_in_kind]
)
def test_members_that_differ_are_told(
    library: Library, call: Callable[[Member, int], None]
) -> None:
    """Nothing moves, and nothing ends before the abort."""

    def body(member: Member) -> None:
        buffer = member.allocate(1000)
        before = os.urandom(1000)
        member.gpu.write(buffer, before)
        try:
            call(member, buffer)
            member.wait()
        except NcclError:
            assert not member.stream.is_done
            member.group.abort()
            member.stream.wait(time.monotonic() + WAIT_S)
            assert member.gpu.read(buffer, 1000) == before
            raise

    results = run(library, 3, body)
    assert codes(results) == [INVALID_USAGE] * 3
    assert all("differs" in str(result) for result in results)


def test_an_abort_ends_what_waits(library: Library) -> None:
    """Rank 1 never calls: rank 0 is freed by its own thread, and rank 1 learns that it has gone."""
    gone = threading.Event()

    def body(member: Member) -> int:
        if member.rank == 1:
            assert gone.wait(WAIT_S)
            wait_until(lambda: member.group.state() != 0, "rank 1 learns of it")
            return member.group.state()
        buffer = member.allocate(1000)
        member.group.broadcast(buffer, buffer, 1000, 1, member.stream)
        assert not member.stream.is_done
        other = threading.Thread(target=member.group.abort)
        other.start()
        member.stream.wait(time.monotonic() + WAIT_S)
        other.join()
        gone.set()
        return 0

    assert succeed(library, 2, body) == [0, REMOTE_ERROR]


def test_who_leaves_in_peace_is_no_failure(library: Library) -> None:
    has_left = threading.Event()

    def body(member: Member) -> int:
        buffer = member.allocate(1000)
        member.group.broadcast(buffer, buffer, 1000, 1, member.stream)
        if member.rank == 1:
            member.group.destroy()
            # Its own part has been done by then; the stream knows it a moment later.
            wait_until(lambda: member.stream.is_done, "the stream is done")
            has_left.set()
            return 0
        member.wait()
        assert has_left.wait(WAIT_S)
        assert member.group.state() == 0
        # It is missed only now.
        member.group.queue_broadcast(buffer, buffer, 1000, 0, member.stream)
        wait_until(lambda: member.group.state() == REMOTE_ERROR, "the missing rank is told")
        return 1

    assert succeed(library, 2, body) == [1, 0]


@pytest.mark.parametrize(
    ("ranks", "count", "gpus"),
    [((0, 1), (2, 2), (0, 0)), ((0, 0), (2, 2), (0, 1)), ((0, 1), (2, 3), (0, 1))],
    ids=["one GPU twice", "one rank twice", "two counts"],
)
def test_members_that_do_not_fit(
    library: Library, ranks: tuple[int, int], count: tuple[int, int], gpus: tuple[int, int]
) -> None:
    name = library.unique_id()
    results: list[Any] = [None, None]

    def join(place: int) -> None:
        gpu = Gpu(library, gpus[place])
        try:
            results[place] = Communicator(gpu, name, ranks[place], count[place], WAIT_S)
        except NcclError as error:
            results[place] = error

    threads = [threading.Thread(target=join, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes(results) == [INVALID_USAGE] * 2
    assert group_files(os.getpid()) == []


def test_a_join_ends_at_its_deadline(library: Library) -> None:
    gpu = Gpu(library, 0)
    with pytest.raises(TimeoutError):
        Communicator(gpu, library.unique_id(), 0, 2, timeout=0.2)
    assert group_files(os.getpid()) == []


def test_wrong_arguments(library: Library) -> None:
    host = ctypes.create_string_buffer(64)

    def body(member: Member) -> list[int]:
        buffer = member.allocate(64)
        here, address = member.group, ctypes.addressof(host)
        with_other_gpu = Gpu(library, 1 - member.rank).stream()
        member.gpu.make_current()
        found = []
        for arguments in (
            (buffer, buffer, 64, 2, member.stream),
            (buffer, buffer, 65, 0, member.stream),
            (address, address, 64, 0, member.stream),
            (buffer, buffer, 64, 0, member.stream, 12),
            (buffer, buffer, 64, 0, with_other_gpu),
        ):
            with pytest.raises(NcclError) as refused:
                here.broadcast(*arguments)
            found.append(refused.value.code)
        for dtype in (BFLOAT16, 6):
            with pytest.raises(NcclError) as refused:
                here.all_reduce(buffer, buffer, 8, member.stream, dtype)
            found.append(refused.value.code)
        with_other_gpu.destroy()
        # None of them has harmed the group.
        here.broadcast(buffer, buffer, 64, 0, member.stream)
        member.wait()
        return found

    expected = [INVALID_ARGUMENT] * 4 + [INVALID_USAGE] + [INVALID_ARGUMENT] * 2
    assert succeed(library, 2, body) == [expected] * 2
    for call in ("ncclCommAbort", "ncclCommDestroy", "ncclCommFinalize"):
        with pytest.raises(NcclError) as refused:
            library.nccl(call, ctypes.c_void_p(4096))
        assert refused.value.code == INVALID_ARGUMENT
    with pytest.raises(NcclError, match="ncclGetUniqueId"):
        Communicator(Gpu(library, 0), bytes(range(128)), 0, 1)


def _process_main(path: str, name: bytes, rank: int, count: int, connection: Any) -> None:
    """Joins, receives once, and then stays without calling."""
    gpu = Gpu(Library(path), rank)
    group = Communicator(gpu, name, rank, count, WAIT_S)
    stream = gpu.stream()
    buffer = gpu.allocate(1000)
    group.broadcast(buffer, buffer, 1000, 0, stream)
    stream.wait(time.monotonic() + WAIT_S, group.check)
    connection.send(gpu.read(buffer, 1000))
    connection.recv()


def test_a_process_that_dies(cuda_library: str, library: Library) -> None:
    """The other member is told, and what waits goes on waiting until it aborts."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    name = library.unique_id()
    process = context.Process(target=_process_main, args=(cuda_library, name, 1, 2, there))
    process.start()
    gpu = Gpu(library, 0)
    group = Communicator(gpu, name, 0, 2, WAIT_S)
    stream = gpu.stream()
    buffer = gpu.allocate(1000)
    content = os.urandom(1000)
    gpu.write(buffer, content)
    group.broadcast(buffer, buffer, 1000, 0, stream)
    stream.wait(time.monotonic() + WAIT_S, group.check)
    assert here.poll(WAIT_S)
    assert here.recv() == content
    group.broadcast(buffer, buffer, 1000, 1, stream)
    assert group.state() == 0
    process.kill()
    process.join()
    wait_until(lambda: group.state() == REMOTE_ERROR, "the death is told")
    assert not stream.is_done
    group.abort()
    stream.wait(time.monotonic() + WAIT_S)
    stream.destroy()
    gpu.free(buffer)
    assert group_files(os.getpid()) == []


def _join_and_stay(path: str, connection: Any) -> None:
    """Names a group of two, waits alone in it until it is killed."""
    library = Library(path)
    gpu = Gpu(library, 0)
    name = library.unique_id()
    connection.send(os.getpid())
    Communicator(gpu, name, 0, 2, WAIT_S)


def test_what_a_killed_process_leaves_is_swept(cuda_library: str, library: Library) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_join_and_stay, args=(cuda_library, there))
    process.start()
    assert here.poll(WAIT_S)
    pid = here.recv()
    (left,) = wait_until(lambda: group_files(pid), "the file of the group")
    assert left.stat().st_mode & 0o777 == 0o600
    # Who lives keeps it.
    library.unique_id()
    assert group_files(pid) == [left]
    process.kill()
    process.join()
    library.unique_id()
    assert group_files(pid) == []
