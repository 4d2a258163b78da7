"""The parts of vLLM's worker extension that need no vLLM."""

from __future__ import annotations

import sys
import threading
import time
from types import ModuleType, SimpleNamespace

import pytest
import scripted_server
import torch
import zmq
from checkpoint_engine import protocol, vllm_extension
from checkpoint_engine.errors import UpdateError, WorkerIdError
from checkpoint_engine.vllm_draft import Draft, QuantisedHeads, draft_of, ignored_loads
from checkpoint_engine.vllm_extension import VllmColocateWorkerExtension
from checkpoint_engine.vllm_pairs import Pairs

TENSORS = [(f"layer.{place}.weight", torch.rand(4, 5)) for place in range(6)]
HEADS = "vllm.model_executor.layers.quantization.online.lm_head"


class Worker(VllmColocateWorkerExtension):
    """Has only what the hooks need."""


def contexts(worker):
    return [value for value in vars(worker).values() if isinstance(value, zmq.Context)]


def test_the_hooks_make_and_end_the_context():
    worker = Worker()
    worker.init_worker_extension()
    [context] = contexts(worker)
    left = context.socket(zmq.DEALER)
    left.setsockopt(zmq.LINGER, 100)
    left.connect("ipc://@checkpoint-engine-test-extension")
    left.send(b"nobody reads this")
    left.close()
    worker.destroy_worker_extension()
    assert context.closed
    assert contexts(worker) == []
    # A worker that never had one ends, too.
    worker.destroy_worker_extension()


def test_a_thread_that_waits_ends_with_the_context():
    worker = Worker()
    worker.init_worker_extension()
    [context] = contexts(worker)
    begun, errors = threading.Event(), []

    def wait():
        with context.socket(zmq.PULL) as socket:
            begun.set()
            try:
                socket.recv()
            except zmq.ZMQError as error:
                errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert begun.wait(5)
    worker.destroy_worker_extension()
    thread.join(5)
    assert [type(error) for error in errors] == [zmq.ContextTerminated]
    assert context.closed


def test_a_socket_that_is_never_closed_does_not_hold_the_worker(monkeypatch):
    monkeypatch.setattr(vllm_extension, "CONTEXT_END_S", 0.2)
    worker = Worker()
    worker.init_worker_extension()
    [context] = contexts(worker)
    held = context.socket(zmq.DEALER)
    start = time.monotonic()
    worker.destroy_worker_extension()
    assert time.monotonic() - start < 5
    assert not held.closed
    held.close()


def test_the_catalog_comes_once_before_the_first_load(server, memory, recorder):
    seen = []

    def examine(rows):
        seen.append(([row.name for row in rows], [row.shape for row in rows], recorder.buckets[:]))

    worker = recorder.start(server.address, catalog_hook=examine)
    server.deliver(scripted_server.publish(TENSORS, memory), tensors_each=2)
    assert worker.end() is None
    assert seen == [([name for name, _ in TENSORS], [(4, 5)] * 6, [])]
    assert len(recorder.buckets) == 3


def test_a_refused_catalog_ends_the_update_before_any_load(server, memory, recorder):
    def examine(rows):
        raise UpdateError(f"only a part of the layer {rows[0].name}")

    worker = recorder.start(server.address, catalog_hook=examine)
    catalog = scripted_server.publish(TENSORS, memory)
    server.greet()
    server.send(catalog)
    answer = server.receive()
    assert isinstance(answer, protocol.Failure)
    assert answer.stage == "catalog"
    assert answer.message == "only a part of the layer layer.0.weight"
    server.abort("a worker refused")
    assert "layer.0.weight" in worker.error(UpdateError)
    assert (recorder.buckets, recorder.commits, recorder.aborts) == ([], 0, 1)


def worker_with(draft, source):
    configuration = SimpleNamespace(draft_model_config=SimpleNamespace(model=source))
    return SimpleNamespace(
        get_draft_model=lambda: draft,
        model_runner=SimpleNamespace(),
        model_config=SimpleNamespace(model="/models/main", model_weights="s3://models/main"),
        vllm_config=SimpleNamespace(speculative_config=configuration),
    )


