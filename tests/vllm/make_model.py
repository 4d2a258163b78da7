"""Makes tiny models with random weights, without any download: ``make_model.py --help``.

The weights are drawn so that greedy tokens vary from step to step and differ from seed to seed; a
tiny model with small weights would only repeat one token.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from model_files import edit_config, read_tensors, write_tensors
from quantise import quantise

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

# `alias`: the files have the output embedding too, a copy of the input embedding, in another shard;
# `other`: one that differs.
# `eagle`: a draft model for the others, without embeddings.
# `mtp`: with a layer that predicts one more token, as DeepSeek-V3 has one; its attention is MLA.
ARCHITECTURES = (
    "qwen3",
    "qwen3-tied",
    "qwen3-tied-alias",
    "qwen3-tied-other",
    "qwen3-moe",
    "qwen3-fp8",
    "qwen3-fp8-block",
    "qwen3-int8",
    "qwen3-gptq",
    "deepseek",
    "deepseek-mtp",
    "eagle",
)
VOCABULARY = 512
SHARD_SIZE_MAX = "1MB"
_LAYER_COUNT = 4
# That of MLA on the CPU: its kernel has 512 + 64 as fixed sizes.
_DEEPSEEK = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 96,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 64,
    "v_head_dim": 64,
    "head_dim": 64,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 1,
    "moe_intermediate_size": 128,
}


def make_model(
    folder: Path,
    architecture: str,
    seed: int,
    shard_size_max: str = SHARD_SIZE_MAX,
    **sizes: int,
) -> Path:
    """Writes configuration, tokenizer and weights into ``folder``, which it makes and returns.

    ``sizes`` are entries of the configuration that differ from the usual ones.
    """
    import torch
    from transformers import set_seed
    from transformers.utils import logging

    logging.disable_progress_bar()
    set_seed(seed)
    model = _model(architecture, sizes).to(torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0.0, _scale(name, architecture))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, max_shard_size=shard_size_max)
    _write_tokenizer(folder)
    _change_files(folder, architecture)
    return folder


def _scale(name: str, architecture: str) -> float:
    """The standard deviation of the weights ``name``."""
    if "embed_tokens" in name and "tied" not in architecture:
        # A tied embedding that is large makes a model repeat its last token.
        return 1.0
    # What guesses tokens ahead is sometimes right where layers say little.
    is_quiet = architecture.endswith("-mtp") and ".layers." in name
    return 0.02 if is_quiet else 0.08


def _model(architecture: str, sizes: dict[str, int]) -> PreTrainedModel:
    from transformers import (
        DeepseekV3Config,
        DeepseekV3ForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
        Qwen3MoeConfig,
        Qwen3MoeForCausalLM,
    )

    common = {
        "vocab_size": VOCABULARY,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": _LAYER_COUNT,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": "tied" in architecture,
        "bos_token_id": 256,
        "eos_token_id": 256,
    } | sizes
    config: PretrainedConfig
    if architecture == "qwen3-moe":
        config = Qwen3MoeConfig(
            **common,
            moe_intermediate_size=128,
            num_experts=8,
            num_experts_per_tok=2,
            decoder_sparse_step=1,
            norm_topk_prob=True,
        )
        return Qwen3MoeForCausalLM(config)
    if architecture.startswith("qwen3"):
        return Qwen3ForCausalLM(Qwen3Config(**common))
    if architecture == "eagle":
        return LlamaForCausalLM(LlamaConfig(**common | {"num_hidden_layers": 1}))
    if architecture.startswith("deepseek"):
        # The last layer becomes the one that predicts one more token.
        count = _DEEPSEEK["num_hidden_layers"] + int(architecture.endswith("-mtp"))
        config = DeepseekV3Config(**common | _DEEPSEEK | {"num_hidden_layers": count})
        return DeepseekV3ForCausalLM(config)
    raise ValueError(f"unknown architecture {architecture!r}; known: {', '.join(ARCHITECTURES)}")


def _change_files(folder: Path, architecture: str) -> None:
    kind = architecture.rpartition("-")[2]
    shard_bytes_max = 1 << 20
    tensors = read_tensors(folder)
    if kind in ("alias", "other"):
        head = tensors["model.embed_tokens.weight"] * (1 if kind == "alias" else 1.5)
        write_tensors(folder, tensors | {"lm_head.weight": head}, shard_bytes_max)
    elif architecture == "eagle":
        write_tensors(folder, _eagle(tensors), shard_bytes_max)
    elif architecture.startswith("deepseek"):
        has_mtp = kind == "mtp"
        if has_mtp:
            write_tensors(folder, _with_mtp(tensors), shard_bytes_max)
        edit_config(
            folder,
            num_hidden_layers=_DEEPSEEK["num_hidden_layers"],
            num_nextn_predict_layers=int(has_mtp),
            topk_method="noaux_tc",
            scoring_func="sigmoid",
        )
    elif kind in ("fp8", "block", "int8", "gptq"):
        changed, configuration = quantise(tensors, kind)
        write_tensors(folder, changed, shard_bytes_max)
        edit_config(folder, quantization_config=configuration)


def _with_mtp(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``tensors``, whose last layer gets what makes it predict one more token.

    It sees mostly the last token's embedding, so that it often agrees with a model whose own
    layers say little.
    """
    import torch

    layer = f"model.layers.{_DEEPSEEK['num_hidden_layers']}"
    embedding = tensors["model.embed_tokens.weight"]
    width = embedding.shape[1]
    projection = torch.cat([torch.eye(width), 0.05 * torch.randn(width, width)], dim=1)
    return tensors | {
        f"{layer}.embed_tokens.weight": embedding.clone(),
        f"{layer}.enorm.weight": torch.ones(width, dtype=embedding.dtype),
        f"{layer}.hnorm.weight": torch.ones(width, dtype=embedding.dtype),
        f"{layer}.eh_proj.weight": projection.to(embedding.dtype),
        f"{layer}.shared_head.norm.weight": tensors["model.norm.weight"].clone(),
        f"{layer}.shared_head.head.weight": tensors["lm_head.weight"].clone(),
    }


def _eagle(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    import torch

    width = tensors["model.norm.weight"].shape[0]
    layers = {
        name.removeprefix("model."): tensor
        for name, tensor in tensors.items()
        if name.startswith("model.layers.") and not name.endswith(".0.input_layernorm.weight")
    }
    return layers | {"fc.weight": (0.08 * torch.randn(width, 2 * width)).to(torch.bfloat16)}


def _write_tokenizer(folder: Path) -> None:
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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make a tiny model with random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="qwen3")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-shard-size", default=SHARD_SIZE_MAX, help="for example 1MB")
    arguments = parser.parse_args()
    make_model(arguments.folder, arguments.architecture, arguments.seed, arguments.max_shard_size)


if __name__ == "__main__":
    main()
