"""SGLang's unmodified worker code takes updates with this package, for each of its models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import SGLangEngine

    Engines = dict[int, SGLangEngine]
    Update = Callable[..., Any]


def check_holds(engine: SGLangEngine, digests: Any, models: int) -> Any:
    """Every model has got every byte, and was finished once."""
    state = engine.state()
    assert len(state["models"]) == models
    for model in state["models"].values():
        assert model["digests"] == digests
        assert model["hooks"] == ["process", "post_load"]
    return state


@pytest.mark.parametrize("models", [1, 2])
def test_every_model_gets_every_byte(
    engines: Engines, update: Update, digests: Any, models: int
) -> None:
    engine = engines[models]
    for version in ("v1", "v2"):
        engine.fault()
        flushes = engine.state()["flushes"]
        answer = update(engine, weight_version=version)
        assert answer.status == 200, (answer.body, engine.log()[-3000:])
        assert answer.body["sessions"] == models
        state = check_holds(engine, digests, models)
        assert state["version"] == version
        assert state["flushes"] == flushes + 1


def test_two_engines_in_one_update(engines: Engines, update: Update, digests: Any) -> None:
    for engine in engines.values():
        engine.fault()
    answer = update(*engines.values())
    assert answer.status == 200, answer.body
    for models, engine in engines.items():
        check_holds(engine, digests, models)


@pytest.mark.parametrize("role", ["target", "draft"])
def test_a_model_that_refuses_its_weights(
    engines: Engines, update: Update, digests: Any, role: str
) -> None:
    engine = engines[2]
    engine.fault(**{role: "load"})
    answer = update(engine, weight_version="never")
    answer.check_failure(502, "worker_failed", "this model refuses its weights", "mixture")
    assert engine.state()["version"] != "never"
    engine.fault()
    assert update(engine).status == 200
    check_holds(engine, digests, 2)


def test_what_its_hook_raises_is_only_in_its_log(
    engines: Engines, update: Update, digests: Any
) -> None:
    """SGLang swallows it before this package could see it."""
    engine = engines[1]
    engine.fault(target="hook")
    answer = update(engine)
    assert answer.status == 200, answer.body
    [model] = engine.state()["models"].values()
    assert model["digests"] == digests
    assert model["hooks"] == []
    assert "Post-hook processing failed: this model cannot process its weights" in engine.log()


def test_a_map_without_its_device_is_its_own_error(engines: Engines) -> None:
    body = {"zmq_handles": {"GPU-0": "ipc:///nonexistent"}}
    answer = engines[1].request("POST", "/update_weights_from_ipc", body)
    assert answer["success"] is False
    assert "not found in zmq_handles" in answer["message"]
