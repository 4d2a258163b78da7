"""Makes tiny models with random weights, without any download: ``make_model.py --help``.

The weights are drawn so that greedy tokens vary from step to step and differ from seed to seed; a
tiny model with small weights would only repeat one token.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

ARCHITECTURES = ("qwen3", "qwen3-tied", "qwen3-moe")
VOCABULARY = 512
SHARD_SIZE_MAX = "1MB"


def make_model(
    folder: Path, architecture: str, seed: int, shard_size_max: str = SHARD_SIZE_MAX
) -> Path:
    """Writes configuration, tokenizer and weights into ``folder``, which it makes and returns."""
    import torch
    from transformers import set_seed
    from transformers.utils import logging

    logging.disable_progress_bar()
    set_seed(seed)
    model = _model(architecture).to(torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                parameter.uniform_(0.5, 1.5)
            else:
                # A tied embedding that is large makes a model repeat its last token.
                is_input = "embed_tokens" in name and architecture != "qwen3-tied"
                scale = 1.0 if is_input else 0.08
                parameter.normal_(0.0, scale)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, max_shard_size=shard_size_max)
    _write_tokenizer(folder)
    return folder


def _model(architecture: str) -> PreTrainedModel:
    from transformers import (
        Qwen3Config,
        Qwen3ForCausalLM,
        Qwen3MoeConfig,
        Qwen3MoeForCausalLM,
    )

    common = {
        "vocab_size": VOCABULARY,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": architecture == "qwen3-tied",
        "bos_token_id": 256,
        "eos_token_id": 256,
    }
    config: PretrainedConfig
    if architecture in ("qwen3", "qwen3-tied"):
        config = Qwen3Config(**common)
        return Qwen3ForCausalLM(config)
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
    raise ValueError(f"unknown architecture {architecture!r}; known: {', '.join(ARCHITECTURES)}")


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
