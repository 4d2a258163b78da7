"""Who can reach a daemon: where it listens, which files of secrets it takes, whom it answers."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import stat
import tempfile
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pytest
from daemon import Folders, Program, run, wait_until, write_secret
from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Samples

TOKEN = "administrator-0123456789abcdef"
READER = "reader-0123456789abcdef"


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="access-") as path:
        yield Path(path)


class Listening:
    """``checkpoint-engine serve`` on a port of loopback, as a context."""

    def __init__(self, folders: Folders, *more: str) -> None:
        self.port = free_port()
        arguments = ["serve", "--listen", f"127.0.0.1:{self.port}", *folders.flags, *more]
        self.program = Program(*arguments)
        wait_until(self._is_up, "the daemon answers")

    def _is_up(self) -> bool:
        assert self.program.is_running, self.program.wait().stderr
        try:
            return self.request("GET", "/v1/healthz")[0] == http.HTTPStatus.OK
        except OSError:
            return False

    def request(
        self, method: str, path: str, token: str | None = None, body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        if token:
            headers["authorization"] = f"Bearer {token}"
        with closing(connection):
            connection.request(method, path, body and json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
        return answer.status, json.loads(content) if content.startswith(b"{") else content

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.program.is_running:
            self.stop()

    def stop(self) -> str:
        """Ends it in order; its log."""
        self.program.send(signal.SIGTERM)
        ended = self.program.wait(20)
        ended.check_orderly()
        assert ended.code == 0, ended.stderr
        return ended.stderr


@pytest.mark.parametrize("place", ["session", "runtime directory"])
def test_the_default_is_a_private_socket(folders: Folders, folder: Path, place: str) -> None:
    variables = {"XDG_RUNTIME_DIR": str(folder) if place == "session" else ""}
    own = folders.runtime / f"checkpoint-engine-{os.geteuid()}"
    home = folder / "checkpoint-engine" if place == "session" else own
    program = Program("serve", *folders.flags, **variables)
    path = home / "daemon.sock"
    wait_until(path.is_socket, "the daemon listens")
    assert stat.S_IMODE(home.lstat().st_mode) == 0o700
    wait_until(lambda: stat.S_IMODE(path.lstat().st_mode) == 0o600, "the socket is private")
    program.send(signal.SIGTERM)
    ended = program.wait(20)
    assert ended.code == 0, ended.stderr
    assert str(path) in ended.stderr  # it tells where it listens
    assert not path.exists()
    home.rmdir()


def test_a_default_place_that_others_can_reach_is_refused(folders: Folders, folder: Path) -> None:
    place = folder / "checkpoint-engine"
    variables = {"XDG_RUNTIME_DIR": str(folder)}
    place.mkdir()
    place.chmod(0o770)
    run("serve", *folders.flags, **variables).check_failure(str(place), "--uds")
    place.rmdir()
    target = folder / "elsewhere"
    target.mkdir(mode=0o700)
    place.symlink_to(target)
    run("serve", *folders.flags, **variables).check_failure(str(place), "--uds")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602, 0o666])
@pytest.mark.parametrize("flag", ["--token-file", "--reader-token-file", "--engine-token-file"])
def test_a_secret_that_others_can_reach_is_refused(
    folders: Folders, folder: Path, flag: str, mode: int
) -> None:
    secret = folder / "secret"
    write_secret(secret, TOKEN)
    secret.chmod(mode)
    ended = run("serve", "--uds", str(folder / "api.sock"), flag, str(secret), *folders.flags)
    ended.check_orderly()
    assert ended.code == 2, ended.stderr
    for word in (str(secret), f"{mode:o}", "chmod 600"):
        assert word in ended.stderr


if os.geteuid() == 0:  # nobody else can give files away

    def test_a_secret_of_another_user_is_refused(folders: Folders, folder: Path) -> None:
        secret = folder / "secret"
        write_secret(secret, TOKEN)
        os.chown(secret, 65534, 65534)
        arguments = ["serve", "--uds", str(folder / "s"), "--token-file", str(secret)]
        ended = run(*arguments, *folders.flags)
        assert ended.code == 2, ended.stderr
        assert "another user" in ended.stderr


def test_one_token_for_both_is_refused(folders: Folders, folder: Path) -> None:
    secret = folder / "secret"
    write_secret(secret, TOKEN)
    tokens = ["--token-file", str(secret), "--reader-token-file", str(secret)]
    ended = run("serve", "--uds", str(folder / "s"), *tokens, *folders.flags)
    assert ended.code == 2, ended.stderr
    assert "the same token" in ended.stderr


def test_without_a_token_it_warns(folders: Folders) -> None:
    with Listening(folders, "--no-token") as daemon:
        assert daemon.request("GET", "/v1/checkpoints")[0] == http.HTTPStatus.OK
        assert "every user of this machine" in daemon.stop()


@pytest.fixture
def tokens(folder: Path) -> list[str]:
    """Flags with both tokens."""
    administrator, reader = folder / "administrator", folder / "reader"
    write_secret(administrator, TOKEN)
    write_secret(reader, READER)
    return ["--token-file", str(administrator), "--reader-token-file", str(reader)]


def test_a_reader_is_no_administrator(folders: Folders, tokens: list[str]) -> None:
    with Listening(folders, *tokens) as daemon:
        assert daemon.request("GET", "/v1/checkpoints", READER)[0] == http.HTTPStatus.OK
        assert daemon.request("GET", "/metrics", READER)[0] == http.HTTPStatus.OK
        status, body = daemon.request("POST", "/v1/gpus/release", READER)
        assert (status, body["error"]["code"]) == (http.HTTPStatus.FORBIDDEN, "forbidden")
        assert daemon.request("POST", "/v1/gpus/release", TOKEN)[0] == http.HTTPStatus.OK
        assert daemon.request("GET", "/metrics")[0] == http.HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize("host", ["page.example", "page.example:80", "127.0.0.1.page.example"])
def test_a_name_that_leads_here_is_not_enough(folders: Folders, host: str) -> None:
    advertised = ["--advertise-url", "http://node7.example:1234"]
    with Listening(folders, "--no-token", *advertised) as daemon:
        status, body = daemon.request("GET", "/v1/checkpoints", host=host)
        assert (status, body["error"]["code"]) == (http.HTTPStatus.FORBIDDEN, "forbidden")
        assert host in body["error"]["message"]
        assert "--advertise-url" in body["error"]["message"]
        for own in ("localhost", f"127.0.0.1:{daemon.port}", "node7.example:1234"):
            assert daemon.request("GET", "/v1/checkpoints", host=own)[0] == http.HTTPStatus.OK


def test_refusals_are_told_once_a_second(folders: Folders, tokens: list[str]) -> None:
    with Listening(folders, *tokens) as daemon:
        start = time.monotonic()
        for _ in range(50):
            assert daemon.request("GET", "/metrics", "wrong-0123456789abcdef")[0] == 401
        seconds = time.monotonic() - start
        log = daemon.stop()
    lines = [line for line in log.splitlines() if "Request refused" in line]
    assert 1 <= len(lines) <= 2 + seconds
    assert "wrong-" not in log


class _Called(BaseHTTPRequestHandler):
    """Notes whether it was called, and with which key."""

    keys: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.keys.append(self.headers.get("authorization"))
        self.send_response(500)
        self.end_headers()

    do_POST = do_GET  # noqa: N815 - the base's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Tests print what matters."""


