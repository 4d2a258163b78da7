"""Sources and agents that fail while workers on GPUs take what arrives; all on this machine.

Every byte is compared on the GPUs. It needs the Python package mooncake-transfer-engine.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from daemon import wait_until
from nodes import PULL_S_MAX, later

if TYPE_CHECKING:
    from pathlib import Path

    from nodes import Node
    from pull_places import Places
    from torch_engine_process import TorchEngine


@pytest.fixture
def sources(places: Places, versions: list[Path]) -> list[Node]:
    """Two that have the first version as ``step``."""
    nodes = [places.serve() for _ in range(2)]
    for node in nodes:
        assert node.register("step", versions[0]).status == 200
    return nodes


@pytest.fixture
def reader(places: Places, engine: TorchEngine) -> Node:
    """One that has nothing; the workers' tensors hold random bytes."""
    engine.scramble()
    return places.serve()


def check_takes(places: Places, node: Node, engine: TorchEngine, version: Path) -> None:
    """An update from ``node`` puts exactly these bytes into every worker."""
    answer = places.update(node, "step", engine)
    assert answer.status == 200, answer.body
    engine.verify(version)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_source_dies_under_an_update(
    sources: list[Node],
    reader: Node,
    engine: TorchEngine,
    versions: list[Path],
    places: Places,
    part: float,
) -> None:
    reader.pulled("step", *sources, wait=False)
    update = later(check_takes, places, reader, engine, versions[0])
    reader.wait_for_part("step", part)
    sources[0].kill()
    print(f"killed when {reader.arrived('step'):.0%} were there")
    update.result(PULL_S_MAX)
    reader.wait_until_ready("step")


def test_a_source_of_what_passes_through_dies(
    sources: list[Node], reader: Node, engine: TorchEngine, versions: list[Path], places: Places
) -> None:
    reader.pulled("step", *sources, wait=False, keep="never")
    update = later(check_takes, places, reader, engine, versions[0])
    reader.wait_for_part("step", 0.3)
    sources[0].kill()
    update.result(PULL_S_MAX)


@pytest.mark.parametrize("whose", ["source's", "reader's", "both"])
def test_agents_die_under_an_update(
    sources: list[Node],
    reader: Node,
    engine: TorchEngine,
    versions: list[Path],
    places: Places,
    whose: str,
) -> None:
    # With one source: there is nobody else.
    reader.pulled("step", sources[0], wait=False)
    update = later(check_takes, places, reader, engine, versions[0])
    reader.wait_for_part("step", 0.3)
    for node in (sources[0], reader):
        if whose == "both" or (node is reader) == (whose == "reader's"):
            node.kill_agents()
    update.result(PULL_S_MAX)
    reader.wait_until_ready("step")


def test_a_source_that_stands_still_goes_on(
    sources: list[Node], reader: Node, engine: TorchEngine, versions: list[Path], places: Places
) -> None:
    reader.pulled("step", sources[0], wait=False, stall_timeout=60)
    update = later(check_takes, places, reader, engine, versions[0])
    reader.wait_for_part("step", 0.3)
    with sources[0].stopped():
        time.sleep(2)
        assert reader.arrived("step") < 1
        assert not update.done()
    update.result(PULL_S_MAX)


def test_a_source_that_stands_still_is_left(
    sources: list[Node], reader: Node, engine: TorchEngine, versions: list[Path], places: Places
) -> None:
    reader.pulled("step", *sources, wait=False, stall_timeout=4)
    update = later(check_takes, places, reader, engine, versions[0])
    reader.wait_for_part("step", 0.2)
    with sources[0].stopped():
        begin = time.monotonic()
        update.result(PULL_S_MAX)
        print(f"updated {time.monotonic() - begin:.1f} s after the source stood still")
        reader.wait_until_ready("step")


def test_all_sources_die(
    sources: list[Node], reader: Node, engine: TorchEngine, versions: list[Path], places: Places
) -> None:
    reader.pulled("step", *sources, wait=False, stall_timeout=3)
    update = later(places.update, reader, "step", engine)
    reader.wait_for_part("step", 0.3)
    for source in sources:
        source.kill()
    failed = update.result(PULL_S_MAX)
    failed.check_failure(502, "source_failed", *(s.url for s in sources), within=PULL_S_MAX)
    wait_until(lambda: reader.is_free("step"), "the name is free")
    wait_until(lambda: engine.last().get("failure"), "the workers have been told")
    assert not any(engine.last()["succeeded"])
    # The same workers take the next one.
    fresh = places.serve()
    assert fresh.register("step", versions[1]).status == 200
    reader.pulled("step", fresh)
    check_takes(places, reader, engine, versions[1])


@pytest.mark.parametrize("part", [0.05, 0.5])
def test_the_only_source_replaces_it_under_an_update(
    sources: list[Node],
    reader: Node,
    engine: TorchEngine,
    versions: list[Path],
    places: Places,
    part: float,
) -> None:
    source = sources[0]
    reader.pulled("step", source, wait=False)
    update = later(places.update, reader, "step", engine)
    reader.wait_for_part("step", part)
    assert source.unregister("step").status == 200
    assert source.register("step", versions[1]).status == 200
    answer = update.result(PULL_S_MAX)
    if answer.status == 200:
        # All had been read before the other version was there.
        engine.verify(versions[0])
        assert reader.unregister("step").status == 200
    else:
        answer.check_failure(502, "source_failed", source.url, "replaced", within=PULL_S_MAX)
    wait_until(lambda: reader.is_free("step"), "the name is free")
    reader.pulled("step", source)
    check_takes(places, reader, engine, versions[1])


def test_a_join_by_metas_of_a_fleet_that_is_gone_changes_nothing(
    sources: list[Node],
    reader: Node,
    engine: TorchEngine,
    versions: list[Path],
    places: Places,
    tmp_path: Path,
) -> None:
    source = sources[0]
    assert reader.register("step", versions[1]).status == 200
    check_takes(places, reader, engine, versions[1])
    assert source.request("POST", "/v1/checkpoints/step/gather-metas").status == 200
    metas = tmp_path / "metas.json"
    metas.write_text(json.dumps(source.request("GET", "/v1/metas").body))
    for one in sources:
        one.kill()
    flags = ("--load-metas-file", str(metas), "--stall-timeout", "2")
    joining = places.join(engine, "step", *flags)
    ended = joining.program.wait(PULL_S_MAX)
    ended.check_failure(source.url, within=PULL_S_MAX)
    engine.verify(versions[1])
