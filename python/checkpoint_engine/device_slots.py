"""The server's slots in a GPU's memory as torch tensors, without a copy."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

from .cuda_driver import driver
from .errors import DeviceMemoryError
from .tensor_views import BucketViews, check_types

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from .catalog import DeviceSegment, TensorRow


# Slots and allocations are multiples of it, so that a bucket rounded up to it is inside.
_ALIGNMENT = 256


class _Export:
    """Memory of the driver as torch takes it over: it lives as long as a tensor on it."""

    def __init__(self, address: int, length: int) -> None:
        # Version 3 of the CUDA array interface.
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": (length,),
            "typestr": "|u1",
            "data": (address, False),
            "strides": None,
        }


def bytes_at(address: int, length: int, device: int) -> tuple[torch.Tensor, weakref.ref[object]]:
    """``length`` bytes at ``address`` as a tensor of bytes, and a reference that dies with it."""
    import torch

    export = _Export(address, length)
    tensor = torch.as_tensor(export, device=f"cuda:{device}")
    return tensor, weakref.ref(export)


class _Mapping:
    """One allocation of the server, open in this process."""

    def __init__(self, segment: DeviceSegment, device: int) -> None:
        self.name = f"the server's memory on cuda:{device}"
        self._address: int | None = driver().open(bytes.fromhex(segment.handle))
        try:
            base, self._export = bytes_at(self._address, segment.bytes, device)
        except BaseException:
            driver().close(self._address)
            raise
        self.base: torch.Tensor | None = base

    def close(self) -> bool:
        """Closes it; ``False`` when a tensor still uses it, whose end it then awaits."""
        self.base = None
        if self._address is None:
            return True
        if self._export() is not None:
            return False
        address, self._address = self._address, None
        driver().close(address)
        return True


class DeviceSlots:
    """Makes the tensors of a catalog from the slots of one GPU."""

    def __init__(
        self, segments: Sequence[DeviceSegment], device: int, *, clones: bool = False
    ) -> None:
        """Opens every allocation once, or none. Raises ``DeviceMemoryError``.

        With ``clones`` the tensors are views of a copy of their bucket, made in one piece.
        """
        self._device = device
        self._clones = clones
        self._segments = tuple(segments)
        self._mappings: dict[str, _Mapping] = {}
        make_context(device)
        try:
            for segment in segments:
                if segment.handle not in self._mappings:
                    self._mappings[segment.handle] = _Mapping(segment, device)
        except BaseException:
            self.close()
            raise

    def check(self, tensors: Sequence[TensorRow]) -> None:
        """Raises ``DTypeError`` when torch lacks the type of one of ``tensors``."""
        check_types(tensors)

    def tensors(self, rows: Sequence[TensorRow]) -> list[torch.Tensor]:
        """The tensors of one bucket: views of its slot, or of a copy of it."""
        segment = self._segments[rows[0].segment]
        slot = self._slot(segment)
        if self._clones:
            end = max(row.offset + row.byte_count for row in rows)
            slot = slot[: (end + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT].clone()
        return BucketViews(slot).tensors(rows)

    def synchronize(self) -> None:
        """Waits until nothing on the GPU reads the slots any more."""
        import torch

        torch.cuda.synchronize(self._device)

    def close(self) -> list[str]:
        """Ends all mappings; the names of those that a tensor still uses."""
        held = [mapping.name for mapping in self._mappings.values() if not mapping.close()]
        if held:
            gc.collect()
            held = [mapping.name for mapping in self._mappings.values() if not mapping.close()]
        return held

    def _slot(self, segment: DeviceSegment) -> torch.Tensor:
        base = self._mappings[segment.handle].base
        if base is None:
            raise DeviceMemoryError("a bucket came after the server's memory was closed")
        return base[segment.data_offset :]


def make_context(device: int) -> None:
    """Makes torch's context the current one of this thread."""
    import torch

    torch.cuda.set_device(device)
    torch.cuda.synchronize(device)
