"""The reads from one peer, in pieces that follow one another without a gap."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .transfer_errors import TransferError, TransferStalledError
from .transfer_requests import Range

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .transfer_engine import Engine

# Longer ranges are read in pieces, several at a time: mooncake refuses batches of more than about
# 2,000 ranges, and its own waiting occupies a core, which this one does not.
PIECE_BYTES = 4 << 20
PIECES_IN_FLIGHT = 8
# A read that fails sooner than this after it began is tried once more, after mooncake's pause: it
# may have met a connection that the peer had closed.
_RETRY_WITHIN_S = 2.0
_RETRY_PAUSE_S = 1.1
# Longer than it takes mooncake to give up all pieces in flight at a peer that stands still.
STALL_S = 60.0
_NAP_S_MIN = 50e-6
_NAP_S_MAX = 500e-6


@dataclass(eq=False)
class Read:
    """One read that was asked for, and how far it is."""

    id: int
    ranges: Sequence[Range]
    # Why it failed; ``None`` at the end of one that did not.
    error: Exception | None = None
    # From when its first piece was submitted to the end of its last one.
    seconds: float = 0.0

    # Pieces that are to be submitted, and those that were not read after a failure.
    todo: deque[Range] = field(default_factory=deque)
    left: list[Range] = field(default_factory=list)
    flying_count: int = 0
    begin: float | None = None
    is_second_try: bool = False
    # What ends with it.
    kept: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def is_settled(self) -> bool:
        """Whether nothing of this try is in flight or will be."""
        return not self.todo and self.flying_count == 0

    def give_up(self, failed: Range) -> None:
        """Submits nothing more in this try."""
        self.left += [failed, *self.todo]
        self.todo.clear()

    def try_again(self) -> None:
        """Begins the second try, with what is left."""
        self.is_second_try = True
        self.todo.extend(self.left)
        self.left.clear()


@dataclass(frozen=True)
class _Piece:
    """A piece in flight."""

    batch: int
    range: Range
    read: Read


class ReadLane:
    """The reads from one peer, submitted in their order, each ended with its own last piece.

    It is one thread's. What a read needs until its end is had from ``keep``, which may raise.
    """

    def __init__(
        self,
        session: str,
        engine: Engine,
        keep: Callable[[Sequence[Range]], contextlib.AbstractContextManager[None]],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._session = session
        self._engine = engine
        self._keep = keep
        self._clock = clock
        self._sleep = sleep
        # Those with pieces to submit, the oldest first.
        self._waiting: deque[Read] = deque()
        self._flying: list[_Piece] = []
        # Those that failed, with the time of their second try.
        self._resting: deque[tuple[float, Read]] = deque()
        self._ended: list[Read] = []
        self._nap = _NAP_S_MIN
        self._progress = 0.0

    def add(self, read: Read) -> None:
        """Puts a read behind those that wait."""
        self._waiting.append(read)

    @property
    def is_idle(self) -> bool:
        """Whether all reads have ended."""
        return not (self._waiting or self._flying or self._resting)

    def step(self) -> list[Read]:
        """Submits what may be in flight, naps, and looks; the reads that have ended.

        Nothing is written to their memory any more. Raises ``TransferStalledError`` when one does
        not come to that.
        """
        self._end_rests()
        self._submit_all()
        if self._flying or self._resting:
            self._sleep(self._nap)
        self._collect()
        ended, self._ended = self._ended, []
        return ended

    def _end_rests(self) -> None:
        now = self._clock()
        rested = []
        while self._resting and self._resting[0][0] <= now:
            rested.append(self._resting.popleft()[1])
        for read in rested:
            read.try_again()
        # They are older than what waits.
        self._waiting.extendleft(reversed(rested))

    def _submit_all(self) -> None:
        while self._waiting and len(self._flying) < PIECES_IN_FLIGHT:
            read = self._waiting[0]
            try:
                self._submit_next(read)
            except Exception as error:  # noqa: BLE001 - it is the answer to this read
                read.error = error
                read.todo.clear()
            if not read.todo:
                self._waiting.popleft()
            if read.is_settled:
                self._settle(read)

    def _submit_next(self, read: Read) -> None:
        if read.begin is None:
            read.kept.enter_context(self._keep(read.ranges))
            read.todo.extend(piece for one in read.ranges for piece in pieces(one))
            read.begin = self._clock()
        one = read.todo.popleft()
        batch = self._engine.submit(self._session, one)
        if batch is None:
            read.give_up(one)
            return
        if not self._flying:
            self._progress = self._clock()
        self._flying.append(_Piece(batch, one, read))
        read.flying_count += 1

    def _collect(self) -> None:
        """Takes what has landed out of what is in flight."""
        outcomes = [(piece, self._engine.outcome(piece.batch)) for piece in self._flying]
        self._flying = [piece for piece, succeeded in outcomes if succeeded is None]
        for piece, succeeded in outcomes:
            if succeeded is not None:
                self._land(piece, succeeded=succeeded)
        if len(self._flying) < len(outcomes):
            self._nap, self._progress = _NAP_S_MIN, self._clock()
        elif self._flying and self._clock() - self._progress > STALL_S:
            raise TransferStalledError(
                f"the read from {self._session} made no progress for {STALL_S:.0f} s; the agent "
                "ends, so that nothing writes into the memory any more"
            )
        else:
            self._nap = min(2 * self._nap, _NAP_S_MAX)

    def _land(self, piece: _Piece, *, succeeded: bool) -> None:
        read = piece.read
        read.flying_count -= 1
        if not succeeded:
            if read.todo:
                self._waiting.remove(read)
            read.give_up(piece.range)
        if read.is_settled:
            self._settle(read)

    def _settle(self, read: Read) -> None:
        """Ends the read, or lets it rest until its second try."""
        now = self._clock()
        begin = now if read.begin is None else read.begin
        if read.left and read.error is None:
            if not read.is_second_try and now - begin < _RETRY_WITHIN_S:
                self._resting.append((now + _RETRY_PAUSE_S, read))
                return
            read.error = self._failure(read)
        read.seconds = now - begin
        read.kept.close()
        self._ended.append(read)

    def _failure(self, read: Read) -> TransferError:
        byte_count = sum(one.byte_count for one in read.left)
        return TransferError(
            f"the read from {self._session} failed with {byte_count} bytes left: the peer has "
            "ended, refuses the addresses, stands still, or its ports (MC_MIN_RPC_PORT … "
            "MC_MAX_RPC_PORT, 15000 … 17000) are closed; this agent's log tells which"
        )


def pieces(one: Range) -> list[Range]:
    """``one`` in pieces of at most ``PIECE_BYTES``."""
    return [
        Range(one.local + at, one.remote + at, min(PIECE_BYTES, one.byte_count - at))
        for at in range(0, one.byte_count, PIECE_BYTES)
    ]
