"""Model folders that vLLM can serve: real architectures with random weights."""

from __future__ import annotations

import itertools
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import torch

Tensor = tuple[str, tuple[int, ...]]

FILE_BYTES_MAX = 2_000_000_000
# What one call draws; a file is drawn in several.
_DRAW_ELEMENTS = 32 << 20
_WRITERS = 16
_ITEM_BYTES = 2
_STANDARD_DEVIATION = 0.02
# Large input embeddings make greedy tokens vary from step to step.
_EMBEDDING_DEVIATION = 1.0
_LETTERS = 256


@dataclass(frozen=True)
class Shape:
    """The sizes of a Qwen3; with experts it is a Qwen3-MoE."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_width: int = 128
    vocabulary: int = 151936
    experts: int = 0
    experts_per_token: int = 0

    @property
    def is_moe(self) -> bool:
        return self.experts > 0


MODELS = {
    "qwen3-30b-a3b": Shape(2048, 768, 32, 4, experts=128, experts_per_token=8),
    "qwen3-32b": Shape(5120, 25600, 64, 8),
    "small-moe": Shape(
        512, 256, 8, 4, head_width=64, vocabulary=2048, experts=16, experts_per_token=4
    ),
    "small-dense": Shape(512, 1024, 8, 4, head_width=64, vocabulary=2048),
}


def write_model(folder: Path, model: str, layers: int, seed: int, *, without: str = "") -> int:
    """Writes configuration, tokenizer and weights; returns the bytes of all tensors.

    Weights are normal, those of norms 1. Tensors whose name contains ``without`` are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_configuration(MODELS[model], layers), indent=2)
    (folder / "config.json").write_text(text)
    _write_tokenizer(folder)
    entries = [
        entry for entry in _tensors(MODELS[model], layers) if not without or without not in entry[0]
    ]
    return _write_weights(folder, entries, seed)


def byte_count(model: str, layers: int) -> int:
    """The bytes of all tensors."""
    return sum(_numel(shape) for _, shape in _tensors(MODELS[model], layers)) * _ITEM_BYTES


def _configuration(shape: Shape, layers: int) -> dict[str, Any]:
    common: dict[str, Any] = {
        "attention_bias": False,
        "bos_token_id": _LETTERS,
        "eos_token_id": _LETTERS,
        "head_dim": shape.head_width,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "max_position_embeddings": 4096,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": shape.vocabulary,
    }
    if not shape.is_moe:
        return common | {
            "architectures": ["Qwen3ForCausalLM"],
            "intermediate_size": shape.intermediate,
            "model_type": "qwen3",
        }
    return common | {
        "architectures": ["Qwen3MoeForCausalLM"],
        "decoder_sparse_step": 1,
        "intermediate_size": 3 * shape.hidden,
        "mlp_only_layers": [],
        "model_type": "qwen3_moe",
        "moe_intermediate_size": shape.intermediate,
        "norm_topk_prob": True,
        "num_experts": shape.experts,
        "num_experts_per_tok": shape.experts_per_token,
    }


def _tensors(shape: Shape, layers: int) -> list[Tensor]:
    hidden, width = shape.hidden, shape.head_width
    entries: list[Tensor] = [("model.embed_tokens.weight", (shape.vocabulary, hidden))]
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        attention = f"{prefix}.self_attn"
        entries += [
            (f"{prefix}.input_layernorm.weight", (hidden,)),
            (f"{prefix}.post_attention_layernorm.weight", (hidden,)),
            (f"{attention}.q_proj.weight", (shape.heads * width, hidden)),
            (f"{attention}.k_proj.weight", (shape.kv_heads * width, hidden)),
            (f"{attention}.v_proj.weight", (shape.kv_heads * width, hidden)),
            (f"{attention}.o_proj.weight", (hidden, shape.heads * width)),
            (f"{attention}.q_norm.weight", (width,)),
            (f"{attention}.k_norm.weight", (width,)),
        ]
        if shape.is_moe:
            entries.append((f"{prefix}.mlp.gate.weight", (shape.experts, hidden)))
        blocks = [f"{prefix}.mlp.experts.{number}" for number in range(shape.experts)]
        for block in blocks or [f"{prefix}.mlp"]:
            entries += [
                (f"{block}.gate_proj.weight", (shape.intermediate, hidden)),
                (f"{block}.up_proj.weight", (shape.intermediate, hidden)),
                (f"{block}.down_proj.weight", (hidden, shape.intermediate)),
            ]
    entries.append(("model.norm.weight", (hidden,)))
    entries.append(("lm_head.weight", (shape.vocabulary, hidden)))
    return entries


def _write_tokenizer(folder: Path) -> None:
    """One of single bytes; the tests send and read numbers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: place for place, letter in enumerate(letters)}
    vocabulary["<|end|>"] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", bos_token="<|end|>"
    ).save_pretrained(folder)


# Weights


def _write_weights(folder: Path, entries: list[Tensor], seed: int) -> int:
    parts: list[list[Tensor]] = [[]]
    used = 0
    for entry in entries:
        length = _numel(entry[1]) * _ITEM_BYTES
        if parts[-1] and used + length > FILE_BYTES_MAX:
            parts.append([])
            used = 0
        parts[-1].append(entry)
        used += length
    paths = [
        folder / f"model-{number + 1:05}-of-{len(parts):05}.safetensors"
        for number in range(len(parts))
    ]
    with ThreadPoolExecutor(_WRITERS) as pool:
        total = sum(pool.map(_write_file, paths, parts, itertools.repeat(seed), range(len(parts))))
    weight_map = {
        name: path.name for path, part in zip(paths, parts, strict=True) for name, _ in part
    }
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def _write_file(path: Path, entries: list[Tensor], seed: int, number: int) -> int:
    import torch

    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in entries:
        start, end = end, end + _numel(shape) * _ITEM_BYTES
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    size = path.stat().st_size
    mapped = torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8)
    content = mapped[8 + len(text) :].view(torch.bfloat16)
    _draw(content, seed, number)
    place = 0
    for name, shape in entries:
        part = content[place : place + _numel(shape)]
        place += _numel(shape)
        if "norm" in name:
            part.fill_(1.0)
        elif "embed_tokens" in name:
            part.mul_(_EMBEDDING_DEVIATION / _STANDARD_DEVIATION)
    return end


def _draw(content: torch.Tensor, seed: int, number: int) -> None:
    """Fills ``content`` with normal numbers that follow from ``seed`` and ``number``."""
    import torch

    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", number % torch.cuda.device_count())
    generator = torch.Generator(device).manual_seed(seed * 100_003 + number)
    length = min(_DRAW_ELEMENTS, content.numel())
    drawn = torch.empty(length, dtype=torch.bfloat16, device=device)
    for start in range(0, content.numel(), length):
        part = content[start : start + length]
        part.copy_(drawn.normal_(0.0, _STANDARD_DEVIATION, generator=generator)[: part.numel()])


def _numel(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count
