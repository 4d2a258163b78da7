"""Threads for the transfer agent's requests: one for each key that has any."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from .transfer_errors import TransferError

if TYPE_CHECKING:
    from collections.abc import Callable

# Peers whose reads run or wait at the same time.
LANES_MAX = 256

Job_contra = TypeVar("Job_contra", contravariant=True)
Job = TypeVar("Job")


class Lane(Protocol[Job_contra]):
    """What one thread does with the jobs of its key. None of the calls may raise."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing that was begun goes on."""

    def begin(self, job: Job_contra) -> None:
        """Begins a job, or does all of it."""

    def step(self) -> None:
        """Does a little of what goes on; new jobs are begun between two steps."""


class Lanes(Generic[Job]):
    """Hands jobs of one key to its lane in their order; different keys go on side by side.

    Each key that has jobs has a thread, which ends with the last one.
    """

    def __init__(self, lane: Callable[[str], Lane[Job]]) -> None:
        self._lane = lane
        self._lock = threading.Lock()
        # What waits for its begin; a key is here as long as its thread.
        self._jobs: dict[str, list[Job]] = {}

    def run(self, key: str, job: Job) -> None:
        """Raises ``TransferError`` when there are too many keys."""
        with self._lock:
            if key in self._jobs:
                self._jobs[key].append(job)
                return
            if len(self._jobs) >= LANES_MAX:
                raise TransferError(f"more than {LANES_MAX} peers are read from at the same time")
            threading.Thread(target=self._work, args=(key,), daemon=True).start()
            # The thread waits for the lock before it looks.
            self._jobs[key] = [job]

    def _work(self, key: str) -> None:
        lane = self._lane(key)
        while True:
            with self._lock:
                jobs = self._jobs[key]
                if not jobs and lane.is_idle:
                    del self._jobs[key]
                    return
                self._jobs[key] = []
            for job in jobs:
                lane.begin(job)
            lane.step()
