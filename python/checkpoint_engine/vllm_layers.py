"""What of each layer of a model is loaded, so that a part of a layer is never served.

vLLM fuses tensors of a checkpoint (q, k and v; gate and up; all experts) into the layers that its
kernels use, and quantised layers take a weight with its scales. Such a layer is updated as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import UpdateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import torch

# What quantised layers need together. Other parameters of theirs may be missing in checkpoints.
_TOGETHER = frozenset(
    {
        "weight",
        "weight_packed",
        "weight_scale",
        "weight_scale_2",
        "weight_scale_inv",
        "weight_global_scale",
        "weight_zero_point",
        "qweight",
        "qzeros",
        "scales",
    }
)
_SHOWN_MAX = 4
_REMEDY = "update whole layers, or with a complete checkpoint"


class Share:
    """What of one layer is loaded: parameters, their parts, experts, and elements."""

    def __init__(self, name: str, layer: torch.nn.Module) -> None:
        self.name = name
        self.layer = layer
        # Parameters and the ids of the parts that came; `None` stands for the whole.
        self.parts: dict[str, set[object]] = {}
        self.experts: dict[int, set[tuple[str, object]]] = {}
        # Elements in all; `None` where nobody counts.
        self.count: int | None = None
        # Of the tensors in the checkpoint, where that is known.
        self.sources: set[str] = set()

    def note(self, parameter: str, arguments: Mapping[str, object]) -> None:
        """Notes a call of the loader of ``parameter``."""
        expert = arguments.get("expert_id")
        if isinstance(expert, int):
            part = (parameter, arguments.get("shard_id"))
            self.experts.setdefault(expert, set()).add(part)
        part_id = arguments.get("loaded_shard_id")
        ids = part_id if isinstance(part_id, tuple) else (part_id,)
        self.parts.setdefault(parameter, set()).update(ids)

    def check(self) -> None:
        """Raises ``UpdateError`` for a part of the layer; nothing at all is no part."""
        if not self.parts or _is_deferred(self.layer):
            return
        self._check_experts()
        self._check_parts()
        self._check_parameters()
        self._check_count()

    def _check_parts(self) -> None:
        expected = _part_ids(self.layer)
        for parameter, present in self.parts.items():
            missing = expected - present
            if None not in present and present <= expected and missing:
                self._refuse(f"of {parameter} {_listed(present)}, but not {_listed(missing)}")

    def _check_parameters(self) -> None:
        expected = _noted(self.layer)
        if _is_quantised(self.layer):
            expected = _together(expected) if _together(self.parts) else set()
        missing = expected - self.parts.keys()
        if missing:
            self._refuse(f"{_listed(self.parts)}, but not {_listed(missing)}")

    def _check_count(self) -> None:
        from vllm.model_executor.layers.linear import UnquantizedLinearMethod

        method = getattr(self.layer, "quant_method", None)
        if self.count is None or not isinstance(method, UnquantizedLinearMethod):
            return
        kept = kept_tensors()
        expected = sum(
            tensor.numel()
            for parameter, tensor in self.layer.named_parameters(recurse=False)
            if parameter not in kept or parameter in self.parts
        )
        if self.count < expected:
            self._refuse(f"{self.count} of {expected} elements")

    def _check_experts(self) -> None:
        if not self.experts:
            return
        configuration: Any = getattr(self.layer, "moe_config", None)
        count = getattr(configuration, "num_logical_experts", 0)
        if len(self.experts) < count:
            self._refuse(f"{len(self.experts)} of {count} experts")
        expected: set[tuple[str, object]] = set().union(*self.experts.values())
        if getattr(configuration, "is_act_and_mul", False):
            expected |= _other_half(expected)
        for expert, present in self.experts.items():
            if present != expected:
                raise UpdateError(
                    f"the checkpoint has only a part of expert {expert} of the layer {self.name}: "
                    f"{len(present)} of {len(expected)} tensors{self._origin()}; {_REMEDY}"
                )

    def _refuse(self, what: str) -> None:
        raise UpdateError(
            f"the checkpoint has only a part of the layer {self.name}: {what}{self._origin()}; "
            f"{_REMEDY}"
        )

    def _origin(self) -> str:
        return f" (from {_listed(self.sources)})" if self.sources else ""


def check_shares(shares: Iterable[Share]) -> None:
    """Raises ``UpdateError`` for the first layer of which only a part is there."""
    for share in shares:
        share.check()


def shares_of_reload(model: torch.nn.Module) -> Iterator[Share]:
    """Of the layers that a layerwise reload has opened and not completed."""
    names = {id(layer): name for name, layer in model.named_modules()}
    for layer, info in open_layers(model):
        share = Share(names[id(layer)], layer)
        for parameter, bound in info.loaded_weights:
            share.note(parameter, bound.arguments)
        share.count = info.load_numel
        yield share


def open_layers(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, Any]]:
    """The layers that a reload has opened and not yet completed, with vLLM's notes on each."""
    from vllm.model_executor.model_loader.reload import layerwise

    for layer in model.modules():
        info = layerwise.LAYERWISE_INFO.get(layer)
        if info is not None and info.can_load():
            yield layer, info


def noted_tensors(
    layer: torch.nn.Module,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] | None:
    """The parameters and the buffers of ``layer`` as vLLM made them, before any weights: on
    ``meta``. ``None`` for a layer that it did not note."""
    from vllm.model_executor.model_loader.reload import layerwise

    info: Any = layerwise.LAYERWISE_INFO.get(layer)
    return None if info is None else info.restore_metadata


def _together(parameters: Iterable[str]) -> set[str]:
    """Those that are needed together; experts have them twice, as ``w13_…`` and ``w2_…``."""
    return {
        name for name in parameters if name.removeprefix("w13_").removeprefix("w2_") in _TOGETHER
    }


def _noted(layer: torch.nn.Module) -> set[str]:
    noted = noted_tensors(layer)
    return set() if noted is None else set(noted[0]) - kept_tensors()


def kept_tensors() -> set[str]:
    """What vLLM does not take away from a layer for a reload: biases, since vLLM 0.32."""
    from vllm.model_executor.model_loader.reload import meta

    return set(meta.SKIP_TENSORS)


def _part_ids(layer: torch.nn.Module) -> set[object]:
    from vllm.model_executor.layers.linear import MergedColumnParallelLinear, QKVParallelLinear

    if isinstance(layer, QKVParallelLinear):
        return {"q", "k", "v"}
    if isinstance(layer, MergedColumnParallelLinear):
        return set(range(len(layer.output_sizes)))
    return set()


def _other_half(parts: set[tuple[str, object]]) -> set[tuple[str, object]]:
    """Gate and up are one parameter of experts; what the other one of each would be."""
    halves = {"w1": "w3", "w3": "w1"}
    return {(parameter, halves[part]) for parameter, part in parts if part in halves}


def _is_quantised(layer: torch.nn.Module) -> bool:
    method = getattr(layer, "quant_method", None)
    return method is not None and not type(method).__name__.startswith("Unquantized")


def _is_deferred(layer: torch.nn.Module) -> bool:
    """Attention: vLLM keeps its tensors, and loads scales into them at the end."""
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    return isinstance(layer, AttentionLayerBase)


def _listed(values: Any) -> str:
    names = sorted(map(str, values))
    more = len(names) - _SHOWN_MAX
    return ", ".join(names[:_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
