"""Steps that all ranks take together, through a store of their own; no step waits for ever.

A step has a name and stages. In each stage every rank gives one JSON value and gets all of them. A
rank that fails says so in all stages that are left, so that the others fail with it at once and
name it. While a rank waits it looks whether the processes of the other ranks of its host live.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, NoReturn

from .ps_errors import (
    ArgumentError,
    ParameterServerError,
    RankDeadlineError,
    RankError,
    RankFailedError,
    RankLostError,
)
from .rank_identity import RankIdentity
from .rank_values import Store, read_values, write_value

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

# How often a waiting rank looks whether the others live.
WATCH_S = 0.2
_POLL_S_MIN = 0.0002
_POLL_S_MAX = 0.005
# How long rank 0, which serves the store, stays for those who still read from it.
_FAREWELL_S = 5.0
# Steps whose values are kept: somebody may still read those of the last ones.
_STEPS_KEPT = 16
_ERROR_CHARACTERS_MAX = 20_000
_REFUSED = "meet/refused"


class RankStore:
    """The ranks of a world, seen from one of them."""

    def __init__(self, store: Store, rank: int, world_size: int, timeout: float) -> None:
        """Meets all other ranks, within ``timeout`` seconds.

        Raises ``ArgumentError`` when the ranks do not agree on their numbers, ``RankError`` when
        one does not come.
        """
        self.store = store
        self.rank = rank
        self.world_size = world_size
        self.identity = RankIdentity.of_this_process(rank, world_size)
        self.identities = [self.identity]
        self.peers: list[RankIdentity] = []
        self._count = 0
        self._written: list[list[str]] = []
        self._meet(timeout)
        self.peers = [peer for peer in self.identities if peer.rank != rank]

    def step(self, name: str, stages: Sequence[str], timeout: float) -> RankStep:
        """The next step of all ranks, as a context; ``timeout`` in seconds is for all of it."""
        self._count += 1
        if len(self._written) >= _STEPS_KEPT:
            with contextlib.suppress(RuntimeError):  # a store that is gone is found by the step
                for key in self._written.pop(0):
                    self.store.delete_key(key)
        written = [f"{self._count}/left"] if self.rank == 0 else []
        self._written.append(written)
        return RankStep(self, f"{self._count}/{name}", stages, time.monotonic() + timeout, written)

    def lost(self) -> RankIdentity | None:
        """The first rank of this host whose process has ended, if there is one."""
        return next((peer for peer in self.peers if peer.has_ended(self.identity)), None)

    def close(self) -> None:
        """Waits, on the rank that serves the store, until the others have read what they need."""
        if self.rank != 0 or self._count == 0:
            return
        end = time.monotonic() + _FAREWELL_S
        alive = len(self.identities)
        with contextlib.suppress(RuntimeError):
            while self.store.add(f"{self._count}/left", 0) < alive and time.monotonic() < end:
                alive = sum(not peer.has_ended(self.identity) for peer in self.identities)
                time.sleep(_POLL_S_MAX)

    def _meet(self, timeout: float) -> None:
        if not 0 <= self.rank < self.world_size:
            self._refuse(f"rank {self.rank} is impossible in a world of {self.world_size}")
        if self.store.add(f"meet/{self.rank}", 1) != 1:
            self._refuse(
                f"two processes are rank {self.rank}: give each of them its own, 0 to "
                f"{self.world_size - 1}, in RANK"
            )
        try:
            with self.step("meeting", ["identity"], timeout) as meeting:
                values = meeting.exchange("identity", self.identity.values())
        except RankDeadlineError as error:
            self._tell(_values(error, self.identity))
            raise
        self.identities = [RankIdentity(**value) for value in values]
        sizes = {peer.rank: peer.world_size for peer in self.identities}
        if len(set(sizes.values())) > 1:
            self._refuse(f"the ranks disagree on the world size, by rank: {sizes}")

    def _refuse(self, reason: str) -> NoReturn:
        self._tell({"kind": ArgumentError.__name__, "rank": self.rank, "text": reason})
        raise ArgumentError(reason)

    def _tell(self, error: dict[str, object]) -> None:
        """Tells those who still wait for ranks that will not come."""
        write_value(self.store, _REFUSED, error)
        if self.rank == 0:
            time.sleep(2 * WATCH_S)  # the others read it from this process


class RankStep:
    """One step of all ranks. Leaving it with an exception makes it fail on every rank."""

    def __init__(
        self,
        ranks: RankStore,
        name: str,
        stages: Sequence[str],
        deadline: float,
        written: list[str],
    ) -> None:
        self._ranks = ranks
        self._name = name
        self._left = list(stages)
        self._deadline = deadline
        self._written = written

    @property
    def title(self) -> str:
        """What the step is called in messages."""
        return self._name.partition("/")[2]

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline, 0 after it."""
        return max(0.0, self._deadline - time.monotonic())

    def exchange(self, stage: str, value: object) -> list[Any]:
        """Gives ``value`` and returns those of all ranks, by rank. Raises ``RankError``."""
        self._left.remove(stage)
        keys = [self._key(stage, rank) for rank in range(self._ranks.world_size)]
        try:
            self._write(stage, {"value": value})
            self._wait(keys)
            answers = read_values(self._ranks.store, keys)
        except ParameterServerError:
            raise
        except RuntimeError as error:
            raise self._server_lost() from error
        for answer in answers:
            if "error" in answer:
                raise _error(answer["error"])
        return [answer["value"] for answer in answers]

    def check_peers(self) -> None:
        """Raises ``RankLostError`` when the process of a rank of this host has ended."""
        if (lost := self._ranks.lost()) is not None:
            raise RankLostError(lost.rank, f"{lost.describe()} has ended during {self.title}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(RuntimeError):  # the store's server may be what has failed
            if error is not None:
                for stage in self._left:
                    self._write(stage, {"error": _values(error, self._ranks.identity)})
            self._ranks.store.add(self._name.partition("/")[0] + "/left", 1)

    def _write(self, stage: str, value: object) -> None:
        key = self._key(stage, self._ranks.rank)
        self._written += write_value(self._ranks.store, key, value)

    def _key(self, stage: str, rank: int) -> str:
        return f"{self._name}/{stage}/{rank}"

    def _wait(self, keys: list[str]) -> None:
        pause = _POLL_S_MIN
        watched = time.monotonic()
        while not self._ranks.store.check(keys):
            now = time.monotonic()
            if now > self._deadline:
                raise self._too_late(keys)
            if now - watched > WATCH_S:
                self._check_missing(keys)
                watched = now
                if self.title == "meeting" and self._ranks.store.check([_REFUSED]):
                    raise _error(read_values(self._ranks.store, [_REFUSED])[0])
            time.sleep(pause)
            pause = min(pause * 1.5, _POLL_S_MAX)

    def _check_missing(self, keys: list[str]) -> None:
        """Somebody who has ended after giving its value does not disturb the step."""
        lost = self._ranks.lost()
        if lost is not None and not self._ranks.store.check([keys[lost.rank]]):
            self.check_peers()

    def _too_late(self, keys: list[str]) -> RankDeadlineError:
        absent = [rank for rank, key in enumerate(keys) if not self._ranks.store.check([key])]
        names = ", ".join(map(str, absent))
        return RankDeadlineError(
            absent[0] if absent else self._ranks.rank,
            f"rank {names} of {self._ranks.world_size} did not come to {self.title} in time; every "
            "rank has to make the same calls in the same order",
        )

    def _server_lost(self) -> RankLostError:
        if (lost := self._ranks.lost()) is not None:
            return RankLostError(lost.rank, f"{lost.describe()} has ended during {self.title}")
        return RankLostError(
            0, f"rank 0, which serves the store of all ranks, is gone during {self.title}"
        )


def _values(error: BaseException, identity: RankIdentity) -> dict[str, object]:
    """What the others are told: of the rank where it began, not of the one that passes it on."""
    if isinstance(error, RankError):
        kind = type(error).__name__
        return {"kind": kind, "rank": error.rank, "text": str(error)}
    text = f"{identity.describe()} has failed: {type(error).__name__}: {error}"
    return {"kind": "", "rank": identity.rank, "text": text[:_ERROR_CHARACTERS_MAX]}


def _error(values: dict[str, Any]) -> ParameterServerError:
    if values["kind"] == ArgumentError.__name__:
        return ArgumentError(values["text"])
    kinds = {kind.__name__: kind for kind in (RankLostError, RankDeadlineError)}
    kind = kinds.get(values["kind"], RankFailedError)
    return kind(values["rank"], values["text"])
