"""What a session is told of its engine: the calls that it makes, and the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from .catalog import TensorRow


@dataclass(frozen=True)
class Hooks:
    """What a session calls: see ``checkpoint_engine.worker.update_weights_from_ipc``."""

    run: Callable[[list[tuple[str, torch.Tensor]]], object]
    post: Callable[[], object] | None = None
    abort: Callable[[], object] | None = None
    catalog: Callable[[tuple[TensorRow, ...]], object] | None = None


@dataclass(frozen=True)
class Device:
    """The GPU of a worker. With ``clones`` its loads get copies of buckets, which may be kept."""

    index: int
    clones: bool = False