@pytest.fixture
def called() -> Iterator[int]:
    """The port of a server on all addresses that notes calls."""
    _Called.keys.clear()
    with ThreadingHTTPServer(("0.0.0.0", 0), _Called) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_the_key_goes_to_engines_that_are_allowed(
    folders: Folders, folder: Path, samples: Samples, called: int
) -> None:
    key = folder / "key"
    write_secret(key, "sk-engines")
    # All of 127.0.0.0/8 leads to this machine; only the names differ.
    allowed, other = f"127.0.0.5:{called}", f"127.0.0.1:{called}"
    flags = ["--no-token", "--engine-token-file", str(key), "--allow-engine", allowed]
    with Listening(folders, *flags) as daemon:
        register = {"files": [str(samples.first)]}
        assert daemon.request("POST", "/v1/checkpoints/x/files", None, register)[0] == 200
        update = {"timeout": 5, "inference_group_ranks": [0]}
        for body in (
            {**update, "update_url": f"http://{other}"},
            {"timeout": 5, "instances": [{"update_url": f"http://{other}", "workers": 1}]},
            {**update, "update_url": f"http://{allowed}", "uds": "/run/some.sock"},
        ):
            status, answer = daemon.request("POST", "/v1/checkpoints/x/update", None, body)
            assert (status, answer["error"]["code"]) == (http.HTTPStatus.FORBIDDEN, "forbidden")
            assert "--allow-engine" in answer["error"]["message"]
        assert _Called.keys == []
        body = {**update, "update_url": f"http://{allowed}"}
        assert daemon.request("POST", "/v1/checkpoints/x/update", None, body)[0] == 502
        assert set(_Called.keys) == {"Bearer sk-engines"}
        assert daemon.request("DELETE", "/v1/checkpoints/x?release_memory=true")[0] == 200


