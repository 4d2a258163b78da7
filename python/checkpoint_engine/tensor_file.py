"""Tensors of this process as safetensors files in shared memory; the daemon uses them in place."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from typing import TYPE_CHECKING

from .private_directory import PrivateDirectory, sweep
from .ps_errors import SharedMemoryError
from .tensor_copy import copy_tensors

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from .tensor_layout import Layout

# How much memory is taken at once, ahead of the copies into it.
_RESERVE_BYTES = 64 << 20
_PREFIX = "checkpoint-engine-tensors-"


class TensorFile:
    """One file of mode 0600, mapped for writing. ``write`` may be called again and again.

    The owner calls ``close``, which removes it.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        """Makes the file with its header; the memory is taken by the first ``write``.

        Raises ``SharedMemoryError`` when less is free than it needs.
        """
        self.path = path
        self.header = layout.header
        self.byte_count = layout.byte_count
        self._reserved = 0
        self._is_pinned = False
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise SharedMemoryError(f"{path} cannot be made: {error}") from error
        try:
            self._check_space()
            os.ftruncate(self._descriptor, self.byte_count)
            self._reserve(len(self.header))
            os.pwrite(self._descriptor, self.header, 0)
            self._map = mmap.mmap(self._descriptor, self.byte_count)
            self._memory = _tensor(self._map)
        except BaseException as error:
            os.close(self._descriptor)
            path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise SharedMemoryError(f"{path} cannot be made: {error}") from error
            raise

    def write(self, layout: Layout, threads: int) -> None:
        """Copies the tensors of ``layout``, whose header has to be that of this file.

        After an error the content is undefined; the file may be written again.
        """
        if layout.header != self.header:
            raise ValueError("the layout is that of another file")
        if any(placement.tensor.is_cuda for placement in layout.placements):
            self._reserve(self.byte_count)
            self._pin()
        copy_tensors(layout.placements, self._memory, threads, self._reserve)
        self._reserve(self.byte_count)

    def close(self) -> None:
        """Removes the file and its memory; other processes keep what they have mapped."""
        if self._is_pinned:
            import torch

            torch.cuda.cudart().cudaHostUnregister(self._memory.data_ptr())
            self._is_pinned = False
        del self._memory
        # A copy that was broken off may still be in a traceback; the mapping then ends with it.
        with contextlib.suppress(BufferError):
            self._map.close()
        os.close(self._descriptor)
        self.path.unlink(missing_ok=True)

    def _check_space(self) -> None:
        status = os.fstatvfs(self._descriptor)
        free = status.f_bavail * status.f_frsize
        if self.byte_count > free:
            raise SharedMemoryError(
                f"the tensors need {self.byte_count} bytes in {self.path.parent.parent}, where "
                f"{free} are free; unregister a checkpoint with force=True, or enlarge that tmpfs"
            )

    def _reserve(self, end: int) -> None:
        """Takes memory up to ``end``: a copy to what is not there ends the process."""
        while self._reserved < end:
            count = min(_RESERVE_BYTES, self.byte_count - self._reserved)
            try:
                os.posix_fallocate(self._descriptor, self._reserved, count)
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.ENOMEM}:
                    self._check_space()
                raise SharedMemoryError(
                    f"no memory for {self.path} beyond {self._reserved} of {self.byte_count} "
                    f"bytes: {error}; unregister a checkpoint with force=True"
                ) from error
            self._reserved += count

    def _pin(self) -> None:
        import torch

        if self._is_pinned:
            return
        code = torch.cuda.cudart().cudaHostRegister(self._memory.data_ptr(), self.byte_count, 0)
        if int(code) != 0:
            raise SharedMemoryError(
                f"{self.path} with {self.byte_count} bytes cannot be pinned for copies from GPUs: "
                f"cudaHostRegister returned {int(code)}; look at the limit of locked memory"
            )
        self._is_pinned = True


def _tensor(mapping: mmap.mmap) -> torch.Tensor:
    import torch

    return torch.frombuffer(mapping, dtype=torch.uint8)


class TensorFiles:
    """The files of one process, in a directory of their own.

    A file that was given back is kept for the next layout that is equal to its own, and written in
    place: what had pinned it need not do so again. A layout that no kept file suits ends them all.
    """

    def __init__(self, parent: Path) -> None:
        """``parent`` is a tmpfs. The directory is made when the first file is.

        What killed processes have left there is removed.
        """
        sweep(parent, _PREFIX)
        self._parent = parent
        self._directory: PrivateDirectory | None = None
        self._kept: list[TensorFile] = []
        self._used: set[TensorFile] = set()
        self._count = 0

    def take(self, layout: Layout) -> TensorFile:
        """A file for ``layout``, not written yet. Raises ``SharedMemoryError``."""
        for place, file in enumerate(self._kept):
            if file.header == layout.header:
                self._used.add(self._kept.pop(place))
                return file
        self.release_kept()
        try:
            if self._directory is None:
                self._directory = PrivateDirectory(self._parent, _PREFIX)
        except OSError as error:
            raise SharedMemoryError(f"{self._parent} cannot be used: {error}") from error
        self._count += 1
        file = TensorFile(self._directory.path / f"{self._count}.safetensors", layout)
        self._used.add(file)
        return file

    def give_back(self, file: TensorFile, *, release: bool) -> None:
        """Nobody uses ``file`` any longer; with ``release`` it is removed, otherwise kept."""
        self._used.discard(file)
        if release:
            file.close()
        else:
            self._kept.append(file)

    def release_kept(self) -> None:
        """Removes what is kept for later."""
        while self._kept:
            self._kept.pop().close()

    def close(self) -> None:
        """Removes all files and the directory, and what killed processes have left beside it."""
        self.release_kept()
        while self._used:
            self._used.pop().close()
        if self._directory is not None:
            self._directory.close()
            self._directory = None
        sweep(self._parent, _PREFIX)
