"""One update of a vLLM worker, from the catalog to the commit: its main and its draft model."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

from .errors import UpdateError
from .failures import summary
from .vllm_draft import Draft, QuantisedHeads, draft_of, incomplete_drafts_allowed, shared_layers
from .vllm_inplace import InPlaceLoad, obstacle
from .vllm_layers import check_shares
from .vllm_pairs import Pairs
from .vllm_rehearsal import Rehearsal
from .vllm_reload import LayerwiseReload, close_layers
from .vllm_scales import replace_dummy_scales
from .vllm_tied import TiedHead

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from .catalog import TensorRow

_logger = logging.getLogger(__name__)

# `layerwise` turns loading in place off.
VARIABLE = "CHECKPOINT_ENGINE_VLLM_RELOAD"
_EXAMINED_ATTRIBUTE = "_checkpoint_engine_examined"
# What vLLM's loader raises for names and shapes. Errors that real tensors would not lead to are of
# other types, or name one of these words.
_REFUSALS = (AssertionError, KeyError, ValueError, RuntimeError)
_WITHOUT_MEMORY = ("meta", "triton")


class EngineUpdate:
    """``examine``, ``load`` for each bucket, then ``commit``; ``discard`` after a failure.

    After ``discard`` the model can run and be updated again. The layers that were complete have
    new weights then, and after a load in place those that were begun, too; the next update of a
    whole checkpoint repairs them.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._model: torch.nn.Module = worker.get_model()
        self._draft = draft_of(worker)
        updated = self._draft if self._draft is not None and self._draft.is_updated else None
        self._head = TiedHead(self._model, worker.model_config)
        self._pairs = Pairs()
        self._heads = QuantisedHeads(self._draft)
        self._loads: list[LayerwiseReload | InPlaceLoad] = [self._main_load(updated)]
        if updated is not None:
            self._loads.append(
                LayerwiseReload(updated.model, updated.model_config, None, self._model)
            )
        self._updated = updated
        self._has_begun = False

    @property
    def keeps_tensors(self) -> bool:
        """Whether what ``load`` is given has to hold still until the commit."""
        return any(load.keeps_tensors for load in self._loads)

    def examine(self, rows: tuple[TensorRow, ...]) -> None:
        """Raises ``UpdateError`` when ``rows`` have a part of a layer, or what vLLM refuses.

        Nothing is changed. What vLLM's loader does only with real tensors cannot be known here; it
        is found out by the load.
        """
        if self.keeps_tensors:
            self._pairs.expect(row.name for row in rows)
        if getattr(self._worker, _EXAMINED_ATTRIBUTE, None) is rows:
            return
        self._head.examine(row.name for row in rows)
        kept = [row for row in rows if not self._head.holds(row.name)]
        with self._in_context():
            self._close_unfinished()
            self._rehearse(Rehearsal(self._model, []), kept)
            if self._updated is not None:
                self._rehearse_draft(self._updated.model, kept)
        # The rows of equal catalogs are one object, so that this is done once for each checkpoint.
        setattr(self._worker, _EXAMINED_ATTRIBUTE, rows)

    def load(self, tensors: list[tuple[str, torch.Tensor]]) -> None:
        """Loads one bucket. What vLLM's loader raises passes through."""
        with self._in_context():
            if not self._has_begun:
                self._begin()
            kept = self._pairs.take(self._head.take(tensors))
            if kept:
                for load in self._loads:
                    load.load(kept)

    def commit(self) -> None:
        """Finishes all layers; the engine serves the new weights afterwards.

        Raises ``UpdateError`` when a layer got a part of its tensors.
        """
        import torch

        if not self._has_begun:
            return
        with self._in_context():
            for load in self._loads:
                load.check()
            for load in self._loads:
                load.finish()
            self._heads.put_back()
        self._drop()
        reset_derived_state(self._worker)
        if self._worker.device.type != "cpu":
            torch.accelerator.synchronize()

    def discard(self) -> None:
        """Ends an update that failed."""
        self._drop()
        with self._in_context():
            for load in self._loads:
                load.discard()
            if self._has_begun:
                self._heads.put_back()

    # Steps

    def _main_load(self, updated: Draft | None) -> LayerwiseReload | InPlaceLoad:
        """The fastest way that is right: see ``obstacle``."""
        if os.environ.get(VARIABLE) == "layerwise":
            reason: str | None = "it is turned off"
        elif updated is not None:
            reason = "a draft model shares layers with it"
        else:
            reason = obstacle(self._worker)
        if reason is None:
            return InPlaceLoad(self._worker, self._model)
        _logger.info("Weights are not loaded in place: %s", reason)
        return LayerwiseReload(self._model, self._worker.model_config, self._head)

    def _begin(self) -> None:
        self._close_unfinished()
        models = [self._model] + ([] if self._updated is None else [self._updated.model])
        replace_dummy_scales(self._worker, models)
        self._has_begun = True
        self._heads.set_aside()
        for load in self._loads:
            load.begin()

    def _drop(self) -> None:
        self._head.drop()
        self._pairs.drop()

    def _close_unfinished(self) -> None:
        close_layers(self._model, self._worker.model_config)
        if self._draft is not None:
            close_layers(self._draft.model, self._draft.model_config)

    def _rehearse_draft(self, model: torch.nn.Module, rows: list[TensorRow]) -> None:
        self._heads.set_aside()
        try:
            self._rehearse(Rehearsal(model, shared_layers(self._model, model)), rows)
        finally:
            self._heads.put_back(refresh=False)

    def _rehearse(self, rehearsal: Rehearsal, rows: list[TensorRow]) -> None:
        try:
            shares = rehearsal.run(rows)
        except Exception as error:
            if _is_refusal(error):
                raise UpdateError(
                    f"vLLM refuses the checkpoint, and nothing was changed: {summary(error)}"
                ) from error
            _logger.info(
                "What the checkpoint fills cannot be known before it is loaded", exc_info=True
            )
            return
        check_shares(shares)

    @contextlib.contextmanager
    def _in_context(self) -> Iterator[None]:
        import torch
        from vllm.config import set_current_vllm_config

        with (
            set_current_vllm_config(self._worker.vllm_config),
            incomplete_drafts_allowed(),
            torch.no_grad(),
        ):
            yield


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, NotImplementedError) or not isinstance(error, _REFUSALS):
        return False
    text = str(error).lower()
    return not any(word in text for word in _WITHOUT_MEMORY)


def reset_derived_state(worker: Any) -> None:
    """Drops what the runner of ``worker`` has computed from old weights."""
    for name in ("reset_lora_state", "reset_encoder_cache", "reset_mm_cache"):
        reset = getattr(worker.model_runner, name, None)
        if callable(reset):
            reset()
