"""Files of shared memory, mapped whole; the transfer engine is told of those that it must know."""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import mmap
import os
import stat
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .transfer_errors import TransferError
from .transfer_pages import Prefault, prefer_huge_pages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .transfer_requests import MapRequest, Range

# O_NONBLOCK: a pipe in the place of the file must not block, it is refused after the open.
_OPEN_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

# `mmap.mmap` does not tell the address of a mapping that cannot be written to.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MAP_FAILED = ctypes.c_void_p(-1).value


class Registrar(Protocol):
    """What makes memory readable for peers."""

    # Whether memory must be writable for it, also where it is only read.
    needs_writable: bool
    # Whether it must know of memory that is read into, which peers can then reach too.
    registers_targets: bool

    def register(self, address: int, byte_count: int) -> None:
        """Raises ``TransferError``."""

    def unregister(self, address: int) -> None:
        """Raises ``TransferError``."""


@dataclass
class _Mapping:
    address: int
    path: str
    byte_count: int
    writable: bool
    registered: bool
    prefaulted: bool
    reads: int = 0


class MappedFiles:
    """All mappings of this process, which end with it at the latest. Safe for threads."""

    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar
        self._prefault = Prefault()
        self._lock = threading.Lock()
        self._addresses: list[int] = []
        self._mappings: dict[int, _Mapping] = {}

    def map(self, request: MapRequest) -> int:
        """Maps a file; its address. Raises ``TransferError``.

        Peers can reach it if it is not writable: it stays so for them too, unless the registrar
        needs it otherwise. One that is writable they cannot reach, unless the registrar has to
        know of it.
        """
        write = request.writable or self._registrar.needs_writable
        descriptor = _open(request, write=write)
        try:
            address = _map(descriptor, request, write=write)
        finally:
            os.close(descriptor)
        registered = not request.writable or self._registrar.registers_targets
        if registered:
            try:
                self._registrar.register(address, request.byte_count)
            except BaseException:
                _unmap(address, request.byte_count)
                raise
        # A network card has pinned all pages by now.
        prefaulted = not self._registrar.needs_writable
        with self._lock:
            bisect.insort(self._addresses, address)
            self._mappings[address] = _Mapping(
                address, request.path, request.byte_count, request.writable, registered, prefaulted
            )
            if prefaulted:
                self._prefault.add(address, request.byte_count)
        return address

    def unmap(self, address: int) -> None:
        """Ends the mapping at ``address``. Raises ``TransferError``, also while it is read into."""
        with self._lock:
            mapping = self._mappings.get(address)
            if mapping is None:
                raise TransferError(f"nothing is mapped at {address}")
            if mapping.reads > 0:
                raise TransferError(f"{mapping.path} is being read into; await the answer first")
            # Gone before it is unregistered and unmapped, so that no read begins in it any more.
            del self._mappings[address]
            self._addresses.remove(address)
        if mapping.prefaulted:
            self._prefault.remove(address)
        if mapping.registered:
            self._registrar.unregister(address)
        _unmap(address, mapping.byte_count)

    @contextlib.contextmanager
    def reading(self, ranges: Sequence[Range]) -> Iterator[None]:
        """Keeps the mappings that ``ranges`` are read into. Raises ``TransferError``."""
        with self._lock:
            targets = {id(target): target for target in map(self._target, ranges)}
            for target in targets.values():
                target.reads += 1
        try:
            yield
        finally:
            with self._lock:
                for target in targets.values():
                    target.reads -= 1

    def _target(self, one: Range) -> _Mapping:
        index = bisect.bisect_right(self._addresses, one.local) - 1
        mapping = self._mappings[self._addresses[index]] if index >= 0 else None
        if mapping is None or one.local + one.byte_count > mapping.address + mapping.byte_count:
            raise TransferError(
                f"the {one.byte_count} bytes at {one.local} are not in one mapping of this agent; "
                "map the file first"
            )
        if not mapping.writable:
            raise TransferError(f"{mapping.path} is mapped for reading; map it writable")
        return mapping


def _open(request: MapRequest, *, write: bool) -> int:
    flags = _OPEN_FLAGS | (os.O_RDWR if write else os.O_RDONLY)
    try:
        descriptor = os.open(request.path, flags)
    except OSError as error:
        raise TransferError(
            f"{request.path} cannot be opened: {error.strerror}; daemon and agent must run on one "
            "host, as one user, and share /dev/shm"
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise TransferError(f"{request.path} is not a regular file")
        if (status.st_ino, status.st_size) != (request.inode, request.byte_count):
            raise TransferError(
                f"{request.path} is another file than the daemon's: expected inode "
                f"{request.inode} of {request.byte_count} bytes, got inode {status.st_ino} of "
                f"{status.st_size}; daemon and agent must share /dev/shm"
            )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _map(descriptor: int, request: MapRequest, *, write: bool) -> int:
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if write else 0)
    address = _libc.mmap(None, request.byte_count, protection, mmap.MAP_SHARED, descriptor, 0)
    if address is None or address == _MAP_FAILED:
        reason = os.strerror(ctypes.get_errno())
        raise TransferError(f"{request.path} cannot be mapped: {reason}")
    prefer_huge_pages(address, request.byte_count)
    return int(address)


def _unmap(address: int, byte_count: int) -> None:
    if _libc.munmap(address, byte_count) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise TransferError(f"the mapping at {address} cannot be ended: {reason}")
