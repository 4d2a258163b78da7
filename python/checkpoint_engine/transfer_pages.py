"""Makes the pages of mappings present ahead of the transfers, which would meet them one by one."""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections import deque
from dataclasses import dataclass

# Linux 5.14 and later. Pages that exist are mapped in runs, those that do not are made; reading
# suffices: a page of a shared mapping of a tmpfs that may be written to is then mapped so.
_MADV_POPULATE_READ = 22
# What one call does. The kernel makes no other mapping meanwhile, and none can be ended.
STEP_BYTES = 4 << 20
# More do not make pages faster, fewer let the transfers overtake them, which meet every page then.
THREADS = 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def prefer_huge_pages(address: int, byte_count: int) -> None:
    """Asks for large pages, where the system allows them in shared memory; a refusal is fine."""
    _libc.madvise(address, byte_count, mmap.MADV_HUGEPAGE)


@dataclass(eq=False)
class _Job:
    """A mapping, how far it is, and how many threads are busy with it."""

    address: int
    byte_count: int
    done: int = 0
    busy: int = 0


class Prefault:
    """Threads that go through mappings from their beginnings, the first ones first; there are none
    while nothing is left to do.

    They only save time: a page that they did not reach, or that the kernel refuses, is made when it
    is used.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._known: dict[int, _Job] = {}
        self._threads = 0

    def add(self, address: int, byte_count: int) -> None:
        """Begins with a mapping, or puts it in line; it must stay until ``remove``."""
        job = _Job(address, byte_count)
        with self._changed:
            self._known[address] = job
            self._waiting.append(job)
            steps = sum(-(-(one.byte_count - one.done) // STEP_BYTES) for one in self._waiting)
            while self._threads < min(THREADS, steps) and self._begin():
                pass

    def remove(self, address: int) -> None:
        """Returns when nothing touches the mapping any more: after one step at most."""
        with self._changed:
            job = self._known.pop(address)
            if job in self._waiting:
                self._waiting.remove(job)
            self._changed.wait_for(lambda: job.busy == 0)

    def join(self) -> None:
        """Waits until all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._threads == 0)

    def _begin(self) -> bool:
        try:
            threading.Thread(target=self._work, daemon=True).start()
        except RuntimeError:
            # The system has no more threads.
            return False
        self._threads += 1
        return True

    def _work(self) -> None:
        with self._changed:
            while self._waiting:
                # Threads are in one another's way in one file.
                self._step(min(self._waiting, key=lambda job: job.busy))
            self._threads -= 1
            self._changed.notify_all()

    def _step(self, job: _Job) -> None:
        """The next part of a mapping, without the lock."""
        start = job.address + job.done
        length = min(STEP_BYTES, job.byte_count - job.done)
        job.done += length
        if job.done == job.byte_count:
            self._waiting.remove(job)
        job.busy += 1
        self._changed.release()
        try:
            # Without the interpreter's lock, as all of ctypes' calls.
            is_refused = _libc.madvise(start, length, _MADV_POPULATE_READ) != 0
        finally:
            self._changed.acquire()
            job.busy -= 1
            self._changed.notify_all()
        if is_refused and job in self._waiting:
            self._waiting.remove(job)
