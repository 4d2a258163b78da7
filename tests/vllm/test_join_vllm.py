"""A new vLLM gets its weights from a host that serves, and answers as one that loaded the files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from vllm_server import VllmServer

TESTS = Path(__file__).resolve().parents[1]
sys.path.append(str(TESTS / "pull"))

from nodes import Node, starting_nodes  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def start() -> Iterator[Callable[..., Node]]:
    """``start(host, *flags)`` starts a daemon, on loopback."""
    with starting_nodes("4MiB") as start:
        yield start


def test_a_new_engine_joins(model, fresh, tmp_path, start) -> None:
    first, second = model("qwen3", 1), model("qwen3", 2)
    assert fresh(first) != fresh(second)
    source = start()
    assert source.register("step", second).status == 200
    with VllmServer(first, tmp_path / "vllm.log") as server:
        dummy = server.generate()
        token = source.log.with_name("token")
        node = start(
            None,
            *("--source", source.url, "--source-token-file", str(token)),
            *("--checkpoint-name", "step", "--endpoint", server.url),
            command="join",
        )

        node.wait_until_joined()
        assert server.generate() == fresh(second) != dummy
        # It is a daemon now, and a source: the next version comes from here as well.
        source.close()
        assert node.register("next", first).status == 200
        answer = node.update("next", f"{server.url}/collective_rpc")
        assert answer.status == 200, answer.body
        assert server.generate() == fresh(first)
