"""Mooncake's transfer engine: reads memory of peers over RDMA or TCP."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .transfer_errors import TransferError, TransferSetupError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .transfer_requests import Range

# What `batch_transfer_async_read` returns in the place of a batch, in one version or another.
_NO_BATCH = (0, 2**64 - 1)
_DONE = 1
_FAILED = -1

_DEFAULTS = {
    "MC_LOG_LEVEL": "WARNING",
    # A peer that stands still is given up after this time, not after half a minute.
    "MC_TCP_PROGRESS_TIMEOUT_SEC": "10",
    "MC_TCP_STATUS_TIMEOUT_SEC": "10",
}
_PACKAGES = {
    "libibverbs.so.1": "libibverbs1",
    "libnuma.so.1": "libnuma1",
    "libcurl.so.4": "libcurl4",
}


def set_environment(protocol: str, host: str) -> None:
    """Sets mooncake's variables, once, before it is loaded; those that are set already stay."""
    defaults = dict(_DEFAULTS)
    # It resolves peers' addresses in one family alone: with IPv6 those of IPv4 are written as IPv6,
    # so that an agent reaches both. Its own ports are open for both then.
    if ":" in host or (protocol == "tcp" and has_ipv6()):
        defaults["MC_USE_IPV6"] = "1"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    # Mooncake chooses the protocol by the devices that it finds, unless this tells otherwise.
    os.environ.pop("MC_FORCE_TCP", None)
    if protocol == "tcp":
        os.environ["MC_FORCE_TCP"] = "1"


def has_ipv6() -> bool:
    """Whether this host has IPv6, with ports that IPv4 reaches too."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


@functools.lru_cache(maxsize=1024)
def reachable(session: str, uses_ipv6: bool) -> str:  # noqa: FBT001 - a mode of mooncake's
    """The name of the peer ``session`` for mooncake, which resolves in one address family alone.

    Raises ``TransferError`` where the peer has no address of it.
    """
    host, _, port = session.rpartition(":")
    if not uses_ipv6:
        if host.startswith("["):
            raise TransferError(
                f"{session} is an address of IPv6, and this host's agent has none: set "
                "--transfer-host to an IPv6 address of this host, or have the peer tell an IPv4 "
                "address with its own --transfer-host"
            )
        return session
    if host.startswith("["):
        return session
    with contextlib.suppress(ValueError):
        return f"[::ffff:{ipaddress.IPv4Address(host)}]:{port}"
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET6, flags=socket.AI_V4MAPPED)
    except OSError as error:
        raise TransferError(f"{host} of {session} cannot be resolved: {error}") from error
    return f"[{found[0][4][0]}]:{port}"


def _load() -> Any:
    """Mooncake's class. Raises ``TransferSetupError``."""
    try:
        from mooncake.engine import TransferEngine
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mooncake":
            raise TransferSetupError(f"mooncake-transfer-engine is broken: {error}") from error
        raise TransferSetupError(
            "mooncake-transfer-engine is not installed; pip install 'checkpoint-engine-native[p2p]'"
        ) from error
    except ImportError as error:
        raise TransferSetupError(_missing_library(str(error))) from error
    return TransferEngine


def _missing_library(text: str) -> str:
    found = re.match(r"(\S+): cannot open shared object file", text)
    name = found[1] if found else ""
    if name in _PACKAGES:
        return (
            f"mooncake-transfer-engine needs {name}, which is in Debian's {_PACKAGES[name]}: "
            f"apt-get install {' '.join(_PACKAGES.values())}"
        )
    if name.startswith("libcu"):
        return (
            f"the installed mooncake-transfer-engine needs CUDA's {name}, which is not here; "
            "install mooncake-transfer-engine-cuda13 or mooncake-transfer-engine-non-cuda in its "
            "place"
        )
    return f"mooncake-transfer-engine cannot be loaded: {text}"


def _version() -> str:
    """The installed version, by the name of the folder that describes it."""
    import mooncake

    for packages in {Path(one).parent for one in mooncake.__path__}:
        for found in packages.glob("mooncake_transfer_engine*.dist-info"):
            return found.name.removesuffix(".dist-info").partition("-")[2]
    return "unknown"


class Engine:
    """One transfer engine with its listening ports, which end with the process."""

    def __init__(self, host: str, protocol: str, devices: Sequence[str]) -> None:
        """Starts it; ``protocol`` is ``tcp`` or ``rdma``. Raises ``TransferSetupError``."""
        set_environment(protocol, host)
        engine = _load()()
        address = f"[{host}]" if ":" in host else host
        code = engine.initialize(address, "P2PHANDSHAKE", protocol, ",".join(devices))
        if code != 0:
            raise TransferSetupError(
                f"mooncake cannot start on {host} with {protocol} ({code}); the lines above in the "
                "log tell why. It needs two free ports in MC_MIN_RPC_PORT … MC_MAX_RPC_PORT "
                "(15000 … 17000)"
            )
        self._engine = engine
        self.session = f"{address}:{engine.get_rpc_port()}"
        self.version = _version()
        # The network card may be told to write, so that it refuses memory that it must not write.
        self.needs_writable = protocol == "rdma"
        # It is also the card that writes what is read; over TCP this process does.
        self.registers_targets = protocol == "rdma"

    def register(self, address: int, byte_count: int) -> None:
        """Lets peers read the memory, and write it if it is writable. Raises ``TransferError``."""
        code = self._engine.batch_register_memory([address], [byte_count])
        if code != 0:
            raise TransferError(
                f"mooncake cannot register {byte_count} bytes ({code}); with RDMA the limit of "
                "locked memory (ulimit -l) must be at least as large"
            )

    def unregister(self, address: int) -> None:
        """Ends what ``register`` began. Raises ``TransferError``."""
        code = self._engine.batch_unregister_memory([address])
        if code != 0:
            raise TransferError(f"mooncake cannot unregister the memory at {address} ({code})")

    def submit(self, session: str, one: Range) -> int | None:
        """Begins to read a range of the peer's memory; its batch, ``None`` where it is refused.

        Over TCP the memory here needs no registration. Raises ``TransferError`` for a peer that
        cannot be reached from an agent of this host's address family.
        """
        peer = reachable(session, os.environ.get("MC_USE_IPV6") == "1")
        batch = self._engine.batch_transfer_async_read(
            peer, [one.local], [one.remote], [one.byte_count]
        )
        return None if batch in _NO_BATCH else int(batch)

    def outcome(self, batch: int) -> bool | None:
        """Whether a batch succeeded, ``None`` while it is on its way; not to be asked again then.

        Nothing is written any more after either answer.
        """
        # It frees the batch with these two answers, and with no other.
        status = self._engine.transfer_check_status(batch)
        return {_DONE: True, _FAILED: False}.get(status)
