"""Calls of an inference engine's HTTP API."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .daemon_client import UnixConnection
from .ps_errors import ArgumentError, ParameterServerError

if TYPE_CHECKING:
    from collections.abc import Mapping

_BODY_CHARACTERS_SHOWN = 4000
# As in `vllm_extension`, which needs more than a trainer has.
FAILURE_KEY = "checkpoint_engine_failure"


class EngineRequestError(ParameterServerError):
    """The engine did not answer, or not with success; ``status`` is ``None`` in the first case."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def request_inference_to_update(
    url: str, socket_paths: Mapping[str, str], timeout: float = 300.0, uds: str | None = None
) -> None:
    """Makes an engine's workers call ``update_weights_from_ipc``; returns when they have.

    ``url`` is the engine's, for vLLM ``http://HOST:PORT/collective_rpc``; ``socket_paths`` are the
    addresses by worker, as ``req_func`` gets them. ``timeout`` in seconds is the engine's for the
    call, and ours for its answer. ``uds`` is the engine's unix socket, instead of host and port.

    Raises ``EngineRequestError``, which repeats what the engine said, and ``ArgumentError``.
    """
    body = {
        "method": "update_weights_from_ipc",
        "args": [dict(socket_paths)],
        "timeout": timeout,
    }
    headers = {"content-type": "application/json"}
    try:
        with closing(_connection(url, timeout, uds)) as connection:
            connection.request("POST", _target(url), json.dumps(body).encode(), headers)
            response = connection.getresponse()
            status, answer = response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise EngineRequestError(
            f"the engine at {_name(url, uds)} does not answer: {type(error).__name__}: {error}"
        ) from error
    if not http.HTTPStatus.OK <= status < http.HTTPStatus.MULTIPLE_CHOICES:
        text = answer.decode(errors="replace")[:_BODY_CHARACTERS_SHOWN]
        raise EngineRequestError(
            f"the engine at {_name(url, uds)} answered with status {status}: {text}", status
        )
    if failure := _failure(answer):
        raise EngineRequestError(
            f"a worker of the engine at {_name(url, uds)} has failed: {failure}", status
        )


def _failure(answer: bytes) -> str | None:
    """What a worker answered instead of raising."""
    try:
        results = json.loads(answer)["results"]
        found = [result[FAILURE_KEY] for result in results if FAILURE_KEY in (result or ())]
    except (ValueError, KeyError, TypeError):
        return None
    return str(found[0]) if found else None


def _connection(url: str, timeout: float, uds: str | None) -> http.client.HTTPConnection:
    if uds is not None:
        return UnixConnection(uds, timeout)
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise ArgumentError(f"{url!r} has an impossible port") from error
    if parts.scheme == "https" and parts.hostname:
        return http.client.HTTPSConnection(parts.hostname, port, timeout=timeout)
    if parts.scheme != "http" or not parts.hostname:
        raise ArgumentError(f"{url!r} is no URL of an engine: expected http://HOST:PORT/PATH")
    return http.client.HTTPConnection(parts.hostname, port, timeout=timeout)


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _name(url: str, uds: str | None) -> str:
    return url if uds is None else f"{url} ({uds})"
