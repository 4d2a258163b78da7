"""The driver and NCCL of the simulation through ctypes: a GPU of this thread, its groups.

Nothing blocks for longer than its deadline. Not for use by more than one thread at a time, except
:meth:`Communicator.abort`.
"""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ID_BYTES = 128
IN_PROGRESS = 7
REMOTE_ERROR = 6
INVALID_USAGE = 5
INVALID_ARGUMENT = 4
UINT8 = 1
FLOAT32 = 7
SUM = 0
_NOT_READY = 600
_NON_BLOCKING = 1
_POLL_S = 0.0002


class UniqueId(ctypes.Structure):
    """ncclUniqueId, passed by value."""

    _fields_ = (("internal", ctypes.c_ubyte * ID_BYTES),)


class _Config(ctypes.Structure):
    """The fields of ncclConfig_t as of 2.18."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("magic", ctypes.c_uint),
        ("version", ctypes.c_uint),
        ("blocking", ctypes.c_int),
        ("cga_cluster_size", ctypes.c_int),
        ("min_ctas", ctypes.c_int),
        ("max_ctas", ctypes.c_int),
        ("net_name", ctypes.c_char_p),
        ("split_share", ctypes.c_int),
    )


class NcclError(RuntimeError):
    """A call of NCCL that failed; ``code`` is its ncclResult_t."""

    def __init__(self, call: str, code: int, text: str) -> None:
        super().__init__(f"{call} failed with {code}: {text}")
        self.code = code


class Library:
    """The library of both driver and NCCL, loaded once per process."""

    def __init__(self, path: str) -> None:
        self.raw = ctypes.CDLL(path)
        self.raw.ncclGetLastError.restype = ctypes.c_char_p
        self.cuda("cuInit", 0)

    def cuda(self, name: str, *arguments: object) -> None:
        """Calls the driver; a failure is an error that names call and code."""
        code = getattr(self.raw, name)(*arguments)
        if code != 0:
            raise RuntimeError(f"{name} failed with CUDA error {code}")

    def nccl(self, name: str, *arguments: object) -> int:
        """Calls NCCL; 0 or :data:`IN_PROGRESS`, anything else is a :class:`NcclError`."""
        code = int(getattr(self.raw, name)(*arguments))
        if code not in {0, IN_PROGRESS}:
            raise self.failure(name, code)
        return code

    def failure(
        self, name: str, code: int, communicator: ctypes.c_void_p | None = None
    ) -> NcclError:
        text = self.raw.ncclGetLastError(communicator) or b""
        return NcclError(name, code, text.decode())

    def unique_id(self) -> bytes:
        made = UniqueId()
        self.nccl("ncclGetUniqueId", ctypes.byref(made))
        return bytes(made)


class Gpu:
    """A GPU that the process sees, current for the thread that makes this."""

    def __init__(self, library: Library, ordinal: int) -> None:
        self.library = library
        device = ctypes.c_int()
        library.cuda("cuDeviceGet", ctypes.byref(device), ordinal)
        self._context = ctypes.c_void_p()
        library.cuda("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self.make_current()

    def make_current(self) -> None:
        self.library.cuda("cuCtxSetCurrent", self._context)

    def allocate(self, byte_count: int) -> int:
        """The address of device memory; who allocates it frees it."""
        pointer = ctypes.c_ulonglong()
        self.library.cuda("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(byte_count))
        return pointer.value

    def free(self, address: int) -> None:
        self.library.cuda("cuMemFree_v2", ctypes.c_ulonglong(address))

    def stream(self) -> Stream:
        return Stream(self)

    def write(self, address: int, content: bytes) -> None:
        """Copies to the device and waits."""
        stream = self.stream()
        stream.write(address, content)
        stream.wait(time.monotonic() + 60)
        stream.destroy()

    def read(self, address: int, byte_count: int) -> bytes:
        """Copies from the device and waits."""
        target = ctypes.create_string_buffer(byte_count)
        stream = self.stream()
        self.library.cuda(
            "cuMemcpyDtoHAsync_v2",
            target,
            ctypes.c_ulonglong(address),
            ctypes.c_size_t(byte_count),
            stream.handle,
        )
        stream.wait(time.monotonic() + 60)
        stream.destroy()
        return target.raw


class Stream:
    """A stream; its owner destroys it."""

    def __init__(self, gpu: Gpu) -> None:
        self._library = gpu.library
        self.handle = ctypes.c_void_p()
        self._kept: list[ctypes.Array[ctypes.c_char]] = []
        gpu.library.cuda("cuStreamCreate", ctypes.byref(self.handle), _NON_BLOCKING)

    def write(self, address: int, content: bytes) -> None:
        """Queues a copy to the device; keeps the bytes until :meth:`wait`."""
        source = ctypes.create_string_buffer(content, len(content))
        self._kept.append(source)
        self._library.cuda(
            "cuMemcpyHtoDAsync_v2",
            ctypes.c_ulonglong(address),
            source,
            ctypes.c_size_t(len(content)),
            self.handle,
        )

    @property
    def is_done(self) -> bool:
        code = self._library.raw.cuStreamQuery(self.handle)
        if code not in {0, _NOT_READY}:
            raise RuntimeError(f"cuStreamQuery failed with CUDA error {code}")
        return bool(code == 0)

    def wait(self, end: float, check: Callable[[], object] | None = None) -> None:
        """Waits until ``end`` (monotonic seconds); ``check`` is called meanwhile, and may raise."""
        while not self.is_done:
            if check is not None:
                check()
            if time.monotonic() > end:
                raise TimeoutError("the work of the stream has not ended in time")
            time.sleep(_POLL_S)
        self._kept.clear()

    def destroy(self) -> None:
        self._library.cuda("cuStreamDestroy_v2", self.handle)


class Communicator:
    """A membership in a group, in the way of calls that do not block."""

    def __init__(
        self, gpu: Gpu, unique_id: bytes, rank: int, count: int, timeout: float = 30.0
    ) -> None:
        self._library = gpu.library
        self._timeout = timeout
        self.handle = ctypes.c_void_p()
        self.start(unique_id, rank, count)
        try:
            self.settle("ncclCommInitRankConfig")
        except BaseException:
            self.abort()
            raise

    def start(self, unique_id: bytes, rank: int, count: int) -> None:
        undefined = -(2**31)
        size = ctypes.sizeof(_Config)
        config = _Config(size, 0xCAFEBEEF, 21800, 0, *(undefined,) * 3, None, undefined)
        name = UniqueId.from_buffer_copy(unique_id)
        self._library.nccl(
            "ncclCommInitRankConfig",
            ctypes.byref(self.handle),
            count,
            name,
            rank,
            ctypes.byref(config),
        )

    def state(self) -> int:
        """The ncclResult_t of what is under way."""
        state = ctypes.c_int()
        self._library.nccl("ncclCommGetAsyncError", self.handle, ctypes.byref(state))
        return state.value

    def check(self) -> bool:
        """Whether nothing is in progress; a failure is a :class:`NcclError`."""
        state = self.state()
        if state not in {0, IN_PROGRESS}:
            raise self._library.failure("the group", state, self.handle)
        return state == 0

    def settle(self, what: str) -> None:
        """Waits until the last call has ended, for ``timeout`` seconds at most."""
        end = time.monotonic() + self._timeout
        while not self.check():
            if time.monotonic() > end:
                raise TimeoutError(f"{what} has not ended within {self._timeout} s")
            time.sleep(_POLL_S)

    def broadcast(
        self, source: int, target: int, count: int, root: int, stream: Stream, dtype: int = UINT8
    ) -> None:
        """Queues a broadcast of ``count`` elements."""
        self._collective("ncclBroadcast", source, target, count, dtype, root, stream)
        self.settle("ncclBroadcast")

    def all_reduce(
        self, source: int, target: int, count: int, stream: Stream, dtype: int = FLOAT32
    ) -> None:
        """Queues a sum of ``count`` elements over all ranks."""
        self._collective("ncclAllReduce", source, target, count, dtype, SUM, stream)
        self.settle("ncclAllReduce")

    def queue_broadcast(
        self, source: int, target: int, count: int, root: int, stream: Stream
    ) -> int:
        """As :meth:`broadcast`, but does not ask for the state; the call's own result."""
        return self._collective("ncclBroadcast", source, target, count, UINT8, root, stream)

    def _collective(
        self,
        name: str,
        source: int,
        target: int,
        count: int,
        dtype: int,
        more: int,
        stream: Stream,
    ) -> int:
        return self._library.nccl(
            name,
            ctypes.c_ulonglong(source),
            ctypes.c_ulonglong(target),
            ctypes.c_size_t(count),
            dtype,
            more,
            self.handle,
            stream.handle,
        )

    def abort(self) -> None:
        """Leaves the group, from any thread; what waits for others ends. Once only."""
        if self.handle:
            handle, self.handle = self.handle, ctypes.c_void_p()
            self._library.nccl("ncclCommAbort", handle)

    def destroy(self) -> None:
        """Leaves in peace, when the queued work has ended."""
        if self.handle:
            handle, self.handle = self.handle, ctypes.c_void_p()
            self._library.nccl("ncclCommDestroy", handle)
