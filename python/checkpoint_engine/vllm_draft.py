"""The draft model of a vLLM worker: what guesses tokens ahead, and takes part in updates.

Layers that predict more tokens (MTP) lie in the checkpoint of the main model, and vLLM makes a
model of its own of them. A draft model with files of its own (EAGLE, a small model) is not in what
an update brings, and keeps its weights. What vLLM shares between the two, mostly embeddings, is
updated through the main model.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

_logger = logging.getLogger(__name__)


class Draft:
    """The draft model of a worker, its configuration, and whether updates bring its weights."""

    def __init__(self, model: torch.nn.Module, model_config: Any, *, is_updated: bool) -> None:
        self.model = model
        self.model_config = model_config
        self.is_updated = is_updated


def draft_of(worker: Any) -> Draft | None:
    """The draft model of ``worker``; ``None`` if there is none, or on another worker."""
    find = getattr(worker, "get_draft_model", None)
    find = find or getattr(worker.model_runner, "get_draft_model", None)
    model = find() if callable(find) else None
    speculation = worker.vllm_config.speculative_config
    configuration = getattr(speculation, "draft_model_config", None)
    if model is None or configuration is None:
        return None
    main = worker.model_config
    sources = {main.model, getattr(main, "model_weights", None) or main.model}
    is_updated = configuration.model in sources
    if not is_updated:
        _logger.info("The draft model has files of its own, and keeps its weights")
    return Draft(model, configuration, is_updated=is_updated)


def shared_layers(main: torch.nn.Module, draft: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers that are in both models."""
    of_main = {id(layer) for layer in main.modules()}
    return [layer for layer in draft.modules() if id(layer) in of_main]


@contextlib.contextmanager
def ignored_loads(layers: list[torch.nn.Module]) -> Iterator[None]:
    """Nothing is loaded into ``layers`` meanwhile; their loaders say that it was."""
    kept: list[tuple[Any, Any]] = []
    seen: set[int] = set()
    for layer in layers:
        for parameter in layer.parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                kept.append((parameter, getattr(parameter, "weight_loader", None)))
                parameter.weight_loader = _ignore
    try:
        yield
    finally:
        for parameter, loader in kept:
            if loader is None:
                del parameter.weight_loader
            else:
                parameter.weight_loader = loader


def _ignore(*_: object, **__: object) -> bool:
    return True


@contextlib.contextmanager
def incomplete_drafts_allowed() -> Iterator[None]:
    """A bucket has only some of the layers that a draft model expects in each load."""
    try:
        from vllm.model_executor.model_loader.mtp_validation import disable_mtp_completeness_check
    except ImportError:
        yield
        return
    with disable_mtp_completeness_check():
        yield


class QuantisedHeads:
    """Quantised copies of the main model's output embedding that a draft model of vLLM 0.33 may
    have. Earlier ones have none."""

    def __init__(self, draft: Draft | None) -> None:
        self._draft = draft
        self._functions: Any = None
        if draft is not None:
            with contextlib.suppress(ImportError):
                from vllm.model_executor.layers.quantization.online import lm_head

                self._functions = lm_head

    def set_aside(self) -> None:
        """Lets the draft model have the main model's own output embedding while it is loaded."""
        if self._functions is not None and self._draft is not None:
            self._functions.share_source_lm_heads(self._draft.model)

    def put_back(self, *, refresh: bool = True) -> None:
        """Gives the draft model its copies back, made anew of what the main model has by now if
        ``refresh`` says so."""
        if self._functions is not None and self._draft is not None:
            self._functions.restore_quantized_lm_heads(self._draft.model, refresh=refresh)
