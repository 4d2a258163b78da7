"""The collectives that trainers take from here: torch's own, under the names that they know.

Importing it imports ``torch``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import timedelta
from typing import Any, TypeAlias

import torch
import torch.distributed as torch_distributed

from .ps_errors import ArgumentError

__all__ = [
    "Distributed",
    "DistributedProcessGroup",
    "all_gather_object",
    "all_reduce",
    "barrier",
    "broadcast",
    "destroy_process_group",
    "init_process_group",
    "is_initialized",
    "new_group",
    "use_backend",
]

DistributedProcessGroup: TypeAlias = torch_distributed.ProcessGroup

# Communicators of an engine's package that stand for torch's: with our daemon no collective of the
# trainer's processes is part of an update, so that torch's serve as well.
_TORCH_LIKE = {"torch", "nccl", "gloo", "vllm_nccl"}
_UNAVAILABLE = {"vllm_hccl": "it is for NPUs, which this package does not support"}


class Distributed(ABC):
    """What a backend of these functions offers."""

    @abstractmethod
    def init_process_group(self, rank: int, world_size: int, store: Any, **kwargs: Any) -> None:
        """Makes the default group of ``world_size`` ranks, which meet in ``store``."""

    @abstractmethod
    def destroy_process_group(self, group: DistributedProcessGroup | None = None) -> None:
        """Ends ``group``, by default all of them."""

    @abstractmethod
    def is_initialized(self) -> bool:
        """Whether there is a default group."""

    @abstractmethod
    def all_gather_object(
        self, object_list: list[Any], obj: Any, group: DistributedProcessGroup | None = None
    ) -> None:
        """Fills ``object_list`` with the ``obj`` of every rank."""

    @abstractmethod
    def all_reduce(
        self,
        tensor: torch.Tensor,
        op: Any = torch_distributed.ReduceOp.SUM,
        group: DistributedProcessGroup | None = None,
        **kwargs: Any,
    ) -> None:
        """Combines ``tensor`` of all ranks in place."""

    @abstractmethod
    def broadcast(
        self,
        tensor: torch.Tensor,
        src: int = 0,
        group: DistributedProcessGroup | None = None,
        **kwargs: Any,
    ) -> None:
        """Sets ``tensor`` on every rank to that of the rank ``src``."""

    @abstractmethod
    def barrier(self, group: DistributedProcessGroup | None = None, **kwargs: Any) -> None:
        """Returns when all ranks have called it."""

    @abstractmethod
    def new_group(self, ranks: list[int], **kwargs: Any) -> DistributedProcessGroup | None:
        """A group of ``ranks``; all ranks call it."""


class _TorchBackend(Distributed):
    """torch's own collectives."""

    def init_process_group(self, rank: int, world_size: int, store: Any, **kwargs: Any) -> None:
        torch_distributed.init_process_group(
            backend=kwargs.get("backend", "nccl"),
            world_size=world_size,
            rank=rank,
            timeout=kwargs.get("timeout", timedelta(minutes=10)),
            store=store,
        )

    def destroy_process_group(self, group: DistributedProcessGroup | None = None) -> None:
        torch_distributed.destroy_process_group(group)

    def is_initialized(self) -> bool:
        return bool(torch_distributed.is_initialized())

    def all_gather_object(
        self, object_list: list[Any], obj: Any, group: DistributedProcessGroup | None = None
    ) -> None:
        torch_distributed.all_gather_object(object_list, obj, group)

    def all_reduce(
        self,
        tensor: torch.Tensor,
        op: Any = torch_distributed.ReduceOp.SUM,
        group: DistributedProcessGroup | None = None,
        **kwargs: Any,
    ) -> None:
        torch_distributed.all_reduce(tensor, op, group, **kwargs)

    def broadcast(
        self,
        tensor: torch.Tensor,
        src: int = 0,
        group: DistributedProcessGroup | None = None,
        **kwargs: Any,
    ) -> None:
        torch_distributed.broadcast(tensor, src, group, **kwargs)

    def barrier(self, group: DistributedProcessGroup | None = None, **kwargs: Any) -> None:
        torch_distributed.barrier(group, **kwargs)

    def new_group(self, ranks: list[int], **kwargs: Any) -> DistributedProcessGroup | None:
        group: DistributedProcessGroup | None = torch_distributed.new_group(ranks, **kwargs)
        return group


_backend: Distributed = _TorchBackend()


def use_backend(backend: str | None) -> None:
    """Chooses a backend by name. torch's own is the only one, and stands for ``vllm_nccl`` too.

    Raises ``ArgumentError`` for names that it cannot stand for.
    """
    if not backend or backend in _TORCH_LIKE:
        return
    reason = _UNAVAILABLE.get(backend, f"known are {', '.join(sorted(_TORCH_LIKE))}")
    raise ArgumentError(f"the backend {backend!r} is not available: {reason}")


init_process_group = _backend.init_process_group
destroy_process_group = _backend.destroy_process_group
is_initialized = _backend.is_initialized
all_gather_object = _backend.all_gather_object
all_reduce = _backend.all_reduce
broadcast = _backend.broadcast
barrier = _backend.barrier
new_group = _backend.new_group
