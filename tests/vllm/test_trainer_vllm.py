"""Four ranks of a trainer, each with a share of the model, update a real vLLM."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
from vllm_server import VllmServer

TESTS = Path(__file__).resolve().parents[1]
sys.path.append(str(TESTS / "trainer"))

from daemon import Folders  # noqa: E402
from launch import Launcher  # noqa: E402

RANKS = 4


@pytest.fixture
def launcher(tmp_path_factory):
    """``launcher()``: a launcher for one run, with directories that it has to leave empty."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="trainer-vllm-") as shared_memory,
        tempfile.TemporaryDirectory(prefix="trainer-vllm-") as runtime,
    ):
        folders = Folders(Path(shared_memory), Path(runtime))
        yield lambda: Launcher(folders, tmp_path_factory.mktemp("reports"))
        assert folders.contents() == []


def test_trainer_ranks_update_a_dense_model(launcher, model, fresh, tmp_path):
    first, second = model("qwen3", 1), model("qwen3", 2)
    with VllmServer(first, tmp_path / "vllm.log") as server:
        dummy = server.generate()
        for path in (first, second):
            ended = launcher().torchrun("model", RANKS, url=server.url, model=str(path), ranks=[0])
            ended.check()
            shares = ended.values("tensors")
            assert len(shares) == RANKS
            assert all(shares)
            assert server.generate() == fresh(path), path
            assert server.generate() != dummy
    assert fresh(first) != fresh(second)
