"""The simulated CUDA driver through ctypes."""

from __future__ import annotations

import ctypes
import os
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p


class Uuid(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_ubyte * 16),)


class IpcHandle(ctypes.Structure):
    _fields_ = (("reserved", ctypes.c_ubyte * 64),)


SIDE = (
    ("x", c_size_t),
    ("y", c_size_t),
    ("type", ctypes.c_uint),
    ("host", c_void_p),
    ("device", c_uint64),
    ("array", c_void_p),
    ("pitch", c_size_t),
)


class Copy2D(ctypes.Structure):
    _fields_ = (
        *((f"source_{name}", kind) for name, kind in SIDE),
        *((f"target_{name}", kind) for name, kind in SIDE),
        ("width", c_size_t),
        ("height", c_size_t),
    )


class Driver:
    """The library with the current context of device 0; integers are passed with 64 bits."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(os.environ["SIMULATED_CUDA_LIBRARY"])
        self.ok("cuInit", 0)
        self.contexts = [self.retain(device) for device in range(self.device_count())]
        self.ok("cuCtxSetCurrent", self.contexts[0])

    def call(self, name: str, *arguments: object) -> int:
        wide = (c_uint64(value) if isinstance(value, int) else value for value in arguments)
        return int(self.library[name](*wide))

    def ok(self, name: str, *arguments: object) -> None:
        assert self.call(name, *arguments) == 0, name

    def device_count(self) -> int:
        count = c_int()
        self.ok("cuDeviceGetCount", byref(count))
        return count.value

    def retain(self, device: int) -> int:
        return self.made("cuDevicePrimaryCtxRetain", device)

    def made(self, name: str, *arguments: object) -> int:
        """What a function writes through its first argument."""
        out = c_uint64()
        self.ok(name, byref(out), *arguments)
        return out.value

    def allocate(self, byte_count: int) -> int:
        return self.made("cuMemAlloc_v2", byte_count)

    def free_memory(self) -> int:
        free, total = c_size_t(), c_size_t()
        self.ok("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value

    def read(self, pointer: int, byte_count: int) -> bytes:
        host = ctypes.create_string_buffer(byte_count)
        self.ok("cuMemcpyDtoHAsync_v2", host, pointer, byte_count, None)
        return host.raw

    def write(self, pointer: int, content: bytes) -> None:
        self.ok("cuMemcpyHtoDAsync_v2", pointer, content, len(content), None)
