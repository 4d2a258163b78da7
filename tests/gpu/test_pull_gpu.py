"""A daemon joins from the memory of another one, and updates workers on GPUs; all on this machine.

It needs the Python package mooncake-transfer-engine.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from daemon import wait_until
from odd_tensors import odd_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from pull_places import Places
    from torch_engine_process import TorchEngine


def test_a_joined_daemon_updates_workers_and_is_a_source(
    devices: list[str], engine: TorchEngine, versions: list[Path], places: Places
) -> None:
    source = places.serve()
    for name, version in zip(("first", "second"), versions, strict=True):
        assert source.register(name, version).status == 200
    engine.scramble()
    joined = places.join(engine, "first", source=source)
    joined.wait_until_joined()
    found = engine.verify(versions[0])
    assert found["tensors"] == len(odd_tensors()) * len(devices)
    # The joined daemon has no files: what a third one reads of it went through the first pull.
    assert source.unregister("first", release=True).status == 200
    third = places.serve()
    assert third.pulled("first", joined, wait=False).body["state"] == "pulling"
    engine.scramble()
    start = time.monotonic()
    assert places.update(third, "first", engine).status == 200
    engine.verify(versions[0])
    print(f"pull and update, one beside the other: {time.monotonic() - start:.2f} s")
    # The second version takes the place of the first, and its memory.
    assert third.unregister("first").status == 200
    third.pulled("second", source)
    assert places.update(third, "second", engine).status == 200
    engine.verify(versions[1])


def test_a_checkpoint_passes_through(
    engine: TorchEngine, versions: list[Path], places: Places
) -> None:
    source = places.serve()
    assert source.register("step", versions[0]).status == 200
    engine.scramble()
    ring = ("--keep", "never", "--ring-memory", "512MiB")
    joined = places.join(engine, "step", *ring, source=source)
    joined.wait_until_joined()
    engine.verify(versions[0])
    wait_until(lambda: joined.is_free("step"), "what passed through is gone")