def test_what_is_no_socket_of_this_user_is_not_called(
    folders: Folders, folder: Path, samples: Samples
) -> None:
    path = folder / "engine.sock"
    with Listening(folders, "--no-token") as daemon, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(0.2)
        link = folder / "link.sock"
        link.symlink_to(path)
        register = {"files": [str(samples.first)]}
        assert daemon.request("POST", "/v1/checkpoints/x/files", None, register)[0] == 200
        refused = [(link, 403), (folder, 403), (folder / "nothing", 503)]
        if os.geteuid() == 0:  # nobody else can give it away
            os.chown(path, 65534, 65534)
            refused.append((path, 403))
        for named, expected in refused:
            body = {"update_url": "http://localhost", "uds": str(named), "timeout": 5}
            status, answer = daemon.request("POST", "/v1/checkpoints/x/update", None, body)
            assert status == expected, answer
            assert str(named) in answer["error"]["message"]
        with pytest.raises(TimeoutError):
            listener.accept()
        assert daemon.request("DELETE", "/v1/checkpoints/x?release_memory=true")[0] == 200


def test_files_elsewhere_are_not_registered(
    folders: Folders, folder: Path, samples: Samples
) -> None:
    inside = folder / "models"
    shutil.copytree(samples.first, inside / "step")
    (inside / "link").symlink_to(samples.first)
    with Listening(folders, "--no-token", "--allow-path", str(inside)) as daemon:
        for path in (samples.first, inside / "link"):
            body = {"files": [str(path)]}
            status, answer = daemon.request("POST", "/v1/checkpoints/x/files", None, body)
            assert status == http.HTTPStatus.FORBIDDEN, answer
            assert answer["error"]["code"] == "permission_denied"
            assert "--allow-path" in answer["error"]["message"]
        body = {"files": [str(inside / "step")]}
        assert daemon.request("POST", "/v1/checkpoints/x/files", None, body)[0] == 200
        assert daemon.request("DELETE", "/v1/checkpoints/x?release_memory=true")[0] == 200


def test_files_behind_links_are_not_consumed(folders: Folders, in_memory: Path) -> None:
    link = in_memory.parent / "link"
    link.symlink_to(in_memory)
    with Listening(folders, "--no-token") as daemon:
        body = {"files": [str(link)], "consume": True}
        status, answer = daemon.request("POST", "/v1/checkpoints/x/files", None, body)
        assert status == http.HTTPStatus.FORBIDDEN, answer
        assert "is a link" in answer["error"]["message"]
    link.unlink()
