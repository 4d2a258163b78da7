"""``python -m checkpoint_engine.transfer_agent``: reads memory of other hosts for the daemon.

It maps files of the daemon's shared memory, lets other agents read them, and reads theirs. Requests
come as lines of JSON on standard input, answers go to standard output, the log to standard error.
The end of standard input ends the process at once, whatever it does.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import BinaryIO, NoReturn

from .rdma_devices import RDMAError, choose_devices, present_devices
from .transfer_engine import Engine
from .transfer_errors import TransferError, TransferSetupError
from .transfer_lanes import Lanes
from .transfer_memory import MappedFiles
from .transfer_reads import Read, ReadLane
from .transfer_requests import (
    BadRequestError,
    MapRequest,
    ReadRequest,
    Request,
    UnmapRequest,
    answer,
    event,
    lines,
    parse_request,
)

_EXIT_FAILED = 3
_EXIT_STALLED = 4
_SYSTEM = Path("/sys")
# An address for documentation (RFC 5737), which is reached by the default route if by any.
_ELSEWHERE = ("192.0.2.1", 9)
# The key of the one lane of requests that are about this process's own mappings.
_OWN = ""
_HOST = r"[A-Za-z0-9._:-]{1,255}"


class Output:
    """The lines on standard output, whole ones only. Safe for threads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        """Ends the process when nobody reads any more."""
        view = memoryview(line)
        with self._lock:
            while view:
                try:
                    view = view[os.write(self._descriptor, view) :]
                except OSError:
                    os._exit(0)


class _MappingLane:
    """Maps and unmaps files, one after the other."""

    is_idle = True

    def __init__(self, files: MappedFiles, output: Output) -> None:
        self._files = files
        self._output = output

    def begin(self, request: MapRequest | UnmapRequest) -> None:
        """Answers the request."""
        values: dict[str, object] = {}
        try:
            if isinstance(request, MapRequest):
                values["address"] = self._files.map(request)
            else:
                self._files.unmap(request.address)
        except Exception as error:  # noqa: BLE001 - every request has an answer
            values["error"] = _text(error)
        self._output.write(answer(request.id, **values))

    def step(self) -> None:
        """Nothing goes on."""


class _SessionLane:
    """Reads from one peer, and answers each read when nothing is written for it any more."""

    def __init__(self, reads: ReadLane, output: Output) -> None:
        self._reads = reads
        self._output = output

    @property
    def is_idle(self) -> bool:
        return self._reads.is_idle

    def begin(self, request: ReadRequest) -> None:
        self._reads.add(Read(request.id, request.ranges))

    def step(self) -> None:
        try:
            ended = self._reads.step()
        except Exception as error:  # noqa: BLE001 - nobody can say what is in flight then
            # No answer: it would say that nothing is written any more, which is so when this
            # process has ended.
            sys.stderr.write(f"{_text(error)}\n")
            sys.stderr.flush()
            os._exit(_EXIT_STALLED)
        for read in ended:
            if read.error:
                line = answer(read.id, error=_text(read.error))
            else:
                # Never so small that it would be written with an exponent.
                line = answer(read.id, seconds=max(round(read.seconds, 6), 0.0001))
            self._output.write(line)


class Agent:
    """Answers requests with one engine and its mappings."""

    def __init__(self, engine: Engine, output: Output) -> None:
        self._engine = engine
        self._files = MappedFiles(engine)
        self._output = output
        self._reads = Lanes(self._session_lane)
        self._mappings = Lanes(lambda _: _MappingLane(self._files, output))

    def serve(self, stream: BinaryIO) -> None:
        """Answers each line until the stream ends."""
        for line in lines(stream):
            try:
                if line is None:
                    raise BadRequestError(None, "the line is too long for a request")
                self._start(parse_request(line))
            except BadRequestError as error:
                self._output.write(answer(error.id, error=str(error)))

    def _start(self, request: Request) -> None:
        try:
            if isinstance(request, ReadRequest):
                self._reads.run(request.session, request)
            elif isinstance(request, MapRequest | UnmapRequest):
                self._mappings.run(_OWN, request)
            else:
                self._output.write(answer(request.id))
        except (TransferError, RuntimeError) as error:
            # The second where the system has no more threads.
            raise BadRequestError(request.id, str(error)) from error

    def _session_lane(self, session: str) -> _SessionLane:
        return _SessionLane(ReadLane(session, self._engine, self._files.reading), self._output)


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, TransferError) else repr(error)


def _private_output() -> Output:
    """Standard output for the answers alone: whatever else writes to it writes to the log."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    return Output(descriptor)


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m checkpoint_engine.transfer_agent",
        description="Reads memory of other hosts for the daemon, which starts it.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--host",
        required=True,
        help="this host's address, as peers reach it; auto takes that of the default route",
    )
    parser.add_argument("--protocol", choices=("auto", "tcp", "rdma"), default="auto")
    parser.add_argument(
        "--device", action="append", default=[], metavar="NAME", help="an RDMA device; repeatable"
    )
    parser.add_argument(
        "--gpu-bus-id",
        action="append",
        default=[],
        metavar="BDF",
        help="a GPU whose nearest RDMA devices are used; repeatable",
    )
    known = parser.parse_args(arguments)
    if not re.fullmatch(_HOST, known.host):
        parser.error("argument --host: not a host name or address")
    return known


def _own_address() -> str:
    """The address that this host has towards others; loopback without any route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: connecting a datagram socket chooses the route.
            probe.connect(_ELSEWHERE)
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _start(known: argparse.Namespace) -> tuple[Engine, str, list[str]]:
    """The engine, its protocol and its devices. Raises ``TransferSetupError``."""
    protocol: str = known.protocol
    if protocol == "auto":
        protocol = "rdma" if known.device or present_devices(_SYSTEM) else "tcp"
    devices: list[str] = []
    if protocol == "rdma":
        try:
            devices = choose_devices(_SYSTEM, known.device, os.environ, known.gpu_bus_id)
        except RDMAError as error:
            raise TransferSetupError(str(error)) from error
    host = _own_address() if known.host == "auto" else known.host
    return Engine(host, protocol, devices), protocol, devices


def main(arguments: list[str]) -> NoReturn:
    """Serves standard input; exits with 0 at its end and with 3 when the engine cannot start."""
    output = _private_output()
    known = _arguments(arguments)
    # Ctrl-C is for the daemon, which then ends this process in its own order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        engine, protocol, devices = _start(known)
    except TransferSetupError as error:
        output.write(event("failed", error=str(error)))
        os._exit(_EXIT_FAILED)
    output.write(
        event(
            "ready",
            session=engine.session,
            protocol=protocol,
            devices=devices,
            version=engine.version,
        )
    )
    Agent(engine, output).serve(sys.stdin.buffer)
    # Not `sys.exit`: a transfer that hangs must not hold the process.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
