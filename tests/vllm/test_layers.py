"""Updates of vLLM's own models, compared bit for bit with models that loaded the same files."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

import pytest
import torch
from checkpoint_engine.errors import UpdateError
from checkpoint_engine.vllm_inplace import InPlaceLoad
from checkpoint_engine.vllm_reload import LayerwiseReload
from checkpoint_engine.vllm_update import VARIABLE
from engine_models import Models, assert_same, prepare, same_bytes, start_update, update
from model_files import read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Model = Callable[[str, int], Path]

MTP = {"method": "mtp", "num_speculative_tokens": 1}
KINDS = {
    "qwen3": None,
    "qwen3-moe": None,
    "qwen3-tied": None,
    "qwen3-tied-alias": None,
    "qwen3-fp8": None,
    "qwen3-fp8-block": None,
    "qwen3-int8": None,
    "qwen3-gptq": None,
    "deepseek-mtp": MTP,
}
LAYER = "model.layers.1."
QKV = [f"{LAYER}self_attn.{part}_proj.weight" for part in "qkv"]
UNKNOWN = "cannot be known before it is loaded"


@pytest.fixture(scope="module", autouse=True)
def vllm_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch, tmp_path_factory.mktemp("rank"))
        yield


@pytest.fixture(autouse=True)
def rehearsals_work(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test's checkpoint is one of those that only their load can judge."""
    with caplog.at_level(logging.INFO, logger="checkpoint_engine"):
        yield
        assert UNKNOWN not in caplog.text


@pytest.fixture(scope="module")
def fresh_layers(model: Model) -> Callable[[str, int], dict[str, torch.Tensor]]:
    """``fresh_layers(kind, seed)``: the tensors of a model that loaded these files, made once."""
    return functools.cache(
        lambda kind, seed: Models(model(kind, seed), "auto", KINDS.get(kind)).copies()
    )


def way_of(models: Models) -> type:
    """How an engine on CUDA would load."""
    return type(start_update(models, as_on_cuda=True)._loads[0])


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_those_of_a_fresh_model(model, fresh_layers, kind) -> None:
    models = Models(model(kind, 1), "dummy", KINDS[kind])
    places = models.places()
    for seed in (1, 2):
        folder = model(kind, seed)
        update(models, read_tensors(folder), seed)
        assert_same(models.tensors(), fresh_layers(kind, seed))
        # Captured CUDA graphs read where the tensors were.
        assert models.places() == places
    assert models.model_runner.resets == 2


def test_weights_come_in_one_call_with_their_scales(model, monkeypatch) -> None:
    models = Models(model("qwen3-fp8", 1), "auto")
    load, calls = models.get_model().load_weights, []

    def watched(weights):
        bucket = list(weights)
        calls.append({name for name, _ in bucket})
        return load(iter(bucket))

    monkeypatch.setattr(models.get_model(), "load_weights", watched)
    # The first call is the rehearsal.
    update(models, read_tensors(model("qwen3-fp8", 2)))
    assert len(calls) > 2
    for names in calls:
        scales = {name for name in names if name.endswith("_scale")}
        assert {name.removesuffix("_scale") for name in scales} <= names


@pytest.mark.parametrize("kind", ["qwen3", "qwen3-moe"])
def test_loads_in_place(model, fresh_layers, monkeypatch, kind) -> None:
    models = Models(model(kind, 1), "auto")
    assert way_of(models) is InPlaceLoad
    places = models.places()
    update(models, read_tensors(model(kind, 2)), as_on_cuda=True)
    assert_same(models.tensors(), fresh_layers(kind, 2))
    assert models.places() == places
    monkeypatch.setenv(VARIABLE, "layerwise")
    assert way_of(models) is LayerwiseReload


@pytest.mark.parametrize(
    "kind",
    ["qwen3-tied", "qwen3-tied-other", "qwen3-fp8", "qwen3-fp8-block", "qwen3-gptq", "deepseek"],
)
def test_other_layouts_are_never_loaded_in_place(model, kind) -> None:
    assert way_of(Models(model(kind, 1), "auto")) is LayerwiseReload