@pytest.mark.parametrize(
    ("source", "is_updated"),
    [("/models/main", True), ("s3://models/main", True), ("/models/eagle", False)],
)
def test_only_drafts_from_the_files_of_the_main_model_are_updated(source, is_updated):
    model = torch.nn.Linear(2, 2)
    draft = draft_of(worker_with(model, source))
    assert draft.model is model
    assert draft.model_config.model == source
    assert draft.is_updated is is_updated


def test_workers_without_a_draft_model():
    assert draft_of(worker_with(None, "/models/main")) is None
    worker = worker_with(torch.nn.Linear(2, 2), "/models/main")
    worker.vllm_config.speculative_config = None
    assert draft_of(worker) is None
    # Older workers have the method on their runner only.
    worker = worker_with(None, "/models/main")
    worker.model_runner.get_draft_model = worker.get_draft_model
    del worker.get_draft_model
    assert draft_of(worker) is None


def test_ignored_loads_give_the_loaders_back():
    layer = torch.nn.Linear(2, 2)
    layer.weight.weight_loader = loader = object()
    with ignored_loads([layer, layer]):
        assert layer.weight.weight_loader(layer.weight, torch.rand(2, 2)) is True
        assert layer.bias.weight_loader(layer.bias, torch.rand(2)) is True
    assert layer.weight.weight_loader is loader
    assert not hasattr(layer.bias, "weight_loader")


def test_quantised_heads_are_shared_during_the_load_and_made_anew(monkeypatch):
    calls = []
    module = ModuleType(HEADS)
    module.share_source_lm_heads = lambda model: calls.append(("share", model))
    module.restore_quantized_lm_heads = lambda model, refresh: calls.append((model, refresh))
    parts = HEADS.split(".")
    for end in range(1, len(parts)):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(parts[end - 1]))
    sys.modules[HEADS.rpartition(".")[0]].lm_head = module
    model = torch.nn.Linear(2, 2)
    heads = QuantisedHeads(Draft(model, None, is_updated=False))
    heads.set_aside()
    heads.put_back()
    heads.put_back(refresh=False)
    assert calls == [("share", model), (model, True), (model, False)]


def test_without_quantised_heads_nothing_happens(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    for heads in (QuantisedHeads(None), QuantisedHeads(Draft(None, None, is_updated=True))):
        heads.set_aside()
        heads.put_back()


def test_a_weight_waits_for_its_scale_and_a_scale_for_its_weight():
    pairs = Pairs()
    names = ["a.weight", "a.weight_scale_inv", "b.weight_scale", "b.weight", "c.weight"]
    tensors = {name: torch.rand(2) for name in [*names, "d.weight_scale"]}
    pairs.expect(tensors)
    taken = [[name for name, _ in pairs.take([item])] for item in tensors.items()]
    assert taken == [
        [],
        ["a.weight", "a.weight_scale_inv"],
        [],
        ["b.weight_scale", "b.weight"],
        ["c.weight"],
        ["d.weight_scale"],
    ]
    both = pairs.take(list(tensors.items())[:2])
    assert all(tensor is tensors[name] for name, tensor in both)


def test_held_weights_are_forgotten_after_a_failure():
    pairs = Pairs()
    pairs.expect(["a.weight", "a.weight_scale"])
    assert pairs.take([("a.weight", torch.rand(2))]) == []
    pairs.drop()
    assert pairs.take([("a.weight_scale", torch.rand(2))]) == []


def test_without_a_catalog_nothing_is_held():
    tensors = [("a.weight", torch.rand(2))]
    assert Pairs().take(tensors) is tensors


def test_a_map_that_lacks_a_worker_is_refused_by_all_of_them():
    """Else those that have an address would commit alone."""
    handles = {"CPU-0": "ipc:///a"}
    with pytest.raises(WorkerIdError, match="for 1 workers, and this engine has 2"):
        vllm_extension._address(handles, "CPU-0", 2)
    with pytest.raises(WorkerIdError, match="no address for the worker CPU-1"):
        vllm_extension._address(handles, "CPU-1", 1)
    # A server may name more than this engine's.
    handles["CPU-1"] = "ipc:///b"
    assert vllm_extension._address(handles, "CPU-0", 1) == "ipc:///a"
