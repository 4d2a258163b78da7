"""What a parameter server tells of its checkpoints: plain dataclasses, which may be pickled.

``dtype`` and ``shape`` are torch's own objects. ``checkpoint_engine.metas_json`` has the JSON form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch


@dataclass
class ParameterMeta:
    """One tensor. ``aligned_size`` is its size in bytes, rounded up to a multiple of 256.

    Where peers can read it, ``aligned_size`` is what it takes in memory, up to the next tensor.
    """

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

    ``ptr`` is its address in the process that peers read from, 0 where they cannot. ``size`` is the
    sum of the tensors' ``aligned_size``.
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
class DaemonSource:
    """The daemon that a rank's tensors can be read from, and what their checkpoint is called there.

    ``url`` is ``http://HOST:PORT``; ``content`` names the bytes, where they were known.
    """

    url: str
    checkpoint: str
    content: str | None = None


@dataclass
class MemoryBufferMetaList:
    """What one rank has. ``p2p_store_addr`` is ``None`` where no peer-to-peer store runs.

    ``checkpoint_engine`` is ``None`` where no daemon can be reached by other hosts, and in metas of
    the PyPI package, which does not know it.
    """

    p2p_store_addr: str | None
    memory_buffer_metas_list: list[MemoryBufferMetas]
    rdma_device: str
    checkpoint_engine: DaemonSource | None = field(default=None, kw_only=True)


@dataclass
class DataToGather(MemoryBufferMetaList):
    """What one rank has, and where it is."""

    host_ip: str
    device_uuid: str
