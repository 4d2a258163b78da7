"""Where tensors lie in a safetensors file that is made of them, and its header."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .dtypes import DTYPES
from .ps_errors import TensorNameError, TensorTypeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

# The data begins at a multiple of it, which is more than the format asks for.
DATA_ALIGNMENT = 256
# The limit of the format's own reader.
HEADER_BYTES_MAX = 100_000_000
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class Placement:
    """The tensor ``name`` lies at ``offset`` of the file, in bytes, and has ``byte_count``."""

    name: str
    tensor: torch.Tensor
    offset: int
    byte_count: int


@dataclass(frozen=True)
class Layout:
    """A whole file: ``header`` with its length before it, then the tensors without gaps.

    Two layouts are equal when their headers are: the same names, types and shapes.
    """

    header: bytes
    placements: tuple[Placement, ...]
    byte_count: int


def layout_of(named_tensors: Mapping[str, torch.Tensor]) -> Layout:
    """The layout of ``named_tensors``: wide types first, so that every tensor is aligned.

    Raises ``TensorTypeError`` and ``TensorNameError``, which name the tensor.
    """
    dtypes = _safetensors_names()
    for name, tensor in named_tensors.items():
        _check_name(name)
        _check(name, tensor, dtypes)
    order = sorted(named_tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    entries: dict[str, object] = {}
    offset = 0
    for name, tensor in order:
        end = offset + tensor.numel() * tensor.element_size()
        kind = dtypes[tensor.dtype]
        shape = list(tensor.shape)
        if (packed := DTYPES[kind].packed) > 1:
            shape[-1] *= packed
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    header = _header(entries)
    return Layout(header, tuple(_placements(order, len(header))), len(header) + offset)


def _header(entries: dict[str, object]) -> bytes:
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    if len(text) + DATA_ALIGNMENT > HEADER_BYTES_MAX:
        raise TensorNameError(
            f"the names of {len(entries)} tensors need a header of {len(text)} bytes; at most "
            f"{HEADER_BYTES_MAX} are possible: register fewer tensors on each rank"
        )
    text += b" " * (-(len(text) + _LENGTH_BYTES) % DATA_ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _placements(order: list[tuple[str, torch.Tensor]], start: int) -> list[Placement]:
    placements = []
    for name, tensor in order:
        byte_count = tensor.numel() * tensor.element_size()
        placements.append(Placement(name, tensor.detach(), start, byte_count))
        start += byte_count
    return placements


def _safetensors_names() -> dict[torch.dtype, str]:
    import torch

    found = {}
    for dtype in DTYPES.values():
        known = getattr(torch, dtype.torch_name, None) if dtype.torch_name else None
        if isinstance(known, torch.dtype):
            found[known] = dtype.name
    return found


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name or name == "__metadata__":
        raise TensorNameError(f"{name!r} cannot be the name of a tensor")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise TensorNameError(f"the tensor's name {name!r} is no Unicode text") from error


def _check(name: str, tensor: object, dtypes: Mapping[torch.dtype, str]) -> None:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise TensorTypeError(f"{name} is a {type(tensor).__name__}, not a torch tensor")
    if hasattr(tensor, "to_local"):
        raise TensorTypeError(
            f"the tensor {name} is distributed ({type(tensor).__name__}); register its "
            "full_tensor() on one rank"
        )
    if tensor.is_quantized:
        raise TensorTypeError(
            f"the tensor {name} is quantised by torch ({tensor.dtype}); register its int_repr() "
            "and its scales as tensors of their own"
        )
    if tensor.layout != torch.strided or tensor.is_nested:
        raise TensorTypeError(
            f"the tensor {name} is not dense ({tensor.layout}); convert it with to_dense()"
        )
    if tensor.is_meta:
        raise TensorTypeError(f"the tensor {name} is on the device meta and has no values")
    if tensor.dtype not in dtypes:
        raise TensorTypeError(
            f"the tensor {name} has the type {tensor.dtype}, which safetensors files cannot hold; "
            "convert it"
        )
    if DTYPES[dtypes[tensor.dtype]].packed > 1 and tensor.dim() == 0:
        raise TensorTypeError(f"the tensor {name} of type {tensor.dtype} has no dimension")
