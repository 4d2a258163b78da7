"""Members of groups of the simulated NCCL in threads of a test, each with a GPU."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulated_gpu import Communicator, Gpu, Library, NcclError, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S = 20.0


class Member:
    """One rank of a test, in a thread of its own."""

    def __init__(self, library: Library, name: bytes, rank: int, count: int) -> None:
        self.gpu = Gpu(library, rank)
        self.rank = rank
        self.group = Communicator(self.gpu, name, rank, count, WAIT_S)
        self.streams = [self.gpu.stream(), self.gpu.stream()]
        self._memory: list[int] = []

    @property
    def stream(self) -> Stream:
        return self.streams[0]

    def allocate(self, byte_count: int) -> int:
        self._memory.append(self.gpu.allocate(byte_count))
        return self._memory[-1]

    def wait(self, stream: Stream | None = None) -> None:
        (stream or self.stream).wait(time.monotonic() + WAIT_S, self.group.check)

    def end(self) -> None:
        self.group.abort()
        for stream in self.streams:
            stream.wait(time.monotonic() + WAIT_S)
            stream.destroy()
        for address in self._memory:
            self.gpu.free(address)


def run(library: Library, count: int, body: Callable[[Member], Any]) -> list[Any]:
    """What ``body`` returns for each of ``count`` ranks, each on a GPU; errors are results."""
    name = library.unique_id()
    results: list[Any] = [None] * count
    all_done = threading.Barrier(count)

    def rank_main(rank: int) -> None:
        try:
            member = Member(library, name, rank, count)
        except Exception as error:  # noqa: BLE001 - handed to the test
            results[rank] = error
            all_done.abort()
            return
        try:
            results[rank] = body(member)
        except Exception as error:  # noqa: BLE001 - handed to the test
            results[rank] = error
        # Who has ended does not leave while others are in the middle.
        try:
            all_done.wait(WAIT_S)
        except threading.BrokenBarrierError:
            pass
        finally:
            member.end()

    threads = [threading.Thread(target=rank_main, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert group_files(os.getpid()) == []
    return results


def succeed(library: Library, count: int, body: Callable[[Member], Any]) -> list[Any]:
    results = run(library, count, body)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def group_files(pid: int) -> list[Path]:
    return sorted(Path("/dev/shm").glob(f"simulated-nccl-{pid}-*"))


def codes(results: list[Any]) -> list[int]:
    for result in results:
        assert isinstance(result, NcclError), results
    return [result.code for result in results]