@pytest.mark.parametrize(
    ("kind", "in_place"),
    [("qwen3", True), ("qwen3", False), ("qwen3-fp8", False), ("qwen3-moe", True)],
)
def test_whole_layers_leave_the_others_alone(model, fresh_layers, kind, in_place) -> None:
    models = Models(model(kind, 1), "auto")
    new = read_tensors(model(kind, 2))
    names = (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj.", ".mlp.experts.")
    part = {
        name: tensor
        for name, tensor in new.items()
        if name.startswith(LAYER) and any(place in name for place in names)
    }
    before, places = models.copies(), models.places()
    update(models, part, as_on_cuda=in_place)
    assert models.places() == places
    fresh, found = fresh_layers(kind, 2), models.tensors()
    touched = {name for name in before if not same_bytes(found[name], before[name])}
    layers = (f"main.{LAYER}self_attn.qkv_proj.", f"main.{LAYER}mlp.experts.")
    assert all(name.startswith(layers) for name in touched)
    assert any(name.startswith(layers[0]) for name in touched)
    assert any("experts" in name for name in touched) == (kind == "qwen3-moe")
    for name in touched:
        assert same_bytes(found[name], fresh[name])


# Kind of model, what is left out of a complete checkpoint, and what the error says.
PARTS = {
    "k": ("qwen3", QKV[1:2], "qkv_proj: of weight q, v, but not k"),
    "gate": ("qwen3", [f"{LAYER}mlp.gate_proj.weight"], "gate_up_proj: of weight 1, but not 0"),
    "fp8-v": (
        "qwen3-fp8",
        [QKV[2], f"{LAYER}self_attn.v_proj.weight_scale"],
        "qkv_proj: of weight",
    ),
    "fp8-scale": ("qwen3-fp8", [f"{LAYER}mlp.down_proj.weight_scale"], "but not weight_scale"),
    "block-scale": (
        "qwen3-fp8-block",
        [f"{LAYER}self_attn.o_proj.weight_scale_inv"],
        "but not weight_scale_inv",
    ),
    "int8-q": ("qwen3-int8", QKV[:1], "qkv_proj: of weight k, v, but not q"),
    "gptq-zeros": ("qwen3-gptq", [f"{LAYER}mlp.down_proj.qzeros"], "but not qzeros"),
    "expert": (
        "qwen3-moe",
        [f"{LAYER}mlp.experts.3.{part}_proj.weight" for part in ("gate", "up", "down")],
        "7 of 8 experts",
    ),
    "expert-part": (
        "qwen3-moe",
        [f"{LAYER}mlp.experts.3.up_proj.weight"],
        "only a part of expert 3",
    ),
    "all-up": (
        "qwen3-moe",
        [f"{LAYER}mlp.experts.{expert}.up_proj.weight" for expert in range(8)],
        "only a part of expert",
    ),
    "mla": (
        "deepseek-mtp",
        [f"{LAYER}self_attn.kv_a_proj_with_mqa.weight"],
        "fused_qkv_a_proj: of weight 0, but not 1",
    ),
    "mtp": (
        "deepseek-mtp",
        ["model.layers.2.mlp.experts.5.down_proj.weight"],
        "only a part of expert 5 of the layer model.layers.2",
    ),
    "embedding": ("qwen3-tied-alias", ["model.embed_tokens.weight"], "update both together"),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_layer_is_refused_before_anything_changes(model, fresh_layers, part) -> None:
    kind, without, message = PARTS[part]
    own = kind.removesuffix("-alias")
    models = Models(model(own, 1), "auto", KINDS[own])
    before, places = models.copies(), models.places()
    new = read_tensors(model(kind, 2))
    rest = {name: tensor for name, tensor in new.items() if name not in without}
    assert len(rest) == len(new) - len(without)
    with pytest.raises(UpdateError) as refusal:
        update(models, rest)
    assert message in str(refusal.value)
    assert_same(models.tensors(), before)
    assert models.places() == places
    update(models, new)
    # A fresh engine on files with both embeddings ties them as well.
    assert_same(models.tensors(), fresh_layers(kind, 2))
    assert models.places() == places


@pytest.mark.parametrize("part", ["k", "fp8-scale", "int8-q", "all-up", "mla", "mtp"])
def test_without_a_catalog_a_part_of_a_layer_is_refused_at_the_end(
    model, fresh_layers, part
) -> None:
    kind, without, message = PARTS[part]
    models = Models(model(kind, 1), "auto", KINDS[kind])
    new = read_tensors(model(kind, 2))
    rest = {name: tensor for name, tensor in new.items() if name not in without}
    running = start_update(models)
    running.load(list(rest.items()))
    with pytest.raises(UpdateError) as refusal:
        running.commit()
    assert message in str(refusal.value)
    running.discard()
    update(models, new)
    assert_same(models.tensors(), fresh_layers(kind, 2))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("model.layers.9.mlp.down_proj.weight", (256, 512), "layers.9"),
        (f"{LAYER}mlp.down_proj.weight", (256, 511), "nothing was changed"),
    ],
)
def test_what_vllm_refuses_is_refused_before_anything_changes(model, name, shape, message) -> None:
    models = Models(model("qwen3", 1), "auto")
    before = models.copies()
    wrong = read_tensors(model("qwen3", 2)) | {name: torch.zeros(shape, dtype=torch.bfloat16)}
    with pytest.raises(UpdateError) as refusal:
        update(models, wrong)
    assert message in str(refusal.value)
    assert_same(models.tensors(), before)


