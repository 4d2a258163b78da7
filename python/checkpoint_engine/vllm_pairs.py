"""Quantised weights together with their scales.

Some models of vLLM turn such a pair into one tensor of another type while they load it, and forget
the first of the two when the second is not in the same call. Buckets may end between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

_WEIGHT = ".weight"
_SCALES = (".weight_scale_inv", ".weight_scale")


class Pairs:
    """Holds the first of each pair back until the second is there, too."""

    def __init__(self) -> None:
        self._partners: dict[str, str] = {}
        self._held: dict[str, torch.Tensor] = {}

    def expect(self, names: Iterable[str]) -> None:
        """A checkpoint of ``names`` will come; without this nothing is held."""
        known = set(names)
        self._partners.clear()
        for name in known:
            scale = next((ending for ending in _SCALES if name.endswith(ending)), None)
            weight = None if scale is None else name.removesuffix(scale) + _WEIGHT
            if weight is not None and weight in known:
                self._partners[name] = weight
                self._partners[weight] = name

    def take(self, tensors: list[tuple[str, torch.Tensor]]) -> list[tuple[str, torch.Tensor]]:
        """What of ``tensors`` can be loaded now, with what was held for it."""
        if not self._partners:
            return tensors
        ready = []
        for name, tensor in tensors:
            partner = self._partners.get(name)
            if partner is None:
                ready.append((name, tensor))
            elif partner in self._held:
                ready += [(partner, self._held.pop(partner)), (name, tensor)]
            else:
                self._held[name] = tensor
        return ready

    def drop(self) -> None:
        """Forgets what is held."""
        self._held.clear()
