"""The message ``catalog``: every tensor that will be delivered, and where its bytes lie."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from .dtypes import DTYPES
from .errors import ProtocolError
from .strict_json import INTEGER_MAX, STRING_BYTES_MAX, Fields, encode_json, parse_json, utf8_length

BODY_BYTES_MAX = 1 << 30
HANDLE_DIGITS = 128
TENSOR_COUNT_MAX = 2_000_000


@dataclass(frozen=True)
class Segment:
    """A file of shared memory; tensors are counted from ``data_offset`` bytes after its start."""

    path: str
    inode: int
    bytes: int
    data_offset: int

    @classmethod
    def decode(cls, value: object) -> Segment:
        """Raises ``ProtocolError``."""
        fields = Fields(value, "a segment")
        segment = cls(
            fields.string("path"),
            fields.integer("inode"),
            fields.integer("bytes"),
            fields.integer("data_offset"),
        )
        fields.finish()
        if not segment.path.startswith("/") or "\0" in segment.path:
            raise ProtocolError(f"the segment {segment.path[:256]!r} is not an absolute path")
        if segment.data_offset > segment.bytes:
            raise ProtocolError(f"the data of segment {segment.path} begins after its end")
        return segment


@dataclass(frozen=True)
class DeviceSegment:
    """A piece of a GPU's memory; tensors are counted from ``data_offset`` bytes after the start of
    the allocation that ``handle`` (64 bytes in hexadecimal digits) opens."""

    handle: str
    bytes: int
    data_offset: int

    @classmethod
    def decode(cls, value: object) -> DeviceSegment:
        """Raises ``ProtocolError``."""
        fields = Fields(value, "a segment")
        segment = cls(
            fields.string("handle"), fields.integer("bytes"), fields.integer("data_offset")
        )
        fields.finish()
        if len(segment.handle) != HANDLE_DIGITS or set(segment.handle) - set("0123456789abcdef"):
            raise ProtocolError("the handle of a segment is not 128 lower-case hexadecimal digits")
        if segment.data_offset > segment.bytes:
            raise ProtocolError("a segment begins after the end of its allocation")
        return segment


def _segments(values: list[object]) -> tuple[Segment, ...] | tuple[DeviceSegment, ...]:
    """Segments of one kind, that of the first. Raises ``ProtocolError``."""
    if values and isinstance(values[0], dict) and "handle" in values[0]:
        return tuple(DeviceSegment.decode(value) for value in values)
    return tuple(Segment.decode(value) for value in values)


@dataclass(frozen=True)
class TensorRow:
    """One tensor, dense and row-major, ``offset`` bytes after the data offset of its segment."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    segment: int
    offset: int

    @functools.cached_property
    def byte_count(self) -> int:
        """The length of the tensor in bytes. Raises ``ProtocolError`` where there is none."""
        elements = 1
        for dimension in self.shape:
            elements *= dimension
            if elements > INTEGER_MAX:
                raise ProtocolError(f"the tensor {self.name[:256]!r} has too many elements")
        bits = elements * DTYPES[self.dtype].bits
        if bits % 8 != 0:
            raise ProtocolError(f"the tensor {self.name[:256]!r} does not end at a whole byte")
        return bits // 8

    @classmethod
    def decode(cls, row: object) -> TensorRow:
        """Raises ``ProtocolError``."""
        if not isinstance(row, list) or len(row) != 5:
            raise ProtocolError("a row of the catalog is not an array of five values")
        name, dtype, shape, segment, offset = row
        if not (
            isinstance(name, str)
            and isinstance(dtype, str)
            and isinstance(shape, list)
            and all(type(number) is int for number in (*shape, segment, offset))
        ):
            raise ProtocolError("a row of the catalog has a value of the wrong kind")
        if utf8_length(name) > STRING_BYTES_MAX:
            raise ProtocolError(f"a tensor's name is longer than {STRING_BYTES_MAX} bytes")
        if dtype not in DTYPES:
            raise ProtocolError(f"the tensor {name[:256]!r} has the unknown type {dtype[:64]!r}")
        return cls(name, dtype, tuple(shape), segment, offset)


@functools.lru_cache(maxsize=1)
def _decoded(body: bytes) -> tuple[tuple[TensorRow, ...], tuple[int, ...]]:
    """The rows of a body and the lengths of their tensors: mostly those of the update before."""
    rows = parse_json(body, BODY_BYTES_MAX, "the catalog's body")
    if not isinstance(rows, list):
        raise ProtocolError("the catalog's body is not an array of rows")
    tensors = tuple(TensorRow.decode(row) for row in rows)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise ProtocolError("two tensors of the catalog have one name")
    return tensors, tuple(tensor.byte_count for tensor in tensors)


@dataclass(frozen=True)
class Catalog:
    """Segments, and tensors in the order in which buckets name them."""

    segments: tuple[Segment, ...] | tuple[DeviceSegment, ...]
    tensors: tuple[TensorRow, ...]

    @property
    def byte_count(self) -> int:
        """The length of all tensors together."""
        return sum(tensor.byte_count for tensor in self.tensors)

    @classmethod
    def decode(cls, header: Fields, body: bytes) -> Catalog:
        """Raises ``ProtocolError``."""
        count = header.integer("tensors", most=TENSOR_COUNT_MAX)
        byte_count = header.integer("bytes")
        segments = _segments(header.array("segments"))
        header.finish()
        tensors, lengths = _decoded(body)
        if len(tensors) != count:
            raise ProtocolError(f"the catalog's body is not an array of {count} rows")
        catalog = cls(segments, tensors)
        catalog._check(byte_count, lengths)
        return catalog

    def _check(self, byte_count: int, lengths: tuple[int, ...]) -> None:
        rooms = [segment.bytes - segment.data_offset for segment in self.segments]
        for tensor, length in zip(self.tensors, lengths, strict=True):
            if tensor.segment >= len(self.segments):
                raise ProtocolError(
                    f"the tensor {tensor.name[:256]!r} lies in segment {tensor.segment}; there are "
                    f"{len(self.segments)}"
                )
            if tensor.offset + length > rooms[tensor.segment]:
                raise ProtocolError(
                    f"the tensor {tensor.name[:256]!r} ends after its segment {tensor.segment}"
                )
        total = sum(lengths)
        if total != byte_count:
            raise ProtocolError(f"the rows of the catalog have {total} bytes, not {byte_count}")

    def encode(self) -> list[bytes]:
        """The two frames of the message."""
        header = {
            "type": "catalog",
            "tensors": len(self.tensors),
            "bytes": self.byte_count,
            "segments": [vars(segment) for segment in self.segments],
        }
        rows = [
            [tensor.name, tensor.dtype, tensor.shape, tensor.segment, tensor.offset]
            for tensor in self.tensors
        ]
        return [encode_json(header), encode_json(rows)]
