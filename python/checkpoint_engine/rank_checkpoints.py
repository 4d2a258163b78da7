"""What one rank has registered with the daemon of its host."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .daemon_process import shared_memory_directory
from .ps_errors import (
    ArgumentError,
    CheckpointNameError,
    DaemonError,
    DaemonLostError,
    DaemonRefusedError,
    FileKindError,
)
from .tensor_copy import thread_count
from .tensor_file import TensorFile, TensorFiles
from .tensor_layout import layout_of

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import torch

    from .host_daemon import HostDaemon

# Files on a slow disk may take long; the daemon answers when they are read.
REGISTER_S_MAX = 3600.0
_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,107}"
_log = logging.getLogger(__name__)


@dataclass
class _Part:
    """What this rank has of one checkpoint; ``daemon`` is the one that knows it."""

    files: list[str]
    tensor_file: TensorFile | None
    daemon: str

    @property
    def all_files(self) -> list[str]:
        own = [] if self.tensor_file is None else [str(self.tensor_file.path)]
        return [*self.files, *own]


class RankCheckpoints:
    """The checkpoints of one rank, and their tensors in shared memory."""

    def __init__(self, daemon: HostDaemon, rank: int, local_count: int) -> None:
        """``local_count`` ranks share this host's cores."""
        self._daemon = daemon
        self._rank = rank
        self._local_count = local_count
        self._files = TensorFiles(shared_memory_directory())
        self._parts: dict[str, _Part] = {}

    def register(
        self,
        name: str,
        files: Sequence[str | os.PathLike[str]],
        named_tensors: Mapping[str, torch.Tensor],
    ) -> None:
        """Registers files and tensors as this rank's part of the checkpoint ``name``.

        Raises ``ParameterServerError``; nothing is registered then, and what was stays so.
        """
        check_name(name)
        if name in self._parts:
            raise CheckpointNameError(
                f"rank {self._rank} has registered {name} already; unregister it first, or choose "
                "another name"
            )
        paths = [_checked_path(file) for file in files]
        layout = layout_of(named_tensors) if named_tensors else None
        part = _Part(paths, None, self._daemon.ensure())
        if layout is not None:
            part.tensor_file = self._files.take(layout)
        try:
            if layout is not None and part.tensor_file is not None:
                part.tensor_file.write(layout, thread_count(self._local_count))
            self._tell(name, part)
        except BaseException:
            if part.tensor_file is not None:
                self._files.give_back(part.tensor_file, release=False)
            raise
        self._parts[name] = part

    def unregister(self, name: str, *, force: bool) -> None:
        """Forgets ``name``; with ``force`` all memory that is kept for later is given back."""
        part = self._parts.get(name)
        if part is None:
            _log.warning("rank %d has not registered %s", self._rank, name)
        else:
            if part.all_files:
                try:
                    self._daemon.client.unregister(self.part_name(name), release=force)
                except DaemonLostError:
                    _log.warning("the daemon that knew %s is gone", name)
            del self._parts[name]
            if part.tensor_file is not None:
                self._files.give_back(part.tensor_file, release=force)
        if force:
            self._files.release_kept()

    def part_name(self, name: str) -> str:
        """What this rank's part of ``name`` is called at the daemon."""
        return part_name(name, self._rank)

    def has_part(self, name: str) -> bool:
        """Whether this rank has registered anything as ``name``."""
        return name in self._parts and bool(self._parts[name].all_files)

    def knows(self, name: str) -> bool:
        """Whether this rank has registered ``name``, be it with nothing."""
        return name in self._parts

    def restore(self) -> str:
        """Registers everything again with a daemon that was started anew; tells which it is."""
        daemon = self._daemon.ensure()
        for name, part in self._parts.items():
            if part.daemon != daemon:
                part.daemon = daemon
                self._tell(name, part)
        return daemon

    def close(self) -> None:
        """Forgets everything and removes the tensors from shared memory."""
        for name, part in self._parts.items():
            if part.all_files:
                try:
                    self._daemon.client.unregister(self.part_name(name), release=True)
                except DaemonError as error:
                    _log.info("%s is left to the daemon: %s", name, error)
        self._parts.clear()
        self._files.close()

    def _tell(self, name: str, part: _Part) -> None:
        if not part.all_files:
            return
        try:
            self._daemon.client.register(self.part_name(name), part.all_files, REGISTER_S_MAX)
        except DaemonLostError as error:
            raise self._daemon.lost(error) from error
        except DaemonRefusedError as error:
            if error.code != "already_exists":
                raise
            raise CheckpointNameError(
                f"{error}. Somebody else has registered it with the same daemon"
            ) from error


def part_name(name: str, rank: int) -> str:
    """What the part of ``rank`` of the checkpoint ``name`` is called at the daemon."""
    return f"{name}.rank{rank}"


def check_name(name: object) -> None:
    """Raises ``ArgumentError`` when no checkpoint can be called ``name``."""
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        raise ArgumentError(
            f"{name!r} cannot be the name of a checkpoint: expected 1 to 108 characters of A-Z a-z "
            "0-9 . _ - that do not start with a dot"
        )


def _checked_path(file: str | os.PathLike[str]) -> str:
    path = Path(file).absolute()
    kinds = (".safetensors", ".safetensors.index.json")
    if not path.name.endswith(kinds) and not path.is_dir():
        raise FileKindError(
            f"{path} is neither a directory nor a file that ends in {' or '.join(kinds)}; convert "
            "it to safetensors first"
        )
    return str(path)
