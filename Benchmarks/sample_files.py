"""Checkpoints to measure with, written without any library."""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30
# The matrices of a decoder layer; the reference workers cut some by rows and some by columns.
_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "w2")
_COLUMNS = 4096
_BLOCK = os.urandom(8 * MIB)


def _write(path: Path, entries: dict[str, list[int]], fill: bytes) -> None:
    """One file of BF16 tensors with the given shapes; its bytes repeat ``fill``."""
    header = {}
    offset = 0
    for name, shape in entries.items():
        length = 2 * shape[0] * shape[1]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + length]}
        offset += length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for start in range(0, offset, len(fill)):
            file.write(fill[: offset - start])
        file.flush()
        os.fsync(file.fileno())


def _name(number: int) -> str:
    layer, module = divmod(number, len(_MODULES))
    return f"model.layers.{layer}.{_MODULES[module]}.weight"


def write_checkpoint(folder: Path, byte_count: int, *, files: int = 1, tensors: int = 64) -> Path:
    """A checkpoint of ``tensors`` equal matrices that have ``byte_count`` bytes in all."""
    folder.mkdir(parents=True)
    rows = byte_count // tensors // (2 * _COLUMNS)
    for number in range(files):
        names = [_name(index) for index in range(number, tensors, files)]
        entries = {name: [rows, _COLUMNS] for name in names}
        _write(folder / f"model-{number + 1:05}-of-{files:05}.safetensors", entries, _BLOCK)
    return folder


def write_many_tensors(folder: Path, count: int) -> Path:
    """A checkpoint of ``count`` tensors of 32 bytes, with names of usual length."""
    folder.mkdir(parents=True)
    entries = {
        f"model.layers.{index // 1500}.mlp.experts.{index % 1500}.down_proj.weight": [4, 4]
        for index in range(count)
    }
    _write(folder / "model.safetensors", entries, _BLOCK[:4096])
    return folder
