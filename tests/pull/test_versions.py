"""Bytes of two versions of one layout never meet in one checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from daemon import wait_until
from nodes import PULL_S_MAX, later
from pull_samples import write_nearly_equal_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from conftest import Engine
    from daemon import Answer
    from network import Host
    from nodes import Node
    from pull_samples import Samples


def replace(node: Node, checkpoint: object) -> None:
    """Other bytes under the same name, in the same memory."""
    assert node.unregister("step").status == 200
    assert node.register("step", checkpoint).status == 200


@pytest.mark.parametrize("part", [0.05, 0.5])
def test_the_only_source_replaces_it(
    hosts: list[Host],
    start_large: Callable[..., Node],
    engine: Engine,
    large: Samples,
    part: float,
) -> None:
    source, reader = start_large(hosts[0]), start_large(hosts[1])
    hosts[0].shape(20)
    assert source.register("step", large.first).status == 200
    waiting = later(reader.pull, "step", source)
    reader.wait_for_part("step", part)
    replace(source, large.second)
    answer = waiting.result(PULL_S_MAX)
    answer.check_failure(502, "source_failed", source.url, "replaced", within=PULL_S_MAX)
    wait_until(lambda: reader.is_free("step"), "the name is free")
    hosts[0].shape(400)
    reader.pulled("step", source)
    engine.check_takes(reader, "step", large.second_digests)


def test_one_of_two_sources_replaces_it(
    hosts: list[Host], start_large: Callable[..., Node], engine: Engine, large: Samples
) -> None:
    changing, staying, reader = [start_large(host) for host in hosts[:3]]
    for source in (changing, staying):
        assert source.register("step", large.first).status == 200
    reader.pulled("step", changing, staying, wait=False)
    reader.wait_for_part("step", 0.3)
    replace(changing, large.second)
    reader.wait_until_ready("step")
    engine.check_takes(reader, "step", large.first_digests)


def test_a_slow_source_replaces_it_while_it_sends(
    hosts: list[Host], start_large: Callable[..., Node], engine: Engine, large: Samples
) -> None:
    # What is under way from it may arrive after the same chunks have come from the other one.
    changing, staying, reader = [start_large(host) for host in hosts[:3]]
    hosts[0].shape(10)
    hosts[1].shape(100)
    for source in (changing, staying):
        assert source.register("step", large.first).status == 200
    reader.pulled("step", changing, staying, wait=False)
    reader.wait_for_part("step", 0.2)
    replace(changing, large.second)
    reader.wait_until_ready("step")
    engine.check_takes(reader, "step", large.first_digests)


def test_it_is_replaced_before_anything_was_read(
    start_large: Callable[..., Node], engine: Engine, large: Samples
) -> None:
    # The checksums are computed for the first reader: that may be while the bytes change.
    source, reader = start_large(), start_large()
    for number in range(1, 6):
        assert source.register("step", large.first).status == 200
        waiting = later(reader.pull, "step", source)
        wait_until_leased(source, 2 * number, waiting)
        replace(source, large.second)
        answer = waiting.result(PULL_S_MAX)
        if answer.status == 200:
            digests = [large.first_digests, large.second_digests]
            assert_one_of(engine, reader, digests)
            assert reader.unregister("step").status == 200
        else:
            answer.check_failure(502, "source_failed", source.url, within=PULL_S_MAX)
        wait_until(lambda: reader.is_free("step"), "the name is free")
        assert source.unregister("step").status == 200


def wait_until_leased(node: Node, count: int, waiting: Future[Answer]) -> None:
    """Until so many leases have begun in all; a pull that ends earlier is not waited for."""

    def has_begun() -> bool:
        return waiting.done() or node.log.read_text().count("a lease begins") >= count

    wait_until(has_begun, "a lease has begun")


def assert_one_of(engine: Engine, node: Node, digests: list[object]) -> None:
    """Every worker gets all bytes of one of these versions."""
    engine.fake.reset()
    answer = node.request("POST", "/v1/checkpoints/step/update", engine.place)
    assert answer.status == 200, answer.body
    for outcome in engine.fake.updates[-1]:
        assert outcome.committed
        assert outcome.digests in digests


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_sources_with_different_versions(
    hosts: list[Host],
    start_large: Callable[..., Node],
    engine: Engine,
    large: Samples,
    order: tuple[int, int],
) -> None:
    sources, reader = [start_large(host) for host in hosts[:2]], start_large(hosts[2])
    for source, checkpoint in zip(sources, (large.first, large.second), strict=True):
        assert source.register("step", checkpoint).status == 200
    reader.pulled("step", *(sources[number] for number in order))
    assert_one_of(engine, reader, [large.first_digests, large.second_digests])
    # The one with the other version was given up.
    assert reader.has_logged("a source is given up")


def test_the_first_of_two_versions_dies(
    hosts: list[Host], start_large: Callable[..., Node], engine: Engine, large: Samples
) -> None:
    first, second, reader = [start_large(host) for host in hosts[:3]]
    assert first.register("step", large.first).status == 200
    assert second.register("step", large.second).status == 200
    waiting = later(reader.pull, "step", first, second, stall_timeout=3)
    reader.wait_for_part("step", 0.4)
    first.kill()
    answer = waiting.result(PULL_S_MAX)
    if answer.status == 200:
        assert_one_of(engine, reader, [large.first_digests, large.second_digests])
    else:
        answer.check_failure(502, "source_failed", second.url, within=PULL_S_MAX)
    wait_until(lambda: reader.state("step") in (None, "ready"), "the pull has ended")


def test_the_first_of_two_nearly_equal_versions_dies(
    hosts: list[Host], start_large: Callable[..., Node]
) -> None:
    # Checksums come in blocks: those of the second version that are asked for do not differ from
    # what has arrived, and yet it is another one.
    for host in hosts[:3]:
        host.shape(300)
    first, second, reader = [start_large(host) for host in hosts[:3]]
    files = [node.folders.shared_memory / "step.safetensors" for node in (first, second)]
    for seed, (node, file) in enumerate(zip((first, second), files, strict=True), 1):
        write_nearly_equal_checkpoint(file, seed)
        assert node.register("step", file).status == 200
    # Somebody reads from the second one: the reader has its turn there when that has ended.
    lease = second.request("POST", "/v1/checkpoints/step/leases", {}).body["lease"]
    waiting = later(reader.pull, "step", first, second, stall_timeout=3)
    reader.wait_for_part("step", 0.5)
    first.kill()
    second.request("DELETE", f"/v1/leases/{lease}")
    answer = waiting.result(PULL_S_MAX)
    assert answer.status == 502, f"{answer.body}\n{reader.log.read_text()}"
    answer.check_failure(502, "source_failed", second.url, "other bytes", within=PULL_S_MAX)
    wait_until(lambda: reader.is_free("step"), "the name is free")
    assert second.unregister("step").status == 200
    files[1].unlink()
