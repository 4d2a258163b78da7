"""Directories that end with their process, or when the next one is made after it was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

_LOCK = "owner.lock"
# A directory without a lock is one that is just being made, or whose maker was killed then.
_UNLOCKED_S_MAX = 60.0


class PrivateDirectory:
    """A new directory of mode 0700 in ``parent``, held by a lock until ``close``.

    Making one removes those of the same ``prefix`` and user whose processes have ended. Raises
    ``OSError``.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        sweep(parent, prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._owner = os.getpid()
        # It gets its name when it is locked, so that nobody else ever finds it unlocked.
        new = self.path / f"{_LOCK}.new"
        self._lock = _lock(new, os.O_CREAT)
        new.rename(self.path / _LOCK)

    def close(self) -> None:
        """Removes the directory with all that is in it; nothing in a child of a fork."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        if os.getpid() == self._owner:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(lock)


def _lock(path: Path, flags: int = 0) -> int | None:
    """The locked file, or ``None`` when another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def sweep(parent: Path, prefix: str) -> None:
    """Removes directories of the ``prefix`` and this user whose processes have ended."""
    for path in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if status.st_uid != os.getuid() or not path.is_dir() or path.is_symlink():
                continue
            try:
                lock = _lock(path / _LOCK)
            except FileNotFoundError:
                if time.time() - status.st_mtime > _UNLOCKED_S_MAX:
                    shutil.rmtree(path, ignore_errors=True)
                continue
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
