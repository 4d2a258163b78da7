"""New weights into a running vLLM model, through vLLM's own layer-by-layer reload.

vLLM turns each layer back into the form of the checkpoint, buffers what is loaded until the layer
is complete, and then converts it into the storage that its kernels use. On the CPU the buffered
tensors are views of the server's memory, which holds still until the commit is answered; nothing is
cloned. On a GPU they are views of one copy for each bucket: the session must clone buckets.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .vllm_cpu_scales import ScaleKeeper
from .vllm_draft import ignored_loads, shared_layers
from .vllm_experts import ExpertKernels
from .vllm_layers import check_shares, open_layers, shares_of_reload

if TYPE_CHECKING:
    import torch

    from .vllm_tied import TiedHead

_logger = logging.getLogger(__name__)


class LayerwiseReload:
    """One reload of ``model``: ``begin``, ``load`` for each bucket, ``check``, then ``finish``.

    All of it runs inside vLLM's configuration. ``head`` knows of tied embeddings. It is ``None``
    for a draft model; the layers that this shares with ``main`` are left to the reload of that.

    ``discard`` ends a reload that failed, so that the model can run and be reloaded again. The
    layers that were complete have the new weights then, and the others the old ones.
    """

    # Until the layers are complete; what `load` is given has to hold still so long.
    keeps_tensors = True

    def __init__(
        self,
        model: torch.nn.Module,
        model_config: Any,
        head: TiedHead | None,
        main: torch.nn.Module | None = None,
    ) -> None:
        self._model = model
        self._model_config = model_config
        self._head = head
        self._main = main
        self._shared: list[torch.nn.Module] = []
        self._expert_kernels = ExpertKernels()
        self._scale_keeper = ScaleKeeper()
        self._has_begun = False

    def begin(self) -> None:
        """Opens all layers."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        self._has_begun = True
        if self._main is not None:
            self._shared = shared_layers(self._main, self._model)
        initialize_layerwise_reload(self._model)
        self._expert_kernels.set_aside(self._model)
        self._scale_keeper.begin(self._model)

    def load(self, tensors: list[tuple[str, torch.Tensor]]) -> None:
        """Loads one bucket. What vLLM's loader raises passes through."""
        with ignored_loads(self._shared):
            self._model.load_weights(iter(tensors))

    def check(self) -> None:
        """Raises ``UpdateError`` when a layer got a part of its tensors.

        vLLM would finish such a layer with uninitialised memory. Layers that got nothing keep their
        old weights.
        """
        if self._head is not None:
            self._head.complete()
        check_shares(shares_of_reload(self._model))

    def finish(self) -> None:
        """Finishes all layers; the model serves the new weights afterwards."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self._model, self._model_config)
        self._expert_kernels.put_back()
        self._scale_keeper.end()
        if self._head is not None:
            self._head.refresh()

    def discard(self) -> None:
        """Puts the old tensors back into the layers that were not complete, and drops the new."""
        self._expert_kernels.put_back()
        self._scale_keeper.end()
        if self._has_begun:
            close_layers(self._model, self._model_config)


def close_layers(model: torch.nn.Module, model_config: Any) -> None:
    """Ends a reload that was left unfinished: it would be continued with its old buffers."""
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

    count = 0
    for _, info in open_layers(model):
        # As if nothing had come for this layer: then vLLM puts its old tensors back.
        info.loaded_weights.clear()
        info.load_numel = 0
        count += 1
    if count > 0:
        _logger.warning("Ending an unfinished reload: %d layers keep their weights", count)
        finalize_layerwise_reload(model, model_config)
