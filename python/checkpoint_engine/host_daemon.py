"""The one daemon of a host as each rank on it sees it: found or started by one, used by all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .daemon_listener import DaemonListener, daemon_client
from .daemon_process import (
    START_S_MAX,
    DaemonProcess,
    DaemonSetup,
    runtime_directory,
    stop_daemon,
)
from .private_directory import PrivateDirectory
from .ps_errors import DaemonLostError, DaemonStartError
from .rank_identity import has_ended

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .daemon_client import DaemonClient
    from .rank_identity import RankIdentity
    from .rank_store import RankStore

ADDRESS_VARIABLE = "CHECKPOINT_ENGINE_DAEMON"
TOKEN_VARIABLE = "CHECKPOINT_ENGINE_DAEMON_TOKEN_FILE"  # noqa: S105 - the name of a variable
_PREFIX = "checkpoint-engine-ps-"
_GROUP_FLAG = "--rendezvous"
# Longer paths are no addresses of unix sockets.
_SOCKET_BYTES_MAX = 100
_POLL_S = 0.01


class HostDaemon:
    """The daemon of this host. ``setup`` is ``None`` for one that somebody else has started.

    The lowest rank of the host is its leader: it has a private directory, and stops the daemon.
    """

    def __init__(
        self,
        client: DaemonClient,
        setup: DaemonSetup | None,
        directory: PrivateDirectory | None = None,
    ) -> None:
        self.client = client
        self._setup = setup
        self._directory = directory
        self._process: DaemonProcess | None = None

    def ensure(self) -> str:
        """Starts the daemon again if it is gone; tells which one it is now.

        What was registered with another one is lost. Raises ``DaemonError``.
        """
        if not self._is_up():
            if self._setup is None:
                raise DaemonLostError(
                    f"the daemon at {self.client.address.text}, which {ADDRESS_VARIABLE} names, "
                    "does not answer; start it again"
                )
            if has_ended(*self._setup.owner):
                raise DaemonLostError(
                    f"the rank that the daemon of this host belongs to (pid {self._setup.owner[0]})"
                    " has ended, and the daemon with it; start all ranks again"
                )
            with _locked(self._setup.socket.with_suffix(".lock")):
                if not self._is_up():
                    self._process = DaemonProcess(self._setup)
        if self._setup is None:
            return ""
        with contextlib.suppress(OSError):
            return self._setup.process.read_text()
        return ""

    def _is_up(self) -> bool:
        return (self._setup is None or self._setup.is_running) and self.client.is_healthy()

    def lost(self, error: DaemonLostError) -> DaemonLostError:
        """``error`` with the end of the daemon's log."""
        tail = "" if self._setup is None else self._setup.log_tail()
        return DaemonLostError(f"{error}; it printed last:\n{tail}") if tail else error

    @property
    def is_grouped(self) -> bool:
        """Whether it delivers together with the daemons of the job's other hosts.

        Of a daemon that somebody else has started nobody here knows: ``False``.
        """
        setup = self._setup
        return setup is not None and setup.device == "cuda" and _GROUP_FLAG in setup.flags

    @property
    def folder(self) -> Path:
        """The leader's private directory."""
        if self._directory is None:
            raise DaemonLostError("this rank is not the leader of its host, or is closed")
        return self._directory.path

    def close(self) -> None:
        """Stops the daemon, on the leader; elsewhere nothing."""
        if self._directory is not None:
            if self._setup is not None:
                stop_daemon(self._setup)
            self._directory.close()
            self._directory = None


def join_daemon(ranks: RankStore, device: str, master_address: str, timeout: float) -> HostDaemon:
    """Finds or starts the daemon of each host; a step of all ranks.

    ``device`` is ``cuda`` or ``host``. Raises ``DaemonError`` on the leader that fails,
    ``RankFailedError`` elsewhere.
    """
    leaders = leaders_of(ranks.identities)
    own = ranks.identities[leaders[ranks.identity.host]]
    hosts = sorted(leaders.values())
    with ranks.step("start of the daemons", ["meeting place", "daemon"], timeout) as step:
        place: dict[str, Any] | None = None
        if ranks.rank == 0 and len(hosts) > 1:
            port = _free_port()
            place = {"at": f"{_bracketed(master_address)}:{port}", "token": secrets.token_hex(32)}
        place = step.exchange("meeting place", place)[0]
        daemon: HostDaemon | None = None
        try:
            if ranks.rank == own.rank:
                daemon = _find_or_start(ranks, device, place, hosts)
            values = step.exchange("daemon", None if daemon is None else _values(daemon))
        except BaseException:
            if daemon is not None:
                daemon.close()
            raise
    return daemon or _from_values(values[own.rank])


