"""Mooncake's transfer engine: reads memory of peers over RDMA or TCP."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .transfer_errors import TransferError, TransferSetupError, TransferStalledError
from .transfer_requests import Range

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Longer ranges are read in pieces, several at a time: mooncake refuses batches of more than about
# 2,000 ranges, and its own waiting occupies a core, which this one does not.
PIECE_BYTES = 16 << 20
PIECES_IN_FLIGHT = 8
# A read that fails sooner than this after it began is tried once more, after mooncake's pause: it
# may have met a connection that the peer had closed.
_RETRY_WITHIN_S = 2.0
_RETRY_PAUSE_S = 1.1
# Longer than it takes mooncake to give up all pieces in flight at a peer that stands still.
STALL_S = 60.0
_NAP_S_MIN = 50e-6
_NAP_S_MAX = 500e-6
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
    if ":" in host:
        defaults["MC_USE_IPV6"] = "1"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    # Mooncake chooses the protocol by the devices that it finds, unless this tells otherwise.
    os.environ.pop("MC_FORCE_TCP", None)
    if protocol == "tcp":
        os.environ["MC_FORCE_TCP"] = "1"


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

    def register(self, address: int, byte_count: int) -> None:
        """Lets peers read the memory. Raises ``TransferError``."""
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

    def read(self, session: str, ranges: Iterable[Range]) -> None:
        """Reads ``ranges`` of the peer's memory; blocks until it is done.

        Raises ``TransferError``, and nothing is written any more then; but
        ``TransferStalledError`` when that cannot be said.
        """
        start = time.monotonic()
        left = self._read(session, [piece for one in ranges for piece in pieces(one)])
        if left and time.monotonic() - start < _RETRY_WITHIN_S:
            time.sleep(_RETRY_PAUSE_S)
            left = self._read(session, left)
        if left:
            byte_count = sum(one.byte_count for one in left)
            raise TransferError(
                f"the read from {session} failed with {byte_count} bytes left: the peer has ended, "
                "refuses the addresses, stands still, or its ports (MC_MIN_RPC_PORT … "
                "MC_MAX_RPC_PORT, 15000 … 17000) are closed; this agent's log tells which"
            )

    def _read(self, session: str, wanted: list[Range]) -> list[Range]:
        """Reads until the first failure; the ranges that were not read."""
        todo = deque(wanted)
        left: list[Range] = []
        flying: list[tuple[int, Range]] = []
        nap, progress = _NAP_S_MIN, time.monotonic()
        while flying or (todo and not left):
            while todo and not left and len(flying) < PIECES_IN_FLIGHT:
                one = todo.popleft()
                batch = self._submit(session, one)
                if batch is None:
                    left.append(one)
                else:
                    flying.append((batch, one))
            time.sleep(nap)
            before = len(flying)
            flying = self._unfinished(flying, left)
            if len(flying) < before:
                nap, progress = _NAP_S_MIN, time.monotonic()
            elif time.monotonic() - progress > STALL_S:
                raise TransferStalledError(
                    f"the read from {session} made no progress for {STALL_S:.0f} s; the agent "
                    "ends, so that nothing writes into the memory any more"
                )
            else:
                nap = min(2 * nap, _NAP_S_MAX)
        return left + list(todo)

    def _submit(self, session: str, one: Range) -> int | None:
        batch = self._engine.batch_transfer_async_read(
            session, [one.local], [one.remote], [one.byte_count]
        )
        return None if batch in _NO_BATCH else int(batch)

    def _unfinished(
        self, flying: list[tuple[int, Range]], left: list[Range]
    ) -> list[tuple[int, Range]]:
        """Those of ``flying`` that are still on their way; adds the failed ones to ``left``."""
        unfinished = []
        for batch, one in flying:
            # It frees the batch with these two answers, and with no other.
            status = self._engine.transfer_check_status(batch)
            if status == _FAILED:
                left.append(one)
            elif status != _DONE:
                unfinished.append((batch, one))
        return unfinished


def pieces(one: Range) -> list[Range]:
    """``one`` in pieces of at most ``PIECE_BYTES``."""
    return [
        Range(one.local + at, one.remote + at, min(PIECE_BYTES, one.byte_count - at))
        for at in range(0, one.byte_count, PIECE_BYTES)
    ]
