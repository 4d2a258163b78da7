"""Makes the pages of a mapping present ahead of the transfers, which would meet them one by one."""

from __future__ import annotations

import ctypes
import os
import threading

# Linux 5.14 and later. Pages that exist are mapped in runs, those that do not are made; reading
# suffices: a page of a shared mapping of a tmpfs that may be written to is then mapped so.
_MADV_POPULATE_READ = 22
# What one call does: a mapping can be ended after each.
STEP_BYTES = 32 << 20
THREADS_MAX = 4
_CORES_A_THREAD = 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Prefault:
    """Threads that go through one mapping from its beginning; it must stay until ``stop``.

    They only save time: a page that they did not reach, or that the kernel refuses, is made when it
    is used.
    """

    def __init__(self, address: int, byte_count: int) -> None:
        self._address = address
        self._byte_count = byte_count
        self._lock = threading.Lock()
        self._next = 0
        self._threads: list[threading.Thread] = []
        steps = -(-byte_count // STEP_BYTES)
        for _ in range(min(_thread_count(), steps)):
            thread = threading.Thread(target=self._work, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # The system has no more threads.
                break
            self._threads.append(thread)

    def stop(self) -> None:
        """Returns when nothing touches the mapping any more: after one step at most."""
        self._end()
        self.join()

    def join(self) -> None:
        """Waits until all is done."""
        for thread in self._threads:
            thread.join()

    def _end(self) -> None:
        with self._lock:
            self._next = self._byte_count

    def _work(self) -> None:
        while True:
            with self._lock:
                start = self._next
                self._next = min(start + STEP_BYTES, self._byte_count)
                length = self._next - start
            if length == 0:
                return
            # Without the interpreter's lock, as all of ctypes' calls.
            if _libc.madvise(self._address + start, length, _MADV_POPULATE_READ) != 0:
                self._end()


def _thread_count() -> int:
    cores = len(os.sched_getaffinity(0))
    return max(1, min(THREADS_MAX, cores // _CORES_A_THREAD))