def test_embeddings_of_engines_that_untied_them(model, fresh_layers) -> None:
    # The configuration of the engine ties them, but its own files had two that differ.
    models = Models(model("qwen3-tied-other", 1), "auto")
    assert "main.lm_head.weight" in models.tensors()
    for kind in ("qwen3-tied", "qwen3-tied-alias", "qwen3-tied-other"):
        update(models, read_tensors(model(kind, 2)))
        found, fresh = models.copies(), dict(fresh_layers(kind, 2))
        # A fresh engine has one tensor where both are equal.
        fresh.setdefault("main.lm_head.weight", fresh["main.model.embed_tokens.weight"])
        assert_same(found, fresh)


def test_a_second_embedding_that_differs_is_refused(model) -> None:
    models = Models(model("qwen3-tied", 1), "auto")
    new = read_tensors(model("qwen3-tied-alias", 2))
    new["lm_head.weight"] += 1
    with pytest.raises(UpdateError, match=r"differs from model\.embed_tokens\.weight"):
        update(models, new)


def test_a_draft_model_with_its_own_files_keeps_its_weights(model) -> None:
    draft = {"method": "eagle", "model": str(model("eagle", 1)), "num_speculative_tokens": 1}
    models = Models(model("qwen3", 1), "auto", draft)
    before = models.copies()
    assert models.get_draft_model().lm_head is models.get_model().lm_head
    # A checkpoint with names that the draft model has, too.
    update(models, read_tensors(model("qwen3", 2)))
    fresh = Models(model("qwen3", 2), "auto", draft).tensors()
    assert_same(models.tensors(), fresh)
    own = [name for name in before if name.startswith("draft.model.layers.")]
    assert own
    assert all(same_bytes(before[name], fresh[name]) for name in own)


def test_a_checkpoint_without_the_draft_leaves_it_alone(model, fresh_layers) -> None:
    models = Models(model("deepseek-mtp", 1), "auto", MTP)
    before = models.copies()
    new = read_tensors(model("deepseek-mtp", 2))
    main = {name: tensor for name, tensor in new.items() if "layers.2." not in name}
    assert len(main) < len(new)
    update(models, main)
    fresh, found = fresh_layers("deepseek-mtp", 2), models.tensors()
    for name, tensor in found.items():
        is_own = name.startswith("draft.model.layers.") and "shared_head.head" not in name
        assert same_bytes(tensor, before[name] if is_own else fresh[name]), name
