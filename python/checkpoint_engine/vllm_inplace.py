"""New weights straight into the parameters of a vLLM model, where that is known to be right.

A layerwise reload runs the loader of every tensor twice (once on ``meta`` tensors, to count) and
keeps the tensors until their layer is complete. Loading in place runs it once, keeps nothing, and
needs no copy of buckets.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .vllm_accounts import close_accounts, open_accounts
from .vllm_layers import check_shares, open_layers
from .vllm_tied import has_tied_head

if TYPE_CHECKING:
    import torch

    from .vllm_accounts import Account

_logger = logging.getLogger(__name__)

# Models of vLLM whose `load_weights` was read: it only calls the loaders of parameters, so that it
# may be called again, with any part of a checkpoint.
_MODELS = (
    "LlamaForCausalLM",
    "MixtralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen2MoeForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
)
# For these the weights of experts stay as they are loaded; others shuffle or swap them.
_MOE_BACKENDS = ("TRITON", "BATCHED_TRITON")

# Attributes of parameters that may be given back to them.
_PLAIN = (bool, int, float, str, type(None))


class InPlaceLoad:
    """One load of ``model``, the main one of ``worker``; the same methods as ``LayerwiseReload``.

    After ``discard`` the layers that were loaded have new weights, in whole or in part; the next
    update of a whole checkpoint repairs them.
    """

    keeps_tensors = False

    def __init__(self, worker: Any, model: torch.nn.Module) -> None:
        self._dtype = worker.model_config.dtype
        self._model = model
        self._accounts: list[Account] = []
        self._loaded: set[str] | None = set()

    def begin(self) -> None:
        """Makes the loaders work again, and watches them."""
        _restore_attributes(self._model)
        self._accounts = open_accounts(self._model)

    def load(self, tensors: list[tuple[str, torch.Tensor]]) -> None:
        """Loads one bucket. What vLLM's loader raises passes through."""
        loaded: Any = self._model.load_weights(iter(tensors))
        if loaded is None or self._loaded is None:
            self._loaded = None
        else:
            self._loaded |= set(loaded)

    def check(self) -> None:
        """Raises ``UpdateError`` when a layer got a part of its tensors."""
        accounts, self._accounts = self._accounts, []
        close_accounts(accounts)
        check_shares(account.share for account in accounts)
        self._warn_of_missing()

    def finish(self) -> None:
        """Ends as a layerwise reload does. Other layers have nothing to do: see ``obstacle``."""
        from vllm.model_executor.layers.attention import Attention

        for layer in self._model.modules():
            if isinstance(layer, Attention):
                layer.process_weights_after_loading(self._dtype)

    def discard(self) -> None:
        """Gives the parameters their own loaders back."""
        accounts, self._accounts = self._accounts, []
        close_accounts(accounts)

    def _warn_of_missing(self) -> None:
        if self._loaded is None:
            return
        missing = sorted({name for name, _ in self._model.named_parameters()} - self._loaded)
        if missing:
            _logger.warning("%d parameters keep their weights: %s", len(missing), missing[:5])


def obstacle(worker: Any) -> str | None:
    """Why the weights of the model of ``worker`` cannot be loaded in place; ``None`` if they can.

    It is right when what the kernels read is what the loader writes: the model is one of those
    whose ``load_weights`` only calls loaders of parameters, nothing is quantised, every layer that
    vLLM processes after a load has exactly the class whose processing changes nothing on CUDA
    (linear, embedding, experts of a Triton backend), every parameter still has the form that
    vLLM noted when it made the model, has its loader, and has lost no attribute but plain values,
    which are given back, and no tensor lies elsewhere than on the
    device or stands for two (tied embeddings, redundant experts, LoRA). Subclasses count as
    unknown, and so does everything that a later vLLM adds.
    """
    from vllm.platforms import current_platform

    model = worker.get_model()
    model_type = type(model)
    if not current_platform.is_cuda():
        return "the platform is not CUDA"
    if not _is_known(model_type):
        return f"the model {model_type.__name__} is not known to allow it"
    return _obstacle_in_configuration(worker) or _obstacle_in_model(model, worker.device)


