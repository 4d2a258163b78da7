"""Checkpoints come out of the memory of other daemons: every byte, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from daemon import REPOSITORY, Answer, wait_until
from nodes import TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Engine
    from nodes import Node
    from pull_samples import Samples

# The most that an answer may take which needs no transfer.
QUICK_S = 10.0


def test_every_byte_and_a_chain_of_hosts(
    start: Callable[..., Node], engine: Engine, samples: Samples
) -> None:
    first, second = start(), start()
    assert first.register("step", samples.first).status == 200
    summary = second.pulled("step", first).body
    assert summary["bytes"] == summary["registered_bytes"] > 0
    engine.check_takes(second, "step", samples.first_digests)
    # Nobody needs the first one any more.
    assert first.stop().code == 0
    third = start()
    third.pulled("other-name", second, remote_name="step")
    engine.check_takes(third, "other-name", samples.first_digests)
    # The names and the memory are free for the next version.
    assert third.unregister("other-name").status == 200
    assert second.unregister("step", release=True).status == 200
    assert second.register("step", samples.second).status == 200
    third.pulled("step", second)
    engine.check_takes(third, "step", samples.second_digests)


def test_update_takes_what_arrives(
    start: Callable[..., Node], engine: Engine, samples: Samples
) -> None:
    source, reader = start(), start()
    assert source.register("step", samples.first).status == 200
    assert reader.pulled("step", source, wait=False).status == 202
    engine.check_takes(reader, "step", samples.first_digests)
    reader.wait_until_ready("step")


def test_files_in_shared_memory_are_read_in_place(
    start: Callable[..., Node], engine: Engine, samples: Samples, tmp_path: Path
) -> None:
    source, reader = start(), start()
    place = source.folders.shared_memory / "files"
    place.mkdir()
    copies = [place / file.name for file in samples.first.glob("*.safetensors")]
    for copy in copies:
        copy.write_bytes((samples.first / copy.name).read_bytes())
    assert source.register("step", *copies).body["in_place_bytes"] > 0
    reader.pulled("step", source)
    engine.check_takes(reader, "step", samples.first_digests)
    assert source.unregister("step").status == 200
    for copy in copies:
        copy.unlink()
    place.rmdir()


def test_what_cannot_be_pulled_is_named_at_once(
    start: Callable[..., Node], engine: Engine, samples: Samples
) -> None:
    source, reader = start(), start()
    assert source.register("step", samples.first).status == 200

    def check(answer: Answer, *words: str) -> None:
        answer.check_failure(502, "source_failed", *words, within=QUICK_S)
        assert reader.is_free("step")

    check(reader.pull("step", source, remote_name="nothing"), source.url, "404", "nothing")
    wrong = [{"url": source.url, "token": "f" * 32}]
    check(
        reader.request("POST", "/v1/checkpoints/step/pull", {"sources": wrong}), source.url, "401"
    )
    nobody = [{"url": source.url}]
    check(
        reader.request("POST", "/v1/checkpoints/step/pull", {"sources": nobody}), source.url, "401"
    )
    dead = [{"url": "http://127.0.0.1:9", "token": TOKEN}]
    body = {"sources": dead, "stall_timeout": 1}
    check(reader.request("POST", "/v1/checkpoints/step/pull", body), "127.0.0.1:9")
    for url in ("https://127.0.0.1:1", "http://a/b", "file:///etc/passwd", ""):
        body = {"sources": [{"url": url}]}
        answer = reader.request("POST", "/v1/checkpoints/step/pull", body)
        assert answer.status == 400, answer.body
    none: dict[str, object] = {"sources": []}
    assert reader.request("POST", "/v1/checkpoints/step/pull", none).status == 400
    # One of several sources is enough.
    other = start()
    refusing = {"url": other.url, "token": "f" * 32}
    right = {"url": source.url, "token": TOKEN}
    body = {"sources": [*dead, refusing, right]}
    assert reader.request("POST", "/v1/checkpoints/step/pull", body).status == 200
    engine.check_takes(reader, "step", samples.first_digests)
    reader.pull("step", source).check_failure(409, "already_exists", "step", within=QUICK_S)


def test_unregistering_ends_a_pull_and_a_lease(
    start: Callable[..., Node], engine: Engine, samples: Samples
) -> None:
    source, reader = start(), start()
    assert source.register("step", samples.first).status == 200
    lease = source.request("POST", "/v1/checkpoints/step/leases", {}).body
    path = f"/v1/leases/{lease['lease']}"
    assert source.request("POST", path).status == 200
    assert source.request("GET", f"{path}/catalog").status == 200
    for wrong in ("/checksums/0/0", "/checksums/0/9999", "/checksums/-1/1", "/checksums/1e9/1"):
        assert source.request("GET", path + wrong).status == 400, wrong
    # The reader waits for its turn, which does not come.
    assert reader.pulled("step", source, wait=False).status == 202
    assert reader.unregister("step").status == 200
    wait_until(lambda: reader.is_free("step"), "the name is free")
    assert source.unregister("step").status == 200
    gone = source.request("POST", path)
    gone.check_failure(404, "not_found", "lease", within=QUICK_S)
    assert source.register("step", samples.second).status == 200
    reader.pulled("step", source)
    engine.check_takes(reader, "step", samples.second_digests)


@pytest.mark.parametrize("lacks", ["the package", "mooncake"])
def test_without_the_agent_everything_else_works(
    start: Callable[..., Node], engine: Engine, samples: Samples, tmp_path: Path, lacks: str
) -> None:
    made = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")]
    subprocess.run(made, check=True)
    variables = {"CHECKPOINT_ENGINE_TRANSFER_PYTHON": str(tmp_path / "venv/bin/python")}
    variables["PYTHONPATH"] = "" if lacks == "the package" else str(REPOSITORY / "python")
    bare, whole = start(None, **variables), start()
    # A source.
    assert bare.register("step", samples.first).status == 200
    engine.check_takes(bare, "step", samples.first_digests)
    assert bare.request("POST", "/v1/checkpoints/step/gather-metas").status == 200
    refused = whole.pull("step", bare, stall_timeout=3)
    refused.check_failure(
        502, "source_failed", bare.url, "checkpoint-engine-native[p2p]", within=40
    )
    assert whole.is_free("step")
    # A reader.
    assert whole.register("step", samples.first).status == 200
    answer = bare.pull("mine", whole, remote_name="step")
    answer.check_failure(500, "system", "checkpoint-engine-native[p2p]", within=40)
    assert bare.is_free("mine")
    engine.check_takes(bare, "step", samples.first_digests)


def test_metas_tell_where_to_read(start: Callable[..., Node], samples: Samples) -> None:
    source, other = start(), start()
    assert source.register("step", samples.first).status == 200
    assert source.request("POST", "/v1/checkpoints/step/gather-metas").status == 200
    metas = source.request("GET", "/v1/metas").body
    where = metas["0"]["checkpoint_engine"]
    assert (where["url"], where["checkpoint"]) == (source.url, "step")
    # What the bytes are, where that is known by then.
    assert where.keys() <= {"url", "checkpoint", "content"}
    assert metas["0"]["p2p_store_addr"].startswith("127.0.0.1:")
    assert all(buffer["ptr"] > 0 for buffer in metas["0"]["memory_buffer_metas_list"])
    assert other.request("POST", "/v1/metas", metas).status == 200
    assert other.request("GET", "/v1/metas").body == metas
    # As PyPI's package writes them, which knows no daemons.
    known = json.loads(json.dumps(metas))
    del known["0"]["checkpoint_engine"]
    assert other.request("POST", "/v1/metas", known).status == 200
    assert other.request("GET", "/v1/metas").body == known
    for wrong in ({"x": {}}, {"0": {}}, {"0": {**known["0"], "p2p_store_addr": 7}}):
        assert other.request("POST", "/v1/metas", wrong).status == 400, wrong
    assert other.request("GET", "/v1/metas").body == known


def test_several_agents(start_large: Callable[..., Node], engine: Engine, large: Samples) -> None:
    source = start_large(None, "--transfer-agents", "2")
    node = start_large(None, "--transfer-agents", "3")
    assert source.register("step", large.first).status == 200
    node.pulled("step", source)
    engine.check_takes(node, "step", large.first_digests)
    assert len(source.agents) == 2
    # Those of the pull are kept for the next one.
    assert len(node.agents) == 3
    # A source whose agents have ended starts others; what a reader has is none of their matter.
    source.kill_agents()
    node.kill_agents()
    assert node.unregister("step").status == 200
    node.pulled("step", source)
    engine.check_takes(node, "step", large.first_digests)


def test_memory_that_is_given_back_is_free(
    start_large: Callable[..., Node], engine: Engine, large: Samples
) -> None:
    source, node = start_large(), start_large()

    def mapped(one: Node) -> bool:
        maps = [Path(f"/proc/{pid}/maps") for pid in (one.program.pid, *one.agents)]
        return any("/segment-" in path.read_text() for path in maps)

    for _ in range(2):
        assert source.register("step", large.first).status == 200
        node.pulled("step", source)
        assert node.unregister("step").status == 200
        node.pulled("step", source)
        engine.check_takes(node, "step", large.first_digests)
        for one in (source, node):
            assert mapped(one)
            assert one.unregister("step", release=True).status == 200
            wait_until(lambda: not mapped(one), "nobody has the memory any more")  # noqa: B023
