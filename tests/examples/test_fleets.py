"""Engines that start later take their weights out of the memory of those that are there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from checkpoint_engine.metas_json import read_metas_file
from example_runs import (
    EXAMPLES,
    Engine,
    free_port,
    random_checkpoint,
    staying,
    torchrun,
    wait_until,
)

if TYPE_CHECKING:
    from pathlib import Path

UPDATE = EXAMPLES / "update.py"
FAILURE_S_MAX = 60.0


@pytest.mark.parametrize("method", [None, "p2p", "all"])
def test_a_second_fleet(
    engine: Engine, late_engine: Engine, shared_memory: Path, tmp_path: Path, method: str | None
) -> None:
    checkpoint, metas_file = random_checkpoint(tmp_path / "first", 3), tmp_path / "metas.json"
    url = f"http://127.0.0.1:{free_port()}"
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef\n")
    memory = {"CHECKPOINT_ENGINE_SHARED_MEMORY_DIR": str(shared_memory)}
    serves = {
        **memory,
        "CHECKPOINT_ENGINE_LISTEN": url.removeprefix("http://"),
        "CHECKPOINT_ENGINE_TOKEN_FILE": str(token),
    }
    arguments = ["--inference-parallel-size", 2]
    serving = [*arguments, *engine.flags, "--checkpoint-path", checkpoint]
    serving += ["--save-metas-file", metas_file, "--sleep-time", 600]
    log = tmp_path / "first.log"
    joining = [*arguments, *late_engine.flags, "--load-metas-file", metas_file]
    if method is not None:
        joining += ["--update-method", method]
    with staying(2, UPDATE, log, *serving, **serves) as first:
        wait_until(lambda: "update (broadcast): " in log.read_text(), first)
        sources = [rank.checkpoint_engine for rank in read_metas_file(metas_file).values()]
        assert [source and source.url for source in sources] == [url, url]

        refused = torchrun(2, UPDATE, *joining, **memory)
        assert refused.returncode != 0
        assert f"{url} answered 401" in refused.stderr

        tokens = {"CHECKPOINT_ENGINE_SOURCE_TOKEN_FILE": str(token)}
        result = torchrun(2, UPDATE, *joining, **memory, **tokens)
        assert result.returncode == 0, result.stderr
        assert "update (p2p): " in result.stdout
        assert ("update (broadcast): " in result.stdout) == (method == "all")
        assert late_engine.differences(checkpoint) is None
        assert engine.differences(checkpoint) is None
        assert engine.differences(random_checkpoint(tmp_path / "second", 3)) is not None

    start = time.monotonic()
    orphaned = torchrun(2, UPDATE, *joining, **memory, **tokens)
    assert orphaned.returncode != 0
    assert orphaned.stderr.count(f"UpdateError: update of my-checkpoint-iter-0 failed: {url}") or (
        f"{url} cannot be reached" in orphaned.stderr
    )
    assert time.monotonic() - start < FAILURE_S_MAX
