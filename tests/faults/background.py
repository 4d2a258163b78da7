"""What several of the fault tests do with a daemon and an engine."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from checkpoints import check_delivered
from daemon import PROMPT_S

if TYPE_CHECKING:
    from conftest import Samples
    from daemon import Answer, Daemon
    from fake_engine import FakeEngine


class Background:
    """An update of the checkpoint ``step`` while the test does something else."""

    def __init__(self, daemon: Daemon, engine: FakeEngine, /, **fields: object) -> None:
        self._answers: list[Answer | OSError] = []
        self._thread = threading.Thread(target=self._run, args=(daemon, engine.url, fields))
        self._thread.start()

    def _run(self, daemon: Daemon, url: str, fields: dict[str, object]) -> None:
        try:
            self._answers.append(daemon.update("step", url, **fields))
        except OSError as error:
            self._answers.append(error)

    def answer(self, timeout: float = PROMPT_S) -> Answer:
        """The daemon's answer, which has to come within ``timeout`` seconds from now."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"no answer after {timeout} s"
        [answer] = self._answers
        if isinstance(answer, OSError):
            raise answer
        return answer


def check_next_update(daemon: Daemon, engine: FakeEngine, samples: Samples) -> None:
    """The same daemon and the engine's living workers take the checkpoint ``step`` now."""
    engine.reset()
    answer = daemon.update("step", engine.url)
    assert answer.status == 200, answer.body
    assert answer.body["state"] == "succeeded"
    assert all(worker["committed"] for worker in answer.body["workers"])
    check_delivered(engine.updates[-1], samples.first_digests, len(engine.workers))
    assert engine.cache_resets == 1
    assert daemon.state("step") == "ready"
