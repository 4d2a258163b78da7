"""A daemon joins from the memory of another one, and updates workers on GPUs; all on this machine.

It needs the Python package mooncake-transfer-engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from daemon import Folders, Program, wait_until
from odd_tensors import odd_tensors, write_odd
from torch_engine_process import TorchEngine, zmq_flags

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "64MiB"
DEADLINE_S = 120.0
PACKAGE = Path(__file__).resolve().parents[2] / "python"


class Place:
    """A daemon that listens on loopback, in folders of its own."""

    def __init__(self, folder: Path, *command: str) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.folders = Folders(folder / "shared", folder / "runtime")
        for path in (self.folders.shared_memory, self.folders.runtime):
            path.mkdir(parents=True)
        paths = [str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.program = Program(
            *command,
            *("--listen", f"127.0.0.1:{port}", "--bucket-size", BUCKET),
            *("--transfer-python", sys.executable, "--transfer-protocol", "tcp"),
            *self.folders.flags,
            *zmq_flags(),
            PYTHONPATH=os.pathsep.join(paths),
        )

    def request(self, method: str, path: str, body: object = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, content, method=method)
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return json.loads(answer.read())

    def wait_until_up(self) -> None:
        def is_up() -> bool:
            assert self.program.is_running, self.program.wait().stderr
            with contextlib.suppress(OSError):
                return bool(self.request("GET", "/v1/healthz"))
            return False

        wait_until(is_up, "the daemon listens", DEADLINE_S)

    def stop(self) -> None:
        self.program.send(signal.SIGTERM)
        ended = self.program.wait()
        assert ended.code == 0, ended.stderr
        assert self.folders.contents() == []


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="gpu-pull-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def versions(shared_folder):
    return [write_odd(shared_folder / f"pull-{seed}", seed=seed) for seed in (31, 32)]


@pytest.fixture
def own_engine(devices):
    with TorchEngine(devices) as engine:
        yield engine


def _has_updated(place: Place) -> bool:
    assert place.program.is_running, place.program.wait().stderr
    with contextlib.suppress(OSError):
        metrics = urllib.request.urlopen(place.url + "/metrics", timeout=10).read().decode()
        return "updates_succeeded_total 1" in metrics
    return False


def _joined(place: Place, name: str) -> bool:
    if not _has_updated(place):
        return False
    with contextlib.suppress(OSError):
        return bool(place.request("GET", f"/v1/checkpoints/{name}")["state"] == "ready")
    return False


def test_a_joined_daemon_updates_workers_and_is_a_source(devices, own_engine, versions, folder):
    source = Place(folder / "source", "serve")
    source.wait_until_up()
    for name, version in zip(("first", "second"), versions, strict=True):
        source.request("POST", f"/v1/checkpoints/{name}/files", {"files": [str(version)]})
    engine_flags = ("--endpoint", "http://localhost", "--uds", str(own_engine.uds))
    own_engine.scramble()
    joined = Place(
        folder / "joined",
        *("join", "--source", source.url, "--checkpoint-name", "first", *engine_flags),
    )
    wait_until(lambda: _joined(joined, "first"), "the join", DEADLINE_S)
    found = own_engine.verify(versions[0])
    assert found["tensors"] == len(odd_tensors()) * len(devices)
    # The joined daemon has no files: what a third one reads of it went through the first pull.
    source.request("DELETE", "/v1/checkpoints/first?release_memory=true")
    third = Place(folder / "third", "serve")
    third.wait_until_up()
    body = {"sources": [{"url": joined.url}], "wait": False}
    assert third.request("POST", "/v1/checkpoints/first/pull", body)["state"] == "pulling"
    own_engine.scramble()
    update = {**own_engine.instance, "timeout": 60}
    start = time.monotonic()
    answer = third.request("POST", "/v1/checkpoints/first/update", update)
    assert answer["state"] == "succeeded"
    own_engine.verify(versions[0])
    print(f"pull and update, one beside the other: {time.monotonic() - start:.2f} s")
    # The second version takes the place of the first, and its memory.
    assert third.request("DELETE", "/v1/checkpoints/first")
    body = {"sources": [{"url": source.url}]}
    assert third.request("POST", "/v1/checkpoints/second/pull", body)["state"] == "ready"
    third.request("POST", "/v1/checkpoints/second/update", update)
    own_engine.verify(versions[1])
    for place in (third, joined, source):
        place.stop()


def test_a_checkpoint_passes_through(own_engine, versions, folder):
    source = Place(folder / "source", "serve")
    source.wait_until_up()
    source.request("POST", "/v1/checkpoints/first/files", {"files": [str(versions[0])]})
    own_engine.scramble()
    joined = Place(
        folder / "joined",
        *("join", "--source", source.url, "--checkpoint-name", "first"),
        *("--endpoint", "http://localhost", "--uds", str(own_engine.uds)),
        *("--keep", "never", "--ring-memory", "512MiB"),
    )
    wait_until(lambda: _has_updated(joined), "the join", DEADLINE_S)
    own_engine.verify(versions[0])
    wait_until(
        lambda: joined.request("GET", "/v1/checkpoints")["checkpoints"] == [], "it is gone", 10
    )
    for place in (joined, source):
        place.stop()
