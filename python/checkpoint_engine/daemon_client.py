"""The daemon's HTTP API for clients, over a unix socket or TCP, with the standard library alone."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from .ps_errors import ArgumentError, DaemonLostError, DaemonRefusedError, DaemonVersionError

CONNECT_S_MAX = 10.0
# How long an answer may take that does not wait for anything but the daemon itself.
ANSWER_S_MAX = 60.0
# What a pull may take to say that it has failed, beyond the time that it was given.
PULL_GRACE_S = 10.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the unix socket ``path``; ``timeout`` in seconds is for each operation."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connects to the socket. Raises ``OSError``."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class DaemonAddress:
    """Where a daemon listens: ``unix:/path`` or ``http://HOST:PORT``."""

    text: str

    def __post_init__(self) -> None:
        """Raises ``ArgumentError`` for anything else."""
        url = urlsplit(self.text)
        is_unix = url.scheme == "unix" and url.path.startswith("/") and not url.netloc
        if not is_unix and not (url.scheme == "http" and url.hostname and url.port):
            raise ArgumentError(
                f"{self.text!r} is no address of a daemon: expected unix:/path or http://HOST:PORT"
            )

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        """A new connection, not open yet."""
        url = urlsplit(self.text)
        if url.scheme == "unix":
            return UnixConnection(url.path, timeout)
        return http.client.HTTPConnection(url.hostname or "", url.port, timeout=timeout)


class DaemonClient:
    """Calls one daemon; a new connection for each call, so that threads may share it.

    Every method raises ``DaemonLostError`` when the daemon does not answer, and
    ``DaemonRefusedError`` when it answers with an error.
    """

    def __init__(self, address: DaemonAddress, token: str | None = None) -> None:
        """``token`` is that of the daemon's ``--token-file``, if it has one."""
        self.address = address
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    def is_healthy(self) -> bool:
        """Whether the daemon answers."""
        try:
            self.request("GET", "/v1/healthz", timeout=CONNECT_S_MAX)
        except (DaemonLostError, DaemonRefusedError):
            return False
        return True

    def check_version(self, expected: str) -> None:
        """Raises ``DaemonVersionError`` when the daemon is not of the version ``expected``."""
        found = self.request("GET", "/v1/version").get("version")
        if found != expected:
            raise DaemonVersionError(
                f"the daemon at {self.address.text} has the version {found}, this package has "
                f"{expected}; install both from one wheel, or stop that daemon and unset "
                "CHECKPOINT_ENGINE_DAEMON and CHECKPOINT_ENGINE_BIN"
            )

    def register(self, name: str, files: list[str], timeout: float) -> None:
        """Registers ``files`` as ``name``; reads them if they are not in shared memory."""
        self.request("POST", f"{_checkpoint(name)}/files", {"files": files}, timeout)

    def unregister(self, name: str, *, release: bool) -> bool:
        """Forgets ``name``; ``False`` when the daemon does not know it."""
        query = "?release_memory=true" if release else ""
        try:
            self.request("DELETE", _checkpoint(name) + query)
        except DaemonRefusedError as error:
            if error.code != "not_found":
                raise
            return False
        return True

    def metas(self, name: str) -> dict[str, Any]:
        """The metas of ``name``, as JSON values. One client may ask at a time."""
        self.request("POST", f"{_checkpoint(name)}/gather-metas")
        return self.request("GET", "/v1/metas")

    def load_metas(self, values: dict[str, Any]) -> None:
        """Makes ``values``, metas as JSON values, what ``GET /v1/metas`` answers."""
        self.request("POST", "/v1/metas", values)

    def pull(
        self, name: str, remote_name: str, sources: list[dict[str, str]], stall: float, wait: float
    ) -> None:
        """Reads ``remote_name`` of other daemons as ``name``; goes on after the return.

        ``sources`` have ``url`` and maybe ``token``; without any, what the loaded metas describe is
        read. It fails when nothing arrives for ``stall``
        seconds. With ``wait``, in seconds, it returns when everything has arrived.
        """
        body = {
            "sources": sources,
            "remote_name": remote_name,
            "stall_timeout": stall,
            "wait": wait > 0,
        }
        self.request("POST", f"{_checkpoint(name)}/pull", body, stall + wait + PULL_GRACE_S)

    def state(self, name: str) -> str | None:
        """``ready``, ``pulling``, …; ``None`` when the daemon does not know ``name``."""
        try:
            return str(self.request("GET", _checkpoint(name)).get("state"))
        except DaemonRefusedError as error:
            if error.code != "not_found":
                raise
            return None

    def compose(self, name: str, parts: list[str]) -> None:
        """Makes ``name`` the checkpoint that consists of ``parts``."""
        self.request("POST", f"{_checkpoint(name)}/parts", {"parts": parts})

    def open_update(
        self, name: str, workers: list[str], calls: int, timeout: float, *, alone: bool
    ) -> tuple[str, list[str]]:
        """Begins an update; its id and the socket of each worker, in the order of ``workers``.

        With ``alone`` a daemon that forms a group with those of other hosts does not wait for them.
        """
        body = {"workers": workers, "calls": calls, "timeout": timeout, "alone": alone}
        answer = self.request("POST", f"{_checkpoint(name)}/open-update", body, timeout + 5)
        return answer["update"], answer["sockets"]

    def report_call(self, update: str, call: int, error: str | None) -> None:
        """Says how the engine call number ``call`` has ended."""
        self.request("POST", f"{_update(update)}/calls/{call}", {"error": error})

    def wait_for_update(self, update: str, seconds: int) -> dict[str, Any]:
        """The status of an update when it has ended, or after ``seconds``, at most 60."""
        return self.request("GET", f"{_update(update)}?wait={seconds}", timeout=seconds + 15)

    def cancel_update(self, update: str, reason: str) -> None:
        """Ends an update for ``reason``; nothing if it has ended already."""
        query = urlencode({"reason": reason[:1000]}, quote_via=quote)
        try:
            self.request("DELETE", f"{_update(update)}?{query}")
        except DaemonRefusedError as error:
            if error.code not in {"busy", "not_found"}:
                raise

    def request(
        self, method: str, path: str, body: object = None, timeout: float = ANSWER_S_MAX
    ) -> dict[str, Any]:
        """One call; its answer, ``{}`` if that is no object. ``timeout`` in seconds."""
        content = None if body is None else json.dumps(body).encode()
        try:
            with closing(self.address.connection(timeout)) as connection:
                connection.request(method, path, content, self._headers)
                response = connection.getresponse()
                status, answer = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise DaemonLostError(
                f"the daemon at {self.address.text} does not answer to {method} "
                f"{path.partition('?')[0]}: {type(error).__name__}: {error}"
            ) from error
        values = _parsed(answer)
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise _refused(status, values, answer)
        return values


def _checkpoint(name: str) -> str:
    return f"/v1/checkpoints/{quote(name, safe='')}"


def _update(update: str) -> str:
    return f"/v1/updates/{quote(update, safe='')}"


def _parsed(answer: bytes) -> dict[str, Any]:
    try:
        values = json.loads(answer)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _refused(status: int, values: dict[str, Any], answer: bytes) -> DaemonRefusedError:
    error = values.get("error")
    if not isinstance(error, dict):
        text = answer[:1000].decode(errors="replace")
        return DaemonRefusedError(status, "unknown", f"HTTP status {status}: {text}", None)
    code, cause = str(error.get("code")), error.get("cause")
    return DaemonRefusedError(
        status, code, f"{error.get('message')} ({code})", None if cause is None else str(cause)
    )
