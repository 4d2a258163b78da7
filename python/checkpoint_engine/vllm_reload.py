"""New weights into a running vLLM model, through vLLM's own layer-by-layer reload.

vLLM turns each layer back into the form of the checkpoint, buffers what is loaded until the layer
is complete, and then converts it into the storage that its kernels use. On the CPU the buffered
tensors are views of the server's memory, which holds still until the commit is answered; nothing is
cloned. On a GPU they are views of one copy for each bucket: the session must clone buckets.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .errors import UpdateError
from .vllm_experts import ExpertKernels

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

_logger = logging.getLogger(__name__)

_HEAD = "lm_head.weight"
# What the models of vLLM call the input embedding that an output embedding may be tied to.
_EMBEDDINGS = (
    "embed_tokens.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
    "wte.weight",
)


class LayerwiseReload:
    """One reload of the model of ``worker``: ``load`` for each bucket, then ``commit``.

    ``discard`` ends a reload that failed, so that the model can run and be reloaded again. The
    layers that were complete have the new weights then, and the others the old ones.
    """

    # Until the layers are complete; what `load` is given has to hold still so long.
    keeps_tensors = True

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._model: torch.nn.Module = worker.get_model()
        self._expert_kernels = ExpertKernels()
        self._has_begun = False
        self._is_tied = False
        self._head: tuple[str, torch.Tensor] | None = None
        self._embeddings: list[tuple[str, torch.Tensor]] = []

    def load(self, tensors: list[tuple[str, torch.Tensor]]) -> None:
        """Loads one bucket. What vLLM's loader raises passes through."""
        from vllm.config import set_current_vllm_config

        with set_current_vllm_config(self._worker.vllm_config):
            self._begin()
            kept = self._without_tied_head(tensors)
            if kept:
                self._model.load_weights(iter(kept))

    def commit(self) -> None:
        """Finishes all layers; the model serves the new weights afterwards."""
        import torch
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        if not self._has_begun:
            return
        with set_current_vllm_config(self._worker.vllm_config):
            self._check_head()
            check_layers(self._model)
            finalize_layerwise_reload(self._model, self._worker.model_config)
            self._expert_kernels.put_back()
            for head in _tied_heads(self._model):
                # Nothing was loaded into the head itself, but kernels of the CPU use a packed copy.
                head.quant_method.process_weights_after_loading(head)
        self._drop()
        reset_derived_state(self._worker)
        if self._worker.device.type != "cpu":
            torch.accelerator.synchronize()

    def discard(self) -> None:
        """Puts the old tensors back into the layers that were not complete, and drops the new."""
        self._drop()
        self._expert_kernels.put_back()
        if self._has_begun:
            self._put_back()

    # Steps

    def _begin(self) -> None:
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        if self._has_begun:
            return
        # A reload that somebody left unfinished would be continued with its old buffers.
        self._put_back()
        self._has_begun = True
        self._is_tied = has_tied_head(self._model)
        initialize_layerwise_reload(self._model)
        self._expert_kernels.set_aside(self._model)
        warn_of_draft_model(self._worker)

    def _put_back(self) -> None:
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        count = 0
        for _, info in open_layers(self._model):
            # As if nothing had come for this layer: then vLLM puts its old tensors back.
            info.loaded_weights.clear()
            info.load_numel = 0
            count += 1
        if count == 0:
            return
        _logger.warning("Ending an unfinished reload: %d layers keep their weights", count)
        with set_current_vllm_config(self._worker.vllm_config):
            finalize_layerwise_reload(self._model, self._worker.model_config)

    def _drop(self) -> None:
        self._head = None
        self._embeddings = []

    # Tied embeddings

    def _without_tied_head(
        self, tensors: list[tuple[str, torch.Tensor]]
    ) -> list[tuple[str, torch.Tensor]]:
        """``tensors`` without an output embedding that the model shares with its input.

        vLLM refuses it in a bucket that lacks the input embedding.
        """
        if not self._is_tied:
            return tensors
        kept = []
        for name, tensor in tensors:
            if name == _HEAD or name.endswith("." + _HEAD):
                self._head = (name, tensor)
                continue
            if name.endswith(_EMBEDDINGS):
                self._embeddings.append((name, tensor))
            kept.append((name, tensor))
        return kept

    def _check_head(self) -> None:
        """Raises ``UpdateError`` when the checkpoint has an output embedding of its own."""
        import torch

        if self._head is None:
            return
        name, head = self._head
        same_form = [
            (other, tensor)
            for other, tensor in self._embeddings
            if tensor.shape == head.shape and tensor.dtype == head.dtype
        ]
        if not same_form:
            raise UpdateError(
                f"the model shares {name} with its input embedding, and the checkpoint has no "
                f"input embedding of the same form {list(head.shape)}, {head.dtype}"
            )
        if not any(torch.equal(tensor, head) for _, tensor in same_form):
            raise UpdateError(
                f"the model shares {name} with its input embedding, but in the checkpoint it "
                f"differs from {same_form[0][0]}; start the engine on a checkpoint with an output "
                "embedding of its own"
            )


