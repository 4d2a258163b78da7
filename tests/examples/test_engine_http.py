"""What the examples ask of an engine, and what they say when it does not answer as it should."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from engine_http import (
    EngineNotReadyError,
    reset_prefix_cache,
    set_weight_version,
    wait_until_ready,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class FakeEngine(ThreadingHTTPServer):
    """Answers with the next of ``answers``, the last one again and again, and notes requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, str]] = []
        self.requests: list[tuple[str, str, object]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeEngine

    def _answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.loads(content) if content else None
        self.server.requests.append((self.command, self.path, body))
        answers = self.server.answers
        status, text = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def fake() -> Iterator[FakeEngine]:
    with FakeEngine() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def test_an_engine_that_starts_is_waited_for(fake: FakeEngine) -> None:
    fake.answers = [(503, "starting"), (503, "starting"), (200, "")]
    wait_until_ready(fake.url, None, 30)
    assert fake.requests == [("GET", "/health", None)] * 3


def test_an_engine_that_does_not_become_ready_is_named(fake: FakeEngine) -> None:
    fake.answers = [(503, "still starting")]
    with pytest.raises(EngineNotReadyError, match=rf"{fake.url}: .* 503 still starting"):
        wait_until_ready(fake.url, None, 0)
    with pytest.raises(EngineNotReadyError, match=r"/nonexistent/engine.sock"):
        wait_until_ready(fake.url, "/nonexistent/engine.sock", 0)


def test_the_weight_version_is_set(fake: FakeEngine) -> None:
    fake.answers = [(200, "{}"), (404, "no such route")]
    set_weight_version(fake.url, None, "step 100")
    assert fake.requests == [("POST", "/update_weight_version", {"new_version": "step 100"})]
    with pytest.raises(RuntimeError, match=rf"{fake.url} refused .* 404 no such route"):
        set_weight_version(fake.url, None, "step 100")


def test_the_prefix_cache_is_emptied_when_nothing_holds_it(fake: FakeEngine) -> None:
    fake.answers = [(200, '{"success": false}'), (200, '{"success": true}')]
    reset_prefix_cache(fake.url, None, 30)
    assert fake.requests == [("POST", "/reset_prefix_cache", None)] * 2
    fake.answers = [(404, "")]
    reset_prefix_cache(fake.url, None, 30)
    fake.answers = [(200, '{"success": false}')]
    with pytest.raises(EngineNotReadyError, match="requests hold the prefix cache"):
        reset_prefix_cache(fake.url, None, 0)
    fake.answers = [(500, "broken")]
    with pytest.raises(RuntimeError, match="keeps its prefix cache: 500 broken"):
        reset_prefix_cache(fake.url, None, 30)
