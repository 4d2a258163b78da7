"""``checkpoint-engine bench`` on simulated GPUs and on the CPU."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from daemon import Folders, Program, run, wait_until

SMALL = ["bench", "--model", "small", "--layers", "1", "--updates", "3", "--bucket-size", "16MiB"]
# Of the model small with one layer.
TENSORS = 14


@pytest.fixture
def flags(folders: Folders) -> list[str]:
    return ["--directory", str(folders.shared_memory), *folders.flags]


@pytest.fixture(params=["cuda", "host"])
def device(request: pytest.FixtureRequest, cuda_library: str) -> list[str]:
    found = ["--device", request.param]
    return found + (["--cuda-library", cuda_library] if request.param == "cuda" else [])


def figures(path: Path) -> Any:
    return json.loads(path.read_text())


def test_figures_and_picture(flags: list[str], device: list[str], tmp_path: Path) -> None:
    output, trace = tmp_path / "bench.json", tmp_path / "bench.svg"
    parallel = ["--tensor-parallel", "2", "--data-parallel", "2"]
    files = ["--json", str(output), "--trace", str(trace)]
    ended = run(*SMALL, *parallel, *files, *flags, *device)
    assert ended.code == 0, ended.stderr
    assert "every byte was right after each update" in ended.stdout
    for words in ("register", "first update", "later updates, median", "later updates, best"):
        assert re.search(rf"^{words} +\d+\.\d{{4}}", ended.stdout, re.MULTILINE), ended.stdout
    found = figures(output)
    assert found["device"] == device[1]
    assert found["tensors"] == TENSORS
    assert len(found["updates"]) == 3
    # Both engines hold everything; what two workers cannot share, each of them holds.
    assert found["verified_bytes"] >= 2 * found["bytes"]
    assert found["best"]["seconds"] <= found["median"]["seconds"]
    assert found["stages"]["reload"] > 0
    assert ("ring" in found) == (device[1] == "cuda")
    assert trace.read_text().startswith("<svg")


def test_files_on_disk_and_one_update(device: list[str], folders: Folders, tmp_path: Path) -> None:
    arguments = [*SMALL, "--updates", "1", "--tensor-parallel", "1", "--no-verify", "--seed", "7"]
    output = tmp_path / "bench.json"
    arguments += ["--json", str(output), "--directory", str(tmp_path), *folders.flags]
    ended = run(*arguments, *device)
    assert ended.code == 0, ended.stderr
    assert "nothing was compared" in ended.stdout
    found = figures(output)
    assert found["in_place_bytes"] == 0
    assert "median" not in found
    assert "verified_bytes" not in found
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


@pytest.mark.parametrize("line", ["write:", "update: 2", "verify:"])
def test_it_is_stopped(flags: list[str], device: list[str], folders: Folders, line: str) -> None:
    program = Program(*SMALL, "--updates", "50", *flags, *device)
    assert program._process.stderr is not None
    for text in program._process.stderr:
        if line in text:
            break
    program.send(signal.SIGINT)
    ended = program.wait(20)
    ended.check_orderly()
    assert ended.code == 130, ended.stderr
    assert folders.contents() == []
    wait_until(lambda: children_of(program.pid) == [], "its workers have ended")


def children_of(pid: int) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(path.parent.name)
    return found


def test_too_few_gpus_are_told(flags: list[str], cuda_library: str) -> None:
    arguments = ["--device", "cuda", "--cuda-library", cuda_library, "--tensor-parallel", "5"]
    ended = run(*SMALL, *flags, *arguments)
    assert ended.code == 2
    assert "5 workers need as many GPUs" in ended.stderr
    assert "sees 4" in ended.stderr


def test_too_little_room_is_told(flags: list[str]) -> None:
    ended = run("bench", "--model", "deepseek-v3-fp8", "--device", "host", *flags)
    ended.check_failure("673.15 GB", "--layers", "--directory")
