"""Checkpoints that are read out of the memory of other hosts, which loaded metas name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .daemon_listener import LISTEN_VARIABLE, read_token
from .data_types import MemoryBufferMetaList
from .metas_json import metas_to_json, metas_to_values
from .ps_errors import (
    CheckpointNameError,
    DaemonError,
    DaemonLostError,
    DaemonRefusedError,
    MetasError,
    RankDeadlineError,
)
from .rank_checkpoints import check_name
from .rank_store import WATCH_S

if TYPE_CHECKING:
    from .host_daemon import HostDaemon
    from .metas_json import Metas
    from .rank_store import RankStep

SOURCE_TOKEN_VARIABLE = "CHECKPOINT_ENGINE_SOURCE_TOKEN_FILE"  # noqa: S105 - a variable's name
# How long nothing may arrive from any source.
STALL_S_MAX = 20.0
# Each pull has a process of its own beside the daemon.
_PULLS_AT_ONCE_MAX = 4
# How long the daemon may take to let go of a checkpoint that is still arriving.
_DROP_S_MAX = 15.0
_POLL_S = 0.02
_log = logging.getLogger(__name__)

# Name, type and shape.
Tensor = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True)
class PullPart:
    """What the daemons at ``urls`` have as ``checkpoint``, all of them the same tensors.

    Without URLs it is what lies in the memory of processes that ``memory``, metas as JSON, name.
    """

    checkpoint: str
    urls: tuple[str, ...]
    memory: str = ""

    @property
    def place(self) -> str:
        """Where it is read from, for messages."""
        return ", ".join(self.urls) or "the memory that the metas name"


@dataclass(frozen=True)
class _Pull:
    """What a name stands for since the ``number``-th call of ``load``; read as ``names``."""

    number: int
    parts: tuple[PullPart, ...]
    names: tuple[str, ...]


class RankPulls:
    """What one rank knows of checkpoints of other hosts; the leader of a host has them read."""

    def __init__(self, daemon: HostDaemon, rank: int, *, is_leader: bool) -> None:
        self._daemon = daemon
        self._rank = rank
        self._is_leader = is_leader
        self._metas: Metas | None = None
        self._parts: tuple[PullPart, ...] | None = None
        self._number = 0
        self._asked: dict[str, _Pull] = {}
        # What the daemon was told to read, on the leader.
        self._held: dict[str, _Pull] = {}

    def load(self, metas: Metas) -> None:
        """From here on names that are not registered stand for what ``metas`` describe.

        Raises ``MetasError`` and ``DaemonError``.
        """
        for rank, item in metas.items():
            if not isinstance(item, MemoryBufferMetaList):
                raise MetasError(f"the metas of rank {rank} are a {type(item).__name__}")
        if self._is_leader:
            self._daemon.ensure()
            self._daemon.client.load_metas(metas_to_values(metas))
        self._metas, self._parts = metas, None
        self._number += 1

    def unload(self) -> None:
        """Loaded metas are replaced by gathered ones; what was read already can be used."""
        self._metas = self._parts = None

    def origin(self, name: str) -> str | None:
        """Names what ``name`` is read from, equal on all ranks; ``None`` when nothing was loaded.

        Raises ``MetasError`` when the loaded metas lead nowhere.
        """
        if self._metas is not None:
            check_name(name)
            if self._parts is None:
                self._parts = parts_of(self._metas)
            names: tuple[str, ...] = (name,)
            if len(self._parts) > 1:
                names = tuple(f"{name}.pulled{place}" for place in range(len(self._parts)))
            self._asked[name] = _Pull(self._number, self._parts, names)
        if name not in self._asked:
            return None
        parts = self._asked[name].parts
        values = [[part.checkpoint, part.memory, *part.urls] for part in parts]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()

    def fetch(self, name: str, step: RankStep, seconds: float) -> None:
        """Has the daemon read ``name``, unless it has it; on the leader.

        It returns when the first bytes arrive where all tensors come from the same daemons, when
        everything is there otherwise; within ``seconds``. Raises ``ParameterServerError``.
        """
        pull = self._asked[name]
        self._daemon.ensure()
        if self._held.get(name) == pull and self._has_all(pull, name):
            return
        self.drop(name)
        end = time.monotonic() + seconds
        self._held[name] = pull
        places = range(len(pull.parts))
        threads = min(_PULLS_AT_ONCE_MAX, len(places))
        with ThreadPoolExecutor(threads, "checkpoint-engine-pull") as pool:
            started = [pool.submit(self._read, pull, place, end) for place in places]
            try:
                self._await(started, name, step, end)
                if len(pull.parts) > 1:
                    self._daemon.client.compose(name, list(pull.names))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                own = [place for place in places if not _is_taken(started[place])]
                self._held[name] = replace(pull, names=tuple(pull.names[place] for place in own))
                with contextlib.suppress(DaemonError):
                    self.drop(name)
                raise

    def forget(self, name: str, *, force: bool = False) -> bool:
        """Frees what was read as ``name``; ``False`` if nothing ever was. Raises ``DaemonError``.

        ``force`` gives the memory back, which is kept for the next version otherwise.
        """
        self.drop(name, force=force)
        return self._asked.pop(name, None) is not None

    def drop(self, name: str, *, force: bool = False) -> None:
        """Frees what was read as ``name``; the next update reads it anew."""
        pull = self._held.get(name)
        if pull is None:
            return
        for one in pull.names:
            self._free(one, force=force)
        del self._held[name]

    def close(self) -> None:
        """Frees everything."""
        for name in list(self._held):
            try:
                self.drop(name, force=True)
            except DaemonError as error:
                _log.info("%s is left to the daemon: %s", name, error)
        self._held.clear()
        self._asked.clear()

    def _has_all(self, pull: _Pull, name: str) -> bool:
        client = self._daemon.client
        return all(client.state(one) is not None for one in {name, *pull.names})

    def _read(self, pull: _Pull, place: int, end: float) -> None:
        """One part, on a thread of its own."""
        part, name = pull.parts[place], pull.names[place]
        token = read_token(os.environ.get(SOURCE_TOKEN_VARIABLE), SOURCE_TOKEN_VARIABLE)
        also = {"token": token} if token else {}
        left = max(1.0, end - time.monotonic())
        try:
            if not part.urls:
                # A pull without sources reads what the metas name that were loaded last.
                self._daemon.client.load_metas(json.loads(part.memory))
            self._daemon.client.pull(
                name,
                part.checkpoint or name,
                [{"url": url, **also} for url in part.urls],
                stall=min(STALL_S_MAX, left),
                wait=left if len(pull.parts) > 1 else 0,
            )
        except DaemonLostError as error:
            if not self._daemon.client.is_healthy():
                raise self._daemon.lost(error) from error
            raise RankDeadlineError(
                self._rank, f"{part.checkpoint or name} is not read in time from {part.place}"
            ) from error
        except DaemonRefusedError as error:
            if error.code != "already_exists":
                raise
            raise CheckpointNameError(
                f"{error}. Somebody else has registered it with the same daemon"
            ) from error

    def _await(self, started: list[Future[None]], name: str, step: RankStep, end: float) -> None:
        pending = set(started)
        while pending:
            done, pending = wait(pending, WATCH_S, FIRST_COMPLETED)
            for one in done:
                one.result()
            step.check_peers()
            if pending and time.monotonic() > end + WATCH_S and len(started) > 1:
                raise RankDeadlineError(
                    self._rank, f"{name} has not arrived before the deadline of {step.title}"
                )

    def _free(self, name: str, *, force: bool) -> None:
        """Returns when the daemon has forgotten ``name``: what still arrives is ended first."""
        client = self._daemon.client
        end = time.monotonic() + _DROP_S_MAX
        while True:
            try:
                if not client.unregister(name, release=force):
                    return
            except DaemonRefusedError as error:
                if error.code != "busy" or time.monotonic() > end:
                    raise
            if time.monotonic() > end:
                raise DaemonError(f"the daemon does not forget {name} after {_DROP_S_MAX} s")
            time.sleep(_POLL_S)


def _is_taken(read: Future[None]) -> bool:
    """Whether the name is somebody else's, who keeps it."""
    if not read.done() or read.cancelled():
        return False
    return isinstance(read.exception(), CheckpointNameError)


