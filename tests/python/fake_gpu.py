"""A GPU for tests: its memory is the host's, and each opened and closed mapping is counted."""

from __future__ import annotations

import ctypes
import secrets
import weakref
from typing import TYPE_CHECKING

import torch
from checkpoint_engine import device_memory, protocol, worker
from checkpoint_engine.errors import DeviceMemoryError
from checkpoint_engine.hooks import Device
from scripted_server import DTYPE_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

ALIGNMENT = 256
HELLO = protocol.ServerHello(protocol.VERSIONS, "update-1", "test", 60_000, memory="cuda")


def known_frame(text: bytes, rest: bytes = b"0N.") -> bytes:
    """A pickle that begins with ``text`` and drops it."""
    return b"\x80\x04X" + len(text).to_bytes(4, "little") + text + rest


def raw_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


class FakeGpu:
    """The driver of one GPU, with allocations that are ``slot_count`` slots."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.memory: dict[bytes, ctypes.Array[ctypes.c_char]] = {}
        self.open_addresses: list[int] = []
        self.opened = 0
        self.closed = 0
        self.synchronized = 0
        self.fails_to_close = False
        self._patch = patch
        patch.setattr(device_memory, "driver", lambda: self)
        patch.setattr(device_memory, "bytes_at", self.bytes_at)
        patch.setattr(device_memory, "make_context", lambda _: None)
        patch.setattr(torch.cuda, "synchronize", self.synchronize)
        patch.setattr(worker, "_device", lambda _, clones: Device(0, clones))

    def allocate(self, byte_count: int) -> bytes:
        """A new allocation; its handle."""
        handle = secrets.token_bytes(64)
        self.memory[handle] = ctypes.create_string_buffer(byte_count)
        return handle

    def write(self, handle: bytes, offset: int, content: bytes) -> None:
        memory = self.memory[handle]
        memory[offset : offset + len(content)] = content

    # What the driver and torch do.

    def open(self, handle: bytes) -> int:
        if handle not in self.memory:
            raise DeviceMemoryError("cuIpcOpenMemHandle: CUDA_ERROR_INVALID_HANDLE (400)")
        address = ctypes.addressof(self.memory[handle])
        assert address not in self.open_addresses, "this handle is open already"
        self.open_addresses.append(address)
        self.opened += 1
        return address

    def close(self, address: int) -> None:
        self.open_addresses.remove(address)
        if self.fails_to_close:
            raise DeviceMemoryError("cuIpcCloseMemHandle: CUDA_ERROR_UNKNOWN (999)")
        self.closed += 1

    def bytes_at(
        self, address: int, length: int, device: int
    ) -> tuple[torch.Tensor, weakref.ref[object]]:
        assert device == 0

        class Export(ctypes.c_char * length):
            pass

        export = Export.from_address(address)
        return torch.frombuffer(export, dtype=torch.uint8), weakref.ref(export)

    def synchronize(self, device: int) -> None:
        assert device == 0
        self.synchronized += 1


class Slots:
    """Two slots in one allocation: buckets of ``tensors_each`` tensors lie in them in turns."""

    def __init__(
        self, gpu: FakeGpu, tensors: Sequence[tuple[str, torch.Tensor]], tensors_each: int
    ) -> None:
        self._gpu = gpu
        self.buckets: list[protocol.Bucket] = []
        self._contents: list[bytes] = []
        rows = []
        for index, first in enumerate(range(0, len(tensors), tensors_each)):
            content = bytearray()
            part = tensors[first : first + tensors_each]
            for name, tensor in part:
                content.extend(bytes(-len(content) % ALIGNMENT))
                dtype = DTYPE_NAMES[str(tensor.dtype).removeprefix("torch.")]
                shape = tuple(tensor.shape)
                rows.append(protocol.TensorRow(name, dtype, shape, index % 2, len(content)))
                content.extend(raw_bytes(tensor))
            self.buckets.append(protocol.Bucket(index, first, len(part)))
            self._contents.append(bytes(content))
        longest = max(map(len, self._contents))
        self._length = longest + -longest % ALIGNMENT
        self.handle = gpu.allocate(2 * self._length)
        segments = (
            protocol.DeviceSegment(self.handle.hex(), 2 * self._length, 0),
            protocol.DeviceSegment(self.handle.hex(), 2 * self._length, self._length),
        )
        self.catalog = protocol.Catalog(segments, tuple(rows))

    def fill(self, bucket: protocol.Bucket) -> None:
        """Puts the bytes of ``bucket`` into its slot, over whatever lay there."""
        content = self._contents[bucket.index].ljust(self._length, b"\xff")
        self._gpu.write(self.handle, bucket.index % 2 * self._length, content)

    def spoil(self) -> None:
        """Overwrites both slots."""
        self._gpu.write(self.handle, 0, b"\xee" * 2 * self._length)
