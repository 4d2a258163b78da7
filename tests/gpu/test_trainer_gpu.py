"""A trainer with a rank on every GPU delivers tensors on GPUs to workers on the same GPUs."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
from daemon import Folders
from torch_engine_process import EngineCallError, TorchEngine

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))

from launch import Launcher


@pytest.fixture
def launcher(tmp_path):
    """A launcher whose directories have to be empty in the end."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="gpu-trainer-") as shared_memory,
        tempfile.TemporaryDirectory(prefix="gpu-trainer-") as runtime,
    ):
        folders = Folders(Path(shared_memory), Path(runtime))
        yield Launcher(folders, tmp_path)
        assert folders.contents() == []


@pytest.fixture
def engine(devices):
    """One of its own: workers keep the parameters that they once got."""
    with TorchEngine(devices) as engine:
        yield engine


def test_tensors_on_gpus(devices, engine, launcher):
    ended = launcher.torchrun("on_devices", len(devices), uds=str(engine.uds))
    ended.check()
    found = engine.verify(launcher.output)
    assert found["tensors"] == 13 * len(devices) * len(devices)
    engine.scramble()
    with pytest.raises(EngineCallError, match="differs"):
        engine.verify(launcher.output)
    on_gpus = "cpu" not in devices
    assert ended.values("pinned") == [[on_gpus, on_gpus]] * len(devices)
    for first, second in ended.values("inodes"):
        assert first == second, "the second version has the memory of the first"
    if on_gpus:
        assert sorted(ended.values("device")) == [f"cuda:{rank}" for rank in range(len(devices))]
