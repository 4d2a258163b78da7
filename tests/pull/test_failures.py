"""Sources, agents and links that fail while a checkpoint is read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from daemon import PROMPT_S, wait_until
from nodes import PULL_S_MAX, TOKEN, later

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Engine
    from network import Host
    from nodes import Node
    from pull_samples import Samples


@pytest.fixture
def sources(hosts: list[Host], start_large: Callable[..., Node], large: Samples) -> list[Node]:
    """Two that have the first checkpoint as ``step``."""
    nodes = [start_large(host) for host in hosts[:2]]
    for node in nodes:
        assert node.register("step", large.first).status == 200
    return nodes


@pytest.fixture
def reader(hosts: list[Host], start_large: Callable[..., Node]) -> Node:
    return start_large(hosts[2])


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dies", ["first", "second"])
def test_a_source_dies(
    sources: list[Node], reader: Node, engine: Engine, large: Samples, part: float, dies: str
) -> None:
    dying = sources[0 if dies == "first" else 1]
    reader.pulled("step", *sources, wait=False)
    # An update that follows what arrives notices nothing.
    update = later(engine.check_takes, reader, "step", large.first_digests)
    reader.wait_for_part("step", part)
    dying.kill()
    update.result(PULL_S_MAX)
    reader.wait_until_ready("step")


@pytest.mark.parametrize("whose", ["source's", "reader's", "both"])
def test_an_agent_dies(
    sources: list[Node], reader: Node, engine: Engine, large: Samples, whose: str
) -> None:
    # With one source: there is nobody else.
    reader.pulled("step", sources[0], wait=False)
    reader.wait_for_part("step", 0.3)
    for node in (sources[0], reader):
        if whose == "both" or (node is reader) == (whose == "reader's"):
            node.kill_agents()
    reader.wait_until_ready("step")
    engine.check_takes(reader, "step", large.first_digests)


@pytest.mark.parametrize("cut_seconds", [1.0, 8.0])
def test_a_link_is_cut_and_comes_back(
    sources: list[Node],
    reader: Node,
    hosts: list[Host],
    engine: Engine,
    large: Samples,
    cut_seconds: float,
) -> None:
    reader.pulled("step", sources[0], wait=False, stall_timeout=60)
    reader.wait_for_part("step", 0.3)
    hosts[0].cut()
    begin, (arrived, since) = time.monotonic(), (0.0, time.monotonic())

    def stands_still() -> bool:
        nonlocal arrived, since
        now = reader.arrived("step")
        if now != arrived:
            arrived, since = now, time.monotonic()
        return time.monotonic() - max(since, begin) >= cut_seconds

    wait_until(stands_still, "nothing arrives", PULL_S_MAX)
    assert arrived < 1.0
    hosts[0].restore()
    restored = time.monotonic()
    reader.wait_until_ready("step")
    print(f"cut for {restored - begin:.1f} s, done {time.monotonic() - restored:.1f} s later")
    engine.check_takes(reader, "step", large.first_digests)


def test_a_link_is_cut_and_another_source_goes_on(
    sources: list[Node], reader: Node, hosts: list[Host], engine: Engine, large: Samples
) -> None:
    reader.pulled("step", *sources, wait=False)
    reader.wait_for_part("step", 0.3)
    hosts[0].cut()
    begin = time.monotonic()
    reader.wait_until_ready("step")
    print(f"done {time.monotonic() - begin:.1f} s after the cut")
    engine.check_takes(reader, "step", large.first_digests)


def test_all_sources_die(
    sources: list[Node],
    reader: Node,
    hosts: list[Host],
    start_large: Callable[..., Node],
    engine: Engine,
    large: Samples,
) -> None:
    reader.pulled("step", *sources, wait=False, stall_timeout=3)
    body = engine.place
    update = later(reader.request, "POST", "/v1/checkpoints/step/update", body, PULL_S_MAX)
    reader.wait_for_part("step", 0.3)
    for source in sources:
        source.kill()
    begin = time.monotonic()
    failed = update.result(PULL_S_MAX)
    print(f"the update failed {time.monotonic() - begin:.1f} s after the sources")
    failed.check_failure(502, "source_failed", *(s.url for s in sources), within=PULL_S_MAX)
    assert not any(worker.committed for worker in engine.fake.wait_for_update(1, PROMPT_S))
    wait_until(lambda: reader.is_free("step"), "the name is free")
    # A pull that only waits is told the same.
    waiting = reader.pull("step", *sources, stall_timeout=2)
    waiting.check_failure(502, "source_failed", *(s.url for s in sources), within=30)
    fresh = start_large(hosts[3])
    assert fresh.register("step", large.second).status == 200
    reader.pulled("step", fresh)
    engine.check_takes(reader, "step", large.second_digests)


def test_a_pull_that_waits_is_told_of_the_end(sources: list[Node], reader: Node) -> None:
    waiting = later(reader.pull, "step", *sources, stall_timeout=3)
    reader.wait_for_part("step", 0.3)
    for source in sources:
        source.kill()
    failed = waiting.result(PULL_S_MAX)
    failed.check_failure(502, "source_failed", *(s.url for s in sources), within=PULL_S_MAX)
    wait_until(lambda: reader.is_free("step"), "the name is free")


def test_a_reader_dies_and_the_next_has_its_turn(
    sources: list[Node],
    reader: Node,
    hosts: list[Host],
    start_large: Callable[..., Node],
    engine: Engine,
    large: Samples,
) -> None:
    reader.pulled("step", sources[0], wait=False)
    reader.wait_for_part("step", 0.3)
    other = start_large(hosts[3])
    other.pulled("step", sources[0], wait=False)
    other.wait_for_part("step", 0.1)
    reader.kill()
    begin = time.monotonic()
    other.wait_until_ready("step")
    print(f"done {time.monotonic() - begin:.1f} s after the reader's end")
    engine.check_takes(other, "step", large.first_digests)


def test_a_pull_is_cancelled(
    sources: list[Node], reader: Node, engine: Engine, large: Samples
) -> None:
    waiting = later(reader.pull, "step", *sources)
    reader.wait_for_part("step", 0.2)
    assert reader.unregister("step").status == 200
    waiting.result(PULL_S_MAX).check_failure(503, "cancelled", within=PULL_S_MAX)
    wait_until(lambda: reader.is_free("step"), "the name is free")
    reader.pulled("step", *sources)
    engine.check_takes(reader, "step", large.first_digests)


def test_metas_of_hosts_that_are_gone(
    hosts: list[Host], reader: Node, start_large: Callable[..., Node]
) -> None:
    # One that refuses, and one that does not answer at all.
    hosts[1].cut()
    urls = [f"http://{host.address}:19731" for host in hosts[:2]]
    body = {"sources": [{"url": url, "token": TOKEN} for url in urls], "stall_timeout": 4}
    answer = reader.request("POST", "/v1/checkpoints/step/pull", body)
    answer.check_failure(502, "source_failed", *urls, within=30)
    assert reader.is_free("step")