def _is_known(model_type: type) -> bool:
    is_of_vllm = model_type.__module__.startswith("vllm.model_executor.models.")
    return is_of_vllm and model_type.__name__ in _MODELS


def _obstacle_in_configuration(worker: Any) -> str | None:
    configuration = worker.vllm_config
    if worker.model_config.quantization is not None or configuration.quant_config is not None:
        return "the model is quantised"
    if configuration.lora_config is not None:
        return "LoRA is on"
    if getattr(configuration.parallel_config, "enable_eplb", False):
        return "experts are balanced"
    if getattr(worker.model_config, "word_embeddings_untied_by_checkpoint", False):
        return "embeddings may be tied"
    return None


def _obstacle_in_model(model: torch.nn.Module, device: torch.device) -> str | None:
    if has_tied_head(model):
        return "embeddings are tied"
    if any(True for _ in open_layers(model)):
        return "a layerwise reload is unfinished"
    for name, layer in model.named_modules():
        reason = _obstacle_in_layer(layer) or _obstacle_in_tensors(layer, device)
        if reason is not None:
            return f"{reason} ({name or 'the model'})"
    return None


def _obstacle_in_layer(layer: torch.nn.Module) -> str | None:
    from vllm.model_executor.layers.attention import Attention
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import (
        UnquantizedFusedMoEMethod,
    )
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    if type(layer) is UnquantizedFusedMoEMethod:
        # A module itself, which was judged as the method of its layer.
        return None
    if hasattr(layer, "process_weights_after_loading") and type(layer) is not Attention:
        return f"{type(layer).__name__} processes its weights"
    method: Any = getattr(layer, "quant_method", None)
    if method is None or type(method) in (UnquantizedLinearMethod, UnquantizedEmbeddingMethod):
        return None
    if type(method) is UnquantizedFusedMoEMethod:
        backend = getattr(method.unquantized_backend, "name", "unknown")
        return None if backend in _MOE_BACKENDS else f"experts run on {backend}"
    return f"{type(method).__name__} may change weights"


def _obstacle_in_tensors(layer: torch.nn.Module, device: torch.device) -> str | None:
    from vllm.model_executor.model_loader.reload import layerwise, meta

    info = layerwise.LAYERWISE_INFO.get(layer)
    if info is None:
        return "vLLM has noted nothing of a layer"
    noted, noted_buffers = info.restore_metadata
    own = {name: value for name, value in layer._parameters.items() if value is not None}  # noqa: SLF001
    if any(name not in noted and name not in meta.SKIP_TENSORS for name in own):
        return "a parameter was added"
    for name, tensor in own.items():
        if tensor.device != device or getattr(tensor, "_vllm_is_uva_offloaded", False):
            return f"{name} does not lie on {device}"
    fleeting = layer._non_persistent_buffers_set  # noqa: SLF001
    kept = {name: made for name, made in noted_buffers.items() if name not in fleeting}
    for name, made in {**noted, **kept}.items():
        tensor = getattr(layer, name, None)
        if tensor is None or not _has_form(tensor, made):
            return f"{name} is not as it was made"
    return None


def _has_form(tensor: torch.Tensor, made: torch.Tensor) -> bool:
    return (
        type(tensor) is type(made)
        and tensor.shape == made.shape
        and tensor.dtype == made.dtype
        and tensor.stride() == made.stride()
        and all(isinstance(value, _PLAIN) for value in _lost_attributes(tensor, made).values())
    )


def _lost_attributes(tensor: torch.Tensor, made: torch.Tensor) -> dict[str, object]:
    return {key: value for key, value in vars(made).items() if key not in vars(tensor)}


def _restore_attributes(model: torch.nn.Module) -> None:
    """Gives parameters what their loaders may ask for, and vLLM 0.26 takes away with a load."""
    from vllm.model_executor.model_loader.reload import layerwise

    for layer in model.modules():
        info = layerwise.LAYERWISE_INFO.get(layer)
        noted = {} if info is None else info.restore_metadata[0]
        for name, made in noted.items():
            parameter = getattr(layer, name)
            for key, value in _lost_attributes(parameter, made).items():
                setattr(parameter, key, value)
