"""Updates over a GPU's memory, without a GPU: what a bucket holds, and when mappings end."""

from __future__ import annotations

import pytest
import scripted_server
import torch
from checkpoint_engine import device_memory, protocol
from checkpoint_engine.device_memory import DeviceSegments
from checkpoint_engine.dtypes import DTYPES
from checkpoint_engine.errors import (
    AbortedError,
    DeviceMemoryError,
    LoadError,
    MemoryHeldError,
    ProtocolError,
)
from fake_gpu import HELLO, FakeGpu, Slots, known_frame, raw_bytes

TENSORS = [(f"layer.{place}.weight", torch.full((4, 5), float(place))) for place in range(10)]
EXACT = [name for name, dtype in DTYPES.items() if dtype.torch_name]


@pytest.fixture
def gpu(monkeypatch):
    return FakeGpu(monkeypatch)


@pytest.fixture
def slots(gpu):
    return Slots(gpu, TENSORS, 3)


def begin(server, slots):
    server.send_frames([known_frame(protocol.encode(HELLO)[0])])
    assert isinstance(server.answer(), protocol.WorkerHello)
    assert server.ask(slots.catalog) == protocol.Ready()


def load(server, slots):
    """Every bucket; the slots are overwritten as soon as the last one is loaded."""
    for bucket in slots.buckets:
        slots.fill(bucket)
        assert server.ask(bucket).index == bucket.index
    slots.spoil()


def refused(server, message, why):
    """Sends ``message``, which must be answered by ``error``, and ends the update."""
    server.send(message)
    failure = server.receive()
    assert isinstance(failure, protocol.Failure), failure
    assert why in failure.message
    server.abort("the update failed")
    return failure


# Updates


def test_an_update_in_two_slots(server, recorder, gpu, slots):
    worker = recorder.start(server.address)
    begin(server, slots)
    assert gpu.opened == 1, "both slots lie in one allocation"
    load(server, slots)
    assert gpu.synchronized == len(slots.buckets)
    assert gpu.closed == 0
    assert server.ask(protocol.Release()) == protocol.Released()
    assert gpu.closed == 1, "closed before `released`"
    server.ask(protocol.Commit())
    assert worker.end() is None
    assert {name: tensor.tolist() for name, tensor in TENSORS} == {
        name: tensor.tolist() for name, tensor in recorder.loaded.items()
    }
    assert (gpu.opened, gpu.closed) == (1, 1)


def test_a_hello_as_json(server, recorder, gpu, slots):
    worker = recorder.start(server.address)
    server.ask(HELLO)
    server.ask(slots.catalog)
    server.abort("enough")
    worker.error(AbortedError)
    assert (gpu.opened, gpu.closed) == (1, 1)


def test_cloned_buckets_keep_their_values(server, recorder, gpu, slots):
    kept = []
    worker = recorder.start(server.address, run=kept.extend, clones_buckets=True)
    begin(server, slots)
    load(server, slots)
    assert server.ask(protocol.Release()) == protocol.Released()
    server.ask(protocol.Commit())
    assert worker.end() is None
    assert gpu.closed == 1
    for (name, tensor), (expected_name, expected) in zip(kept, TENSORS, strict=True):
        assert name == expected_name
        assert torch.equal(tensor, expected)
    storages = {tensor.untyped_storage().data_ptr() for _, tensor in kept}
    assert len(storages) == len(slots.buckets), "one copy for each bucket"


def test_clones_change_nothing_in_host_memory(server, memory, recorder):
    worker = recorder.start(server.address, clones_buckets=True)
    server.deliver(scripted_server.publish(TENSORS, memory))
    assert worker.end() is None
    assert len(recorder.loaded) == len(TENSORS)


# The end of mappings


def test_a_tensor_that_is_held_at_the_release(server, recorder, gpu, slots):
    kept = []
    worker = recorder.start(server.address, run=kept.extend)
    begin(server, slots)
    load(server, slots)
    failure = refused(server, protocol.Release(), "clone what must outlive")
    assert failure.stage == "release"
    worker.error(MemoryHeldError)
    assert (gpu.opened, gpu.closed) == (1, 0)
    kept.clear()
    assert gpu.closed == 1, "the mapping ends with its last tensor"


def test_tensors_in_a_cycle_are_found(server, recorder, gpu, slots):
    def run(tensors):
        cycle = [*tensors]
        cycle.append(cycle)

    worker = recorder.start(server.address, run=run)
    begin(server, slots)
    load(server, slots)
    assert server.ask(protocol.Release()) == protocol.Released()
    server.abort("enough")
    worker.error(AbortedError)
    assert (gpu.opened, gpu.closed) == (1, 1)


