"""The three calls of CUDA's driver that open another process's memory, through ctypes.

torch has no public function for a bare handle. The driver's library is the one that torch itself
has loaded, and the memory is opened in torch's context.
"""

from __future__ import annotations

import ctypes
import functools
import os

from .errors import DeviceMemoryError

HANDLE_BYTES = 64
_LIBRARY_VARIABLE = "CHECKPOINT_ENGINE_CUDA_LIBRARY"
_LIBRARY_DEFAULT = "libcuda.so.1"
# cuIpcOpenMemHandle: CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS.
_LAZY_PEER_ACCESS = 1


class _Handle(ctypes.Structure):
    _fields_ = [("reserved", ctypes.c_char * HANDLE_BYTES)]


class CudaDriver:
    """Opens and closes memory of other processes in the current context of the calling thread."""

    def __init__(self, library: str) -> None:
        """Loads ``library``. Raises ``DeviceMemoryError``."""
        try:
            self._library = ctypes.CDLL(library)
            self._open = self._library.cuIpcOpenMemHandle_v2
            self._close = self._library.cuIpcCloseMemHandle
            self._error_name = self._library.cuGetErrorName
        except (OSError, AttributeError) as error:
            raise DeviceMemoryError(f"CUDA's driver cannot be used: {error}") from error
        self._open.argtypes = [ctypes.POINTER(ctypes.c_uint64), _Handle, ctypes.c_uint]
        self._close.argtypes = [ctypes.c_uint64]
        self._error_name.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]

    def open(self, handle: bytes) -> int:
        """The address of the memory that ``handle`` names. Raises ``DeviceMemoryError``."""
        value = _Handle.from_buffer_copy(handle)
        address = ctypes.c_uint64()
        code = self._open(ctypes.byref(address), value, _LAZY_PEER_ACCESS)
        if code != 0:
            raise DeviceMemoryError(
                "the server's GPU memory cannot be opened: cuIpcOpenMemHandle: "
                f"{self._name(code)}; engine and server must run on one host, use the same GPU for "
                "this worker, and share the IPC namespace (containers: --ipc=host)"
            )
        return address.value

    def close(self, address: int) -> None:
        """Ends the use of the memory at ``address``. Raises ``DeviceMemoryError``."""
        code = self._close(address)
        if code != 0:
            raise DeviceMemoryError(
                f"the server's GPU memory cannot be closed: cuIpcCloseMemHandle: {self._name(code)}"
            )

    def _name(self, code: int) -> str:
        name = ctypes.c_char_p()
        self._error_name(code, ctypes.byref(name))
        return f"{(name.value or b'unknown error').decode()} ({code})"


@functools.cache
def driver() -> CudaDriver:
    """The driver of this process. Raises ``DeviceMemoryError``."""
    return CudaDriver(os.environ.get(_LIBRARY_VARIABLE, _LIBRARY_DEFAULT))
