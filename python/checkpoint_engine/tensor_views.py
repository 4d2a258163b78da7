"""Bytes as tensors of the checkpoint's types, on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .dtypes import DTYPES
from .errors import DTypeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from .catalog import TensorRow


def torch_dtype(row: TensorRow) -> torch.dtype:
    """The type of ``row`` in torch. Raises ``DTypeError`` where there is none for it."""
    import torch

    name = DTYPES[row.dtype].torch_name
    dtype = None if name is None else getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise DTypeError(
            f"the tensor {row.name} has the type {row.dtype}, which torch {torch.__version__} does "
            "not have; convert the checkpoint or update torch"
        )
    packed = DTYPES[row.dtype].packed
    if packed > 1 and (not row.shape or row.shape[-1] % packed != 0):
        raise DTypeError(
            f"the tensor {row.name} of type {row.dtype} has the shape {list(row.shape)}; torch "
            f"packs {packed} elements of its last dimension"
        )
    return dtype


def check_types(rows: Sequence[TensorRow]) -> None:
    """Raises ``DTypeError`` when torch lacks the type of one of ``rows``."""
    for row in {row.dtype: row for row in rows}.values():
        torch_dtype(row)
    for row in rows:
        if DTYPES[row.dtype].packed > 1:
            torch_dtype(row)


def tensor_of(row: TensorRow, raw: torch.Tensor) -> torch.Tensor:
    """The tensor that ``row`` describes on the bytes ``raw``; a copy if those are not aligned."""
    dtype = torch_dtype(row)
    shape = list(row.shape)
    packed = DTYPES[row.dtype].packed
    if packed > 1:
        shape[-1] //= packed
    if row.byte_count == 0:
        return raw.new_empty(shape, dtype=dtype)
    if raw.data_ptr() % dtype.itemsize != 0:
        raw = raw.clone()
    return raw.view(dtype).view(shape)


# Memory of GPUs is a multiple of it, so that a bucket rounded up to it is inside.
_ALIGNMENT = 256


def bucket_tensors(
    memory: torch.Tensor, rows: Sequence[TensorRow], *, clones: bool
) -> list[torch.Tensor]:
    """The tensors of ``rows`` in ``memory``, or in one copy of the part where they lie."""
    start = 0
    if clones:
        start = min(row.offset for row in rows) // _ALIGNMENT * _ALIGNMENT
        end = max(row.offset + row.byte_count for row in rows)
        memory = memory[start : (end + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT].clone()
    return BucketViews(memory, start).tensors(rows)


class BucketViews:
    """Tensors of one bucket as views of its bytes, made with one call for each."""

    def __init__(self, memory: torch.Tensor, start: int = 0) -> None:
        """``memory`` are bytes; its first one is at the offset ``start`` of rows."""
        self._memory = memory
        self._start = start
        self._typed: dict[str, tuple[torch.Tensor, torch.dtype, int]] = {}

    def tensors(self, rows: Sequence[TensorRow]) -> list[torch.Tensor]:
        """The tensors of ``rows``. Raises ``DTypeError``."""
        return [self._tensor(row) for row in rows]

    def _tensor(self, row: TensorRow) -> torch.Tensor:
        typed, dtype, start = self._typed.get(row.dtype) or self._type(row)
        size = dtype.itemsize
        offset = row.offset - self._start
        if DTYPES[row.dtype].packed > 1 or offset % size != 0 or 0 in row.shape:
            return tensor_of(row, self._memory[offset:][: row.byte_count])
        strides = []
        stride = 1
        for dimension in reversed(row.shape):
            strides.append(stride)
            stride *= dimension
        strides.reverse()
        return typed.as_strided(row.shape, strides, start + offset // size)

    def _type(self, row: TensorRow) -> tuple[torch.Tensor, torch.dtype, int]:
        """The bytes as elements of the type of ``row``, and the place of the first one."""
        dtype = torch_dtype(row)
        length = self._memory.numel() // dtype.itemsize * dtype.itemsize
        typed = self._memory[:length].view(dtype)
        entry = (typed, dtype, typed.storage_offset())
        self._typed[row.dtype] = entry
        return entry
