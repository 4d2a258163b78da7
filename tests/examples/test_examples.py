"""The examples, as their users run them: under torchrun, with an engine that compares all bytes."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from checkpoint_engine.metas_json import read_metas_file
from example_runs import EXAMPLES, random_checkpoint, torchrun
from safetensors.torch import save_file

if TYPE_CHECKING:
    from example_runs import Engine


@pytest.mark.parametrize("files", [1, 3])
def test_update(engine: Engine, shared_memory: Path, tmp_path: Path, files: int) -> None:
    checkpoint = random_checkpoint(tmp_path / "first", files)
    metas_file = tmp_path / "metas.json"
    arguments = ["--inference-parallel-size", 2, "--update-method", "all", *engine.flags]
    result = torchrun(
        2,
        EXAMPLES / "update.py",
        "--checkpoint-path",
        checkpoint,
        "--save-metas-file",
        metas_file,
        *arguments,
        CHECKPOINT_ENGINE_SHARED_MEMORY_DIR=str(shared_memory),
    )
    assert result.returncode == 0, result.stderr
    for line in ("register: ", "gather metas: ", "update (broadcast): ", "update (p2p): "):
        assert line in result.stdout
    assert engine.differences(checkpoint) is None
    assert engine.differences(random_checkpoint(tmp_path / "second", files)) is not None

    assert stat.S_IMODE(metas_file.stat().st_mode) == 0o600
    buffers = [
        buffer
        for rank in read_metas_file(metas_file).values()
        for buffer in rank.memory_buffer_metas_list
    ]
    names = [meta.name for buffer in buffers for meta in buffer.metas]
    kinds = ("weight", "scale", "bits")
    assert sorted(names) == sorted(f"layers.{n}.{kind}" for n in range(files) for kind in kinds)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--checkpoint-path is missing"),
        (["--load-metas-file", "/nonexistent", "--inference-parallel-size", "1"], "/nonexistent"),
        (["--load-metas-file", "metas.pkl", "--inference-parallel-size", "1"], "is a pickle"),
        (["--checkpoint-path", "/nonexistent", "--inference-parallel-size", "2"], "no multiple"),
        (["--checkpoint-path", "/nonexistent", "--inference-parallel-size", "1"], "/nonexistent"),
    ],
)
def test_update_refuses(arguments: list[str], words: str) -> None:
    result = torchrun(1, EXAMPLES / "update.py", *arguments)
    assert result.returncode != 0
    assert words in result.stderr


def test_trainer_loop(engine: Engine, shared_memory: Path, tmp_path: Path) -> None:
    script = Path(__file__).parent / "save_pushed.py"
    arguments = [tmp_path, "--inference-parallel-size", 2, "--push-every", 10, *engine.flags]
    variables = {"CHECKPOINT_ENGINE_SHARED_MEMORY_DIR": str(shared_memory)}
    result = torchrun(2, script, *arguments, **variables)
    assert result.returncode == 0, result.stderr
    losses = [float(line.split()[3].rstrip(",")) for line in result.stdout.splitlines()]
    assert len(losses) == 3
    assert losses[0] > losses[-1]
    assert len(list(tmp_path.iterdir())) == 2
    assert engine.differences(tmp_path) is None
    save_file({"0.weight": torch.randn(32, 32)}, tmp_path / "part-0.safetensors")
    assert engine.differences(tmp_path) is not None


def test_xtuner_style(engine: Engine, tmp_path: Path) -> None:
    from xtuner_style import shard_of

    arguments = ["--inference-parallel-size", 2, "--versions", 2, *engine.flags]
    result = torchrun(2, EXAMPLES / "xtuner_style.py", *arguments)
    assert result.returncode == 0, result.stderr
    for version in (1, 2):
        (tmp_path / f"{version}").mkdir()
        save_file(shard_of(0, 1, version), tmp_path / f"{version}" / "all.safetensors")
    assert engine.differences(tmp_path / "2") is None
    assert engine.differences(tmp_path / "1") is not None


def test_verl_style(engine: Engine, tmp_path: Path) -> None:
    from verl_style import weights_of

    arguments = ["--trainers", 2, "--versions", 2, *engine.flags]
    variables = {"CHECKPOINT_ENGINE_CPU_WORKERS": "2"}
    result = torchrun(4, EXAMPLES / "verl_style.py", *arguments, **variables)
    assert result.returncode == 0, result.stderr
    for version in (1, 2):
        (tmp_path / f"{version}").mkdir()
        tensors = {**weights_of(0, 2, version), **weights_of(1, 2, version)}
        save_file(tensors, tmp_path / f"{version}" / "all.safetensors")
    assert engine.differences(tmp_path / "2") is None
    assert engine.differences(tmp_path / "1") is not None
