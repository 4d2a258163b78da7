"""A worker on a thread, and a loader that records."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq
from checkpoint_engine.worker import update_weights_from_ipc

if TYPE_CHECKING:
    from collections.abc import Callable

JOIN_TIMEOUT_S = 30.0
REPOSITORY = Path(__file__).resolve().parents[2]


class WorkerThread:
    """``update_weights_from_ipc`` on a thread; ``end`` returns what it raised."""

    def __init__(self, address: str, run: Callable[[Any], object], **hooks: Any) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, args=(address, run, hooks), daemon=True)
        self._thread.start()

    def _main(self, address: str, run: Callable[[Any], object], hooks: dict[str, Any]) -> None:
        context = zmq.Context()
        try:
            update_weights_from_ipc(
                zmq_ctx=context, zmq_handle=address, device_id=None, run=run, **hooks
            )
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self._error = error
        finally:
            context.term()

    def end(self, timeout: float = JOIN_TIMEOUT_S) -> BaseException | None:
        """Waits for the end of the update; what it raised, or ``None``."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"the worker did not end within {timeout} s"
        return self._error

    def error(self, kind: type[BaseException], timeout: float = JOIN_TIMEOUT_S) -> str:
        """The message of the error, which must be of ``kind``."""
        error = self.end(timeout)
        assert type(error) is kind, repr(error)
        return str(error)


class Recorder:
    """A loader that keeps copies of what it was given, and counts its calls."""

    def __init__(self) -> None:
        self.loaded: dict[str, Any] = {}
        self.buckets: list[list[str]] = []
        self.commits = 0
        self.aborts = 0

    def run(self, tensors: list[tuple[str, Any]]) -> None:
        self.buckets.append([name for name, _ in tensors])
        for name, tensor in tensors:
            self.loaded[name] = tensor.clone()

    def post_hook(self) -> None:
        self.commits += 1

    def abort_hook(self) -> None:
        self.aborts += 1

    def start(self, address: str, **changes: Any) -> WorkerThread:
        """Starts a worker with this loader."""
        arguments = {
            "run": self.run,
            "post_hook": self.post_hook,
            "abort_hook": self.abort_hook,
            "worker_id": "CPU-0",
        }
        return WorkerThread(address, **(arguments | changes))
