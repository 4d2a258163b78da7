"""The messages of the worker protocol, version 1: ``docs/wire-protocol.md`` is the definition.

``decode_server`` and ``decode_worker`` take the frames of a message apart and accept nothing that
the definition does not allow; ``encode`` writes the frames of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .catalog import Catalog, DeviceSegment, Segment, TensorRow
from .errors import ProtocolError
from .known_frame import (
    KNOWN_PROTOCOL_BYTE,
    KNOWN_PROTOCOL_REFUSAL,
    hello_in_known_frame,
)
from .strict_json import STRING_BYTES_MAX, Fields, encode_json, parse_json

if TYPE_CHECKING:
    from collections.abc import Sequence

PROTOCOL = "checkpoint-engine"
VERSIONS = (1,)
MEMORY_KINDS = ("host", "cuda")
HEADER_BYTES_MAX = 1 << 20
TRACEBACK_BYTES_MAX = 256 << 10
CREDITS_MAX = 64
STAGES = ("hello", "catalog", "bucket", "release", "commit")


@dataclass(frozen=True)
class ServerHello:
    """Opens the session. ``deadline_ms`` is the time left for the whole update."""

    versions: tuple[int, ...]
    update: str
    checkpoint: str
    deadline_ms: int
    memory: str = "host"


@dataclass(frozen=True)
class Bucket:
    """Load the tensors ``first ..< first + count`` of the catalog."""

    index: int
    first: int
    count: int


@dataclass(frozen=True)
class Release:
    """Drop every reference to the server's memory that the commit does not need."""


@dataclass(frozen=True)
class Commit:
    """Finish the load; the new weights serve afterwards."""


@dataclass(frozen=True)
class Abort:
    """The update failed, and ``reason`` names the culprit."""

    reason: str


@dataclass(frozen=True)
class WorkerHello:
    """Answers the server's hello. ``credits`` is how many buckets may be unanswered."""

    version: int
    worker: str
    pid: int
    software: str
    credits: int


@dataclass(frozen=True)
class Ready:
    """Every segment is mapped."""


@dataclass(frozen=True)
class Loaded:
    """A bucket of ``bytes`` bytes is loaded, which took ``micros`` microseconds."""

    index: int
    bytes: int
    micros: int


@dataclass(frozen=True)
class Released:
    """Answers ``release``."""


@dataclass(frozen=True)
class Committed:
    """The new weights serve; the commit took ``micros`` microseconds."""

    micros: int


@dataclass(frozen=True)
class Aborted:
    """Answers ``abort``."""


@dataclass(frozen=True)
class Failure:
    """The message ``error``: what went wrong in which stage."""

    stage: str
    message: str
    traceback: str


ServerMessage = ServerHello | Catalog | Bucket | Release | Commit | Abort
WorkerMessage = WorkerHello | Ready | Loaded | Released | Committed | Aborted | Failure


def _header(frames: Sequence[bytes]) -> tuple[str, Fields]:
    if not 1 <= len(frames) <= 2:
        raise ProtocolError(f"the message has {len(frames)} frames; allowed: one or two")
    header = Fields(parse_json(frames[0], HEADER_BYTES_MAX, "the message"), "the message")
    kind = header.string("type")
    return kind, header


def _finish(kind: str, header: Fields, frames: Sequence[bytes]) -> None:
    header.finish()
    if len(frames) != 1:
        raise ProtocolError(f"the message {kind!r} has a body; only 'catalog' may have one")


def decode_server(frames: Sequence[bytes]) -> ServerMessage:
    """What the server said. Raises ``ProtocolError``."""
    kind, header = _header(frames)
    message: ServerMessage
    if kind == "catalog":
        if len(frames) != 2:
            raise ProtocolError("the message 'catalog' lacks its body")
        return Catalog.decode(header, frames[1])
    if kind == "hello":
        header.one_of("protocol", (PROTOCOL,))
        message = ServerHello(
            versions=header.integers("versions"),
            update=header.string("update"),
            checkpoint=header.string("checkpoint"),
            memory=header.one_of("memory", MEMORY_KINDS),
            deadline_ms=header.integer("deadline_ms"),
        )
    elif kind == "bucket":
        message = Bucket(
            header.integer("index"), header.integer("first"), header.integer("count", least=1)
        )
    elif kind == "release":
        message = Release()
    elif kind == "commit":
        message = Commit()
    elif kind == "abort":
        message = Abort(header.string("reason"))
    else:
        raise ProtocolError(f"the message has the unknown type {kind[:64]!r}")
    _finish(kind, header, frames)
    return message


