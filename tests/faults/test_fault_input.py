"""Malformed files and arguments: exit code 1 or 2, the culprit named, in bounded time."""

from __future__ import annotations

import json
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from background import check_next_update
from bad_files import BAD_FILES, BAD_FOLDERS, header
from daemon import Daemon, Folders, run, update_arguments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Samples
    from fake_engine import FakeEngine

# The largest of the files has 50 MB of header; none may take longer than it takes to read that.
FILE_S_MAX = 5.0


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """All bad checkpoints by name: what to give to the program, and what it has to say."""
    root = tmp_path_factory.mktemp("bad")
    table: dict[str, tuple[Path, tuple[str, ...]]] = {}
    for name, bad in BAD_FILES.items():
        path = root / f"{name}.safetensors"
        path.write_bytes(bad.content)
        table[name] = (path, (path.name, *bad.words))
    for name, (make, words) in BAD_FOLDERS.items():
        folder = root / name
        folder.mkdir()
        table[name] = (make(folder), words)
    return table


NAMES = [*BAD_FILES, *BAD_FOLDERS]


@pytest.mark.parametrize("name", NAMES)
def test_inspect_refuses(table: dict[str, tuple[Path, tuple[str, ...]]], name: str) -> None:
    path, words = table[name]
    run("inspect", str(path)).check_failure(*words, within=FILE_S_MAX)


def test_registration_refuses(
    daemon: Daemon,
    engine: FakeEngine,
    samples: Samples,
    table: dict[str, tuple[Path, tuple[str, ...]]],
) -> None:
    """One daemon takes the whole table, registers nothing of it, and goes on."""
    for name, (path, words) in table.items():
        answer = daemon.register("step", path)
        assert answer.status in (400, 422), (name, answer)
        code = "invalid_checkpoint" if answer.status == 422 else "invalid_argument"
        answer.check_failure(answer.status, code, *words, within=FILE_S_MAX)
        assert daemon.request("GET", "/v1/checkpoints").body == {"checkpoints": []}, name
    assert daemon.folders.segments() == {}
    assert daemon.register("step", samples.first).status == 200
    check_next_update(daemon, engine, samples)


@pytest.mark.parametrize("name", ["truncated", "overlap", "fifo", "shard-is-missing", "missing"])
def test_update_refuses_before_it_asks_the_engine(
    folders: Folders, table: dict[str, tuple[Path, tuple[str, ...]]], name: str
) -> None:
    path, words = table[name]
    ended = run(*update_arguments(path, "http://127.0.0.1:9", folders))
    ended.check_failure(*words, within=FILE_S_MAX)


def test_one_bad_file_of_several_registers_nothing(
    daemon: Daemon, samples: Samples, table: dict[str, tuple[Path, tuple[str, ...]]]
) -> None:
    bad, _ = table["truncated"]
    answer = daemon.register("step", samples.first, bad)
    answer.check_failure(422, "invalid_checkpoint", bad.name)
    assert daemon.request("GET", "/v1/checkpoints").body == {"checkpoints": []}
    assert daemon.folders.segments() == {}


def test_metadata_is_kept_and_legal_oddities_are_taken(tmp_path: Path) -> None:
    """The other side of the table: what looks odd but is correct."""
    text = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "": {"dtype": "U8", "shape": [], "data_offsets": [0, 1]},
            "none": {"dtype": "F64", "shape": [0, 1 << 40], "data_offsets": [1, 1]},
            "ünï\tcode": {"dtype": "BOOL", "shape": [1, 1, 2], "data_offsets": [1, 3]},
        }
    )
    (tmp_path / "odd.safetensors").write_bytes(header(text + "   ", b"\0\1\0"))
    (tmp_path / "nothing.safetensors").write_bytes(header("{}"))
    files = [str(tmp_path / f"{name}.safetensors") for name in ("odd", "nothing")]
    ended = run("inspect", *files, "--json")
    assert ended.code == 0, ended.stderr
    summary = json.loads(ended.stdout)
    assert (summary["tensors"], summary["bytes"]) == (3, 3)
    assert summary["dtypes"] == {"BOOL": 1, "F64": 1, "U8": 1}


