"""The fused experts of a vLLM model on the CPU, around a reload.

Their kernels read weights in a packed order, and vLLM packs them only while a layer has no kernel
yet: on a later load it writes plain weights where packed ones are expected (seen in vLLM 0.32). So
the kernels are set aside while weights are loaded, and put back afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class ExpertKernels:
    """The kernels that were taken from the expert layers of one model. Elsewhere than on the CPU,
    where loading needs nothing of this kind, there are none."""

    def __init__(self) -> None:
        self._kept: list[tuple[Any, object, object]] = []

    def set_aside(self, model: torch.nn.Module) -> None:
        """Takes the kernels; the model cannot run until ``put_back``."""
        from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import (
            UnquantizedFusedMoEMethod,
        )
        from vllm.platforms import current_platform

        if not current_platform.is_cpu():
            return
        for layer in model.modules():
            method: Any = getattr(layer, "quant_method", None)
            if isinstance(method, UnquantizedFusedMoEMethod) and method.moe_kernel is not None:
                self._kept.append((method, method.moe_kernel, method.moe_quant_config))
                method.moe_kernel = None

    def put_back(self) -> None:
        """Gives the kernels back. They refer to the layers' own storage, which a reload keeps."""
        for method, kernel, configuration in self._kept:
            method.moe_kernel = kernel
            method.moe_quant_config = configuration
        self._kept.clear()
