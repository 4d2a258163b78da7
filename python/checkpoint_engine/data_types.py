"""What a parameter server tells of its checkpoints: plain dataclasses, which may be pickled.

``dtype`` and ``shape`` are torch's own objects. ``checkpoint_engine.metas_json`` has the JSON form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch


@dataclass
class ParameterMeta:
    """One tensor. ``aligned_size`` is its size in bytes, rounded up to a multiple of 256."""

    name: str
    dtype: torch.dtype
    shape: torch.Size
    aligned_size: int


class BucketRange(NamedTuple):
    """``size`` bytes from ``offset`` on in the memory buffer number ``idx``."""

    idx: int
    offset: int
    size: int


@dataclass
class H2DBucket:
    """Tensors that are copied to a device together; ``size`` in bytes."""

    size: int
    ranges: list[BucketRange]
    items: list[ParameterMeta]


@dataclass
class MemoryBufferMetas:
    """The tensors of one piece of memory.

    ``ptr`` is its address in the process that holds it, or 0 where that is not known, which is so
    for everything that a daemon holds. ``size`` is the sum of the tensors' ``aligned_size``.
    """

    metas: list[ParameterMeta]
    ptr: int
    size: int


@dataclass
class MemoryBuffer:
    """A piece of memory of this process with the tensors in it; ``size`` in bytes."""

    buffer: torch.Tensor
    size: int
    metas: list[ParameterMeta]
    manually_pinned: bool = False


@dataclass
class MemoryBufferMetaList:
    """What one rank has. ``p2p_store_addr`` is ``None`` where no peer-to-peer store runs."""

    p2p_store_addr: str | None
    memory_buffer_metas_list: list[MemoryBufferMetas]
    rdma_device: str


@dataclass
class DataToGather(MemoryBufferMetaList):
    """What one rank has, and where it is."""

    host_ip: str
    device_uuid: str
