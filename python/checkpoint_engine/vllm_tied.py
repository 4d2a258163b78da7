"""Output embeddings that a vLLM model shares with its input embedding, around an update.

A checkpoint may have such a tensor or not. vLLM refuses it in a bucket that lacks the input
embedding, so it is held back, and compared with the input embedding at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import UpdateError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

_HEAD = "lm_head.weight"
# What checkpoints call the input embedding that an output embedding may be tied to.
_EMBEDDINGS = (
    "embed_tokens.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
    "wte.weight",
)


class TiedHead:
    """The output embedding of ``model`` during one update.

    Also of a model whose configuration ties its embeddings, but whose own checkpoint had both, so
    that vLLM made two: it gets the input embedding of a checkpoint that has only one.
    """

    def __init__(self, model: torch.nn.Module, model_config: Any) -> None:
        self._model = model
        self._is_tied = has_tied_head(model)
        self._lone: tuple[Any, Any] | None = None
        if getattr(model_config, "word_embeddings_untied_by_checkpoint", False):
            self._lone = None if self._is_tied else _only_pair(model)
        self._head: tuple[str, torch.Tensor] | None = None
        self._embeddings: list[tuple[str, torch.Tensor]] = []

    def examine(self, names: Iterable[str]) -> None:
        """Raises ``UpdateError`` when a checkpoint of ``names`` has the shared tensor only under
        its second name."""
        if not self._is_tied:
            return
        found = list(names)
        heads = [name for name in found if _is_head(name)]
        if heads and not any(_is_embedding(name) for name in found):
            raise UpdateError(
                f"the model shares {heads[0]} with its input embedding, and the checkpoint does "
                "not have that; update both together"
            )

    def holds(self, name: str) -> bool:
        """Whether ``take`` keeps the tensor ``name`` from vLLM."""
        return self._is_tied and _is_head(name)

    def take(self, tensors: list[tuple[str, torch.Tensor]]) -> list[tuple[str, torch.Tensor]]:
        """``tensors`` without a shared output embedding."""
        if not self._is_tied and self._lone is None:
            return tensors
        kept = []
        for name, tensor in tensors:
            if _is_head(name):
                self._head = (name, tensor)
            elif _is_embedding(name):
                self._embeddings.append((name, tensor))
            if not self.holds(name):
                kept.append((name, tensor))
        return kept

    def complete(self) -> None:
        """Loads the input embedding into an output embedding that the checkpoint does not have.
        Raises ``UpdateError`` when a shared one differs from the input embedding."""
        if self._lone is None:
            self._compare()
        elif self._head is None and self._embeddings:
            head, _ = self._lone
            head.weight.weight_loader(head.weight, self._embeddings[-1][1])

    def refresh(self) -> None:
        """Makes what kernels compute from the weights of shared output embeddings anew.

        Nothing was loaded into those, but kernels of the CPU use a packed copy.
        """
        for head in _tied_heads(self._model):
            head.quant_method.process_weights_after_loading(head)

    def drop(self) -> None:
        """Forgets the tensors."""
        self._head = None
        self._embeddings = []

    def _compare(self) -> None:
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


def has_tied_head(model: torch.nn.Module) -> bool:
    """Whether an output embedding of ``model`` is its input embedding."""
    layers = _embedding_layers(model)
    return any(
        name.endswith(_HEAD.removesuffix(".weight"))
        and any(other.weight is layer.weight for path, other in layers if path != name)
        for name, layer in layers
    )


def _is_head(name: str) -> bool:
    return name == _HEAD or name.endswith("." + _HEAD)


def _is_embedding(name: str) -> bool:
    return name.endswith(_EMBEDDINGS)


def _embedding_layers(model: torch.nn.Module) -> list[tuple[str, Any]]:
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    return [
        (name, layer)
        for name, layer in model.named_modules(remove_duplicate=False)
        if isinstance(layer, VocabParallelEmbedding) and getattr(layer, "weight", None) is not None
    ]


def _only_pair(model: torch.nn.Module) -> tuple[Any, Any] | None:
    """The one output embedding of ``model`` and its one input embedding."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    layers = [layer for _, layer in _embedding_layers(model)]
    heads = [layer for layer in layers if isinstance(layer, ParallelLMHead)]
    inputs = [layer for layer in layers if not isinstance(layer, ParallelLMHead)]
    if len(heads) != 1 or len(inputs) != 1:
        return None
    return heads[0], inputs[0]


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
