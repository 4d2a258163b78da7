"""The message ``catalog``: every tensor that will be delivered, and where its bytes lie."""

from __future__ import annotations

from dataclasses import dataclass

from .dtypes import DTYPES
from .errors import ProtocolError
from .strict_json import INTEGER_MAX, STRING_BYTES_MAX, Fields, encode_json, parse_json, utf8_length

BODY_BYTES_MAX = 1 << 30
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
class TensorRow:
    """One tensor, dense and row-major, ``offset`` bytes after the data offset of its segment."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    segment: int
    offset: int

    @property
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


@dataclass(frozen=True)
class Catalog:
    """Segments, and tensors in the order in which buckets name them."""

    segments: tuple[Segment, ...]
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
        segments = tuple(Segment.decode(value) for value in header.array("segments"))
        header.finish()
        rows = parse_json(body, BODY_BYTES_MAX, "the catalog's body")
        if not isinstance(rows, list) or len(rows) != count:
            raise ProtocolError(f"the catalog's body is not an array of {count} rows")
        catalog = cls(segments, tuple(TensorRow.decode(row) for row in rows))
        catalog._check(byte_count)
        return catalog

    def _check(self, byte_count: int) -> None:
        total = 0
        for tensor in self.tensors:
            if tensor.segment >= len(self.segments):
                raise ProtocolError(
                    f"the tensor {tensor.name[:256]!r} lies in segment {tensor.segment}; there are "
                    f"{len(self.segments)}"
                )
            segment = self.segments[tensor.segment]
            length = tensor.byte_count
            if tensor.offset + length > segment.bytes - segment.data_offset:
                raise ProtocolError(
                    f"the tensor {tensor.name[:256]!r} ends after its segment {segment.path}"
                )
            total += length
        if total != byte_count:
            raise ProtocolError(f"the rows of the catalog have {total} bytes, not {byte_count}")
        if len({tensor.name for tensor in self.tensors}) != len(self.tensors):
            raise ProtocolError("two tensors of the catalog have one name")

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
