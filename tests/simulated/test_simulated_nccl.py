"""The simulated NCCL: every byte, the order of streams, groups of calls."""

from __future__ import annotations

import ctypes
import os
import random
import struct

import pytest
from daemon import wait_until
from nccl_members import Member, group_files, succeed
from simulated_gpu import (
    FLOAT32,
    IN_PROGRESS,
    INVALID_ARGUMENT,
    UINT8,
    Gpu,
    Library,
    NcclError,
    UniqueId,
)

BFLOAT16 = 9
SLOTS_BYTES = 1 << 20


@pytest.mark.parametrize("byte_count", [1, 1000, SLOTS_BYTES, 3 * SLOTS_BYTES + 7])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_broadcast_from_every_root(library: Library, count: int, byte_count: int) -> None:
    contents = [os.urandom(byte_count) for _ in range(count)]

    def body(member: Member) -> None:
        source, target = member.allocate(byte_count), member.allocate(byte_count)
        for root, content in enumerate(contents):
            own = content if member.rank == root else bytes(byte_count)
            member.gpu.write(source, own)
            member.gpu.write(target, bytes(byte_count))
            member.group.broadcast(source, target, byte_count, root, member.stream)
            member.wait()
            assert member.gpu.read(target, byte_count) == content
            assert member.gpu.read(source, byte_count) == own
            # In place, with elements of two bytes.
            even = byte_count // 2
            member.group.broadcast(source, source, even, root, member.stream, BFLOAT16)
            member.wait()
            assert member.gpu.read(source, byte_count)[: 2 * even] == content[: 2 * even]

    succeed(library, count, body)


@pytest.mark.parametrize("element_count", [1, 5000, 300_000])
def test_sums(library: Library, element_count: int) -> None:
    generator = random.Random()
    floats = [[generator.randrange(-999, 999) / 8 for _ in range(element_count)] for _ in range(3)]
    packed = [struct.pack(f"{element_count}f", *row) for row in floats]
    of_floats = struct.pack(f"{element_count}f", *map(sum, zip(*floats, strict=True)))
    of_bytes = bytes(sum(column) % 256 for column in zip(*packed, strict=True))

    def body(member: Member) -> None:
        source, target = (member.allocate(4 * element_count) for _ in range(2))
        member.gpu.write(source, packed[member.rank])
        member.group.all_reduce(source, target, element_count, member.stream, FLOAT32)
        member.wait()
        assert member.gpu.read(target, 4 * element_count) == of_floats
        member.group.all_reduce(source, source, 4 * element_count, member.stream, UINT8)
        member.wait()
        assert member.gpu.read(source, 4 * element_count) == of_bytes

    succeed(library, 3, body)


def test_calls_are_in_the_order_of_their_streams(library: Library) -> None:
    """Copy, broadcast, copy, broadcast: queued at once, and on two streams by turns."""
    byte_count = SLOTS_BYTES // 2
    contents = [os.urandom(byte_count) for _ in range(12)]

    def body(member: Member) -> list[bytes]:
        is_root = member.rank == 0
        # As many buffers as calls for who receives, one for each stream for who sends.
        buffers = [member.allocate(byte_count) for _ in range(2 if is_root else 12)]
        for number, content in enumerate(contents):
            stream = member.streams[number % 2]
            buffer = buffers[number % len(buffers)]
            if is_root:
                stream.write(buffer, content)
            member.group.broadcast(buffer, buffer, byte_count, 0, stream)
        for stream in member.streams:
            member.wait(stream)
        return [] if is_root else [member.gpu.read(buffer, byte_count) for buffer in buffers]

    for found in succeed(library, 3, body)[1:]:
        assert found == contents


def test_random_calls(library: Library) -> None:
    seed = random.randrange(1 << 30)
    generator = random.Random(seed)
    count = 3
    steps = []
    for _ in range(60):
        size = generator.choice((1, 100, 300_000, SLOTS_BYTES + 1))
        steps.append((generator.randrange(-1, count), size, generator.randbytes(size)))

    def body(member: Member) -> None:
        buffer = member.allocate(SLOTS_BYTES + 1)
        for root, size, content in steps:
            member.gpu.write(buffer, content)
            if root < 0:
                member.group.all_reduce(buffer, buffer, size, member.stream, UINT8)
                expected = bytes(3 * byte % 256 for byte in content)
            else:
                if member.rank != root:
                    member.gpu.write(buffer, bytes(size))
                member.group.broadcast(buffer, buffer, size, root, member.stream)
                expected = content
            member.wait()
            assert member.gpu.read(buffer, size) == expected, seed

    succeed(library, count, body)


