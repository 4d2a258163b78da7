"""What of each layer a load in place has brought, so that a part of a layer is not served."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from .vllm_layers import Share

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


class Account:
    """Watches the loaders of the parameters of one layer until ``end``."""

    def __init__(self, name: str, layer: torch.nn.Module) -> None:
        self.share = Share(name, layer)
        self._watched: list[tuple[Any, Callable[..., object]]] = []
        for parameter_name, parameter in layer.named_parameters(recurse=False):
            loader = getattr(parameter, "weight_loader", None)
            if loader is not None:
                self._watched.append((parameter, loader))
                watch = functools.wraps(loader)(self._watch(parameter_name, loader))
                parameter.weight_loader = watch

    def end(self) -> None:
        """Gives the parameters their own loaders back."""
        for parameter, loader in self._watched:
            parameter.weight_loader = loader

    def _watch(self, name: str, loader: Callable[..., object]) -> Callable[..., object]:
        signature = inspect.signature(loader)

        def load(*arguments: object, **more: object) -> object:
            self.share.note(name, signature.bind(*arguments, **more).arguments)
            return loader(*arguments, **more)

        return load


def open_accounts(model: torch.nn.Module) -> list[Account]:
    """Begins to watch the layers of ``model`` of which a part may be loaded."""
    return [
        Account(name, layer)
        for name, layer in model.named_modules()
        if getattr(layer, "quant_method", None) is not None
    ]


def close_accounts(accounts: list[Account]) -> None:
    """Ends the watch."""
    for account in accounts:
        account.end()
