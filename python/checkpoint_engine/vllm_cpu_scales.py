"""The scales that kernels for 8-bit integers on the CPU read, around a reload.

Such a kernel is made of a layer's weights and keeps the address of their scales, not the tensor
(seen in vLLM 0.32). A reload makes new kernels of tensors that it then copies into the layer's own
and frees. So those scales are kept as long as the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

_KERNEL = "CPUInt8ScaledMMLinearKernel"
_METHOD = "process_weights_after_loading"
_KEPT = "_checkpoint_engine_scales"


class ScaleKeeper:
    """Watches the kernels of one model from ``begin`` to ``end``; elsewhere than on the CPU there
    are none of this kind."""

    def __init__(self) -> None:
        self._kernels: list[Any] = []

    def begin(self, model: torch.nn.Module) -> None:
        """From now on kernels that are made anew keep their scales."""
        for layer in model.modules():
            kernel = getattr(getattr(layer, "scheme", None), "kernel", None)
            if type(kernel).__name__ == _KERNEL and _METHOD not in vars(kernel):
                setattr(kernel, _METHOD, _keeping(kernel, getattr(kernel, _METHOD)))
                self._kernels.append(kernel)

    def end(self) -> None:
        """Ends the watch."""
        for kernel in self._kernels:
            delattr(kernel, _METHOD)
        self._kernels.clear()


def _keeping(kernel: Any, process: Callable[[Any], None]) -> Callable[[Any], None]:
    def process_and_keep(layer: Any) -> None:
        process(layer)
        _, scale, *_ = kernel.layer_param_names
        setattr(kernel, _KEPT, getattr(layer, scale))

    return process_and_keep
