"""The ceiling of peer-to-peer reads: Mooncake's own Python API between two processes over TCP.

Prints JSON, rates in GiB/s: ``1_range`` of 1 GiB, and ``8000_ranges`` of 768 KiB. The longest
batches that it takes have about 2,000 ranges, so more of them go one batch after the other.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
ROUNDS = 5
# All reads go round in this much memory, so that the benchmark needs no more of it.
WINDOW_BYTES = GIB
BATCH_RANGES_MAX = 1000
# Two processes load mooncake, and touch their windows.
START_S_MAX = 60.0
READ_S_MAX = 120.0
# Reads that do not spin: so many ranges under way, each asked for so often.
FLYING_MAX = 8
NAP_S = 100e-6
_DONE = 1
_HOST = "127.0.0.1"


class Ceiling:
    """Two processes whose memory has been touched, as a context: one reads from the other."""

    def __init__(self, window: int = WINDOW_BYTES) -> None:
        """Ends the program when they do not start."""
        self._reader = subprocess.Popen(
            [sys.executable, __file__, "--reader", str(window)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "MC_FORCE_TCP": "1", "MC_LOG_LEVEL": "ERROR"},
        )
        self._answer(START_S_MAX)

    @property
    def pid(self) -> int:
        """Of the process that reads; its child is the other one."""
        return self._reader.pid

    def seconds(self, byte_count: int, piece: int, *, spins: bool = True) -> float:
        """How long one read of ``byte_count`` in ranges of ``piece`` bytes takes.

        As mooncake's blocking calls of up to ``BATCH_RANGES_MAX`` ranges, or else as calls of one
        range each, ``FLYING_MAX`` at a time, whose state is asked for: that occupies no core.
        """
        assert self._reader.stdin is not None
        self._reader.stdin.write(f"{byte_count} {piece} {int(spins)}\n".encode())
        self._reader.stdin.flush()
        return float(self._answer(READ_S_MAX))

    def _answer(self, limit: float) -> str:
        """The next line that begins with ``=``: mooncake itself may write to standard output."""
        assert self._reader.stdout is not None
        end = time.monotonic() + limit
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader.stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, end - time.monotonic())):
                byte = os.read(self._reader.stdout.fileno(), 1)
                if not byte:
                    break
                if byte != b"\n":
                    line += byte
                elif line.startswith(b"="):
                    return line[1:].decode()
                else:
                    line = b""
        self._reader.kill()
        sys.exit("error: mooncake's own read failed or took too long; its lines above tell why")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The end of its input ends the reader, and that the source.
        self._reader.kill()
        self._reader.wait()


class _Memory:
    """Shared memory that has been touched, registered with an engine of this process."""

    def __init__(self, byte_count: int) -> None:
        from mooncake.engine import TransferEngine

        descriptor = os.memfd_create("ceiling")
        os.ftruncate(descriptor, byte_count)
        self._map = mmap.mmap(descriptor, byte_count)
        os.close(descriptor)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        ctypes.memset(self.address, 1, byte_count)
        self.engine: Any = TransferEngine()
        if self.engine.initialize(_HOST, "P2PHANDSHAKE", "tcp", "") != 0:
            raise RuntimeError("mooncake cannot start")
        if self.engine.batch_register_memory([self.address], [byte_count]) != 0:
            raise RuntimeError("mooncake cannot register memory")


def _serve(byte_count: int) -> None:
    """Lets the reader read; ends with standard input."""
    memory = _Memory(byte_count)
    print("=", memory.engine.get_rpc_port(), memory.address, flush=True)
    sys.stdin.read()


def _read(window: int) -> None:
    """Answers each line of standard input with the seconds of the read that it asks for."""
    memory = _Memory(window)
    source = subprocess.Popen(
        [sys.executable, __file__, "--source", str(window)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert source.stdout is not None
    line = ""
    while not line.startswith("="):
        line = source.stdout.readline()
        if not line:
            raise RuntimeError("the source has ended")
    _, port, remote = line.split()
    session = f"{_HOST}:{port}"
    print("=", flush=True)
    for line in sys.stdin:
        byte_count, piece, spins = map(int, line.split())
        batches = list(_batches(memory.address, int(remote), window, byte_count, piece))
        start = time.perf_counter()
        if spins:
            _read_spinning(memory.engine, session, batches)
        else:
            _read_napping(memory.engine, session, batches)
        print(f"={time.perf_counter() - start}", flush=True)


_Batch = tuple[list[int], list[int], list[int]]


def _read_spinning(engine: Any, session: str, batches: list[_Batch]) -> None:
    for batch in batches:
        code = engine.batch_transfer_sync_read(session, *batch)
        if code != 0:
            raise RuntimeError(f"batch_transfer_sync_read: {code}")


def _read_napping(engine: Any, session: str, batches: list[_Batch]) -> None:
    todo = deque(one for batch in batches for one in zip(*batch, strict=True))
    flying: list[int] = []
    while todo or flying:
        while todo and len(flying) < FLYING_MAX:
            local, remote, length = todo.popleft()
            flying.append(engine.batch_transfer_async_read(session, [local], [remote], [length]))
        time.sleep(NAP_S)
        states = [(one, engine.transfer_check_status(one)) for one in flying]
        if any(state < 0 for _, state in states):
            raise RuntimeError("batch_transfer_async_read failed")
        flying = [one for one, state in states if state != _DONE]


def _batches(local: int, remote: int, window: int, byte_count: int, piece: int) -> Iterator[_Batch]:
    """Addresses here, addresses there and lengths of one batch after the other."""
    slots = window // piece
    starts = range(0, byte_count, piece)
    for first in range(0, len(starts), BATCH_RANGES_MAX):
        some = range(first, min(first + BATCH_RANGES_MAX, len(starts)))
        offsets = [index % slots * piece for index in some]
        lengths = [min(piece, byte_count - starts[index]) for index in some]
        yield [local + one for one in offsets], [remote + one for one in offsets], lengths


def _rates() -> dict[str, float]:
    """GiB/s of the best of a few reads each, after one to warm up."""
    rates = {}
    with Ceiling() as ceiling:
        for name, byte_count, piece in (
            ("1_range", GIB, GIB),
            ("8000_ranges", 8000 * 768 * KIB, 768 * KIB),
        ):
            seconds = [ceiling.seconds(byte_count, piece) for _ in range(ROUNDS + 1)]
            rates[name] = round(byte_count / min(seconds[1:]) / GIB, 3)
    return rates


def main() -> None:
    """Prints the rates, or is one of the two processes that measure them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="a file for the JSON beside standard output")
    parser.add_argument("--reader", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=int, help=argparse.SUPPRESS)
    known = parser.parse_args()
    if known.source:
        _serve(known.source)
    elif known.reader:
        _read(known.reader)
    else:
        text = json.dumps({"unit": "GiB/s", **_rates()})
        print(text)
        if known.output:
            known.output.write_text(text + "\n")
    sys.stdout.flush()
    # The engine's threads must not hold the process.
    os._exit(0)


if __name__ == "__main__":
    main()
