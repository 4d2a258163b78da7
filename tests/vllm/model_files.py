"""Rewrites the safetensors files of a made model: other names, other types, other shards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import torch

INDEX = "model.safetensors.index.json"


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the model in ``folder``, by name."""
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def write_tensors(folder: Path, tensors: dict[str, torch.Tensor], shard_bytes_max: int) -> None:
    """Replaces the files of the model in ``folder`` by shards of about ``shard_bytes_max`` bytes,
    filled in the order of ``tensors``, and an index."""
    from safetensors.torch import save_file

    shards: list[dict[str, torch.Tensor]] = [{}]
    room = shard_bytes_max
    for name, tensor in tensors.items():
        room -= tensor.nbytes
        if room < 0 and shards[-1]:
            shards.append({})
            room = shard_bytes_max - tensor.nbytes
        shards[-1][name] = tensor.contiguous()
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    places = {}
    for number, shard in enumerate(shards, 1):
        file = folder / f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(shard, file, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, file.name)
    index = {"metadata": {}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index))


def edit_config(folder: Path, **values: object) -> None:
    """Sets values in the model's ``config.json``."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values, indent=1))
