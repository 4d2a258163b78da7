"""vLLM's own models in this process, without an engine: as a worker holds them.

The linear layers and the experts that are not quantised keep their weights as vLLM loads them, as
they do on GPUs; on the CPU vLLM packs them into memory that nobody can compare.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from quantise import FP8_MAX
from vllm_server import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest
    import torch
    from checkpoint_engine.vllm_update import EngineUpdate

BUCKET_BYTES = 300_000


def prepare(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Makes this process the only rank of a vLLM, and keeps its layers plain."""
    for name, value in ENVIRONMENT.items():
        patch.setenv(name, value)
    import torch
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
    from vllm.model_executor.layers.fused_moe import unquantized_fused_moe_method as moe
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod
    from vllm.model_executor.layers.quantization.utils import w8a8_utils

    for method in (UnquantizedLinearMethod, moe.UnquantizedFusedMoEMethod):
        patch.setattr(method, "process_weights_after_loading", lambda *_: None)
    for name in ("empty_cache", "synchronize"):
        patch.setattr(torch.accelerator, name, lambda: None)
    patch.setattr(w8a8_utils.ops, "scaled_fp8_quant", _to_fp8)
    _allow_block_scales(patch)
    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{folder / 'store'}", 0, "gloo")
        ensure_model_parallel_initialized(1, 1)


def _to_fp8(values: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What vLLM has a kernel for, only not on the CPU; it joins the scales of fused layers."""
    import torch

    return (values / scale).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn), scale


def _allow_block_scales(patch: pytest.MonkeyPatch) -> None:
    """vLLM's layer for FP8 with block scales, which needs a GPU only to compute."""
    from vllm.model_executor.kernels import linear
    from vllm.platforms import PlatformEnum

    class Kernel(linear.BlockWiseTorchFP8ScaledMMLinearKernel):
        @classmethod
        def is_supported(cls, *_: object) -> tuple[bool, None]:
            return True, None

    kernels = linear._POSSIBLE_FP8_BLOCK_KERNELS
    patch.setitem(kernels, PlatformEnum.CPU, [Kernel])


class Models:
    """The models of one worker, and what ``EngineUpdate`` asks of the worker."""

    def __init__(self, folder: Path, load_format: str, speculation: Any = None) -> None:
        import torch
        from vllm.config import set_current_vllm_config
        from vllm.engine.arg_utils import EngineArgs
        from vllm.model_executor.model_loader import get_model
        from vllm.v1.worker.gpu.spec_decode.eagle.utils import load_eagle_model

        arguments = EngineArgs(
            model=str(folder),
            load_format=load_format,
            dtype="bfloat16",
            enforce_eager=True,
            max_model_len=512,
            speculative_config=speculation,
        )
        self.vllm_config = arguments.create_engine_config()
        self.model_config = self.vllm_config.model_config
        self.device = torch.device("cpu")
        self.model_runner = SimpleNamespace(resets=0, reset_lora_state=self._reset)
        self._draft = None
        with set_current_vllm_config(self.vllm_config):
            self._model = get_model(vllm_config=self.vllm_config)
            if speculation is not None:
                self._draft = load_eagle_model(self._model, self.vllm_config)

    def get_model(self) -> torch.nn.Module:
        return self._model

    def get_draft_model(self) -> torch.nn.Module | None:
        return self._draft

    def _reset(self) -> None:
        self.model_runner.resets += 1

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor that kernels may read, by the name of its model and its layer."""
        found: dict[str, torch.Tensor] = {}
        for prefix, model in (("main", self._model), ("draft", self._draft)):
            if model is not None:
                named = [*model.named_parameters(), *model.named_buffers()]
                found |= {f"{prefix}.{name}": tensor for name, tensor in named}
        return found

    def copies(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.tensors().items()}

    def places(self) -> dict[str, int]:
        return {name: tensor.data_ptr() for name, tensor in self.tensors().items()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """The same names, and bit for bit the same contents."""
    assert found.keys() == expected.keys()
    wrong = [name for name in found if not same_bytes(found[name], expected[name])]
    assert not wrong, wrong


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    import torch

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    pair = [tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return torch.equal(*pair)


def rows_of(tensors: dict[str, torch.Tensor]) -> tuple[Any, ...]:
    """The catalog of ``tensors``."""
    import torch
    from checkpoint_engine.catalog import TensorRow
    from checkpoint_engine.dtypes import DTYPES

    names = {
        getattr(torch, kind.torch_name): name
        for name, kind in DTYPES.items()
        if kind.torch_name and hasattr(torch, kind.torch_name)
    }
    return tuple(
        TensorRow(name, names[tensor.dtype], tuple(tensor.shape), 0, 0)
        for name, tensor in tensors.items()
    )


def buckets_of(
    tensors: dict[str, torch.Tensor], seed: int
) -> Iterator[list[tuple[str, torch.Tensor]]]:
    """``tensors`` in an order of chance and in small buckets, so that layers lie in several."""
    items = list(tensors.items())
    random.Random(seed).shuffle(items)
    bucket: list[tuple[str, torch.Tensor]] = []
    for item in items:
        bucket.append(item)
        if sum(tensor.nbytes for _, tensor in bucket) >= BUCKET_BYTES:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


def update(
    models: Models, tensors: dict[str, torch.Tensor], seed: int = 1, *, as_on_cuda: bool = False
) -> None:
    """A whole update, as a session makes it."""
    running = start_update(models, as_on_cuda=as_on_cuda)
    try:
        running.examine(rows_of(tensors))
        for bucket in buckets_of(tensors, seed):
            running.load(bucket)
        running.commit()
    except BaseException:
        running.discard()
        raise


def start_update(models: Models, *, as_on_cuda: bool = False) -> EngineUpdate:
    """An update that chooses how to load by the rules of the CPU, or by those of CUDA."""
    import pytest
    from checkpoint_engine.vllm_update import EngineUpdate
    from vllm.platforms import current_platform

    with pytest.MonkeyPatch.context() as patch:
        if as_on_cuda:
            patch.setattr(current_platform, "is_cuda", lambda: True)
            patch.setattr("checkpoint_engine.vllm_inplace._MOE_BACKENDS", ("CPU",))
        return EngineUpdate(models)