def parts_of(metas: Metas) -> tuple[PullPart, ...]:
    """What has to be read to have all tensors of ``metas``. Daemons with equal tensors share it.

    Where no rank names a daemon, as in metas of PyPI's package, it is one part: their memory.
    Raises ``MetasError`` when a rank's tensors can be read neither way, or the ranks' in both.
    """
    held = {rank: metas[rank] for rank in sorted(metas) if metas[rank].memory_buffer_metas_list}
    if not held:
        raise MetasError("the metas have no tensors")
    in_memory = [rank for rank, item in held.items() if item.checkpoint_engine is None]
    for rank in in_memory:
        _check_memory(rank, held[rank])
    if len(in_memory) == len(held):
        return (PullPart("", (), metas_to_json(held)),)
    if in_memory:
        at_daemons = [rank for rank in held if rank not in in_memory]
        raise MetasError(
            f"the metas of rank {_numbers(at_daemons)} name daemons, those of rank "
            f"{_numbers(in_memory)} only the memory of processes: what is read has to be all of "
            "one kind; load metas that were gathered by one fleet"
        )
    return _daemon_parts(held)


def _daemon_parts(metas: Metas) -> tuple[PullPart, ...]:
    tensors: dict[tuple[str, str], set[Tensor]] = {}
    for item in metas.values():
        if (source := item.checkpoint_engine) is not None:
            tensors.setdefault((source.checkpoint, source.url), set()).update(_tensors(item))
    urls: dict[tuple[str, frozenset[Tensor]], list[str]] = {}
    for (checkpoint, url), found in tensors.items():
        urls.setdefault((checkpoint, frozenset(found)), []).append(url)
    return tuple(PullPart(checkpoint, tuple(which)) for (checkpoint, _), which in urls.items())


def _check_memory(rank: int, item: MemoryBufferMetaList) -> None:
    """Raises ``MetasError`` when a buffer's address or the session to read it by is missing."""
    if item.p2p_store_addr and all(one.ptr for one in item.memory_buffer_metas_list if one.metas):
        return
    raise MetasError(
        f"the metas name no daemon that the tensors of rank {rank} can be read from, and no memory:"
        " their fleet runs the PyPI package without its P2P store, or a daemon that only its own "
        f"host reaches; start that fleet with {LISTEN_VARIABLE}"
    )


def _numbers(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))


def _tensors(item: MemoryBufferMetaList) -> set[Tensor]:
    return {
        (meta.name, str(meta.dtype), tuple(meta.shape))
        for buffer in item.memory_buffer_metas_list
        for meta in buffer.metas
    }
