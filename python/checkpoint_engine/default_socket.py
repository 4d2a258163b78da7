"""Where the daemon of a user listens that was not told where."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .ps_errors import ArgumentError


def default_socket() -> Path:
    """The socket of this user's ``checkpoint-engine serve`` without ``--uds`` and ``--listen``.

    Raises ``ArgumentError`` when its directory is missing or could be another user's.
    """
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if session.startswith("/"):
        folder = Path(session) / "checkpoint-engine"
    else:
        folder = Path(os.environ.get("CHECKPOINT_ENGINE_RUNTIME_DIR") or "/tmp")  # noqa: S108
        folder /= f"checkpoint-engine-{os.geteuid()}"
    try:
        found = folder.lstat()
    except OSError as error:
        raise ArgumentError(
            f"no daemon of this user listens in {folder} ({error.strerror}): start "
            "'checkpoint-engine serve', or name its socket, unix:PATH"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ArgumentError(
            f"{folder} is no directory that only this user can reach: what listens there may be "
            "another user's; name the daemon's socket, unix:PATH"
        )
    return folder / "daemon.sock"
