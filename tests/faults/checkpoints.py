"""Small checkpoints with every kind of tensor that matters, and what is in their files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fault_workers import Outcome, describe

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = 6
FILES = 3

Digests = dict[str, tuple[str, list[int], str]]


def write_checkpoint(folder: Path, seed: int) -> Path:
    """Writes ``FILES`` shards with random values; the layout does not depend on ``seed``."""
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {
        "model.embed_tokens.weight": torch.randn(256, 64, generator=random).bfloat16(),
        "model.norm.weight": torch.randn(64, generator=random),
        "lm_head.weight": torch.randn(256, 64, generator=random).half(),
        "model.steps": torch.randint(0, 1 << 40, (), generator=random),
        "model.mask": torch.rand(33, generator=random) > 0.5,
        "model.nothing": torch.empty(0, 7),
    }
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        tensors |= {
            f"{prefix}.q_proj.weight": torch.randn(128, 96, generator=random).bfloat16(),
            f"{prefix}.o_proj.weight": torch.randn(96, 128, generator=random).bfloat16(),
            f"{prefix}.down_proj.weight": torch.randn(64, 160, generator=random),
            f"{prefix}.up_proj.weight": torch.randn(64, 96, generator=random).to(
                torch.float8_e4m3fn
            ),
            f"{prefix}.up_proj.scale": torch.rand(3, 1, generator=random),
        }
    folder.mkdir(parents=True)
    names = sorted(tensors)
    for number in range(FILES):
        part = {name: tensors[name] for name in names[number::FILES]}
        save_file(part, folder / f"model-{number + 1:05}-of-{FILES:05}.safetensors")
    return folder


def read_digests(folder: Path) -> Digests:
    """What the package ``safetensors`` reads from the files."""
    from safetensors import safe_open

    digests: Digests = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            digests |= {name: describe(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    return digests


def check_delivered(outcomes: list[Outcome], expected: Digests, worker_count: int) -> None:
    """Every worker has committed every byte."""
    assert sorted(outcome.rank for outcome in outcomes) == list(range(worker_count))
    for outcome in outcomes:
        assert outcome.error is None, outcome
        assert outcome.committed
        assert outcome.buckets > 4, "the checkpoint has to have several buckets"
        assert outcome.digests == expected
