"""What the examples ask of an engine over HTTP, beside the call that starts an update."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from urllib.parse import urlsplit

REQUEST_S = 30.0
PAUSE_S = 0.5


class EngineNotReadyError(RuntimeError):
    """An engine has not become ready in time; the message has its last answer."""


def wait_until_ready(endpoint: str, uds: str | None, seconds: float) -> None:
    """Returns when the engine's ``/health`` says 200; raises ``EngineNotReadyError``."""
    end = time.monotonic() + seconds
    while True:
        try:
            status, answer = call("GET", endpoint, "/health", uds=uds)
            if status == http.HTTPStatus.OK:
                return
            last = f"{status} {answer}"
        except (OSError, http.client.HTTPException) as error:
            last = str(error)
        if time.monotonic() > end:
            raise EngineNotReadyError(f"{uds or endpoint}: not ready after {seconds:g} s: {last}")
        time.sleep(PAUSE_S)


def reset_prefix_cache(endpoint: str, uds: str | None, seconds: float) -> None:
    """Empties the engine's prefix cache, which was made by the old weights.

    An engine without that call has no such cache. Running requests may hold it: waits for them, and
    raises ``EngineNotReadyError`` after ``seconds``. Raises ``RuntimeError`` when it refuses.
    """
    end = time.monotonic() + seconds
    while True:
        status, answer = call("POST", endpoint, "/reset_prefix_cache", uds=uds)
        if status == http.HTTPStatus.NOT_FOUND:
            return
        if status != http.HTTPStatus.OK:
            raise RuntimeError(f"{uds or endpoint} keeps its prefix cache: {status} {answer}")
        if "false" not in answer:
            return
        if time.monotonic() > end:
            raise EngineNotReadyError(f"{uds or endpoint}: requests hold the prefix cache")
        time.sleep(PAUSE_S)


def set_weight_version(endpoint: str, uds: str | None, version: str) -> None:
    """Names the new weights in the engine; raises ``RuntimeError`` when it refuses."""
    body = {"new_version": version}
    status, answer = call("POST", endpoint, "/update_weight_version", body, uds=uds)
    if status != http.HTTPStatus.OK:
        raise RuntimeError(f"{uds or endpoint} refused the weight version: {status} {answer}")


def call(
    method: str, endpoint: str, path: str, body: object = None, *, uds: str | None = None
) -> tuple[int, str]:
    """Status and text of one answer of the engine at ``endpoint``, or at the socket ``uds``."""
    parts = urlsplit(endpoint)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "localhost", parts.port, timeout=REQUEST_S)
    with contextlib.closing(connection):
        if uds is not None:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(REQUEST_S)
            connection.sock.connect(uds)
        content = None if body is None else json.dumps(body)
        headers = {} if body is None else {"content-type": "application/json"}
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
