"""Checkpoints that a host has no memory for: they pass through a ring into its engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from daemon import run, wait_until
from nodes import PULL_S_MAX, agent_variables, later

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Engine
    from daemon import Folders
    from network import Host
    from nodes import Node
    from pull_samples import Samples

MIB = 1 << 20
RING = ("--ring-memory", "8MiB")
# The checkpoints have 48 MiB.
TOO_LITTLE = ("--memory-limit", "20MiB")
JOIN_S_MAX = 60.0


@pytest.fixture
def source(start_large: Callable[..., Node], large: Samples) -> Node:
    """A daemon that has the first large checkpoint as ``step``."""
    node = start_large()
    assert node.register("step", large.first).status == 200
    return node


def used(node: Node) -> int:
    """Bytes of shared memory that the daemon's files take."""
    files = [path for path in node.folders.shared_memory.rglob("*") if path.is_file()]
    return sum(path.stat().st_blocks * 512 for path in files)


def wait_until_gone(node: Node, name: str = "step") -> None:
    wait_until(lambda: node.state(name) is None, f"{name} is gone")


def begin(node: Node, *sources: Node, keep: str = "never") -> None:
    answer = node.pull("step", *sources, wait=False, keep=keep)
    assert answer.status == 202, answer.body
    assert answer.body["kept"] is False
    assert answer.body["bytes"] > 48 * MIB
    assert answer.body["pooled_bytes"] == 8 * MIB


def test_an_update_from_what_passes_through(
    start_large: Callable[..., Node], source: Node, engine: Engine, large: Samples
) -> None:
    node = start_large(None, *RING)
    for _ in range(2):
        begin(node, source)
        engine.check_takes(node, "step", large.first_digests)
        wait_until_gone(node)
        assert used(node) <= 8 * MIB
    # Its source is free, and another checkpoint can take the name.
    assert source.unregister("step").status == 200
    assert node.register("step", large.second).status == 200
    engine.check_takes(node, "step", large.second_digests)


def test_it_waits_for_its_update(
    start_large: Callable[..., Node], source: Node, engines: list[Engine], large: Samples
) -> None:
    node, other = start_large(None, *RING, "--bucket-size", "1GiB"), start_large()
    begin(node, source)
    wait_until(lambda: used(node) >= 7 * MIB, "the ring is full", PULL_S_MAX)
    # Who waits for its engine holds up nobody: the source is free for another reader.
    other.pulled("step", source)
    engines[1].check_takes(other, "step", large.first_digests)
    engines[0].check_takes(node, "step", large.first_digests)
    wait_until_gone(node)


def test_what_passes_through_is_good_for_nothing_else(
    start_large: Callable[..., Node], source: Node, engine: Engine
) -> None:
    node = start_large(None, *RING)
    waits = node.pull("step", source, keep="never")
    waits.check_failure(400, "invalid_argument", '"wait": false')
    node.pull("step", source, keep="maybe").check_failure(400, "invalid_argument", '"auto"')
    begin(node, source)
    for path, body in (
        ("/v1/checkpoints/step/leases", {}),
        ("/v1/checkpoints/step/gather-metas", None),
        ("/v1/checkpoints/whole/parts", {"parts": ["step"]}),
        ("/v1/checkpoints/step/update", {**engine.place, "engine_protocol": "vllm-native"}),
    ):
        answer = node.request("POST", path, body)
        assert answer.status == 400, (path, answer.body)
        assert path.endswith("update") or "passes through" in str(answer.body), (path, answer.body)
    assert node.unregister("step").status == 200
    assert engine.fake.updates == []


def test_an_update_that_fails_ends_it(
    start_large: Callable[..., Node], source: Node, engine: Engine, large: Samples
) -> None:
    node = start_large(None, *RING)
    begin(node, source)
    engine.fake.script.update = 500
    answer = node.request("POST", "/v1/checkpoints/step/update", engine.place)
    assert answer.status == 502, answer.body
    wait_until_gone(node)
    engine.fake.reset()
    begin(node, source)
    engine.check_takes(node, "step", large.first_digests)


def test_the_last_source_is_lost(
    hosts: list[Host], start_large: Callable[..., Node], engine: Engine, large: Samples
) -> None:
    sources = [start_large(host) for host in hosts[:2]]
    for one in sources:
        assert one.register("step", large.first).status == 200
    node = start_large(hosts[2], *RING)
    begin(node, *sources)
    update = later(engine.check_takes, node, "step", large.first_digests)
    node.wait_for_part("step", 0.3)
    sources[0].kill()
    update.result(PULL_S_MAX)
    wait_until_gone(node)
    assert node.pull("step", *sources, wait=False, keep="never", stall_timeout=3).status == 202
    update = later(node.request, "POST", "/v1/checkpoints/step/update", engine.place)
    node.wait_for_part("step", 0.3)
    sources[1].kill()
    answer = update.result(PULL_S_MAX)
    answer.check_failure(502, "source_failed", sources[1].url)
    wait_until_gone(node)
    assert used(node) <= 8 * MIB


# Commands


def join(
    start_large: Callable[..., Node], source: Node, token: Path, engine: Engine, *more: str
) -> Node:
    flags = ("--source", source.url, "--source-token-file", str(token), "--checkpoint-name", "step")
    return start_large(None, *flags, *engine.flags, *RING, *more, command="join", waits=False)


@pytest.mark.parametrize("why", ["said", "no room"])
def test_join_without_memory(
    start_large: Callable[..., Node],
    source: Node,
    token: Path,
    engine: Engine,
    large: Samples,
    why: str,
) -> None:
    more = ("--keep", "never") if why == "said" else TOO_LITTLE
    node = join(start_large, source, token, engine, *more)
    node.wait_until_joined()
    engine.check_has(large.first_digests)
    assert node.has_logged("passes through and is not kept") == (why == "no room")
    wait_until_gone(node)
    assert used(node) <= 8 * MIB
    assert source.unregister("step").status == 200


def test_join_that_has_to_keep(
    start_large: Callable[..., Node], source: Node, token: Path, engine: Engine
) -> None:
    node = join(start_large, source, token, engine, "--keep", "always", *TOO_LITTLE)
    ended = node.program.wait(JOIN_S_MAX)
    ended.check_orderly()
    assert ended.code != 0
    assert "--memory-limit" in ended.stderr
    assert engine.fake.updates == []


def test_one_shot_update(
    source: Node, token: Path, engine: Engine, folders: Folders, large: Samples
) -> None:
    ended = run(
        *("update", "--update-method", "p2p", "--checkpoint-name", "step", *engine.flags),
        *("--source", source.url, "--source-token-file", str(token), "--keep", "never"),
        *(*RING, "--bucket-size", "4MiB", *folders.flags),
        **agent_variables("one-shot"),
    )
    assert ended.code == 0, ended.stderr
    assert "pass through" in ended.stderr
    engine.check_has(large.first_digests)