def decode_worker(frames: Sequence[bytes]) -> WorkerMessage:
    """What a worker said. Raises ``ProtocolError``."""
    kind, header = _header(frames)
    message: WorkerMessage
    if kind == "hello":
        message = WorkerHello(
            version=header.integer("version"),
            worker=header.string("worker"),
            pid=header.integer("pid"),
            software=header.string("software"),
            credits=header.integer("credits", least=1, most=CREDITS_MAX),
        )
    elif kind == "ready":
        message = Ready()
    elif kind == "loaded":
        message = Loaded(header.integer("index"), header.integer("bytes"), header.integer("micros"))
    elif kind == "released":
        message = Released()
    elif kind == "committed":
        message = Committed(header.integer("micros"))
    elif kind == "aborted":
        message = Aborted()
    elif kind == "error":
        message = Failure(
            stage=header.one_of("stage", STAGES),
            message=header.string("message"),
            traceback=header.string("traceback", TRACEBACK_BYTES_MAX),
        )
    else:
        raise ProtocolError(f"the message has the unknown type {kind[:64]!r}")
    _finish(kind, header, frames)
    return message


def encode(message: ServerMessage | WorkerMessage) -> list[bytes]:
    """The frames of ``message``, in their one canonical form."""
    if isinstance(message, Catalog):
        return message.encode()
    return [encode_json(_fields(message))]


_NAMES: dict[type, str] = {
    ServerHello: "hello",
    Bucket: "bucket",
    Release: "release",
    Commit: "commit",
    Abort: "abort",
    WorkerHello: "hello",
    Ready: "ready",
    Loaded: "loaded",
    Released: "released",
    Committed: "committed",
    Aborted: "aborted",
    Failure: "error",
}


def type_name(message: ServerMessage | WorkerMessage) -> str:
    """The value of ``type`` on the wire."""
    return "catalog" if isinstance(message, Catalog) else _NAMES[type(message)]


def _fields(message: ServerMessage | WorkerMessage) -> dict[str, object]:
    if isinstance(message, ServerHello):
        return {
            "type": "hello",
            "protocol": PROTOCOL,
            "versions": message.versions,
            "update": message.update,
            "checkpoint": message.checkpoint,
            "memory": message.memory,
            "deadline_ms": message.deadline_ms,
        }
    # The fields of every other class stand in the order of the wire.
    return {"type": type_name(message), **vars(message)}


def failure(stage: str, message: str, traceback: str) -> Failure:
    """An ``error`` that fits the limits: one line of text, and the end of a long traceback."""
    line = _well_formed(message).replace("\r", " ").replace("\n", " ")
    if len(line.encode()) > STRING_BYTES_MAX:
        line = line.encode()[:STRING_BYTES_MAX].decode(errors="ignore")
    tail = _end(_well_formed(traceback), TRACEBACK_BYTES_MAX)
    result = Failure(stage, line, tail)
    # Control characters grow sixfold in JSON.
    while len(encode(result)[0]) > HEADER_BYTES_MAX:
        tail = _end(tail, len(tail.encode()) // 2)
        result = Failure(stage, line, tail)
    return result


def _well_formed(text: str) -> str:
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _end(text: str, bytes_max: int) -> str:
    data = text.encode()
    return text if len(data) <= bytes_max else data[-bytes_max:].decode(errors="ignore")


__all__ = [
    "KNOWN_PROTOCOL_BYTE",
    "KNOWN_PROTOCOL_REFUSAL",
    "Abort",
    "Aborted",
    "Bucket",
    "Catalog",
    "Commit",
    "Committed",
    "DeviceSegment",
    "Failure",
    "Loaded",
    "Ready",
    "Release",
    "Released",
    "Segment",
    "ServerHello",
    "ServerMessage",
    "TensorRow",
    "WorkerHello",
    "WorkerMessage",
    "decode_server",
    "decode_worker",
    "encode",
    "failure",
    "hello_in_known_frame",
    "type_name",
]
