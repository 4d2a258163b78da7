"""The tensors of known models, how engines cut them over GPUs, and checkpoints of random bytes."""

from __future__ import annotations

import json
import math
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Entry = tuple[str, str, tuple[int, ...]]

ITEM_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    "F4": 4,
}
FILE_BYTES_MAX = 5_000_000_000
_CHUNK_BYTES = 16 << 20
_WORD_BYTES = 8
# The edge of the blocks that share one scale in DeepSeek's FP8 checkpoints.
_SCALE_BLOCK = 128
_HEADER_BYTES_MAX = 100_000_000

_COLUMN_PARALLEL = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "q_b_proj", "kv_b_proj")
_ROW_PARALLEL = ("o_proj", "down_proj")
_VOCABULARY = ("embed_tokens", "lm_head")


def byte_count(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor in a file."""
    return math.prod(shape) * ITEM_BITS[dtype] // 8


def tensors(model: str, layers: int) -> list[Entry]:
    """Names, safetensors dtypes and shapes of ``model`` with ``layers`` decoder layers."""
    if model not in MODELS:
        raise ValueError(f"unknown model {model!r}; known are {', '.join(MODELS)}")
    hidden, vocabulary, layer_entries = MODELS[model]
    entries: list[Entry] = [("model.embed_tokens.weight", "BF16", (vocabulary, hidden))]
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        entries += [(f"{prefix}.{name}", *rest) for name, *rest in layer_entries(layer)]  # type: ignore[misc]
    entries.append(("model.norm.weight", "BF16", (hidden,)))
    entries.append(("lm_head.weight", "BF16", (vocabulary, hidden)))
    return entries


def slice_of(
    name: str, shape: Sequence[int], tp_rank: int, tp_size: int
) -> tuple[int, int, int] | None:
    """``(dim, start, length)`` of the part that a tensor-parallel rank holds; ``None`` for all.

    A dimension that ``tp_size`` does not divide is not cut, as that of a block scale may be.
    """
    module = name.split(".")[-2] if "." in name else name
    if module in _COLUMN_PARALLEL or module in _VOCABULARY:
        dim = 0
    elif module in _ROW_PARALLEL:
        dim = 1
    else:
        return None
    if tp_size == 1 or dim >= len(shape) or shape[dim] % tp_size != 0:
        return None
    length = shape[dim] // tp_size
    return dim, tp_rank * length, length


def _norms(hidden: int) -> list[Entry]:
    names = ("input_layernorm.weight", "post_attention_layernorm.weight")
    return [(name, "BF16", (hidden,)) for name in names]


def _mlp(prefix: str, hidden: int, intermediate: int) -> list[Entry]:
    return [
        (f"{prefix}.gate_proj.weight", "BF16", (intermediate, hidden)),
        (f"{prefix}.up_proj.weight", "BF16", (intermediate, hidden)),
        (f"{prefix}.down_proj.weight", "BF16", (hidden, intermediate)),
    ]


def _qwen3_attention(hidden: int, heads: int, kv_heads: int) -> list[Entry]:
    width = 128
    return [
        ("self_attn.q_proj.weight", "BF16", (heads * width, hidden)),
        ("self_attn.k_proj.weight", "BF16", (kv_heads * width, hidden)),
        ("self_attn.v_proj.weight", "BF16", (kv_heads * width, hidden)),
        ("self_attn.o_proj.weight", "BF16", (hidden, heads * width)),
        ("self_attn.q_norm.weight", "BF16", (width,)),
        ("self_attn.k_norm.weight", "BF16", (width,)),
    ]


def _qwen3_32b(_layer: int) -> list[Entry]:
    return _norms(5120) + _qwen3_attention(5120, 64, 8) + _mlp("mlp", 5120, 25600)


def _qwen3_30b_a3b(_layer: int) -> list[Entry]:
    entries = _norms(2048) + _qwen3_attention(2048, 32, 4)
    entries.append(("mlp.gate.weight", "BF16", (128, 2048)))
    for expert in range(128):
        entries += _mlp(f"mlp.experts.{expert}", 2048, 768)
    return entries


def _with_scales(entries: list[Entry]) -> list[Entry]:
    """FP8 weights, each followed by one factor for every block of 128 by 128."""
    result: list[Entry] = []
    for name, _, shape in entries:
        blocks = tuple(-(-extent // _SCALE_BLOCK) for extent in shape)
        result += [(name, "F8_E4M3", shape), (f"{name}_scale_inv", "F32", blocks)]
    return result


def _deepseek_v3_fp8(layer: int) -> list[Entry]:
    hidden, heads, q_lora, kv_lora, rope, nope, value = 7168, 128, 1536, 512, 64, 128, 128
    attention: list[Entry] = [
        ("self_attn.q_a_proj.weight", "", (q_lora, hidden)),
        ("self_attn.q_b_proj.weight", "", (heads * (nope + rope), q_lora)),
        ("self_attn.kv_a_proj_with_mqa.weight", "", (kv_lora + rope, hidden)),
        ("self_attn.kv_b_proj.weight", "", (heads * (nope + value), kv_lora)),
        ("self_attn.o_proj.weight", "", (hidden, heads * value)),
    ]
    entries = _norms(hidden) + _with_scales(attention)
    entries.append(("self_attn.q_a_layernorm.weight", "BF16", (q_lora,)))
    entries.append(("self_attn.kv_a_layernorm.weight", "BF16", (kv_lora,)))
    if layer < 3:
        return entries + _with_scales(_mlp("mlp", hidden, 18432))
    entries.append(("mlp.gate.weight", "BF16", (256, hidden)))
    entries.append(("mlp.gate.e_score_correction_bias", "F32", (256,)))
    for expert in range(256):
        entries += _with_scales(_mlp(f"mlp.experts.{expert}", hidden, 2048))
    return entries + _with_scales(_mlp("mlp.shared_experts", hidden, 2048))


# Hidden size, vocabulary, and the tensors of one layer.
MODELS = {
    "qwen3-32b": (5120, 151936, _qwen3_32b),
    "qwen3-30b-a3b": (2048, 151936, _qwen3_30b_a3b),
    "deepseek-v3-fp8": (7168, 129280, _deepseek_v3_fp8),
}


@dataclass(frozen=True)
class StoredTensor:
    """Where the bytes of one tensor lie."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    byte_count: int


def stored_tensors(directory: Path) -> Iterator[StoredTensor]:
    """Every tensor of the safetensors files in ``directory``."""
    for path in sorted(directory.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _HEADER_BYTES_MAX:
                raise ValueError(f"{path}: a header of {length} bytes")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, row in header.items():
            begin, end = row["data_offsets"]
            shape = tuple(row["shape"])
            yield StoredTensor(name, row["dtype"], shape, path, 8 + length + begin, end - begin)


def write_checkpoint(
    directory: Path, model: str, layers: int, file_bytes_max: int = FILE_BYTES_MAX, seed: int = 0
) -> int:
    """Writes shards of random bytes and their index; returns the bytes of all tensors."""
    return write_tensors(directory, tensors(model, layers), file_bytes_max, seed)


def write_tensors(
    directory: Path, entries: Sequence[Entry], file_bytes_max: int = FILE_BYTES_MAX, seed: int = 0
) -> int:
    """The same for any list of tensors. Contents follow from seed and position; BOOL is 0 or 1."""
    directory.mkdir(parents=True, exist_ok=True)
    parts = _split(entries, file_bytes_max)
    workers = min(64, len(os.sched_getaffinity(0)))
    words = _CHUNK_BYTES // _WORD_BYTES
    base = np.random.SFC64([seed, 0]).random_raw(words)
    weight_map: dict[str, str] = {}
    total = 0
    with ThreadPoolExecutor(workers) as pool:
        jobs = []
        for number, part in enumerate(parts):
            path = directory / f"model-{number + 1:05}-of-{len(parts):05}.safetensors"
            weight_map |= dict.fromkeys((name for name, _, _ in part), path.name)
            shard = _Shard(path, part, base, (seed, number + 1))
            total += shard.byte_count
            jobs += [pool.submit(shard.write, chunk) for chunk in range(shard.chunk_count)]
        for job in jobs:
            job.result()
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def _split(entries: Sequence[Entry], file_bytes_max: int) -> list[list[Entry]]:
    parts: list[list[Entry]] = [[]]
    used = 0
    for entry in entries:
        length = byte_count(*entry[1:])
        if parts[-1] and used + length > file_bytes_max:
            parts.append([])
            used = 0
        parts[-1].append(entry)
        used += length
    return parts


class _Shard:
    """One file; its header and size stand when the object is made."""

    def __init__(
        self, path: Path, entries: list[Entry], base: np.ndarray, key: tuple[int, int]
    ) -> None:
        self._path = path
        self._base = base
        self._key = key
        self._flags: list[tuple[int, int]] = []
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, dtype, shape in entries:
            start, end = end, end + byte_count(dtype, shape)
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
            if dtype == "BOOL":
                self._flags.append((start, end))
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.byte_count = end
        self._start = 8 + len(text)
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(self._start + end)

    @property
    def chunk_count(self) -> int:
        return -(-self.byte_count // _CHUNK_BYTES)

    def write(self, chunk: int) -> None:
        """Writes one chunk of the data; chunks may be written in any order, by any thread."""
        first = chunk * _CHUNK_BYTES
        length = min(_CHUNK_BYTES, self.byte_count - first)
        key = np.random.SFC64([*self._key, chunk]).random_raw(1)
        content = np.bitwise_xor(self._base, key).view(np.uint8)[:length]
        for start, end in self._flags:
            content[max(0, start - first) : max(0, min(length, end - first))] &= 1
        descriptor = os.open(self._path, os.O_WRONLY)
        try:
            view = memoryview(content)
            written = 0
            while written < length:
                offset = self._start + first + written
                written += os.pwrite(descriptor, view[written:], offset)
        finally:
            os.close(descriptor)