def test_a_failed_load_ends_the_mapping(server, recorder, gpu, slots):
    """The traceback of the loader's exception has the tensors."""

    def run(tensors):
        first = tensors[0][1]
        raise ValueError(f"no {tuple(first.shape)}")

    worker = recorder.start(server.address, run=run)
    begin(server, slots)
    failure = refused(server, slots.buckets[0], "ValueError: no (4, 5)")
    assert "in run" in failure.traceback
    assert (gpu.opened, gpu.closed) == (1, 1), "closed before `aborted`"
    worker.error(LoadError)


def test_a_device_that_fails(server, recorder, gpu, slots, monkeypatch):
    def fail(_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    worker = recorder.start(server.address)
    begin(server, slots)
    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    assert refused(server, slots.buckets[0], "illegal memory access").stage == "bucket"
    assert gpu.closed == 1
    worker.error(LoadError)


def test_a_mapping_that_does_not_close(server, recorder, gpu, slots):
    worker = recorder.start(server.address)
    begin(server, slots)
    load(server, slots)
    gpu.fails_to_close = True
    assert refused(server, protocol.Release(), "CUDA_ERROR_UNKNOWN").stage == "release"
    worker.error(DeviceMemoryError)
    assert gpu.open_addresses == [], "tried once"


def test_all_or_nothing_is_mapped(gpu, slots):
    missing = protocol.DeviceSegment("00" * 64, 256, 0)
    with pytest.raises(DeviceMemoryError, match="INVALID_HANDLE"):
        DeviceSegments([*slots.catalog.segments, missing], 0)
    assert (gpu.opened, gpu.closed) == (1, 1)


def test_memory_that_torch_does_not_take(gpu, slots, monkeypatch):
    def fail(*_):
        raise TypeError("numpy is missing")

    monkeypatch.setattr(device_memory, "bytes_at", fail)
    with pytest.raises(DeviceMemoryError, match="numpy is missing"):
        DeviceSegments(slots.catalog.segments, 0)
    assert (gpu.opened, gpu.closed) == (1, 1)


def test_memory_of_another_gpu(gpu, slots, monkeypatch):
    """torch copies it to the device that it is asked for, and lets go of the original."""

    def copied(address, length, device):
        tensor, export = gpu.bytes_at(address, length, device)
        return tensor.clone(), export

    monkeypatch.setattr(device_memory, "bytes_at", copied)
    with pytest.raises(DeviceMemoryError, match="another GPU"):
        DeviceSegments(slots.catalog.segments, 0)
    assert (gpu.opened, gpu.closed) == (1, 1)


# Content


@pytest.mark.parametrize("clones", [False, True])
@pytest.mark.parametrize("shift", [0, 3, 256])
@pytest.mark.parametrize("name", EXACT)
def test_every_dtype_at_any_offset(gpu, name, shift, clones):
    content = bytes(place * 7 % 2 if name == "BOOL" else place * 7 % 251 for place in range(1024))
    handle = gpu.allocate(1024)
    gpu.write(handle, 0, content)
    slots = DeviceSegments([protocol.DeviceSegment(handle.hex(), 1024, 256)], 0, clones=clones)
    rows = [
        protocol.TensorRow("empty", name, (0, 4), 0, shift),
        protocol.TensorRow("a", name, (3, 4), 0, shift),
        protocol.TensorRow("last", name, (2,), 0, shift + 256),
    ]
    slots.check(rows)
    tensors = slots.tensors(rows)
    for row, tensor in zip(rows, tensors, strict=True):
        packed = DTYPES[name].packed
        assert tuple(tensor.shape) == (*row.shape[:-1], row.shape[-1] // packed)
        assert tensor.dtype == getattr(torch, DTYPES[name].torch_name)
        start = 256 + row.offset
        assert raw_bytes(tensor) == content[start : start + row.byte_count]
    del tensor, tensors
    assert slots.close() == []
    assert gpu.closed == 1


def test_a_bucket_in_two_segments(gpu, slots):
    mapped = DeviceSegments(slots.catalog.segments, 0)
    with pytest.raises(ProtocolError, match="one segment"):
        mapped.tensors(slots.catalog.tensors[2:4])
    mapped.close()


# Messages


@pytest.mark.parametrize("memory_kind", ["host", "cuda"])
def test_segments_of_another_kind_than_stated(server, memory, recorder, gpu, slots, memory_kind):
    worker = recorder.start(server.address)
    catalog = slots.catalog
    if memory_kind == "cuda":
        catalog = scripted_server.publish(TENSORS, memory)
    server.ask(protocol.ServerHello((1,), "u", "c", 60_000, memory=memory_kind))
    assert refused(server, catalog, "kind").stage == "catalog"
    worker.error(ProtocolError)
    assert gpu.opened == 0


def test_a_worker_without_a_gpu(server, recorder, slots, monkeypatch):
    monkeypatch.setattr("checkpoint_engine.worker._device", lambda _, clones: None)
    worker = recorder.start(server.address)
    server.ask(HELLO)
    refused(server, slots.catalog, "on the CPU")
    worker.error(ProtocolError)
