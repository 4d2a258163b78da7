"""The ceiling of reading files: parallel reads that keep nothing, and what the page cache holds."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BUFFER_BYTES = 8 << 20
_libc = ctypes.CDLL(None, use_errno=True)


def files_of(folder: Path) -> list[Path]:
    """The files of a checkpoint."""
    return sorted(folder.glob("*.safetensors"))


def drop_from_cache(folder: Path) -> None:
    """Makes the next read of every file come from the disk."""
    for path in files_of(folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def cached_share(folder: Path) -> float:
    """The share of the files' pages that the page cache holds."""
    resident = pages = 0
    for path in files_of(folder):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as mapped:
            count = -(-len(mapped) // mmap.PAGESIZE)
            vector = (ctypes.c_ubyte * count)()
            first = (ctypes.c_char * len(mapped)).from_buffer(mapped)
            address = ctypes.c_void_p(ctypes.addressof(first))
            failed = _libc.mincore(address, ctypes.c_size_t(len(mapped)), vector)
            del first
            if failed:
                raise OSError(ctypes.get_errno(), f"mincore of {path}")
            resident += sum(value & 1 for value in bytes(vector))
            pages += count
    return resident / pages


def read_seconds(folder: Path, threads: int) -> float:
    """Reads all files with ``threads`` threads, each into one buffer that it uses again."""
    return _parallel(folder, threads, lambda *_: None)


def copy_seconds(folder: Path, threads: int, target: Path) -> float:
    """The same, and every piece is written to a new file ``target``, as ``dd`` would."""
    offsets = {}
    end = 0
    for path in files_of(folder):
        offsets[path] = end
        end += path.stat().st_size
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def keep(path: Path, offset: int, piece: memoryview) -> None:
        os.pwrite(descriptor, piece, offsets[path] + offset)

    try:
        return _parallel(folder, threads, keep)
    finally:
        os.close(descriptor)
        target.unlink()


def _parallel(folder: Path, threads: int, keep: Callable[[Path, int, memoryview], object]) -> float:
    pieces = [
        (path, offset)
        for path in files_of(folder)
        for offset in range(0, path.stat().st_size, BUFFER_BYTES)
    ]
    pieces.reverse()
    descriptors = {path: os.open(path, os.O_RDONLY) for path in files_of(folder)}
    buffers = [bytearray(BUFFER_BYTES) for _ in range(threads)]

    def work(buffer: bytearray) -> None:
        # System calls run without the interpreter's lock; the list's `pop` is atomic under it.
        while pieces:
            try:
                path, offset = pieces.pop()
            except IndexError:
                return
            count = os.preadv(descriptors[path], [buffer], offset)
            keep(path, offset, memoryview(buffer)[:count])

    workers = [threading.Thread(target=work, args=(buffer,)) for buffer in buffers]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - start
    for descriptor in descriptors.values():
        os.close(descriptor)
    return seconds
