"""Names and answers from elsewhere do not command the terminal."""

from __future__ import annotations

import json
import re
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import daemon
import pytest

if TYPE_CHECKING:
    from conftest import Samples

# Colours and titles, also in one byte, what erases, text that is reversed, a second line.
NAMES = [
    "a\x1b[31mred",
    "a\x1b]0;title\x07",
    "a\x9b31mred",
    "a\x7f\x08\x08b",
    "a\rb",
    "a\u202etxt.exe",
    "a\u2066b\u2069",
    "a\u2028b",
    "a\nb  U8     [8]    8 bytes",
]
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def checkpoint(path: Path, name: str, byte_count: int = 8) -> Path:
    """One tensor of that name; of another length than 8 the file is not one."""
    entry = {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}
    header = json.dumps({name: entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(byte_count))
    return path


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_inspect_makes_them_visible(tmp_path: Path, name: str) -> None:
    path = checkpoint(tmp_path / "model.safetensors", name)
    lines = daemon.run("inspect", "--tensors", str(path))
    assert lines.code == 0, lines.stderr
    assert CONTROL.findall(lines.stdout) == []
    [line] = [line for line in lines.stdout.splitlines() if line.startswith("a")]
    assert line.endswith("8 bytes")

    text = daemon.run("inspect", "--tensors", "--json", str(path)).stdout
    assert CONTROL.findall(text) == []
    [tensor] = json.loads(text)["tensor_list"]
    assert tensor["name"] == name


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_errors_make_them_visible(tmp_path: Path, name: str) -> None:
    path = checkpoint(tmp_path / "model.safetensors", name, byte_count=4)
    ended = daemon.run("inspect", str(path))
    ended.check_failure("error: ")
    assert CONTROL.findall(ended.stderr) == []
    assert len(ended.stderr.splitlines()) == 1
    other = tmp_path / name
    ended = daemon.run("inspect", str(other))
    ended.check_failure("error: ")
    assert CONTROL.findall(ended.stderr) == []
    assert len(ended.stderr.splitlines()) == 1


def test_readable_names_stay_as_they_are(tmp_path: Path) -> None:
    name = "Größe.层.weight"
    path = checkpoint(tmp_path / "model.safetensors", name)
    assert name in daemon.run("inspect", "--tensors", str(path)).stdout


class OddEngine(BaseHTTPRequestHandler):
    """Says of itself what it likes."""

    def do_GET(self) -> None:
        self.send_response(500, "a\x9b31mred")
        self.end_headers()
        self.wfile.write("\x1b[2Jall is \x9b31mwell\r\nerror: none\x07".encode())

    def log_message(self, *_: object) -> None:
        pass


def test_an_engines_answers(samples: Samples, folders: daemon.Folders) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), OddEngine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        arguments = daemon.update_arguments(samples.first, url, folders, "--ready-timeout", "1")
        ended = daemon.run(*arguments)
        server.shutdown()
    ended.check_failure("500")
    assert CONTROL.findall(ended.stderr) == []


@pytest.mark.parametrize("form", ["text", "json"])
def test_log_lines_stay_lines(folders: daemon.Folders, socket_path: Path, form: str) -> None:
    flags = ["--log-format", form, "--log-level", "trace"]
    with daemon.Daemon(folders, socket_path, *flags) as running:
        for name in NAMES:
            assert running.register("step", Path(f"/nonexistent/{name}")).status >= 400
        ended = running.stop()
    assert CONTROL.findall(ended.stderr) == []
    start = re.compile(r"\{|\d{4}-\d\d-\d\dT")
    assert all(start.match(line) for line in ended.stderr.splitlines())
