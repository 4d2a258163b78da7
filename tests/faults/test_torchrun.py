"""``torchrun`` starts one process for each GPU; the program does the work once on each host."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import daemon
import pytest

TORCHRUN = Path(sys.executable).with_name("torchrun")
RUN_S_MAX = 90.0


def torchrun(count: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(str(TORCHRUN), "--no-python", "--standalone", "--nproc-per-node", str(count)),
            str(daemon.BINARY),
            *arguments,
        ],
        env=daemon.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )


@pytest.mark.parametrize("count", [1, 3])
def test_one_of_the_processes_updates(in_memory, engine, folders, count):
    ended = torchrun(count, *daemon.update_arguments(in_memory, engine.url, folders))
    assert ended.returncode == 0, ended.stderr
    assert len(engine.updates) == 1
    assert ended.stdout.count("succeeded") == 1
    assert folders.contents() == []


def test_all_end_with_the_failure_of_the_first(engine, folders, tmp_path):
    start = time.monotonic()
    missing = tmp_path / "missing"
    ended = torchrun(3, *daemon.update_arguments(missing, engine.url, folders))
    assert ended.returncode != 0
    assert str(missing) in ended.stderr
    assert time.monotonic() - start < RUN_S_MAX / 2
    assert engine.updates == []
