"""Turns the linear layers of a made model into what quantised checkpoints have."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    Quantised = dict[str, torch.Tensor]

FP8_MAX = 448.0
BLOCK = 128
GROUP = 128


def quantise(
    tensors: dict[str, torch.Tensor], kind: str
) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """The tensors of a checkpoint of ``kind``, and its ``quantization_config``.

    ``kind`` is ``fp8`` (one scale for each tensor), ``block`` (FP8 with one for each 128 by 128),
    ``int8`` (one for each row) or ``gptq`` (4 bits, one for each 128 values of a row).
    """
    makers: dict[str, tuple[Callable[[torch.Tensor], Quantised], dict[str, object]]] = {
        "fp8": (_fp8, {"quant_method": "fp8", "activation_scheme": "dynamic"}),
        "block": (
            _fp8_blocks,
            {
                "quant_method": "fp8",
                "activation_scheme": "dynamic",
                "weight_block_size": [BLOCK, BLOCK],
            },
        ),
        "int8": (_int8, _INT8),
        "gptq": (
            _gptq,
            {
                "quant_method": "gptq",
                "bits": 4,
                "group_size": GROUP,
                "desc_act": False,
                "sym": True,
                "lm_head": False,
            },
        ),
    }
    make, configuration = makers[kind]
    changed: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith("_proj.weight"):
            prefix = name.removesuffix("weight")
            changed |= {prefix + part: value for part, value in make(tensor.float()).items()}
        else:
            changed[name] = tensor
    return changed, configuration


_INT8: dict[str, object] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 8,
                "type": "int",
                "strategy": "channel",
                "symmetric": True,
                "dynamic": False,
            },
            "input_activations": {
                "num_bits": 8,
                "type": "int",
                "strategy": "token",
                "symmetric": True,
                "dynamic": True,
            },
        }
    },
}


def _fp8(weight: torch.Tensor) -> Quantised:
    import torch

    scale = weight.abs().max() / FP8_MAX
    return {"weight": (weight / scale).to(torch.float8_e4m3fn), "weight_scale": scale}


def _fp8_blocks(weight: torch.Tensor) -> Quantised:
    import torch

    rows, columns = weight.shape
    blocks = weight.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    scales = blocks.abs().amax(dim=(1, 3)) / FP8_MAX
    values = (blocks / scales[:, None, :, None]).reshape(rows, columns)
    return {"weight": values.to(torch.float8_e4m3fn), "weight_scale_inv": scales}


def _int8(weight: torch.Tensor) -> Quantised:
    import torch

    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return {
        "weight": (weight / scale).round().clamp(-127, 127).to(torch.int8),
        "weight_scale": scale.to(torch.bfloat16),
    }


def _gptq(weight: torch.Tensor) -> Quantised:
    import torch

    rows, columns = weight.shape
    groups = weight.t().reshape(columns // GROUP, GROUP, rows)
    scales = groups.abs().amax(dim=1) / 7
    codes = (groups / scales[:, None, :]).round().clamp(-8, 7).reshape(columns, rows) + 8
    shifts = 4 * torch.arange(8)
    packed = (codes.to(torch.int64).reshape(columns // 8, 8, rows) << shifts[:, None]).sum(dim=1)
    zeros = torch.full((columns // GROUP, rows // 8), 0x77777777, dtype=torch.int32)
    return {
        "qweight": packed.to(torch.int32),
        "qzeros": zeros,
        "scales": scales.to(torch.float16),
        "g_idx": torch.arange(columns, dtype=torch.int32) // GROUP,
    }
