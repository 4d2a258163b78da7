"""Callers that hold connections: they keep nobody else out."""

from __future__ import annotations

import contextlib
import http.client
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from daemon import Folders, write_secret
from test_fault_access import READER, TOKEN, Listening

if TYPE_CHECKING:
    from collections.abc import Iterator

# More than the daemon has places for callers that have shown nothing.
STRANGERS = 300
PROMPT_S = 3.0
HEALTH = b"GET /v1/healthz HTTP/1.1\r\nhost: x\r\n\r\n"
HEAD_WITHOUT_END = b"GET /v1/checkpoints HTTP/1.1\r\nhost: x\r\nx-slow: "


@pytest.fixture
def daemon(folders: Folders) -> Iterator[Listening]:
    with tempfile.TemporaryDirectory(prefix="connections-") as folder:
        administrator, reader = Path(folder) / "administrator", Path(folder) / "reader"
        write_secret(administrator, TOKEN)
        write_secret(reader, READER)
        tokens = ["--token-file", str(administrator), "--reader-token-file", str(reader)]
        with Listening(folders, *tokens) as daemon:
            yield daemon


@contextlib.contextmanager
def strangers(daemon: Listening, first_bytes: bytes, count: int = STRANGERS) -> Iterator[list]:
    """Connections that have sent ``first_bytes``, and stay."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            one = stack.enter_context(
                socket.create_connection(("127.0.0.1", daemon.port), timeout=10)
            )
            with contextlib.suppress(OSError):  # closed already for a later one
                one.sendall(first_bytes)
            made.append(one)
        yield made


def check_answers(daemon: Listening) -> None:
    """Probes, readers and administrators are answered at once."""
    for path, token in (("/v1/healthz", None), ("/metrics", READER), ("/v1/checkpoints", TOKEN)):
        start = time.monotonic()
        assert daemon.request("GET", path, token)[0] == http.HTTPStatus.OK
        assert time.monotonic() - start < PROMPT_S, path


@pytest.mark.parametrize(
    "first_bytes", [b"", HEAD_WITHOUT_END, HEALTH], ids=["idle", "slow", "kept"]
)
def test_strangers_keep_nobody_out(daemon: Listening, first_bytes: bytes) -> None:
    kept = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20)
    headers = {"authorization": f"Bearer {TOKEN}"}
    kept.request("GET", "/v1/checkpoints", headers=headers)
    kept.getresponse().read()
    with strangers(daemon, first_bytes):
        check_answers(daemon)
        # The connection of one who has shown a token was not taken for theirs.
        before = kept.sock
        kept.request("GET", "/v1/checkpoints", headers=headers)
        assert kept.getresponse().read()
        assert kept.sock is before
    kept.close()
    check_answers(daemon)


def test_callers_of_a_daemon_without_a_token_keep_nobody_out(folders: Folders) -> None:
    with Listening(folders, "--no-token") as daemon, strangers(daemon, b""):
        start = time.monotonic()
        assert daemon.request("GET", "/v1/healthz")[0] == http.HTTPStatus.OK
        assert daemon.request("GET", "/v1/checkpoints")[0] == http.HTTPStatus.OK
        assert time.monotonic() - start < PROMPT_S


def test_a_stranger_gets_one_answer(daemon: Listening) -> None:
    for request, status in ((HEALTH, b"200"), (HEALTH.replace(b"healthz", b"version"), b"401")):
        with strangers(daemon, request + request, 1) as (one,):
            content = b""
            while more := one.recv(4096):
                content += more
            assert content.count(b"HTTP/1.1 ") == 1
            assert content.split()[1] == status
            assert b"connection: close" in content.lower()


def test_a_stranger_is_refused_before_its_body(daemon: Listening) -> None:
    head = b"POST /v1/metas HTTP/1.1\r\nhost: x\r\ncontent-length: 250000000\r\n\r\n"
    with strangers(daemon, head, 1) as (one,):
        start = time.monotonic()
        assert one.recv(4096).startswith(b"HTTP/1.1 401 ")
        with contextlib.suppress(OSError):
            for _ in range(4000):  # it does not read on for long
                one.sendall(bytes(1 << 16))
            raise AssertionError("the daemon took 250 MB from a stranger")
        assert time.monotonic() - start < 2 * PROMPT_S


def test_a_stranger_that_takes_its_time_is_closed(daemon: Listening) -> None:
    with strangers(daemon, HEAD_WITHOUT_END, 1) as (one,):
        start = time.monotonic()
        one.settimeout(1)
        while time.monotonic() - start < 20:
            try:
                if one.recv(1) == b"":
                    break
            except TimeoutError:
                one.sendall(b"a")
            except ConnectionResetError:
                break
        assert 5 < time.monotonic() - start < 15


@pytest.mark.parametrize(
    "more",
    [b"x: " + b"a" * 20_000, b"\r\n".join(b"x: 1" for _ in range(200))],
    ids=["long", "many"],
)
def test_large_heads_are_refused(daemon: Listening, more: bytes) -> None:
    head = b"GET /v1/healthz HTTP/1.1\r\nhost: x\r\n" + more + b"\r\n\r\n"
    with strangers(daemon, head, 1) as (one,):
        assert not one.recv(4096).startswith(b"HTTP/1.1 200")
    check_answers(daemon)
