"""The commands that read from other hosts: ``join``, and ``update`` with p2p and all."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from daemon import Ended, run, wait_until
from nodes import AGENT, agent_variables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Engine
    from daemon import Folders
    from nodes import Node
    from pull_samples import Samples

JOIN_S_MAX = 60.0


@pytest.fixture
def source(start: Callable[..., Node], samples: Samples) -> Node:
    """A daemon that has the first checkpoint as ``step``."""
    node = start()
    assert node.register("step", samples.first).status == 200
    return node


def joining(start: Callable[..., Node], token: Path, engine: Engine, *more: str) -> Node:
    flags = ("--source-token-file", str(token), *engine.flags, *more)
    return start(None, *flags, command="join", waits=False)


def test_a_host_that_has_joined_is_a_source(
    start: Callable[..., Node], source: Node, token: Path, engines: list[Engine], samples: Samples
) -> None:
    flags = ("--checkpoint-name", "step")
    second = joining(start, token, engines[0], *flags, "--source", source.url)
    second.wait_until_joined()
    engines[0].check_has(samples.first_digests)
    assert engines[1].fake.updates == [], "an engine that nobody named was updated"
    assert source.stop().code == 0
    third = joining(start, token, engines[1], *flags, "--source", second.url)
    third.wait_until_joined()
    engines[1].check_has(samples.first_digests)
    # They go on as daemons.
    assert third.register("next", samples.second).status == 200
    engines[1].check_takes(third, "next", samples.second_digests)


@pytest.mark.parametrize("way", ["file", "url"])
def test_join_by_metas(
    start: Callable[..., Node],
    source: Node,
    token: Path,
    engine: Engine,
    samples: Samples,
    tmp_path: Path,
    way: str,
) -> None:
    assert source.request("POST", "/v1/checkpoints/step/gather-metas").status == 200
    metas = tmp_path / "metas.json"
    metas.write_text(json.dumps(source.request("GET", "/v1/metas").body))
    where = ("--load-metas-file", str(metas)) if way == "file" else ("--metas-url", source.url)
    node = joining(start, token, engine, "--checkpoint-name", "step", *where)
    node.wait_until_joined()
    engine.check_has(samples.first_digests)


def failed_join(node: Node) -> Ended:
    ended = node.program.wait(JOIN_S_MAX)
    ended.check_orderly()
    assert ended.code != 0, ended.stderr
    return ended


def test_metas_that_name_no_source(
    start: Callable[..., Node], source: Node, token: Path, engine: Engine, tmp_path: Path
) -> None:
    assert source.request("POST", "/v1/checkpoints/step/gather-metas").status == 200
    metas = source.request("GET", "/v1/metas").body

    def refusal(name: str, content: str) -> str:
        path = tmp_path / name
        path.write_text(content)
        node = joining(start, token, engine, "--load-metas-file", str(path))
        return failed_join(node).stderr

    pickled = refusal("metas.pkl", "any bytes")
    assert "metas.pkl is a pickle" in pickled
    assert "dump_json" in pickled
    assert "metas cannot be read" in refusal("broken.json", "{")
    # As PyPI's package writes them where no peer may read.
    del metas["0"]["checkpoint_engine"]
    metas["0"]["p2p_store_addr"] = None
    assert "the metas name none" in refusal("pypi.json", json.dumps(metas))
    metas["0"]["p2p_store_addr"] = "127.0.0.1:1"
    tensor = metas["0"]["memory_buffer_metas_list"][0]["metas"][0]
    tensor["aligned_size"] = 1 << 56
    assert "does not fit its buffer" in refusal("impossible.json", json.dumps(metas))
    tensor["aligned_size"] = 1 << 60
    assert "expected an integer from 0 to" in refusal("uncountable.json", json.dumps(metas))
    assert engine.fake.updates == []


def test_join_out_of_memory_whose_owner_gives_no_leases(
    start: Callable[..., Node],
    source: Node,
    token: Path,
    engine: Engine,
    samples: Samples,
    tmp_path: Path,
) -> None:
    # What PyPI's servers tell: a session of the transfer engine, and addresses.
    assert source.request("POST", "/v1/checkpoints/step/gather-metas").status == 200
    metas = source.request("GET", "/v1/metas").body
    del metas["0"]["checkpoint_engine"]
    path = tmp_path / "metas.json"
    path.write_text(json.dumps(metas))
    flags = ("--checkpoint-name", "step", "--load-metas-file", str(path))
    node = joining(start, token, engine, *flags)
    node.wait_until_joined()
    engine.check_has(samples.first_digests)
    # Its owner is gone: nobody can be asked, and nothing arrives.
    source.kill()
    body = {"wait": True, "stall_timeout": 2, "remote_name": "step"}
    answer = node.request("POST", "/v1/checkpoints/again/pull", body)
    answer.check_failure(502, "source_failed", metas["0"]["p2p_store_addr"])


def test_metas_of_a_fleet_that_is_gone(
    start: Callable[..., Node], source: Node, token: Path, engine: Engine, tmp_path: Path
) -> None:
    assert source.request("POST", "/v1/checkpoints/step/gather-metas").status == 200
    metas = tmp_path / "metas.json"
    metas.write_text(json.dumps(source.request("GET", "/v1/metas").body))
    source.kill()
    flags = ("--checkpoint-name", "step", "--stall-timeout", "2")
    node = joining(start, token, engine, *flags, "--load-metas-file", str(metas))
    ended = failed_join(node)
    assert source.url in ended.stderr
    assert "cannot be reached" in ended.stderr
    assert engine.fake.updates == []


def test_a_join_whose_engine_fails_ends(
    start: Callable[..., Node], source: Node, token: Path, engine: Engine
) -> None:
    engine.fake.script.update = 500
    flags = ("--checkpoint-name", "step", "--source", source.url)
    ended = failed_join(joining(start, token, engine, *flags))
    assert "500" in ended.stderr
    # The source has nobody to wait for.
    assert source.unregister("step").status == 200


def test_a_join_that_is_stopped_leaves_nothing(
    start: Callable[..., Node], source: Node, token: Path, engine: Engine
) -> None:
    lease = source.request("POST", "/v1/checkpoints/step/leases", {})
    assert lease.status == 200
    flags = ("--checkpoint-name", "step", "--source", source.url)
    node = joining(start, token, engine, *flags)
    wait_until(lambda: node.has_logged("pull begun"), "the pull has begun", JOIN_S_MAX)
    ended = node.stop(signal.SIGTERM, timeout=JOIN_S_MAX)
    ended.check_orderly()
    assert ended.code == 0, ended.stderr


# The one-shot update


@pytest.fixture
def one_shot(
    start: Callable[..., Node], token: Path, engine: Engine, folders: Folders
) -> Callable[..., Ended]:
    def update(method: str, *more: str) -> Ended:
        return run(
            *("update", "--update-method", method, "--checkpoint-name", "step", *engine.flags),
            *("--bucket-size", "64KiB", "--source-token-file", str(token), "--json"),
            *(*folders.flags, *more),
            **agent_variables("one-shot"),
        )

    return update


def states(ended: Ended) -> list[Any]:
    assert ended.code == 0, ended.stderr
    decoder, text, found = json.JSONDecoder(), ended.stdout.strip(), []
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value["state"])
        text = text[end:].strip()
    return found


def test_update_from_other_hosts(
    one_shot: Callable[..., Ended], source: Node, engine: Engine, samples: Samples
) -> None:
    assert states(one_shot("p2p", "--source", source.url)) == ["succeeded"]
    engine.check_has(samples.first_digests)
    # First what is in the files, then what the others have.
    files = ("--checkpoint-path", str(samples.second))
    assert states(one_shot("all", "--source", source.url, *files)) == ["succeeded", "succeeded"]
    assert len(engine.fake.updates) == 3
    engine.check_has(samples.first_digests)
    assert engine.fake.updates[1][0].digests == samples.second_digests


def test_update_that_gets_nothing(
    one_shot: Callable[..., Ended], source: Node, engine: Engine
) -> None:
    unknown = one_shot("p2p", "--source", source.url, "--source-name", "nothing")
    unknown.check_failure(source.url, "nothing", within=JOIN_S_MAX)
    dead = one_shot("p2p", "--source", "http://127.0.0.1:9", "--stall-timeout", "1")
    dead.check_failure("127.0.0.1:9", within=JOIN_S_MAX)
    nobody = one_shot("p2p")
    nobody.check_orderly()
    assert nobody.code != 0
    assert "--source" in nobody.stderr
    assert AGENT not in nobody.stderr
    assert engine.fake.updates == []
