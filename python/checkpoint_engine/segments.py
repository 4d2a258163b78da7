"""The server's shared memory as torch tensors, without a copy."""

from __future__ import annotations

import mmap
import os
import stat
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import SegmentError
from .tensor_views import check_types, tensor_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from .catalog import Segment, TensorRow

# O_NONBLOCK: a pipe in the place of the file must not block, it is refused after the open.
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

_KEEP_FILES = "write the next version beside files that are in use, not over them"


def _open(segment: Segment) -> int:
    """A descriptor of the segment's file, which is the caller's. Raises ``SegmentError``."""
    try:
        descriptor = os.open(segment.path, _OPEN_FLAGS)
    except PermissionError as error:
        raise SegmentError(
            f"this worker, which runs as the user {os.geteuid()}, may not read the segment "
            f"{segment.path}: run the engine and the checkpoint-engine daemon as one user"
        ) from error
    except OSError as error:
        raise SegmentError(
            f"the segment {segment.path} cannot be opened: {error.strerror}; engine and server "
            "must run on one host, as one user, and share /dev/shm"
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SegmentError(f"the segment {segment.path} is not a regular file")
        if (status.st_ino, status.st_size) != (segment.inode, segment.bytes):
            raise SegmentError(
                f"the segment {segment.path} is another file than the server's: expected inode "
                f"{segment.inode} of {segment.bytes} bytes, got inode {status.st_ino} of "
                f"{status.st_size}; engine and server must share /dev/shm"
            )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class MappedSegment:
    """One file of the server's memory, mapped for reading.

    The tensors made from it keep the mapping alive, so that a tensor which outlives it is never a
    dangling pointer; ``close`` tells whether there is one.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._map: mmap.mmap | None = None
        self._base: torch.Tensor | None = None
        descriptor = _open(segment)
        try:
            if segment.bytes > 0:
                self._map = mmap.mmap(descriptor, segment.bytes, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise SegmentError(f"the segment {segment.path} cannot be mapped: {error}") from error
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """Raises ``SegmentError`` where the file was replaced or has become shorter.

        Who touches a page that a file has lost is ended by the system without a word.
        """
        segment = self.segment
        try:
            status = Path(segment.path).lstat()
        except OSError as error:
            raise SegmentError(
                f"the segment {segment.path} is gone: {error.strerror}; {_KEEP_FILES}"
            ) from error
        if (status.st_ino, status.st_size) != (segment.inode, segment.bytes):
            raise SegmentError(
                f"the segment {segment.path} was replaced or has another length since the update "
                f"began: expected inode {segment.inode} of {segment.bytes} bytes, got inode "
                f"{status.st_ino} of {status.st_size}; {_KEEP_FILES}"
            )

    def bytes_at(self, offset: int, length: int) -> torch.Tensor:
        """``length`` > 0 bytes, ``offset`` bytes after the data offset, as a tensor of bytes."""
        start = self.segment.data_offset + offset
        return self._bytes()[start : start + length]

    def _bytes(self) -> torch.Tensor:
        import torch

        if self._base is None:
            if self._map is None:
                raise SegmentError(f"the segment {self.segment.path} has no bytes")
            # torch keeps the memory view, and the view blocks the map's close: that is how `close`
            # finds tensors that are still in use.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The given buffer is not writable")
                self._base = torch.frombuffer(memoryview(self._map), dtype=torch.uint8)
        return self._base

    def close(self) -> bool:
        """Ends the mapping; ``False`` when a tensor still uses it, whose end it then awaits."""
        self._base = None
        if self._map is not None:
            try:
                self._map.close()
            except BufferError:
                return False
            self._map = None
        return True


class SegmentTensors:
    """Makes the tensors of a catalog from its mapped segments."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        """Maps all segments or none. Raises ``SegmentError``."""
        if sys.byteorder != "little":
            raise SegmentError("checkpoints are little-endian, and this machine is not")
        self._segments: list[MappedSegment] = []
        try:
            for segment in segments:
                self._segments.append(MappedSegment(segment))
        except SegmentError:
            self.close()
            raise

    def check(self, tensors: Sequence[TensorRow]) -> None:
        """Raises ``DTypeError`` when torch lacks the type of one of ``tensors``."""
        check_types(tensors)

    def tensors(self, rows: Sequence[TensorRow]) -> list[torch.Tensor]:
        """The tensors of one bucket. Raises ``SegmentError`` where a file has lost its bytes."""
        for place in {row.segment for row in rows}:
            self._segments[place].check()
        return [self.tensor(row) for row in rows]

    def synchronize(self) -> None:
        """Nothing reads host memory after a load has returned."""

    def tensor(self, row: TensorRow) -> torch.Tensor:
        """The tensor that ``row`` describes: a view of the server's memory, not to be written to.

        A tensor whose first byte is not aligned to its element is copied.
        """
        import torch

        length = row.byte_count
        if length == 0:
            return tensor_of(row, torch.empty(0, dtype=torch.uint8))
        return tensor_of(row, self._segments[row.segment].bytes_at(row.offset, length))

    def close(self) -> list[str]:
        """Ends all mappings; the paths of those that a tensor still uses."""
        return [segment.segment.path for segment in self._segments if not segment.close()]
