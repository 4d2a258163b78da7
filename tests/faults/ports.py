"""Ports for what listens, and for what its address is told to before it does."""

from __future__ import annotations

import contextlib
import random
import socket

# Below those that the kernel gives to outgoing connections, which are many while processes start,
# and above those of mooncake's agents.
_PORTS = range(18_000, 30_000)


def free_port() -> int:
    """A port of loopback that is free, and the one after it too, which ranks take for their store.

    Outgoing connections take none of them.
    """
    while True:
        port = random.choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port
