"""What of each layer a load in place has brought, so that a part of a layer is not served."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from .vllm_reload import check_elements, check_experts

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


class Account:
    """Watches the loaders of the parameters of one layer until ``end``."""

    def __init__(self, name: str, layer: torch.nn.Module) -> None:
        self._name = name
        self._layer = layer
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

    def check(self) -> None:
        """Raises ``UpdateError`` when only a part of the layer was loaded."""
        raise NotImplementedError

    def _watch(self, name: str, loader: Callable[..., object]) -> Callable[..., object]:
        raise NotImplementedError


class _LinearAccount(Account):
    """Counts the elements that loaders copy into a layer."""

    def __init__(self, name: str, layer: torch.nn.Module) -> None:
        self._loaded: set[str] = set()
        self._count = 0
        self._is_counting = False
        super().__init__(name, layer)

    def check(self) -> None:
        """Raises ``UpdateError`` for a part of the layer."""
        if self._loaded:
            check_elements(self._name, self._layer, self._loaded, self._count)

    def _watch(self, name: str, loader: Callable[..., object]) -> Callable[..., object]:
        def load(*arguments: object, **more: object) -> object:
            # Loaders of fused tensors call that of the parameter for each part.
            if self._is_counting:
                return loader(*arguments, **more)
            self._loaded.add(name)
            self._is_counting = True
            counter = _copy_counter()
            try:
                with counter:
                    return loader(*arguments, **more)
            finally:
                self._is_counting = False
                self._count += counter.count

        return load


class _ExpertAccount(Account):
    """Notes which parts of which experts were loaded; counting would double the time of each."""

    def __init__(self, name: str, layer: torch.nn.Module) -> None:
        self._parts: dict[int, set[object]] = {}
        super().__init__(name, layer)

    def check(self) -> None:
        """Raises ``UpdateError`` for a part of the experts."""
        check_experts(self._name, self._layer, self._parts)

    def _watch(self, name: str, loader: Callable[..., object]) -> Callable[..., object]:
        order = list(inspect.signature(loader).parameters)

        def value(key: str, arguments: tuple[object, ...], more: dict[str, object]) -> object:
            if key in more:
                return more[key]
            place = order.index(key) if key in order else len(arguments)
            return arguments[place] if place < len(arguments) else None

        def load(*arguments: object, **more: object) -> object:
            expert = value("expert_id", arguments, more)
            if isinstance(expert, int):
                part = (name, value("shard_id", arguments, more))
                self._parts.setdefault(expert, set()).add(part)
            return loader(*arguments, **more)

        return load


def open_accounts(model: torch.nn.Module) -> list[Account]:
    """Begins to watch the layers of ``model`` of which a part may be loaded."""
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import (
        UnquantizedFusedMoEMethod,
    )
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod

    found: list[Account] = []
    for name, layer in model.named_modules():
        method: Any = getattr(layer, "quant_method", None)
        if isinstance(method, UnquantizedFusedMoEMethod):
            found.append(_ExpertAccount(name, layer))
        elif isinstance(method, UnquantizedLinearMethod):
            found.append(_LinearAccount(name, layer))
    return found


def close_accounts(accounts: list[Account]) -> None:
    """Ends the watch."""
    for account in accounts:
        account.end()


def _copy_counter() -> Any:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counter(TorchDispatchMode):  # type: ignore[misc]
        """Counts the elements of all destinations of ``copy_``."""

        count = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            del types
            if func is torch.ops.aten.copy_.default:
                self.count += args[0].numel()
            return func(*args, **(kwargs or {}))

    return Counter()
