"""A real vLLM on GPUs takes new weights, and answers as a fresh one that loaded the same files.

vLLM must be importable: put the folder of an unpacked one on ``PYTHONPATH``.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from vllm_model import write_model
from vllm_process import Vllm

MODEL, LAYERS = "small-moe", 3
WORKERS_MAX = 2
TIMEOUT_S = 60.0
# A tensor of one expert, without which a checkpoint is not complete.
EXPERT = "layers.1.mlp.experts.3.up_proj"
RELOADS = {"in place": {}, "layer by layer": {"CHECKPOINT_ENGINE_VLLM_RELOAD": "layerwise"}}


@pytest.fixture(scope="module")
def start_vllm(devices, tmp_path_factory):
    """``start_vllm(model, …)``: a vLLM on up to two GPUs, as a context."""
    if find_spec("vllm") is None:
        pytest.fail("vllm cannot be imported; put the folder of an unpacked one on PYTHONPATH")
    on_gpu = "cpu" not in devices
    count = min(len(devices), WORKERS_MAX) if on_gpu else 1

    def start(model, **more):
        return Vllm(model, tmp_path_factory.mktemp("vllm"), count, on_gpu=on_gpu, **more)

    return start


@pytest.fixture(scope="module")
def models(shared_folder):
    """Two versions, and a part of the first one."""
    folders = {name: shared_folder / f"vllm-{name}" for name in ("a", "b", "part")}
    write_model(folders["a"], MODEL, LAYERS, seed=1)
    write_model(folders["b"], MODEL, LAYERS, seed=2)
    write_model(folders["part"], MODEL, LAYERS, seed=1, without=EXPERT)
    return folders


@pytest.fixture(scope="module")
def right(start_vllm, models):
    """The tokens of fresh engines."""
    tokens = {}
    for name in ("a", "b"):
        with start_vllm(models[name], loads=True) as engine:
            tokens[name] = engine.generate()
    assert tokens["a"] != tokens["b"]
    return tokens


def _update(daemon, name, engine):
    body = {**engine.instance, "timeout": TIMEOUT_S}
    return daemon.request("POST", f"/v1/checkpoints/{name}/update", body, timeout=2 * TIMEOUT_S)


@pytest.mark.parametrize("reload", RELOADS)
def test_tokens_are_those_of_a_fresh_engine(
    reload, devices, start_vllm, models, right, daemon_place
):
    with (
        start_vllm(models["a"], variables=RELOADS[reload]) as engine,
        daemon_place.start("4MiB") as daemon,
    ):
        assert engine.generate() not in right.values()
        for name, folder in models.items():
            assert daemon.register(name, folder).status == 200
        for name in ("a", "b", "a"):
            answer = _update(daemon, name, engine)
            assert answer.status == 200, f"{answer.body}\n{engine.tail()}"
            assert answer.body["state"] == "succeeded"
            assert all(worker["committed"] for worker in answer.body["workers"])
            assert engine.generate() == right[name], f"after the update to {name}"
        refused = _update(daemon, "part", engine)
        assert refused.status == 502, refused.body
        assert "only a part of expert 3" in str(refused.body)
        assert _update(daemon, "b", engine).status == 200
        assert engine.generate() == right["b"]
        expected = "layer by layer" if "cpu" in devices else reload
        assert engine.load_path.startswith(expected)
