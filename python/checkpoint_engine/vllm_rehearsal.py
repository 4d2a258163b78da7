"""Which layers a checkpoint would fill, found out before any weight is changed.

vLLM's own loader runs on tensors without memory (``meta``): on copies of the parameters as vLLM
made them, with the names, shapes and types of the checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any

from .dtypes import DTYPES
from .tensor_views import torch_dtype
from .vllm_draft import ignored_loads
from .vllm_layers import Share, kept_tensors, noted_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import torch

    from .catalog import TensorRow

    Tensors = dict[str, torch.Tensor | None]


class UnknownFormError(Exception):
    """The model has a layer that cannot be copied without memory."""


class Rehearsal:
    """One rehearsal of the load of ``rows`` into ``model``, but for the layers ``shared``."""

    def __init__(self, model: torch.nn.Module, shared: list[torch.nn.Module]) -> None:
        self._model = model
        self._shared = shared
        self._shares: dict[int, Share] = {}
        self._source = ""

    def run(self, rows: Iterable[TensorRow]) -> list[Share]:
        """What of each layer would be loaded.

        Raises what vLLM's loader does, which on such tensors may also be an error that real ones do
        not lead to, and ``UnknownFormError`` when the model cannot be prepared.
        """
        import torch

        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            try:
                layers = stack.enter_context(_without_memory(self._model))
                self._watch_all(layers)
                stack.enter_context(ignored_loads(self._shared))
            except Exception as error:
                raise UnknownFormError from error
            self._model.load_weights(self._tensors(rows))
        return list(self._shares.values())

    def _watch_all(self, layers: list[tuple[str, torch.nn.Module]]) -> None:
        for name, layer in layers:
            for parameter_name, parameter in layer.named_parameters(recurse=False):
                self._watch(name, layer, parameter_name, parameter)

    def _tensors(self, rows: Iterable[TensorRow]) -> Iterator[tuple[str, torch.Tensor]]:
        import torch

        for row in rows:
            self._source = row.name
            shape = list(row.shape)
            if DTYPES[row.dtype].packed > 1:
                shape[-1] //= DTYPES[row.dtype].packed
            yield row.name, torch.empty(shape, dtype=torch_dtype(row), device="meta")

    def _watch(
        self, name: str, layer: torch.nn.Module, parameter_name: str, parameter: Any
    ) -> None:
        loader = own_loader(parameter)
        signature = inspect.signature(loader)

        @functools.wraps(loader)
        def load(*arguments: object, **more: object) -> object:
            share = self._shares.get(id(layer))
            if share is None:
                share = self._shares[id(layer)] = Share(name, layer)
            share.note(parameter_name, signature.bind(*arguments, **more).arguments)
            share.sources.add(self._source)
            return loader(*arguments, **more)

        parameter.weight_loader = load


def own_loader(parameter: Any) -> Callable[..., object]:
    """The loader that the model gave ``parameter``, without what a reload put around it."""
    from vllm.model_executor.model_loader.weight_utils import default_weight_loader

    loader = getattr(parameter, "weight_loader", default_weight_loader)
    while getattr(loader, "__name__", "") == "online_process_loader":
        loader = loader.__wrapped__
    found: Callable[..., object] = loader
    return found


@contextlib.contextmanager
def _without_memory(model: torch.nn.Module) -> Iterator[list[tuple[str, torch.nn.Module]]]:
    """The layers of ``model`` have tensors without memory meanwhile, in the form of checkpoints."""
    layers = list(model.named_modules())
    kept: list[tuple[Tensors, Tensors]] = []
    copies: dict[int, Any] = {}
    try:
        for _, layer in layers:
            own: list[Tensors] = [layer._parameters, layer._buffers]  # noqa: SLF001
            for tensors, made in zip(own, _copies(layer, own, copies), strict=True):
                kept.append((tensors, dict(tensors)))
                tensors.clear()
                tensors.update(made)
        yield layers
    finally:
        for tensors, before in kept:
            tensors.clear()
            tensors.update(before)


def _copies(layer: torch.nn.Module, own: list[Tensors], copies: dict[int, Any]) -> list[Tensors]:
    """Of the parameters and the buffers that vLLM noted, and of what a reload leaves in place.

    A tensor of two layers has one copy: models look for that. ``copies`` has them all. Buffers that
    a reload leaves in place are no copies: loaders read them.
    """
    from vllm.model_executor.model_loader.reload import meta, sanitize

    kept = kept_tensors()
    noted = noted_tensors(layer)
    result: list[Tensors] = []
    for place, tensors in enumerate(own):
        sources = tensors if noted is None else noted[place]
        left = {name: value for name, value in tensors.items() if value is None or name in kept}
        made = dict(left)
        for name, source in (sources if place == 1 else left | sources).items():
            if source is None or (place == 1 and name in kept):
                continue
            key = id(source if tensors.get(name) is None else tensors[name])
            if key not in copies:
                copy = meta.to_meta_tensor(source)
                copies[key] = sanitize.restore_layer_refs(copy, layer)
            made[name] = copies[key]
        result.append(made)
    return result
