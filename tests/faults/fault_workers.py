"""The workers of the fake engine: processes that run the real worker and misbehave on request."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Event

    import torch

# Forked from a server that has imported torch once: a new worker is there in milliseconds.
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "zmq", "checkpoint_engine.worker"])

# A pause that nobody ends is a defect of a test, not a hang of it.
PAUSE_S_MAX = 60.0


@dataclass(frozen=True)
class Fault:
    """What goes wrong in one worker, and when.

    ``at`` is ``start`` (before it connects), ``hello`` (it has got the server's hello), ``bucket``
    (before it loads bucket number ``bucket``) or ``commit`` (in ``post_hook``).
    """

    kind: Literal["kill", "raise", "pause"]
    at: Literal["start", "hello", "bucket", "commit"]
    bucket: int = 0


@dataclass
class Outcome:
    """What one worker says of one update."""

    rank: int
    pid: int
    error: str | None = None
    seconds: float = 0.0
    # Seconds from the end of a pause to the end of the call.
    seconds_after_pause: float = 0.0
    buckets: int = 0
    committed: bool = False
    digests: dict[str, tuple[str, list[int], str]] = field(default_factory=dict)


def describe(tensor: torch.Tensor) -> tuple[str, list[int], str]:
    """Type, shape and digest of all bytes."""
    import torch

    flat = tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor
    content = flat.numpy().tobytes() if tensor.numel() else b""
    return str(tensor.dtype), list(tensor.shape), hashlib.sha256(content).hexdigest()


class LoaderRefusalError(RuntimeError):
    """What a loader raises that does not like what it gets."""


class _Update:
    """One update inside the worker's process."""

    def __init__(self, rank: int, fault: Fault | None, paused: Event, resumed: Event) -> None:
        self._fault = fault
        self._paused = paused
        self._resumed = resumed
        self._resumed_at: float | None = None
        self._store: dict[str, torch.Tensor] = {}
        self.outcome = Outcome(rank, os.getpid())

    def run(self, address: str, context: Any) -> Outcome:
        from checkpoint_engine.worker import update_weights_from_ipc

        start = time.monotonic()
        try:
            self._reach("start")
            if self._fault and self._fault.at == "hello":
                self._stop_after_hello(address, context)
            update_weights_from_ipc(
                context,
                address,
                run=self._load,
                post_hook=self._commit,
                worker_id=f"CPU-{self.outcome.rank}",
                software="fake engine",
            )
            self.outcome.digests = {name: describe(t) for name, t in self._store.items()}
        except Exception as error:  # noqa: BLE001 - the test decides what it may be
            self.outcome.error = f"{type(error).__name__}: {error}"
        end = time.monotonic()
        self.outcome.seconds = end - start
        if self._resumed_at is not None:
            self.outcome.seconds_after_pause = end - self._resumed_at
        return self.outcome

    def _load(self, tensors: list[tuple[str, torch.Tensor]]) -> None:
        self._reach("bucket", self.outcome.buckets)
        for name, tensor in tensors:
            self._store[name] = tensor.clone()
        self.outcome.buckets += 1

    def _commit(self) -> None:
        self._reach("commit")
        self.outcome.committed = True

    def _reach(self, point: str, bucket: int = 0) -> None:
        fault = self._fault
        if fault is None or (fault.at, fault.bucket) != (point, bucket):
            return
        self._paused.set()
        match fault.kind:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise LoaderRefusalError(f"the loader refuses at {point} {bucket}")
            case "pause":
                if not self._resumed.wait(PAUSE_S_MAX):
                    raise LoaderRefusalError("nobody ended the pause")
                self._resumed_at = time.monotonic()

    def _stop_after_hello(self, address: str, context: Any) -> None:
        """Connects as the worker does, takes the hello, and dies without an answer."""
        import zmq

        socket = context.socket(zmq.REP)
        socket.connect(address)
        socket.recv_multipart()
        self._reach("hello")


def _main(rank: int, orders: Connection, paused: Event, resumed: Event) -> None:
    import zmq

    context = zmq.Context()
    while True:
        try:
            address, fault = orders.recv()
        except EOFError:
            os._exit(0)  # the engine has ended; nothing is to be waited for
        orders.send(_Update(rank, fault, paused, resumed).run(address, context))


class WorkerDiedError(Exception):
    """The process has ended instead of answering."""


class Worker:
    """The engine's handle of one worker process."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.paused = CONTEXT.Event()
        self.resumed = CONTEXT.Event()
        self.busy = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._orders, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(
            target=_main, args=(self.rank, theirs, self.paused, self.resumed), daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    def ask(self, address: str, fault: Fault | None) -> Outcome:
        """Carries out one update. Raises ``WorkerDiedError``."""
        with self.busy:
            try:
                self._orders.send((address, fault))
                outcome: Outcome = self._orders.recv()
            except (EOFError, OSError) as error:
                raise WorkerDiedError(f"worker {self.rank} died unexpectedly") from error
            return outcome

    def reset(self) -> None:
        """Ends a pause, waits for the end of an update, and replaces a process that has ended."""
        self.resumed.set()
        assert self.busy.acquire(timeout=PAUSE_S_MAX), f"worker {self.rank} does not end its update"
        try:
            if not self._process.is_alive():
                self._process.join()
                self._orders.close()
                self._start()
        finally:
            self.busy.release()
        self.paused.clear()
        self.resumed.clear()

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._orders.close()
