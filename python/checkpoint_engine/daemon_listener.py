"""Where the daemon of a parameter server listens when other hosts shall read from it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .daemon_client import DaemonAddress, DaemonClient
from .default_socket import default_socket
from .ps_errors import ArgumentError

LISTEN_VARIABLE = "CHECKPOINT_ENGINE_LISTEN"
TOKEN_VARIABLE = "CHECKPOINT_ENGINE_TOKEN_FILE"  # noqa: S105 - the name of a variable
NO_TOKEN_VARIABLE = "CHECKPOINT_ENGINE_NO_TOKEN"  # noqa: S105 - the name of a variable
_REACHED_VARIABLES = ("CHECKPOINT_ENGINE_TRANSFER_HOST", "CHECKPOINT_ENGINE_ADVERTISE_URL")
# All addresses of a machine, and the one at which its own processes reach it.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here
_LISTENING = "0A"


@dataclass(frozen=True)
class DaemonListener:
    """``address`` is ``HOST:PORT``; ``token_file`` has what requests carry, ``None`` nothing."""

    address: str
    token_file: str | None

    @classmethod
    def from_environment(cls) -> DaemonListener | None:
        """What ``CHECKPOINT_ENGINE_LISTEN`` says, ``None`` without it. Raises ``ArgumentError``."""
        address = os.environ.get(LISTEN_VARIABLE)
        if not address:
            return None
        named = os.environ.get(TOKEN_VARIABLE)
        token_file = str(Path(named).absolute()) if named else None
        listener = cls(address, token_file)
        host, _ = listener._place
        if host in _LOOPBACK and not any(map(os.environ.get, _REACHED_VARIABLES)):
            raise ArgumentError(
                f"{LISTEN_VARIABLE} is {address}, which does not tell other hosts where this one "
                f"is: name the host's own address there, or set {_REACHED_VARIABLES[0]} to it"
            )
        if token_file is None and not os.environ.get(NO_TOKEN_VARIABLE):
            raise ArgumentError(
                f"{LISTEN_VARIABLE} is {address}, where others could give orders: set "
                f"{TOKEN_VARIABLE} to a file with a secret, or on a loopback address "
                f"{NO_TOKEN_VARIABLE}=true to let every user of this machine"
            )
        return listener

    @property
    def flags(self) -> list[str]:
        """For ``checkpoint-engine serve``."""
        token = ["--no-token"] if self.token_file is None else ["--token-file", self.token_file]
        return ["--listen", self.address, *token]

    @property
    def client(self) -> DaemonClient:
        """A client on the same host. Raises ``ArgumentError``."""
        host, port = self._place
        host = _LOOPBACK.get(host, host)
        bracketed = f"[{host}]" if ":" in host else host
        return daemon_client(f"http://{bracketed}:{port}", self.token_file, TOKEN_VARIABLE)

    def is_held_by(self, pid: int) -> bool:
        """Whether the process ``pid`` is the one that listens there."""
        _, port = self._place
        try:
            sockets = set(map(_target, Path(f"/proc/{pid}/fd").iterdir()))
            lines = [
                line.split()
                for kind in ("tcp", "tcp6")
                for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]
            ]
        except OSError:
            return False
        return any(
            fields[3] == _LISTENING
            and int(fields[1].rpartition(":")[2], 16) == port
            and f"socket:[{fields[9]}]" in sockets
            for fields in lines
        )

    @property
    def _place(self) -> tuple[str, int]:
        url = urlsplit(f"//{self.address}")
        try:
            host, port = url.hostname, url.port
        except ValueError:
            host, port = None, None
        if not host or not port:
            raise ArgumentError(
                f"{LISTEN_VARIABLE} is {self.address!r}: expected HOST:PORT, with a port above 0"
            )
        return host, port


def daemon_client(address: str, token_file: str | None, variable: str) -> DaemonClient:
    """A client for ``address`` with the token of a file that ``variable`` names.

    The address ``unix:`` is that of this user's daemon that was not told where to listen.
    """
    if address == "unix:":
        address = f"unix:{default_socket()}"
    return DaemonClient(DaemonAddress(address), read_token(token_file, variable))


def read_token(path: str | None, variable: str) -> str | None:
    """The token in the file ``path``, which ``variable`` names. Raises ``ArgumentError``."""
    try:
        return Path(path).read_text().strip() if path else None
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{variable} cannot be read: {error}") from error


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""  # closed meanwhile
