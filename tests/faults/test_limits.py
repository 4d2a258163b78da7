"""Limits are found before they are met: the memory of control groups, the lengths of paths."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import daemon
from bad_files import sparse_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Samples
    from fake_engine import FakeEngine

LIMIT = 256 << 20
# Where control groups of memory can be, and what the limit is called there.
PLACES = [
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
]


def _can_limit(parent: Path, name: str) -> bool:
    """Whether this user may make a group there that limits memory."""
    group = parent / f"ce-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        return False
    try:
        return (group / name).exists() and os.access(group / name, os.W_OK)
    finally:
        group.rmdir()


# Empty where the machine has none or does not let this user make one; the texts of such groups are
# read in tests of their own.
USABLE = [place for place in PLACES if place[0].is_dir() and _can_limit(*place)]


@contextlib.contextmanager
def limited_group(parent: Path, name: str) -> Iterator[Path]:
    """A group below one that has the limit."""
    group = parent / f"ce-test-{os.getpid()}"
    group.mkdir()
    (group / name).write_text(str(LIMIT))
    inner = group / "inner"
    inner.mkdir()
    try:
        yield inner
    finally:
        for part in (inner, group):
            with contextlib.suppress(OSError):
                (part / "memory.force_empty").write_text("1")
            part.rmdir()


def run_in(group: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    return subprocess.run(
        ["bash", "-c", script, "bash", str(daemon.BINARY), *arguments],
        env=daemon.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


if USABLE:

    def test_the_memory_of_a_control_group(
        engine: FakeEngine, folders: daemon.Folders, tmp_path: Path
    ) -> None:
        """What does not fit is refused and ends no process; the limit is one group above."""
        big = sparse_checkpoint(tmp_path / "big", 2 * LIMIT)
        with limited_group(*USABLE[0]) as group:
            findings = json.loads(run_in(group, "doctor", "--json").stdout)["findings"]
            [memory] = [finding for finding in findings if finding["subject"] == "memory"]
            assert str(group.parent) in memory["detail"], memory
            ended = run_in(group, *daemon.update_arguments(big, engine.url, folders))
        assert ended.returncode == 1, (ended.returncode, ended.stderr)
        assert f"the memory limit of {LIMIT} bytes of {group.parent}" in ended.stderr
        assert engine.updates == []


def runtime_limit() -> int:
    """What ``doctor`` says that a runtime directory may have."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="d" * 90) as path:
        findings = json.loads(daemon.run("doctor", "--json", "--runtime-dir", path).stdout)
    [found] = [f for f in findings["findings"] if f["subject"] == "runtime directory"]
    assert found["level"] == "fail"
    return int(re.search(r"at most (\d+)", found["detail"])[1])


def test_a_runtime_directory_is_long_enough_or_refused(
    samples: Samples, engine: FakeEngine, folders: daemon.Folders
) -> None:
    """``doctor`` and the program agree on the longest one, and that one works."""
    limit = runtime_limit()
    assert limit >= 48
    for length, code in ((limit, 0), (limit + 1, 1)):
        with tempfile.TemporaryDirectory(dir="/tmp", prefix="d") as parent:
            path = Path(parent, "x" * (length - len(parent) - 1))
            path.mkdir()
            flags = ["--runtime-dir", str(path)]
            ended = daemon.run(*daemon.update_arguments(samples.first, engine.url, folders, *flags))
            assert ended.code == code, ended.stderr
            assert daemon.run("doctor", *flags).code == code
            assert list(path.iterdir()) == []
    assert f"{limit + 1} bytes, and at most {limit}" in ended.stderr
    assert len(engine.updates) == 1
