"""One update by all ranks: sockets from the daemons, the engines' calls, the end on every host."""

from __future__ import annotations

import contextlib
import threading
import traceback
from typing import TYPE_CHECKING, Any

from .ps_errors import (
    ArgumentError,
    DaemonError,
    DaemonLostError,
    ParameterServerError,
    RankDeadlineError,
    RankUpdateError,
)
from .rank_store import WATCH_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from .composition import Compositions
    from .host_daemon import HostDaemon
    from .rank_identity import RankIdentity
    from .rank_pulls import RankPulls
    from .rank_store import RankStep, RankStore

SocketPaths = list[tuple[str, str]]

STAGES = ("plan", "sockets", "end")
# What is left after the daemon's own deadline, for its error to arrive.
GRACE_S = 15.0
# How long a call may go on after the update has ended before it is left alone.
CALL_END_S = 5.0
# How long the daemon may take to end an update that is cancelled.
CANCEL_S = 15
_POLL_S = 20
# What an update gets at least when reading from other hosts has taken long.
_OPEN_S_MIN = 1.0
_ERROR_CHARACTERS_MAX = 100_000


class UpdateStep:
    """One rank's part in one update."""

    def __init__(
        self,
        ranks: RankStore,
        daemon: HostDaemon,
        compositions: Compositions,
        pulls: RankPulls,
        step: RankStep,
    ) -> None:
        self._ranks = ranks
        self._daemon = daemon
        self._compositions = compositions
        self._pulls = pulls
        self._step = step
        # The checkpoint's name when it is read from other hosts.
        self._pulled: str | None = None
        # Whether the daemons of a group update without each other.
        self._alone = False
        self._host = ranks.identity.host
        # The update of this host, which has to be ended when the step fails on this rank.
        self._update: str | None = None

    def run(
        self,
        name: str,
        worker: str,
        receivers: list[int] | None,
        req_func: Callable[[SocketPaths], object],
        timeout: float,
    ) -> None:
        """Takes part as the rank whose engine worker is called ``worker``.

        ``receivers`` are the ranks whose workers are updated, ``None`` for all; ``timeout`` in
        seconds. Raises ``ParameterServerError`` and ``RankUpdateError``.
        """
        check_receivers(receivers, self._ranks.world_size)
        plan = {
            "worker": worker,
            "receivers": receivers,
            "pull": self._origin(name),
            "grouped": self._daemon.is_grouped,
        }
        plans = self._step.exchange("plan", plan)
        if any(other["receivers"] != receivers for other in plans):
            raise ArgumentError(
                "the ranks disagree on `ranks`: "
                + ", ".join(f"rank {rank}: {one['receivers']}" for rank, one in enumerate(plans))
            )
        if any(other["pull"] != plan["pull"] for other in plans):
            raise ArgumentError(
                f"the ranks disagree on where {name} is read from: call load_metas with the same "
                "metas on all of them"
            )
        chosen = receivers or list(range(self._ranks.world_size))
        self._alone = self._goes_alone(name, chosen, grouped=any(one["grouped"] for one in plans))
        local = [rank for rank in chosen if self._ranks.identities[rank].host == self._host]
        workers = [one["worker"] for one in plans]
        try:
            updates = self._open(name, [workers[rank] for rank in local], local, timeout)
            self._follow(updates, workers, local, req_func)
            self._step.exchange("end", None)
        except BaseException as error:
            self._cancel(error)
            raise

    def _origin(self, name: str) -> str | None:
        """Names what is read from other hosts; ``None`` for what was registered here."""
        if not self._compositions.has_parts(name):
            origin = self._pulls.origin(name)
            if origin is not None:
                self._pulled = name
                return origin
        self._compositions.restore(name)
        return None

    def _goes_alone(self, name: str, chosen: list[int], *, grouped: bool) -> bool:
        """Whether the hosts of ``chosen`` update without those that ``chosen`` leave out.

        Raises ``ArgumentError``, on every rank the same, where they cannot: daemons that are
        ``grouped`` deliver together what the ranks have registered.
        """
        left_out = hosts_left_out(self._ranks.identities, chosen)
        if left_out and grouped and self._pulled is None:
            raise ArgumentError(
                f"`ranks` name no rank of {', '.join(left_out)}, but the daemons of all hosts of "
                f"this job deliver {name} together, as its ranks have registered it: name a rank "
                "of each host, or load the metas of daemons that have all of it, so that each host "
                "reads it for itself"
            )
        return bool(left_out) and self._pulled is not None

    def _open(
        self, name: str, workers: list[str], local: list[int], timeout: float
    ) -> list[dict[str, Any]]:
        """The open updates of all hosts, from their leaders."""
        opened: dict[str, Any] | None = None
        receives = self._compositions.is_leader and bool(local)
        if self._pulled is None:
            self._compositions.recompose(name)
        elif receives:
            self._pulls.fetch(name, self._step, timeout)
        if receives:
            client = self._daemon.client
            seconds = max(_OPEN_S_MIN, min(timeout, self._step.seconds_left - GRACE_S))
            update, sockets = client.open_update(
                name, workers, len(local), seconds, alone=self._alone
            )
            self._update = update
            opened = {
                "host": self._host,
                "update": update,
                "sockets": dict(zip(map(str, local), sockets, strict=True)),
            }
        answers = self._step.exchange("sockets", opened)
        return [answer for answer in answers if answer is not None]

    def _follow(
        self,
        updates: list[dict[str, Any]],
        workers: list[str],
        local: list[int],
        req_func: Callable[[SocketPaths], object],
    ) -> None:
        """Calls the engine, if this rank has one, and waits for the end of this host's update."""
        sockets: dict[str, str] = {}
        for one in updates:
            sockets |= one["sockets"]
        paths = [(worker, sockets.get(str(rank), "")) for rank, worker in enumerate(workers)]
        update = next((one["update"] for one in updates if one["host"] == self._host), None)
        if update is None:
            return
        self._update = update
        call: _EngineCall | None = None
        if self._ranks.rank in local:
            numbers = (local.index(self._ranks.rank), self._ranks.rank)
            call = _EngineCall(self._daemon, update, numbers, req_func, paths)
            call.start()
        watch = _Watch(self._daemon, update)
        watch.start()
        self._wait(watch)
        if call is not None:
            call.join(CALL_END_S)
        self._check(watch, call)

    def _wait(self, watch: _Watch) -> None:
        while not watch.ended.wait(WATCH_S):
            self._step.check_peers()
            if self._step.seconds_left == 0:
                raise RankDeadlineError(
                    self._ranks.rank, f"{self._step.title} did not end before its deadline"
                )

    def _check(self, watch: _Watch, call: _EngineCall | None) -> None:
        """Raises why the update has failed, if it has."""
        if watch.failure is not None:
            if isinstance(watch.failure, DaemonLostError):
                raise self._daemon.lost(watch.failure) from watch.failure
            raise watch.failure
        status = watch.status
        if status.get("state") == "succeeded":
            return
        self._step.check_peers()
        error = status.get("error") or {}
        if self._pulled is not None and error.get("code") == "source_failed":
            with contextlib.suppress(DaemonError):
                self._pulls.drop(self._pulled)
        text = f"{self._step.title} failed: {error.get('message')} ({error.get('code')})"
        if cause := error.get("cause"):
            text = f"{text}\n{cause}"
        raised = call.raised if call is not None else None
        raise RankUpdateError(text, self._ranks.rank if raised else None) from raised

    def _cancel(self, error: BaseException) -> None:
        """Ends the update and waits until the daemon has, so that the next call finds it free."""
        update, self._update = self._update, None
        if update is not None:
            reason = str(error) or type(error).__name__
            with contextlib.suppress(DaemonError):
                self._daemon.client.cancel_update(update, reason)
                self._daemon.client.wait_for_update(update, CANCEL_S)


