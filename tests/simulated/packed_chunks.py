"""The borders of packed chunks as a receiver of vLLM's protocol draws them. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# torch's names of types: their element sizes and their names in safetensors files.
DTYPES = {
    "float64": (8, "F64"),
    "int64": (8, "I64"),
    "uint64": (8, "U64"),
    "complex64": (8, "C64"),
    "float32": (4, "F32"),
    "int32": (4, "I32"),
    "uint32": (4, "U32"),
    "float16": (2, "F16"),
    "bfloat16": (2, "BF16"),
    "int16": (2, "I16"),
    "uint16": (2, "U16"),
    "bool": (1, "BOOL"),
    "uint8": (1, "U8"),
    "int8": (1, "I8"),
    "float8_e4m3fn": (1, "F8_E4M3"),
    "float8_e5m2": (1, "F8_E5M2"),
    "float8_e8m0fnu": (1, "F8_E8M0"),
    "float8_e4m3fnuz": (1, "F8_E4M3FNUZ"),
    "float8_e5m2fnuz": (1, "F8_E5M2FNUZ"),
}


@dataclass(frozen=True)
class Tensor:
    """What a receiver is told of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def item_size(self) -> int:
        if self.dtype not in DTYPES:
            raise AttributeError(f"module 'torch' has no attribute {self.dtype!r}")
        return DTYPES[self.dtype][0]

    @property
    def byte_count(self) -> int:
        return math.prod(self.shape) * self.item_size


def chunks(tensors: Sequence[Tensor], limit: int) -> Iterator[list[Tensor]]:
    """A chunk ends with the tensor that makes it larger than ``limit`` bytes."""
    chunk: list[Tensor] = []
    byte_count = 0
    for tensor in tensors:
        chunk.append(tensor)
        byte_count += tensor.byte_count
        if byte_count > limit:
            yield chunk
            chunk, byte_count = [], 0
    if chunk:
        yield chunk


def slices(chunk: Sequence[Tensor]) -> Iterator[tuple[Tensor, int, int]]:
    """Each tensor with start and end in its chunk; ValueError for one that torch would not view."""
    start = 0
    for tensor in chunk:
        end = start + tensor.byte_count
        if start % tensor.item_size != 0:
            raise ValueError(
                f"{tensor.name} begins at byte {start} of its chunk, which is no multiple of the "
                f"{tensor.item_size} bytes of a {tensor.dtype}"
            )
        yield tensor, start, end
        start = end
