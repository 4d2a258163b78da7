"""The memory of GPUs: what an update takes and gives back, also where little is free."""

from __future__ import annotations

import pytest
from conftest import DEVICES
from odd_tensors import odd_tensors, write_odd

pytestmark = pytest.mark.skipif("cpu" in DEVICES, reason="the CPU has no memory of its own")

MIB = 1 << 20
HEADROOM_BYTES = 128 * MIB
# The largest tensor of the checkpoint.
LARGEST_BYTES = 150_000_001
SLACK_BYTES = 64 * MIB


@pytest.fixture(scope="module")
def checkpoint(shared_folder):
    return write_odd(shared_folder / "memory", seed=21)


def update(daemon, engine):
    return daemon.request("POST", "/v1/checkpoints/c/update", engine.instance, timeout=120)


def deliver(daemon, engine, checkpoint):
    answer = update(daemon, engine)
    assert answer.status == 200, answer.body
    assert answer.body["tensors"] == len(odd_tensors())
    engine.verify(checkpoint)
    return answer.body["ring"]


def fill(device: str, left_bytes: int):
    """Takes the memory of a GPU but for ``left_bytes``; the caller keeps what is returned."""
    import torch

    taken = []
    torch.cuda.set_device(int(device))
    for step in (1 << 30, 32 * MIB, 2 * MIB):
        while torch.cuda.mem_get_info()[0] >= left_bytes + step:
            taken.append(torch.empty(step, dtype=torch.uint8, device=f"cuda:{device}"))
    return taken


def free_all(taken) -> None:
    import torch

    taken.clear()
    torch.cuda.empty_cache()


def test_the_ring_is_kept_until_it_is_released(engine, daemon_place, checkpoint):
    with daemon_place.start() as daemon:
        assert daemon.register("c", checkpoint).status == 200
        ring = deliver(daemon, engine, checkpoint)
        # The workers took memory for their parameters, so the next update is the one to look at.
        held = engine.memory()
        deliver(daemon, engine, checkpoint)
        for old, new in zip(held, engine.memory(), strict=True):
            assert abs(old["free"] - new["free"]) < SLACK_BYTES
        released = daemon.request("POST", "/v1/gpus/release")
        assert released.status == 200
        assert released.body["held_bytes"] == 0
        for old, new in zip(held, engine.memory(), strict=True):
            assert new["free"] - old["free"] > ring["bytes"] - SLACK_BYTES
        deliver(daemon, engine, checkpoint)


def test_little_memory_makes_the_ring_small(engine, daemon_place, checkpoint):
    with daemon_place.start("512MiB") as daemon:
        assert daemon.register("c", checkpoint).status == 200
        large = deliver(daemon, engine, checkpoint)
        daemon.request("POST", "/v1/gpus/release")
        for left in (2.5 * LARGEST_BYTES, 1.2 * LARGEST_BYTES):
            taken = fill(DEVICES[-1], int(left) + HEADROOM_BYTES)
            try:
                answer = update(daemon, engine)
            finally:
                free_all(taken)
            assert answer.status == 200, answer.body
            # The comparison needs memory of its own.
            engine.verify(checkpoint)
            small = answer.body["ring"]
            assert LARGEST_BYTES <= small["bytes"] < large["bytes"]
            daemon.request("POST", "/v1/gpus/release")


def test_too_little_memory_is_told_with_the_numbers(engine, daemon_place, checkpoint):
    with daemon_place.start("512MiB") as daemon:
        assert daemon.register("c", checkpoint).status == 200
        deliver(daemon, engine, checkpoint)
        daemon.request("POST", "/v1/gpus/release")
        before = engine.memory()
        taken = fill(DEVICES[-1], LARGEST_BYTES // 2 + HEADROOM_BYTES)
        try:
            answer = update(daemon, engine)
        finally:
            free_all(taken)
        answer.check_failure(507, "insufficient_memory", "model.table.weight", "bytes free")
        for old, new in zip(before, engine.memory(), strict=True):
            assert abs(old["free"] - new["free"]) < SLACK_BYTES
        deliver(daemon, engine, checkpoint)


def test_a_failed_update_gives_its_memory_back(engine, daemon_place, checkpoint):
    with daemon_place.start() as daemon:
        assert daemon.register("c", checkpoint).status == 200
        deliver(daemon, engine, checkpoint)
        daemon.request("POST", "/v1/gpus/release")
        before = engine.memory()
        engine.fault(0, "bucket 3", "raise")
        assert update(daemon, engine).status == 502
        for old, new in zip(before, engine.memory(), strict=True):
            assert abs(old["free"] - new["free"]) < SLACK_BYTES
        deliver(daemon, engine, checkpoint)
