"""Checkpoints that come from another host while simulated GPUs take them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from daemon import wait_until

sys.path.append(str(Path(__file__).resolve().parents[1] / "pull"))

from nodes import Node, starting_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reference import SimulatedEngine

    StartEngine = Callable[..., SimulatedEngine]
    StartNode = Callable[..., Node]


@pytest.fixture
def start_node() -> Iterator[StartNode]:
    """``start_node(host, *flags)`` starts a daemon, on loopback."""
    with starting_nodes("2MiB") as start:
        yield start


@pytest.mark.parametrize("ring", [None, "12MiB", "5MiB"])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_update_follows_what_arrives(
    start_node: StartNode,
    start_engine: StartEngine,
    cuda_library: str,
    checkpoints: list[Path],
    workers: int,
    ring: str | None,
) -> None:
    source = start_node()
    assert source.register("step", checkpoints[1]).status == 200
    cuda = ("--device", "cuda", "--cuda-library", cuda_library)
    node = start_node(None, *cuda, *(("--ring-memory", ring) if ring else ()))
    engine = start_engine(workers)
    for _ in range(2):
        engine.ask("fill 77")
        keep = "never" if ring else "always"
        begun = node.pulled("step", source, wait=False, keep=keep)
        assert begun.body["kept"] == (ring is None)
        answer = node.request("POST", "/v1/checkpoints/step/update", engine.instance)
        assert answer.status == 200, answer.body
        engine.check_holds(checkpoints[1])
        if ring is None:
            assert node.unregister("step").status == 200
        else:
            wait_until(lambda: node.state("step") is None, "what passed through is gone")
