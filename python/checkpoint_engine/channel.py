"""The worker's end of the connection: a REP socket, and a monitor that tells of a lost peer."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

import zmq
from zmq.utils.monitor import recv_monitor_message

from .catalog import BODY_BYTES_MAX
from .errors import DeadlineError, ServerLostError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# The server binds before it hands out an address, so that a connection needs no long wait.
CONNECT_TIMEOUT_S = 5.0
# How long a last answer may take to leave after the socket is closed.
LINGER_MS = 1000
_POLL_MS_MAX = 60_000
_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED
_PATH_PREFIX = "ipc:///"


class Channel:
    """Messages of one session. Not for several threads at once; ``close`` ends it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        """Connects to ``address``. Raises ``ServerLostError`` when it is none."""
        self._address = address
        self._is_connected = False
        self._is_lost = False
        self._obstacle: str | None = None
        self._connect_deadline = time.monotonic() + CONNECT_TIMEOUT_S
        self._socket = context.socket(zmq.REP)
        self._monitor = self._socket.get_monitor_socket(_EVENTS)
        try:
            self._socket.setsockopt(zmq.LINGER, LINGER_MS)
            self._socket.setsockopt(zmq.MAXMSGSIZE, BODY_BYTES_MAX)
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise ServerLostError(f"cannot connect to {address!r}: {error}") from error
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)

    def receive(self, deadline: float, expected: str) -> list[bytes]:
        """The frames of the next message. ``deadline`` is a time of ``time.monotonic``.

        Raises ``ServerLostError`` at once when there can be no connection, or when it is lost, even
        when messages were left unread, and ``DeadlineError``, which says that ``expected`` did not
        come.
        """
        while True:
            limit = deadline
            if not self._is_connected:
                limit = min(limit, self._connect_deadline)
            left = limit - time.monotonic()
            ready = dict(self._poller.poll(min(max(0, int(left * 1000) + 1), _POLL_MS_MAX)))
            if self._monitor in ready:
                self._read_events()
            if self._obstacle is not None:
                raise ServerLostError(self._obstacle)
            if self._is_lost:
                raise ServerLostError(
                    f"the connection to the server at {self._address} was lost during the wait for "
                    f"{expected}; the server's log tells why"
                )
            if self._socket in ready:
                return self._socket.recv_multipart(zmq.NOBLOCK)
            if time.monotonic() >= limit:
                raise self._late(expected)

    def unread(self) -> Iterator[list[bytes]]:
        """The messages that had come before the connection was lost; nobody reads the answers."""
        while True:
            try:
                yield self._socket.recv_multipart(zmq.NOBLOCK)
                self._socket.send(b"", zmq.NOBLOCK)
            except zmq.ZMQError:
                return

    def send(self, frames: Sequence[bytes]) -> None:
        """Answers the message received last."""
        try:
            self._socket.send_multipart(list(frames), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            raise ServerLostError(
                f"the server at {self._address} takes no answer: {error}"
            ) from error

    def close(self) -> None:
        """Closes the connection; an answer on its way may still leave for ``LINGER_MS``."""
        if not self._socket.closed:
            # Refused where the context is about to end, and waits for this.
            with contextlib.suppress(zmq.ContextTerminated):
                self._socket.disable_monitor()
            # Not closed by the line above: an open one would block the end of the context.
            self._monitor.close(linger=0)
            self._socket.close()

    def _read_events(self) -> None:
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._is_connected = True
            elif event == zmq.EVENT_DISCONNECTED and self._is_connected:
                self._is_lost = True
            elif event == zmq.EVENT_CONNECT_RETRIED and not self._is_connected:
                self._obstacle = _obstacle(self._address)

    def _late(self, expected: str) -> ServerLostError | DeadlineError:
        if self._is_connected:
            return DeadlineError(
                f"the server at {self._address} did not send {expected} before the deadline"
            )
        return ServerLostError(f"no server answers at {self._address}; {_ENDED}")


_ENDED = (
    "the update ended before this worker took part, or engine and server do not share the folder "
    "of the socket"
)


def _obstacle(address: str) -> str | None:
    """Why nobody can connect to ``address``; ``None`` where the next attempt may succeed.

    ZeroMQ tries again and again, and does not tell why it has to. A server binds its socket before
    it gives the address out, and removes it when the update is over.
    """
    if not address.startswith(_PATH_PREFIX):
        return None
    path = address[len(_PATH_PREFIX) - 1 :]
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0)
        try:
            probe.connect(path)
        except PermissionError:
            return (
                f"this worker, which runs as the user {os.geteuid()}, may not connect to {path}: "
                "run the engine and the checkpoint-engine daemon as one user"
            )
        except (FileNotFoundError, ConnectionRefusedError):
            return f"no server answers at {address}; {_ENDED}"
        except OSError:
            return None
    return None