UPDATE = ["update", "--checkpoint-path", "/tmp", "--endpoint", "http://127.0.0.1:9"]
USAGE = {
    "no command": ["frobnicate"],
    "no checkpoint": ["update", "--endpoint", "http://127.0.0.1:9"],
    "no endpoint": ["update", "--checkpoint-path", "/tmp"],
    "unknown flag": [*UPDATE, "--frobnicate"],
    "flag without value": [*UPDATE, "--timeout"],
    "extra word": [*UPDATE, "frobnicate"],
    "url without scheme": [*UPDATE[:3], "--endpoint", "127.0.0.1:9"],
    "url of a file": [*UPDATE[:3], "--endpoint", "file:///etc/passwd"],
    "url with a user": [*UPDATE[:3], "--endpoint", "http://user:secret@host/"],
    "empty url": [*UPDATE[:3], "--endpoint", ""],
    "timeout zero": [*UPDATE, "--timeout", "0"],
    "timeout negative": [*UPDATE, "--timeout=-1"],
    "timeout nan": [*UPDATE, "--timeout", "nan"],
    "timeout infinite": [*UPDATE, "--timeout", "inf"],
    "timeout huge": [*UPDATE, "--timeout", "1e300"],
    "timeout text": [*UPDATE, "--timeout", "soon"],
    "sleep negative": [*UPDATE, "--sleep-time=-1"],
    "workers zero": [*UPDATE, "--inference-parallel-size", "0"],
    "workers huge": [*UPDATE, "--inference-parallel-size", "99999999999999999999"],
    "unknown method": [*UPDATE, "--update-method", "carrier-pigeon"],
    "name with a slash": [*UPDATE, "--checkpoint-name", "../x"],
    "empty name": [*UPDATE, "--checkpoint-name", ""],
    "long name": [*UPDATE, "--checkpoint-name", "n" * 5000],
    "bucket zero": [*UPDATE, "--bucket-size", "0"],
    "bucket negative": [*UPDATE, "--bucket-size=-5"],
    "bucket text": [*UPDATE, "--bucket-size", "big"],
    "bucket unit": [*UPDATE, "--bucket-size", "5XiB"],
    "bucket overflows": [*UPDATE, "--bucket-size", "99999999999TiB"],
    "limit text": [*UPDATE, "--memory-limit", "all"],
    "threads zero": [*UPDATE, "--read-threads", "0"],
    "relative runtime": [*UPDATE, "--runtime-dir", "relative"],
    "relative shared memory": [*UPDATE, "--shared-memory-dir", "relative"],
    "log level": [*UPDATE, "--log-level", "loud"],
    "sockets and endpoints": [*UPDATE, "--uds", "/a", "--uds", "/b"],
    "listen without port": ["serve", "--listen", "127.0.0.1"],
    "listen port": ["serve", "--listen", "127.0.0.1:99999"],
    "listen and uds": ["serve", "--listen", "127.0.0.1:0", "--uds", "/tmp/a.sock"],
    "everybody without token": ["serve", "--listen", "0.0.0.0:0"],
    "everybody on purpose": ["serve", "--listen", "0.0.0.0:0", "--no-token"],
    "loopback without token": ["serve", "--listen", "127.0.0.1:0"],
    "reader's token alone": ["serve", "--reader-token-file", "/nonexistent"],
    "token file missing": ["serve", "--listen", "0.0.0.0:0", "--token-file", "/nonexistent"],
    "token from a device": ["serve", "--listen", "0.0.0.0:0", "--token-file", "/dev/null"],
    "inspect nothing": ["inspect"],
}


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage(folders: Folders, name: str) -> None:
    ended = run(*USAGE[name], timeout=10)
    ended.check_orderly()
    assert ended.code == 2, (ended.code, ended.stderr)
    assert ended.stderr.strip()
    assert ended.stdout == ""
    assert ended.seconds < 5


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CHECKPOINT_ENGINE_TIMEOUT", "soon"),
        ("CHECKPOINT_ENGINE_BUCKET_SIZE", "0"),
        ("CHECKPOINT_ENGINE_CONSUME", "perhaps"),
        ("CHECKPOINT_ENGINE_LOG_LEVEL", "loud"),
        ("CHECKPOINT_ENGINE_ENDPOINT", "nowhere"),
    ],
)
def test_wrong_variable(variable: str, value: str) -> None:
    arguments = UPDATE if "ENDPOINT" not in variable else UPDATE[:3]
    ended = run(*arguments, timeout=10, **{variable: value})
    ended.check_orderly()
    assert ended.code == 2, (ended.code, ended.stderr)
    assert variable in ended.stderr


@pytest.fixture
def long_folder() -> Iterator[Path]:
    """A directory whose path leaves no room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        path = Path(folder, "d" * 60, "e" * 60)
        path.mkdir(parents=True)
        yield path


def test_unusable_folders(
    folders: Folders, engine: FakeEngine, samples: Samples, tmp_path: Path, long_folder: Path
) -> None:
    plain_file = tmp_path / "file"
    plain_file.touch()
    base = update_arguments(samples.first, engine.url, folders)
    for flag, value in [
        ("--runtime-dir", "/nonexistent"),
        ("--runtime-dir", str(plain_file)),
        ("--runtime-dir", str(long_folder)),
        ("--shared-memory-dir", "/nonexistent"),
        ("--shared-memory-dir", str(plain_file)),
        ("--zmq-library", "/nonexistent/libzmq.so.5"),
        ("--zmq-library", str(plain_file)),
    ]:
        arguments = [*base]
        if flag in arguments:
            arguments[arguments.index(flag) + 1] = value
        else:
            arguments += [flag, value]
        run(*arguments).check_failure(value.rstrip("/"))
        assert engine.updates == []
        assert folders.contents() == []


def test_the_api_socket_is_taken(folders: Folders, daemon: Daemon, socket_path: Path) -> None:
    ended = run("serve", "--uds", str(socket_path), *folders.flags)
    ended.check_failure(str(socket_path))
    assert daemon.request("GET", "/v1/healthz").status == 200


def test_the_api_socket_of_a_killed_daemon_is_taken_over(
    folders: Folders, socket_path: Path
) -> None:
    first = Daemon(folders, socket_path)
    first.program.send(signal.SIGKILL)
    first.program.wait()
    assert socket_path.is_socket()
    with Daemon(folders, socket_path) as second:
        assert second.request("GET", "/v1/healthz").status == 200


def test_a_file_in_the_place_of_the_api_socket_is_kept(folders: Folders, socket_path: Path) -> None:
    socket_path.write_text("precious")
    run("serve", "--uds", str(socket_path), *folders.flags).check_failure(str(socket_path))
    assert socket_path.read_text() == "precious"


def test_the_port_is_taken(folders: Folders) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        ended = run("serve", "--listen", f"127.0.0.1:{port}", "--no-token", *folders.flags)
    ended.check_failure(str(port))
