"""Where results go: checked before anything is done, written whole or told as a failure."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import daemon
import pytest

if TYPE_CHECKING:
    from conftest import Samples
    from fake_engine import FakeEngine

FULL = Path("/dev/full")


@pytest.fixture(params=["missing folder", "folder", "a file as folder", "too long"])
def unusable(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A path that no file can be made at."""
    (tmp_path / "file").touch()
    return {
        "missing folder": tmp_path / "missing" / "result",
        "folder": tmp_path,
        "a file as folder": tmp_path / "file" / "result",
        "too long": tmp_path / ("r" * 255),
    }[request.param]


@pytest.mark.parametrize("flag", ["--trace", "--save-metas-file"])
def test_update_checks_its_files_first(
    samples: Samples, engine: FakeEngine, folders: daemon.Folders, unusable: Path, flag: str
) -> None:
    arguments = daemon.update_arguments(samples.first, engine.url, folders, flag, str(unusable))
    ended = daemon.run(*arguments)
    assert ended.code == 2, ended.stderr
    assert f"{unusable} of '{flag}'" in ended.stderr
    assert ended.stdout == ""
    assert engine.updates == []


@pytest.mark.parametrize("flag", ["--trace", "--json"])
def test_bench_checks_its_files_first(
    folders: daemon.Folders, unusable: Path, tmp_path: Path, flag: str
) -> None:
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    ended = daemon.run(
        *("bench", "--model", "small", "--device", "host", "--directory", str(directory)),
        *(flag, str(unusable), *folders.flags),
    )
    assert ended.code == 2, ended.stderr
    assert f"{unusable} of '{flag}'" in ended.stderr
    assert list(directory.iterdir()) == []


def test_two_flags_may_not_name_one_file(
    samples: Samples, engine: FakeEngine, folders: daemon.Folders, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "result")
    (tmp_path / "result").write_text("before")
    flags = ["--trace", str(tmp_path / "result"), "--save-metas-file", str(tmp_path / "link")]
    ended = daemon.run(*daemon.update_arguments(samples.first, engine.url, folders, *flags))
    assert ended.code == 2, ended.stderr
    assert "two flags" in ended.stderr
    assert engine.updates == []


def test_a_file_is_replaced_and_a_link_stays(
    samples: Samples, engine: FakeEngine, folders: daemon.Folders, tmp_path: Path
) -> None:
    target = tmp_path / "target.json"
    target.write_text("before")
    link = tmp_path / "link"
    link.symlink_to(target)
    arguments = daemon.update_arguments(samples.first, engine.url, folders, "--trace", str(link))
    ended = daemon.run(*arguments)
    assert ended.code == 0, ended.stderr
    assert link.is_symlink()
    assert json.loads(target.read_text())["traceEvents"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(tmp_path.iterdir()) == [link, target]


def test_a_device_stays_a_device(
    samples: Samples, engine: FakeEngine, folders: daemon.Folders
) -> None:
    arguments = daemon.update_arguments(samples.first, engine.url, folders, "--trace", "/dev/null")
    ended = daemon.run(*arguments)
    assert ended.code == 0, ended.stderr
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_result_may_go_where_standard_output_goes(
    samples: Samples, engine: FakeEngine, folders: daemon.Folders, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    arguments = daemon.update_arguments(
        samples.first, engine.url, folders, "--json", "--trace", "/dev/stdout"
    )
    with output.open("w") as file:
        code, stderr = run_into(file.fileno(), *arguments)
    assert code == 0, stderr
    status, trace = output.read_text().split("\n", 1)
    assert json.loads(status)["state"] == "succeeded"
    assert json.loads(trace)["traceEvents"]


def run_into(output: int, *arguments: str, **options: object) -> tuple[int, str]:
    """Runs the program with standard output there; its exit code and standard error."""
    ended = subprocess.run(
        [str(daemon.BINARY), *arguments],
        env=daemon.environment(),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    return ended.returncode, ended.stderr


def outputs(samples: Samples) -> dict[str, list[str]]:
    return {
        "inspect": ["inspect", str(samples.first)],
        "inspect as JSON": ["inspect", str(samples.first), "--json", "--tensors"],
        "doctor": ["doctor"],
        "doctor as JSON": ["doctor", "--json"],
        "help": ["--help"],
        "version": ["--version"],
        "completions": ["--generate-completion-script", "bash"],
    }


@pytest.mark.parametrize(
    "name",
    ["inspect", "inspect as JSON", "doctor", "doctor as JSON", "help", "version", "completions"],
)
class TestStandardOutput:
    def test_a_full_disk_is_a_failure(self, samples: Samples, name: str) -> None:
        with FULL.open("w") as full:
            code, stderr = run_into(full.fileno(), *outputs(samples)[name])
        assert code == 1, stderr
        assert "standard output" in stderr
        assert "No space left" in stderr

    def test_a_reader_that_is_gone_ends_it_quietly(self, samples: Samples, name: str) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        try:
            code, stderr = run_into(writer, *outputs(samples)[name])
        finally:
            os.close(writer)
        assert (code, stderr) == (141, "")

    def test_a_closed_one_is_a_failure(self, samples: Samples, name: str) -> None:
        """Nothing else that is opened may take its place."""
        code, stderr = run_into(
            subprocess.DEVNULL, *outputs(samples)[name], preexec_fn=lambda: os.close(1)
        )
        assert code == 1, stderr
        assert "standard output" in stderr

    def test_a_disk_that_fills_up(self, samples: Samples, name: str, tmp_path: Path) -> None:
        """A limit of the file's length stands for the disk: a part fits, the rest does not."""
        with (tmp_path / "output").open("w") as file:
            code, stderr = run_into(
                file.fileno(),
                *outputs(samples)[name],
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4)),
            )
        assert code == 1, stderr
        assert "standard output" in stderr


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["table", "JSON"])
def test_an_update_whose_result_cannot_be_printed(
    samples: Samples,
    engine: FakeEngine,
    folders: daemon.Folders,
    tmp_path: Path,
    flags: list[str],
) -> None:
    trace = tmp_path / "trace.json"
    arguments = daemon.update_arguments(
        samples.first, engine.url, folders, "--trace", str(trace), *flags
    )
    with FULL.open("w") as full:
        code, stderr = run_into(full.fileno(), *arguments)
    assert code == 1, stderr
    assert "update-1 has succeeded" in stderr
    assert "standard output" in stderr
    # The other result is there all the same.
    assert json.loads(trace.read_text())["traceEvents"]


def test_a_failed_write_leaves_what_was_there(
    in_memory: Path, engine: FakeEngine, folders: daemon.Folders, tmp_path: Path
) -> None:
    """The disk has room for the check, and not for the whole result."""
    trace = tmp_path / "trace.json"
    trace.write_text("before")
    arguments = daemon.update_arguments(in_memory, engine.url, folders, "--trace", str(trace))
    code, stderr = run_into(
        subprocess.DEVNULL,
        *arguments,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512)),
    )
    assert code == 1, stderr
    assert f"cannot write {trace}" in stderr
    assert "update-1 has succeeded" in stderr
    assert trace.read_text() == "before"
    assert list(tmp_path.iterdir()) == [trace]
