"""The server's memory on a GPU as torch tensors, without a copy."""

from __future__ import annotations

import contextlib
import gc
import logging
import weakref
from typing import TYPE_CHECKING

from .cuda_driver import driver
from .errors import DeviceMemoryError, ProtocolError
from .tensor_views import bucket_tensors, check_types

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from .catalog import DeviceSegment, TensorRow


_logger = logging.getLogger(__name__)


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
    """One allocation of the server, open in this process.

    It ends, once, after ``drop`` and the end of the last tensor on it: one that is kept is never a
    dangling pointer, and none leaves the allocation open.
    """

    def __init__(self, segment: DeviceSegment, device: int) -> None:
        self.name = f"the server's memory on cuda:{device}"
        self.base: torch.Tensor | None = None
        self._errors: list[DeviceMemoryError] = []
        address = driver().open(bytes.fromhex(segment.handle))
        try:
            base, reference = bytes_at(address, segment.bytes, device)
            export = reference()
            if export is None or base.data_ptr() != address:
                raise DeviceMemoryError(
                    f"the server's memory lies on another GPU than cuda:{device}; name the devices "
                    "of this engine in the request"
                )
        except BaseException as error:
            with contextlib.suppress(DeviceMemoryError):
                driver().close(address)
            if isinstance(error, DeviceMemoryError) or not isinstance(error, Exception):
                raise
            raise DeviceMemoryError(f"torch cannot use {self.name}: {error}") from error
        self.base = base
        self._end = weakref.finalize(export, _close, address, device, self._errors)
        # The end of the process ends it too, and torch may be gone by then.
        self._end.atexit = False

    @property
    def is_open(self) -> bool:
        """Whether a tensor, or this object, still uses it."""
        return self._end.alive

    def drop(self) -> None:
        """Gives up this object's use."""
        self.base = None

    def raise_error(self) -> None:
        """Raises the ``DeviceMemoryError`` with which it ended, if any, once."""
        if self._errors:
            raise self._errors.pop()


def _close(address: int, device: int, errors: list[DeviceMemoryError]) -> None:
    try:
        make_context(device)
        driver().close(address)
    except DeviceMemoryError as error:
        # Whoever dropped the last tensor is not to blame.
        errors.append(error)
        _logger.warning("A mapping of the server's GPU memory may stay: %s", error)


class DeviceSegments:
    """Makes the tensors of a catalog from the memory of one GPU."""

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
            with contextlib.suppress(DeviceMemoryError):
                self.close()
            raise

    def check(self, tensors: Sequence[TensorRow]) -> None:
        """Raises ``DTypeError`` when torch lacks the type of one of ``tensors``."""
        check_types(tensors)

    def tensors(self, rows: Sequence[TensorRow]) -> list[torch.Tensor]:
        """The tensors of one bucket: views of its place, or of a copy of it.

        Raises ``ProtocolError`` when they do not lie in one segment.
        """
        if any(row.segment != rows[0].segment for row in rows):
            raise ProtocolError("the tensors of a bucket do not lie in one segment")
        segment = self._segments[rows[0].segment]
        return bucket_tensors(self._memory(segment), rows, clones=self._clones)

    def synchronize(self) -> None:
        """Waits until nothing on the GPU reads the memory any more."""
        import torch

        torch.cuda.synchronize(self._device)

    def close(self) -> list[str]:
        """Ends all mappings; the names of those that a tensor still uses, whose end they await.

        Raises ``DeviceMemoryError`` when the driver does not end one.
        """
        mappings = self._mappings.values()
        for mapping in mappings:
            mapping.drop()
        if any(mapping.is_open for mapping in mappings):
            gc.collect()
        for mapping in mappings:
            mapping.raise_error()
        return [mapping.name for mapping in mappings if mapping.is_open]

    def _memory(self, segment: DeviceSegment) -> torch.Tensor:
        base = self._mappings[segment.handle].base
        if base is None:
            raise DeviceMemoryError("a bucket came after the server's memory was closed")
        return base[segment.data_offset :]


def make_context(device: int) -> None:
    """Makes torch's context the current one of this thread. Raises ``DeviceMemoryError``."""
    import torch

    try:
        torch.cuda.set_device(device)
        torch.cuda.synchronize(device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceMemoryError(f"torch cannot use cuda:{device}: {error}") from error
