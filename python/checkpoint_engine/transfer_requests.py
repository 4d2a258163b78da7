"""The transfer agent's requests and answers: JSON, one object a line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from .errors import ProtocolError
from .strict_json import INTEGER_MAX, Fields, encode_json, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE_BYTES_MAX = 16 << 20
RANGES_MAX = 1 << 16
_PATH_BYTES_MAX = 4096
_SESSION_BYTES_MAX = 300
_SESSION = r"(\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}"


@dataclass(frozen=True)
class Range:
    """Bytes to be read: addresses here and at the peer."""

    local: int
    remote: int
    byte_count: int


@dataclass(frozen=True)
class MapRequest:
    """Map the whole file: for peers to read it, or, ``writable``, to read into it."""

    id: int
    path: str
    inode: int
    byte_count: int
    writable: bool


@dataclass(frozen=True)
class UnmapRequest:
    """End the mapping at ``address``."""

    id: int
    address: int


@dataclass(frozen=True)
class ReadRequest:
    """Read ``ranges`` of the memory of the agent ``session``."""

    id: int
    session: str
    ranges: tuple[Range, ...]


@dataclass(frozen=True)
class PingRequest:
    """Answer."""

    id: int


Request = MapRequest | UnmapRequest | ReadRequest | PingRequest


class _RequestFields(Fields):
    def boolean(self, key: str) -> bool:
        value = self._take(key)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "a boolean")
        return value


class BadRequestError(Exception):
    """A line is no request; ``id`` is that of its answer, where the line has one."""

    def __init__(self, id: int | None, message: str) -> None:  # noqa: A002 - the protocol's word
        super().__init__(message)
        self.id = id


def lines(stream: BinaryIO, bytes_max: int = LINE_BYTES_MAX) -> Iterator[bytes | None]:
    """Each line without its end, ``None`` in the place of one that is longer than ``bytes_max``.

    The end of the stream ends it; what stands behind the last line's end is no line.
    """
    while True:
        line = stream.readline(bytes_max + 1)
        too_long = False
        while line and not line.endswith(b"\n") and len(line) > bytes_max:
            too_long = True
            line = stream.readline(bytes_max + 1)
        if not line.endswith(b"\n"):
            return
        yield None if too_long else line[:-1]


def parse_request(line: bytes) -> Request:
    """The request that ``line`` holds. Raises ``BadRequestError``."""
    number: int | None = None
    try:
        value = parse_json(line, LINE_BYTES_MAX, "the request")
        fields = _RequestFields(value, "the request")
        number = fields.integer("id")
        request = _request(number, fields)
        fields.finish()
    except ProtocolError as error:
        raise BadRequestError(number, str(error)) from error
    return request


def _request(number: int, fields: _RequestFields) -> Request:
    operation = fields.one_of("op", ("map", "unmap", "read", "ping"))
    if operation == "map":
        path = fields.string("path", _PATH_BYTES_MAX)
        if not path.startswith("/") or "\0" in path:
            raise ProtocolError(f"the path {path[:64]!r} is not an absolute path")
        inode, byte_count = fields.integer("inode"), fields.integer("bytes", least=1)
        return MapRequest(number, path, inode, byte_count, fields.boolean("writable"))
    if operation == "unmap":
        return UnmapRequest(number, fields.integer("address"))
    if operation == "read":
        session = fields.string("session", _SESSION_BYTES_MAX)
        if not re.fullmatch(_SESSION, session):
            raise ProtocolError(f"the session {session[:64]!r} is not HOST:PORT")
        return ReadRequest(number, session, _ranges(fields.array("ranges")))
    return PingRequest(number)


def _ranges(values: list[object]) -> tuple[Range, ...]:
    if not 1 <= len(values) <= RANGES_MAX:
        raise ProtocolError(f"a read has {len(values)} ranges; allowed: 1 … {RANGES_MAX}")
    return tuple(_range(value) for value in values)


def _range(value: object) -> Range:
    if isinstance(value, list) and len(value) == 3:
        local, remote, byte_count = value
        # Not `isinstance`: a boolean is one of `int`.
        if type(local) is type(remote) is type(byte_count) is int:
            if byte_count < 1 or max(local, remote) + byte_count > INTEGER_MAX:
                raise ProtocolError(f"the range {value} is empty or ends beyond 2^53 - 1")
            return Range(local, remote, byte_count)
    raise ProtocolError(f"the range {str(value)[:64]} is not [local, remote, bytes]")


def answer(number: int | None, **values: object) -> bytes:
    """The line that answers the request ``number``."""
    return encode_json({"id": number, **values}) + b"\n"


def event(name: str, **values: object) -> bytes:
    """The line that tells of something nobody asked for."""
    return encode_json({"event": name, **values}) + b"\n"