def leaders_of(identities: list[RankIdentity]) -> dict[str, int]:
    """The lowest rank of each host."""
    leaders: dict[str, int] = {}
    for identity in sorted(identities, key=lambda one: one.rank):
        leaders.setdefault(identity.host, identity.rank)
    return leaders


def _find_or_start(
    ranks: RankStore, device: str, place: dict[str, Any] | None, hosts: list[int]
) -> HostDaemon:
    try:
        directory = PrivateDirectory(runtime_directory(), _PREFIX)
    except OSError as error:
        raise DaemonStartError(f"{runtime_directory()} cannot be used: {error}") from error
    try:
        if named := os.environ.get(ADDRESS_VARIABLE):
            client = daemon_client(named, os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE)
            client.check_version(__version__)
            return HostDaemon(client, None, directory)
        path = directory.path / "ps.sock"
        if len(os.fsencode(path)) > _SOCKET_BYTES_MAX:
            raise DaemonStartError(
                f"{path} is too long for a socket; set CHECKPOINT_ENGINE_RUNTIME_DIR to a shorter "
                "path"
            )
        flags = _host_flags(directory.path, place, hosts.index(ranks.rank), len(hosts))
        local = [peer for peer in ranks.identities if peer.host == ranks.identity.host]
        owner = (ranks.identity.pid, ranks.identity.start)
        listener = DaemonListener.from_environment()
        setup = DaemonSetup(path, owner, device, _visible_gpus(local), flags, listener)
        daemon = HostDaemon(setup.client, setup, directory)
        daemon.ensure()
    except BaseException:
        directory.close()
        raise
    return daemon


def _host_flags(
    folder: Path, place: dict[str, Any] | None, host: int, count: int
) -> tuple[str, ...]:
    if place is None:
        return ()
    token = folder / "rendezvous-token"
    with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(place["token"])
    flags = [_GROUP_FLAG, place["at"], "--hosts", str(count), "--host-rank", str(host)]
    return (*flags, "--rendezvous-token-file", str(token))


def _visible_gpus(local: list[RankIdentity]) -> str | None:
    """The GPUs that any of the host's ranks sees; ``None`` where one sees all."""
    lists = [peer.visible_gpus for peer in local]
    if any(one is None for one in lists):
        return None
    names = [name.strip() for one in lists if one for name in one.split(",")]
    return ",".join(dict.fromkeys(names))


def _values(daemon: HostDaemon) -> dict[str, Any]:
    setup = daemon._setup  # noqa: SLF001 - this module's own class
    if setup is None:
        token = os.environ.get(TOKEN_VARIABLE)
        return {"address": daemon.client.address.text, "token_file": token}
    return {
        "socket": str(setup.socket),
        "owner": setup.owner,
        "device": setup.device,
        "gpus": setup.gpus,
        "flags": list(setup.flags),
        "listener": None if setup.listener is None else asdict(setup.listener),
    }


def _from_values(values: dict[str, Any]) -> HostDaemon:
    if "address" in values:
        client = daemon_client(values["address"], values["token_file"], TOKEN_VARIABLE)
        return HostDaemon(client, None)
    listener = values["listener"]
    setup = DaemonSetup(
        Path(values["socket"]),
        (values["owner"][0], values["owner"][1]),
        values["device"],
        values["gpus"],
        tuple(values["flags"]),
        None if listener is None else DaemonListener(**listener),
    )
    return HostDaemon(setup.client, setup)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock of the file ``path``, waiting for it at most as long as a start may take."""
    end = time.monotonic() + START_S_MAX
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DaemonLostError(
            f"the daemon was stopped with the rank that had started it ({error}); make a new "
            "ParameterServer on all ranks"
        ) from error
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise DaemonStartError("another rank does not end its start") from None
                time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        port: int = listener.getsockname()[1]
        return port
