"""A real vLLM on GPUs takes new weights, and answers as a fresh one that loaded the same files.

vLLM must be importable: put the folder of an unpacked one on ``PYTHONPATH``. It runs with tensor
parallelism of 2, or 1 on a single GPU; ``CHECKPOINT_ENGINE_TEST_TENSOR_PARALLEL`` names another.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from make_model import make_model
from vllm_engines import Engines, check_vllm
from vllm_model import write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKERS_USUAL = 2
TIMEOUT_S = 60.0
# A tensor of one expert, without which a checkpoint is not complete.
EXPERT = "layers.1.mlp.experts.3.up_proj"
LAYER_BY_LAYER = {"CHECKPOINT_ENGINE_VLLM_RELOAD": "layerwise"}
# Four workers can split it into whole blocks of FP8.
WIDE = {
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 128,
}
FP8 = ("qwen3-fp8", "qwen3-fp8-block")


@pytest.fixture(scope="module")
def worker_count(devices) -> int:
    """How many workers an engine has."""
    check_vllm()
    available = 1 if "cpu" in devices else len(devices)
    named = os.environ.get("CHECKPOINT_ENGINE_TEST_TENSOR_PARALLEL")
    count = int(named) if named else min(available, WORKERS_USUAL)
    if count > available:
        pytest.fail(f"{count} workers need as many GPUs, and {available} are under test")
    return count


@pytest.fixture(scope="module")
def moe(devices, worker_count, shared_folder, tmp_path_factory) -> Iterator[Engines]:
    """Two engines with a BF16 model with experts: one loads in place, one layer by layer."""
    folders = {name: shared_folder / f"moe-{name}" for name in ("a", "b")}
    for seed, folder in enumerate(folders.values()):
        write_model(folder, "small-moe", 3, seed)
    engines = Engines(tmp_path_factory.mktemp("moe"), folders, worker_count, devices)
    with engines.started({}, LAYER_BY_LAYER):
        yield engines


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=pytest.mark.needs_gpus(1)) for kind in FP8]
)
def fp8(request, devices, worker_count, shared_folder, tmp_path_factory) -> Iterator[Engines]:
    """An engine with a dense model in FP8, whose kernels are those of GPUs."""
    folders = {name: shared_folder / f"{request.param}-{name}" for name in ("a", "b")}
    for seed, folder in enumerate(folders.values()):
        make_model(folder, request.param, seed, **WIDE)
    engines = Engines(tmp_path_factory.mktemp("fp8"), folders, worker_count, devices)
    with engines.started({}):
        yield engines


def _update(daemon, name, engine):
    body = {**engine.instance, "timeout": TIMEOUT_S}
    return daemon.request("POST", f"/v1/checkpoints/{name}/update", body, timeout=2 * TIMEOUT_S)


def _check_updates(daemon, engines, engine):
    for name in ("a", "b", "a"):
        answer = _update(daemon, name, engine)
        assert answer.status == 200, f"{answer.body}\n{engine.tail()}"
        assert answer.body["state"] == "succeeded"
        assert all(worker["committed"] for worker in answer.body["workers"])
        engines.check(engine, name)


def _check_trainer(launcher, engines, engine, devices):
    """The daemons of a trainer's ranks update the engine, whose workers are on the same GPUs."""
    on_gpus = "cpu" not in devices
    ranks = list(range(engine.worker_count))
    for name in ("b", "a"):
        ended = launcher.torchrun(
            "model",
            len(ranks),
            url=engine.url,
            model=str(engines.folders[name]),
            ranks=ranks,
            on_gpus=on_gpus,
        )
        ended.check()
        places = [f"cuda:{rank}" if on_gpus else "cpu" for rank in ranks]
        assert ended.values("device") == places
        assert all(ended.values("tensors"))
        status, answer = engine.request("POST", "/reset_prefix_cache")
        assert status == 200, answer
        engines.check(engine, name)


@pytest.mark.parametrize("place", [0, 1], ids=["in place", "layer by layer"])
def test_daemon_updates_experts(place, devices, moe, daemon_place, tmp_path: Path):
    engine = moe.engines[place]
    part = tmp_path / "part"
    write_model(part, "small-moe", 3, seed=0, without=EXPERT)
    with daemon_place.start("4MiB") as daemon:
        for name, folder in {**moe.folders, "part": part}.items():
            assert daemon.register(name, folder).status == 200
        _check_updates(daemon, moe, engine)
        refused = _update(daemon, "part", engine)
        assert refused.status == 502, refused.body
        assert "only a part of expert 3" in str(refused.body)
        for name in ("b", "a"):
            answer = _update(daemon, name, engine)
            assert answer.status == 200, f"{answer.body}\n{engine.tail()}"
            moe.check(engine, name)
    loads_in_place = place == 0 and "cpu" not in devices
    assert engine.load_path.startswith("in place" if loads_in_place else "layer by layer")


def test_trainer_updates_experts(devices, moe, trainer_launcher):
    _check_trainer(trainer_launcher, moe, moe.engines[0], devices)


def test_daemon_updates_fp8(fp8, daemon_place):
    [engine] = fp8.engines
    with daemon_place.start("1MiB") as daemon:
        for name, folder in fp8.folders.items():
            assert daemon.register(name, folder).status == 200
        _check_updates(daemon, fp8, engine)
    assert engine.load_path.startswith("layer by layer: the model is quantised")


def test_trainer_updates_fp8(devices, fp8, trainer_launcher):
    [engine] = fp8.engines
    _check_trainer(trainer_launcher, fp8, engine, devices)
