"""Fixtures of the tests with a real vLLM: tiny models, and what a fresh engine makes of them."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from make_model import make_model

sys.path.append(str(Path(__file__).resolve().parents[1] / "faults"))

from vllm_server import fresh_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    Model = Callable[[str, int], Path]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """``model(architecture, seed)``: a folder with a model of several shards, made once."""
    folder = tmp_path_factory.mktemp("models")

    @functools.cache
    def make(architecture: str, seed: int) -> Path:
        # With seed 2 the tokens of one prompt depend on the processor, probably by near ties.
        drawn = 12 if (architecture, seed) == ("qwen3", 2) else seed
        made = make_model(folder / f"{architecture}-{seed}", architecture, drawn)
        assert len(list(made.glob("*.safetensors"))) > 1
        return made

    return make


@pytest.fixture(scope="session")
def fresh() -> Callable[[Path], list[list[int]]]:
    """``fresh(folder)``: the tokens of a fresh engine on these files, asked once."""
    return functools.cache(fresh_tokens)
