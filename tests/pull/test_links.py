"""Links of a known rate: who reads from whom, and how much of the link that uses."""

from __future__ import annotations

import time
from concurrent.futures import wait
from typing import TYPE_CHECKING

from daemon import wait_until
from network import plain_seconds
from nodes import PULL_S_MAX, later

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Engine
    from network import Host
    from nodes import Node
    from pull_samples import Samples

# Of what plain TCP connections between the same hosts reach in the same run.
SHARE_OF_LINK_MIN = 0.9
# Two that join at once, beside one that joins alone.
BOTH_BESIDE_ONE_MAX = 1.35
# What a source sends at most when two read from it at once: a chain, not two copies.
COPIES_SENT_MAX = 1.25
# Measurements on a machine that does other things meanwhile are repeated.
ATTEMPTS = 3


def seconds_of_reading(node: Node, name: str, reads: int) -> float:
    """From read number ``reads`` of a source, which is to come, to the last byte."""

    def has_begun() -> bool:
        return node.log.read_text().count("reading from a source") >= reads

    wait_until(has_begun, "a source is read", PULL_S_MAX)
    start = time.monotonic()
    node.wait_for_part(name, 1.0)
    return time.monotonic() - start


def test_two_sources_fill_the_link_of_the_receiver(
    hosts: list[Host],
    start_large: Callable[..., Node],
    engine: Engine,
    large: Samples,
    record_property: Callable[[str, object], None],
) -> None:
    sources = [start_large(host) for host in hosts[:2]]
    reader = start_large(hosts[2])
    for source in sources:
        assert source.register("step", large.first).status == 200
    shares = []
    for attempt in range(ATTEMPTS):
        ceiling = large.byte_count / plain_seconds(hosts[:2], hosts[2], large.byte_count)
        before = [host.sent_byte_count for host in hosts[:2]]
        name = f"step-{attempt}"
        reader.pulled(name, *sources, wait=False, remote_name="step")
        rate = large.byte_count / seconds_of_reading(reader, name, 2 * attempt + 1)
        shares.append(rate / ceiling)
        print(f"{rate / 1e6:.1f} MB/s of {ceiling / 1e6:.1f} MB/s: {shares[-1]:.3f}")
        sent = [h.sent_byte_count - b for h, b in zip(hosts[:2], before, strict=True)]
        # Both have sent about a half, and what they sent arrived.
        assert min(sent) > 0.3 * large.byte_count, sent
        assert sum(sent) < 1.2 * large.byte_count, sent
        engine.check_takes(reader, name, large.first_digests)
        if shares[-1] >= SHARE_OF_LINK_MIN:
            break
        assert reader.unregister(name).status == 200
    record_property("shares_of_link", shares)
    assert shares[-1] >= SHARE_OF_LINK_MIN, shares


def test_two_that_join_at_once_are_a_chain(
    hosts: list[Host],
    start_large: Callable[..., Node],
    engine: Engine,
    large: Samples,
    record_property: Callable[[str, object], None],
) -> None:
    source, *readers = [start_large(host) for host in hosts[:3]]
    assert source.register("step", large.first).status == 200
    ratios = []
    for attempt in range(ATTEMPTS):
        names = [f"{attempt}-alone", f"{attempt}-both"]
        alone = readers[0].pulled(names[0], source, remote_name="step").seconds
        assert readers[0].unregister(names[0], release=True).status == 200
        before = hosts[0].sent_byte_count
        start = time.monotonic()
        pulls = [later(node.pulled, "step", source) for node in readers]
        wait(pulls, PULL_S_MAX)
        both = time.monotonic() - start
        for pull in pulls:
            pull.result(0)
        copies = (hosts[0].sent_byte_count - before) / large.byte_count
        ratios.append((both / alone, copies))
        print(f"alone {alone:.2f} s, both {both:.2f} s: {both / alone:.2f}; {copies:.2f} copies")
        for node in readers:
            engine.check_takes(node, "step", large.first_digests)
            assert node.unregister("step", release=True).status == 200
        if both / alone <= BOTH_BESIDE_ONE_MAX and copies <= COPIES_SENT_MAX:
            break
    record_property("both_beside_one_and_copies", ratios)
    assert ratios[-1][0] <= BOTH_BESIDE_ONE_MAX, ratios
    assert ratios[-1][1] <= COPIES_SENT_MAX, ratios


def test_a_slow_source_does_not_hold_up_a_fast_one(
    hosts: list[Host], start_large: Callable[..., Node], engine: Engine, large: Samples
) -> None:
    hosts[0].shape(25)
    slow, fast, reader = [start_large(host) for host in hosts[:3]]
    for source in (slow, fast):
        assert source.register("step", large.first).status == 200
    alone = reader.pulled("alone", fast, remote_name="step").seconds
    assert reader.unregister("alone").status == 200
    both = reader.pulled("step", slow, fast).seconds
    print(f"fast alone {alone:.2f} s, beside a slow one {both:.2f} s")
    assert both < 1.5 * alone + 1.0
    engine.check_takes(reader, "step", large.first_digests)