def test_work_is_in_the_stream_when_nothing_is_in_progress(library: Library) -> None:
    def body(member: Member) -> None:
        buffer = member.allocate(64)
        queued = member.group.queue_broadcast(buffer, buffer, 64, 0, member.stream)
        assert queued == IN_PROGRESS
        assert member.stream.is_done
        with pytest.raises(NcclError) as refused:
            member.group.queue_broadcast(buffer, buffer, 64, 0, member.stream)
        assert refused.value.code == INVALID_ARGUMENT
        assert not member.group.check()
        assert member.group.check()
        member.wait()

    succeed(library, 2, body)


def test_a_group_of_calls_is_all_or_nothing(library: Library) -> None:
    contents = [os.urandom(5000) for _ in range(2)]

    def body(member: Member) -> None:
        buffers = [member.allocate(5000) for _ in range(2)]
        member.gpu.write(buffers[member.rank], contents[member.rank])
        library.nccl("ncclGroupStart")
        member.group.queue_broadcast(buffers[0], buffers[0], 5000, 0, member.stream)
        with pytest.raises(NcclError):
            member.group.queue_broadcast(buffers[1], buffers[1], 5000, 7, member.stream)
        with pytest.raises(NcclError):
            library.nccl("ncclGroupEnd")
        library.nccl("ncclGroupStart")
        for root, buffer in enumerate(buffers):
            member.group.queue_broadcast(buffer, buffer, 5000, root, member.stream)
        assert library.nccl("ncclGroupEnd") == IN_PROGRESS
        member.group.settle("the group")
        member.wait()
        for buffer, content in zip(buffers, contents, strict=True):
            assert member.gpu.read(buffer, 5000) == content

    succeed(library, 2, body)


def test_calls_that_block_and_joins_of_one_thread(library: Library) -> None:
    """As a program with several GPUs and one thread does it."""
    name = UniqueId.from_buffer_copy(library.unique_id())
    gpus = [Gpu(library, rank) for rank in range(3)]
    handles = [ctypes.c_void_p() for _ in gpus]
    library.nccl("ncclGroupStart")
    for rank, (gpu, handle) in enumerate(zip(gpus, handles, strict=True)):
        gpu.make_current()
        assert library.nccl("ncclCommInitRank", ctypes.byref(handle), 3, name, rank) == 0
    assert library.nccl("ncclGroupEnd") == 0
    contents = os.urandom(777)
    buffers, streams = [], []
    library.nccl("ncclGroupStart")
    for rank, (gpu, handle) in enumerate(zip(gpus, handles, strict=True)):
        gpu.make_current()
        found = [ctypes.c_int() for _ in range(3)]
        for call, number in zip(("Count", "UserRank", "CuDevice"), found, strict=True):
            library.nccl(f"ncclComm{call}", handle, ctypes.byref(number))
        assert [number.value for number in found] == [3, rank, rank]
        buffers.append(ctypes.c_ulonglong(gpu.allocate(777)))
        streams.append(gpu.stream())
        if rank == 1:
            gpu.write(buffers[-1].value, contents)
        count = ctypes.c_size_t(777)
        arguments = (buffers[-1], buffers[-1], count, UINT8, 1, handle, streams[-1].handle)
        assert library.nccl("ncclBroadcast", *arguments) == 0
    assert library.nccl("ncclGroupEnd") == 0
    for gpu, handle, buffer, stream in zip(gpus, handles, buffers, streams, strict=True):
        gpu.make_current()
        assert library.nccl("ncclCommFinalize", handle) == 0
        # The stream knows a moment later that its work has been done.
        wait_until(lambda: stream.is_done, "the stream is done")  # noqa: B023
        assert gpu.read(buffer.value, 777) == contents
        assert library.nccl("ncclCommDestroy", handle) == 0
        stream.destroy()
        gpu.free(buffer.value)
    assert group_files(os.getpid()) == []


def test_every_function_is_found_by_its_name(library: Library) -> None:
    """Faults are injected by the same names."""
    find = library.raw.simulated_cuda_symbol
    find.restype = ctypes.c_void_p
    for name in ("ncclGetVersion", "ncclBroadcast", "ncclAllReduce", "ncclCommAbort", "cuInit"):
        assert find(name.encode()) == ctypes.cast(library.raw[name], ctypes.c_void_p).value
    assert find(b"ncclNothing") is None
    version = ctypes.c_int()
    library.nccl("ncclGetVersion", ctypes.byref(version))
    assert version.value >= 21800