def check_receivers(receivers: list[int] | None, world_size: int) -> None:
    """Raises ``ArgumentError`` when ``receivers`` cannot be ranks of the world."""
    if receivers is None:
        return
    if len(set(receivers)) != len(receivers):
        raise ArgumentError(f"a rank stands twice in `ranks`: {receivers}")
    for rank in receivers:
        if not 0 <= rank < world_size:
            raise ArgumentError(f"{rank!r} in `ranks` is no rank of a world of {world_size}")


def hosts_left_out(identities: list[RankIdentity], chosen: list[int]) -> list[str]:
    """The hosts of which no rank is ``chosen``, as messages name them."""
    ranks: dict[str, list[RankIdentity]] = {}
    for one in identities:
        ranks.setdefault(one.host, []).append(one)
    kept = {identities[rank].host for rank in chosen}
    return [
        f"the host {found[0].host_name} (rank {', '.join(str(one.rank) for one in found)})"
        for host, found in ranks.items()
        if host not in kept
    ]


class _EngineCall(threading.Thread):
    """Runs ``req_func`` of one rank and tells the daemon how it has ended."""

    def __init__(
        self,
        daemon: HostDaemon,
        update: str,
        call: tuple[int, int],
        req_func: Callable[[SocketPaths], object],
        paths: SocketPaths,
    ) -> None:
        """``call`` is its number in the update, and the rank that makes it."""
        super().__init__(name="checkpoint-engine-call", daemon=True)
        self.raised: BaseException | None = None
        self._daemon = daemon
        self._update = update
        self._index, self._rank = call
        self._req_func = req_func
        self._paths = paths

    def run(self) -> None:
        text: str | None = None
        try:
            self._req_func(self._paths)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the update must end
            self.raised = error
            lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            summary = f"req_func of rank {self._rank} raised {type(error).__name__}: {error}"
            text = f"{summary}\n{lines}"[:_ERROR_CHARACTERS_MAX]
        # The update may have ended without it, or the daemon: whoever follows it knows.
        with contextlib.suppress(DaemonError):
            self._daemon.client.report_call(self._update, self._index, text)


class _Watch(threading.Thread):
    """Waits for the end of an update, by long polls."""

    def __init__(self, daemon: HostDaemon, update: str) -> None:
        super().__init__(name="checkpoint-engine-watch", daemon=True)
        self.ended = threading.Event()
        self.status: dict[str, Any] = {}
        self.failure: ParameterServerError | None = None
        self._daemon = daemon
        self._update = update

    def run(self) -> None:
        try:
            self.status = {"state": "running"}
            while self.status.get("state") == "running" and not self.ended.is_set():
                self.status = self._daemon.client.wait_for_update(self._update, _POLL_S)
        except ParameterServerError as error:
            self.failure = error
        finally:
            self.ended.set()
