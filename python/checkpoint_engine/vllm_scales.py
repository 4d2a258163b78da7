"""The scales of attention layers in an engine that was started with dummy weights.

vLLM draws them at random, too, and a reload brings only those that a checkpoint has. Without this
an FP8 cache of keys and values would go on with random scales.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_DONE_ATTRIBUTE = "_checkpoint_engine_has_scales"


def replace_dummy_scales(worker: Any, models: list[torch.nn.Module]) -> None:
    """Gives the attention layers of ``models`` the scales of a checkpoint without any, once."""
    if worker.vllm_config.load_config.load_format != "dummy" or hasattr(worker, _DONE_ATTRIBUTE):
        return
    try:
        from vllm.model_executor.layers.attention.attention import set_default_quant_scales
    except ImportError:
        return
    for model in models:
        for layer in model.modules():
            if hasattr(layer, "_k_scale") and hasattr(layer, "_prob_scale"):
                set_default_quant_scales(layer, register_buffer=False)
    setattr(worker, _DONE_ATTRIBUTE, True)