def open_layers(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, Any]]:
    """The layers that a reload has opened and not yet completed, with vLLM's notes on each."""
    from vllm.model_executor.model_loader.reload import layerwise

    for layer in model.modules():
        info = layerwise.LAYERWISE_INFO.get(layer)
        if info is not None and info.can_load():
            yield layer, info


def _embedding_layers(model: torch.nn.Module) -> list[tuple[str, Any]]:
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    return [
        (name, layer)
        for name, layer in model.named_modules(remove_duplicate=False)
        if isinstance(layer, VocabParallelEmbedding) and getattr(layer, "weight", None) is not None
    ]


def has_tied_head(model: torch.nn.Module) -> bool:
    layers = _embedding_layers(model)
    return any(
        name.endswith(_HEAD.removesuffix(".weight"))
        and any(other.weight is layer.weight for path, other in layers if path != name)
        for name, layer in layers
    )


def _tied_heads(model: torch.nn.Module) -> list[Any]:
    from vllm.model_executor.layers.vocab_parallel_embedding import (
        ParallelLMHead,
        UnquantizedEmbeddingMethod,
    )

    layers = [layer for _, layer in _embedding_layers(model)]
    return [
        layer
        for layer in layers
        if isinstance(layer, ParallelLMHead)
        and isinstance(layer.quant_method, UnquantizedEmbeddingMethod)
        and any(other is not layer and other.weight is layer.weight for other in layers)
    ]


def reset_derived_state(worker: Any) -> None:
    """Drops what the runner of ``worker`` has computed from old weights."""
    for name in ("reset_lora_state", "reset_encoder_cache", "reset_mm_cache"):
        reset = getattr(worker.model_runner, name, None)
        if callable(reset):
            reset()


def warn_of_draft_model(worker: Any) -> None:
    """Logs that a draft model is not updated, if there is one."""
    get_draft_model = getattr(worker.model_runner, "get_draft_model", None)
    if callable(get_draft_model) and get_draft_model() is not None:
        _logger.warning("The draft model keeps its weights: only the main model is updated")


def check_layers(model: torch.nn.Module) -> None:
    """Raises ``UpdateError`` when a layer got a part of its tensors.

    vLLM would finish such a layer with uninitialised memory. Layers that got nothing keep their old
    weights, and those of quantisation methods are not checked: they may expect what no checkpoint
    has.
    """
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod

    names = {id(layer): name for name, layer in model.named_modules()}
    for layer, info in open_layers(model):
        if info.load_numel <= 0:
            continue
        name = names[id(layer)]
        if isinstance(getattr(layer, "quant_method", None), UnquantizedLinearMethod):
            loaded = {parameter for parameter, _ in info.loaded_weights}
            check_elements(name, layer, loaded, info.load_numel)
        parts: dict[int, set[object]] = {}
        for parameter, arguments in info.loaded_weights:
            expert = arguments.arguments.get("expert_id")
            if isinstance(expert, int):
                part = (parameter, arguments.arguments.get("shard_id"))
                parts.setdefault(expert, set()).add(part)
        check_experts(name, layer, parts)


def check_elements(name: str, layer: torch.nn.Module, loaded: set[str], count: int) -> None:
    """Raises ``UpdateError`` when ``count`` elements are fewer than the parameters have.

    What vLLM does not take away from a layer keeps its values when it is not among ``loaded``:
    biases, since vLLM 0.32.
    """
    from vllm.model_executor.model_loader.reload import meta

    expected = sum(
        tensor.numel()
        for parameter, tensor in layer.named_parameters(recurse=False)
        if parameter not in meta.SKIP_TENSORS or parameter in loaded
    )
    if count < expected:
        raise UpdateError(
            f"the checkpoint has only a part of the layer {name}: {count} of {expected} "
            "elements; update with a complete checkpoint"
        )


def check_experts(name: str, layer: torch.nn.Module, parts: dict[int, set[object]]) -> None:
    """Raises ``UpdateError`` unless all experts, or none, were loaded, and with the same parts."""
    if not parts:
        return
    count = getattr(getattr(layer, "moe_config", None), "num_logical_experts", 0)
    if len(parts) < count:
        raise UpdateError(
            f"the checkpoint has only {len(parts)} of {count} experts of the layer {name}; update "
            "with a complete checkpoint"
        )
    expected: set[object] = set().union(*parts.values())
    for expert, present in parts.items():
        if present != expected:
            raise UpdateError(
                f"the checkpoint has only a part of expert {expert} of the layer {name}: "
                f"{len(present)} of {len(expected)} tensors; update with a complete checkpoint"
            )
