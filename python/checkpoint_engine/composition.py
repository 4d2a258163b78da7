"""What all ranks have registered under one name, put together on every host."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .metas_json import Metas, aligned, metas_from_values
from .ps_errors import ParameterServerError
from .rank_checkpoints import part_name

if TYPE_CHECKING:
    from .daemon_client import DaemonClient
    from .data_types import MemoryBufferMetaList
    from .host_daemon import HostDaemon
    from .rank_checkpoints import RankCheckpoints
    from .rank_store import RankStep, RankStore

# The safetensors file without a tensor: what a host brings whose ranks have registered nothing.
_EMPTY = (8).to_bytes(8, "little") + b"{}      "


@dataclass(frozen=True)
class Composition:
    """What was gathered under one name.

    ``owners`` are the ranks that have a part, ``daemon`` the one that was told of it; it
    ``is_stale`` when another one runs now.
    """

    owners: tuple[int, ...]
    daemon: str
    is_stale: bool = False


class Compositions:
    """The compositions of one host, kept by its leader and known to all its ranks."""

    def __init__(self, ranks: RankStore, daemon: HostDaemon, own: RankCheckpoints) -> None:
        self._ranks = ranks
        self._daemon = daemon
        self._own = own
        self._made: dict[str, Composition] = {}
        host = ranks.identity.host
        self._local = [one.rank for one in ranks.identities if one.host == host]

    @property
    def is_leader(self) -> bool:
        """Whether this rank speaks for its host."""
        return self._ranks.rank == self._local[0]

    def gather(self, step: RankStep, name: str) -> Metas:
        """Puts the parts of all ranks together; ``step`` has the stages ``parts`` and ``metas``."""
        self._made.pop(name, None)
        daemon = self._own.restore()
        has_part = step.exchange("parts", self._own.has_part(name))
        made = Composition(tuple(rank for rank, has in enumerate(has_part) if has), daemon)
        metas: dict[str, Any] = {}
        if self.is_leader and made.owners:
            self._compose(name, made)
            metas = self._local_metas(name, made)
        answers = step.exchange("metas", metas)
        self._made[name] = made
        merged = {rank: value for answer in answers for rank, value in answer.items()}
        found = metas_from_values(merged)
        return {rank: _aligned(found[rank]) for rank in sorted(found)}

    def has_parts(self, name: str) -> bool:
        """Whether a rank has registered something as ``name``, as far as this one knows."""
        made = self._made.get(name)
        return self._own.has_part(name) or (made is not None and bool(made.owners))

    def restore(self, name: str) -> None:
        """Makes sure that the daemon knows ``name``. Raises ``ParameterServerError``."""
        made = self._made.get(name)
        if made is None:
            raise ParameterServerError(
                f"{name} has not been gathered; call gather_metas({name!r}) on all ranks first, or "
                "load_metas with the metas of those who have it"
            )
        if not made.owners:
            raise ParameterServerError(f"no rank has registered anything as {name}")
        daemon = self._own.restore()
        if daemon != made.daemon:
            self._made[name] = Composition(made.owners, daemon, is_stale=True)

    def recompose(self, name: str) -> None:
        """Puts ``name`` together again where the daemon was started anew; all parts are there."""
        made = self._made[name]
        if made.is_stale:
            if self.is_leader:
                self._compose(name, made)
            self._made[name] = replace(made, is_stale=False)

    def forget(self, name: str) -> None:
        """This rank's part of ``name`` is gone, and with it what it was in."""
        self._made.pop(name, None)

    def _compose(self, name: str, made: Composition) -> None:
        client = self._daemon.client
        parts = [part_name(name, rank) for rank in self._local if rank in made.owners]
        if not parts:
            parts = [self._register_empty(client, name)]
        client.compose(name, parts)

    def _register_empty(self, client: DaemonClient, name: str) -> str:
        part = f"{name}.empty"
        client.unregister(part, release=False)
        path = self._daemon.folder / "empty.safetensors"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(_EMPTY)
        client.register(part, [str(path)], timeout=60)
        return part

    def _local_metas(self, name: str, made: Composition) -> dict[str, Any]:
        client = self._daemon.client
        found: dict[str, Any] = {}
        for rank in self._local:
            if rank in made.owners:
                values = client.metas(part_name(name, rank))["0"]
                if "checkpoint_engine" in values:  # the parts are read together
                    values["checkpoint_engine"]["checkpoint"] = name
                found[str(rank)] = values
        return found


def _aligned(item: MemoryBufferMetaList) -> MemoryBufferMetaList:
    if item.p2p_store_addr is not None:
        return item  # the sizes tell peers where the tensors lie
    for buffer in item.memory_buffer_metas_list:
        for meta in buffer.metas:
            meta.aligned_size = aligned(meta.aligned_size)
        buffer.size = sum(meta.aligned_size for meta in buffer.metas)
    return item
