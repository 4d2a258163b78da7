"""Checkpoints to pull: one layout, different bytes, and the digests of their tensors."""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING

from checkpoints import read_digests, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from checkpoints import Digests

LARGE_FILES = 3
LARGE_TENSORS = 24
LARGE_BYTES = 2 << 20


def write_large_checkpoint(folder: Path, seed: int) -> Path:
    """48 MiB of random bytes; the layout does not depend on ``seed``."""
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True)
    names = [f"model.layers.{number}.weight" for number in range(LARGE_TENSORS)]
    for number in range(LARGE_FILES):
        part = {
            name: torch.randint(0, 256, (LARGE_BYTES,), dtype=torch.uint8, generator=random)
            for name in names[number::LARGE_FILES]
        }
        # So that chunks and tensors do not begin at the same places.
        part[f"model.scale.{number}"] = torch.rand(7, generator=random)
        save_file(part, folder / f"model-{number + 1:05}-of-{LARGE_FILES:05}.safetensors")
    return folder


def write_nearly_equal_checkpoint(path: Path, seed: int) -> None:
    """320 MiB of zeros but for the first and the last byte, which are ``seed``: two versions of
    which most was not trained. The file is sparse."""
    byte_count = 320 << 20
    tensor = {"dtype": "U8", "shape": [byte_count], "data_offsets": [0, byte_count]}
    header = json.dumps({"weight": tensor}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + bytes([seed]))
        file.truncate(8 + len(header) + byte_count - 1)
        file.seek(0, os.SEEK_END)
        file.write(bytes([seed]))


class Samples:
    """Two checkpoints of equal layout."""

    def __init__(self, folder: Path, *, is_large: bool) -> None:
        write = write_large_checkpoint if is_large else write_checkpoint
        self.first = write(folder / "first", 1)
        self.second = write(folder / "second", 2)
        self.first_digests: Digests = read_digests(self.first)
        self.second_digests: Digests = read_digests(self.second)
        self.byte_count = sum(f.stat().st_size for f in self.first.iterdir())
        assert self.first_digests.keys() == self.second_digests.keys()
        assert self.first_digests != self.second_digests
