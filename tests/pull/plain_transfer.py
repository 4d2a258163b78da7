"""One end of plain TCP connections, as a process of a host: what its link can carry.

``receive ADDRESS COUNT`` prints its port, takes ``COUNT`` connections to their ends, and prints
seconds from the first byte to the last, and bytes. ``send ADDRESS PORT BYTES`` is the other end.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time

PIECE_BYTES = 1 << 18


def receive(address: str, count: int) -> None:
    with socket.create_server((address, 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        selector = selectors.DefaultSelector()
        for _ in range(count):
            connection, _ = listener.accept()
            selector.register(connection, selectors.EVENT_READ)
    first = last = 0.0
    received = 0
    while selector.get_map():
        for key, _ in selector.select():
            content = key.fileobj.recv(PIECE_BYTES)  # type: ignore[union-attr]
            last = time.monotonic()
            first = first or last
            received += len(content)
            if not content:
                selector.unregister(key.fileobj)
    print(last - first, received)


def send(address: str, port: int, byte_count: int) -> None:
    piece = bytes(PIECE_BYTES)
    with socket.create_connection((address, port)) as connection:
        while byte_count:
            count = min(byte_count, PIECE_BYTES)
            connection.sendall(piece[:count])
            byte_count -= count


if __name__ == "__main__":
    mode, host, *numbers = sys.argv[1:]
    {"receive": receive, "send": send}[mode](host, *map(int, numbers))
