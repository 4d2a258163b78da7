"""Engines that start later take their weights out of the memory of those that are there."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from checkpoint_engine.metas_json import read_metas_file
from daemon import write_secret
from example_runs import EXAMPLES, Engine, random_checkpoint, staying, torchrun, wait_until
from ports import free_port

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

UPDATE = EXAMPLES / "update.py"
SIZE = ["--inference-parallel-size", 2]
FAILURE_S_MAX = 60.0
TOKEN = "0123456789abcdef0123456789abcdef\n"


class Fleet:
    """``update.py`` that stays, serves what it has, and has saved its metas."""

    def __init__(self, folder: Path, shared_memory: Path, engine: Engine) -> None:
        self.checkpoint = random_checkpoint(folder / "first", 3)
        self.metas_file = folder / "metas.json"
        self.url = f"http://127.0.0.1:{free_port()}"
        self._token = folder / "token"
        write_secret(self._token, TOKEN)
        self._log = folder / "first.log"
        self._engine = engine
        self.memory = {"CHECKPOINT_ENGINE_SHARED_MEMORY_DIR": str(shared_memory)}

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Returns when its engine has its weights."""
        variables = {
            **self.memory,
            "CHECKPOINT_ENGINE_LISTEN": self.url.removeprefix("http://"),
            "CHECKPOINT_ENGINE_TOKEN_FILE": str(self._token),
        }
        arguments = [*SIZE, *self._engine.flags, "--checkpoint-path", self.checkpoint]
        arguments += ["--save-metas-file", self.metas_file, "--sleep-time", 600]
        with staying(2, UPDATE, self._log, *arguments, **variables) as process:
            wait_until(lambda: "update (broadcast): " in self._log.read_text(), process)
            yield

    def join(
        self, engine: Engine, *flags: str, with_token: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Another one, which has its weights from here."""
        variables = {"CHECKPOINT_ENGINE_SOURCE_TOKEN_FILE": str(self._token)} if with_token else {}
        arguments = [*SIZE, *engine.flags, "--load-metas-file", self.metas_file, *flags]
        return torchrun(2, UPDATE, *arguments, **self.memory, **variables)


@pytest.fixture
def fleet(engine: Engine, shared_memory: Path, tmp_path: Path) -> Fleet:
    return Fleet(tmp_path, shared_memory, engine)


@pytest.mark.parametrize("method", [None, "p2p", "all"])
def test_a_second_fleet(
    fleet: Fleet, engine: Engine, late_engine: Engine, tmp_path: Path, method: str | None
) -> None:
    flags = ["--update-method", method] if method else []
    with fleet.serving():
        sources = [rank.checkpoint_engine for rank in read_metas_file(fleet.metas_file).values()]
        assert [source and source.url for source in sources] == [fleet.url, fleet.url]

        refused = fleet.join(late_engine, *flags, with_token=False)
        assert refused.returncode != 0
        assert f"{fleet.url} answered 401" in refused.stderr

        result = fleet.join(late_engine, *flags)
        assert result.returncode == 0, result.stderr
        assert "update (p2p): " in result.stdout
        assert ("update (broadcast): " in result.stdout) == (method == "all")
        assert late_engine.differences(fleet.checkpoint) is None
        assert engine.differences(fleet.checkpoint) is None
        assert engine.differences(random_checkpoint(tmp_path / "second", 3)) is not None


def test_a_fleet_that_is_gone(fleet: Fleet, late_engine: Engine) -> None:
    with fleet.serving():
        pass
    start = time.monotonic()
    orphaned = fleet.join(late_engine)
    assert orphaned.returncode != 0
    assert f"{fleet.url} cannot be reached" in orphaned.stderr
    assert time.monotonic() - start < FAILURE_S_MAX
