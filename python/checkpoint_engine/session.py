"""The worker's side of one update: messages in, loads and answers out."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import time
from typing import TYPE_CHECKING

from . import protocol
from .errors import (
    AbortedError,
    DeadlineError,
    DeviceMemoryError,
    KnownProtocolError,
    KnownSenderError,
    LoadError,
    MemoryHeldError,
    ProtocolError,
    ServerLostError,
    UpdateError,
    VersionError,
)
from .failures import drop_locals, failure_of, summary
from .memory import Memory, open_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from .channel import Channel
    from .hooks import Device, Hooks

# How long a server that has connected may take for its first message: it waits for all other
# workers, and some engines finish running requests first.
HANDSHAKE_TIMEOUT_S = 120.0
# How long a worker that failed waits to be told that everybody stopped.
ABORT_TIMEOUT_S = 30.0
# Buckets that the server may send ahead: the next one is there when the last one is loaded.
CREDITS = 4

_logger = logging.getLogger(__name__)


class Session:
    """One update. ``serve`` returns when it is committed, and raises otherwise."""

    def __init__(
        self,
        channel: Channel,
        worker_id: str,
        software: str,
        hooks: Hooks,
        device: Device | None = None,
    ) -> None:
        self._channel = channel
        self._worker_id = worker_id
        self._software = software
        self._hooks = hooks
        self._deadline = time.monotonic() + HANDSHAKE_TIMEOUT_S
        self._stage = "hello"
        self._owes_answer = False
        self._catalog = protocol.Catalog((), ())
        self._device = device
        self._memory_kind = "host"
        self._memory: Memory | None = None
        self._delivered = 0

    def serve(self) -> None:
        """Runs the session to its end. Raises ``UpdateError``."""
        start = time.monotonic()
        try:
            hello = self._greet()
            self._map()
            self._load()
            self._commit()
        except KnownSenderError:
            raise
        except AbortedError:
            self._undo()
            with contextlib.suppress(ServerLostError):
                self._answer(protocol.Aborted())
            raise
        except UpdateError as error:
            if self._owes_answer:
                self._report(error)
            else:
                self._undo()
            raise
        except BaseException:
            # An interrupt: the server learns it from the lost connection.
            self._undo()
            raise
        _logger.info(
            "Committed update %s of checkpoint %s: %d tensors, %d bytes, %.3f s",
            hello.update,
            hello.checkpoint,
            len(self._catalog.tensors),
            self._catalog.byte_count,
            time.monotonic() - start,
        )

    # Stages

    def _greet(self) -> protocol.ServerHello:
        message = self._next("hello")
        if not isinstance(message, protocol.ServerHello):
            raise self._unexpected(message)
        self._deadline = time.monotonic() + message.deadline_ms / 1000
        self._memory_kind = message.memory
        common = set(message.versions) & set(protocol.VERSIONS)
        if not common:
            raise VersionError(
                f"the server speaks the versions {list(message.versions)} of the protocol, this "
                f"worker {list(protocol.VERSIONS)}; install the same release on both sides"
            )
        self._answer(
            protocol.WorkerHello(
                version=max(common),
                worker=self._worker_id,
                pid=os.getpid(),
                software=self._software,
                credits=CREDITS,
            )
        )
        return message

    def _map(self) -> None:
        self._stage = "catalog"
        message = self._next("catalog")
        if not isinstance(message, protocol.Catalog):
            raise self._unexpected(message)
        self._catalog = message
        self._memory = open_memory(message, self._memory_kind, self._device)
        self._memory.check(message.tensors)
        examine = self._hooks.catalog
        if examine is not None:
            self._call("the look at the catalog", lambda: examine(message.tensors))
        self._answer(protocol.Ready())

    def _load(self) -> None:
        index = 0
        while True:
            self._stage = "bucket"
            message = self._next(f"bucket {index} or release")
            if isinstance(message, protocol.Release):
                break
            if not isinstance(message, protocol.Bucket):
                raise self._unexpected(message)
            self._load_bucket(message, index)
            index += 1
        self._stage = "release"
        if self._delivered != len(self._catalog.tensors):
            raise ProtocolError(
                f"the server released its memory after {self._delivered} of "
                f"{len(self._catalog.tensors)} tensors"
            )
        # In host memory, what the commit still needs stays mapped through the tensors that hold it.
        held = self._close_memory()
        if held and self._memory_kind == "cuda":
            raise MemoryHeldError(
                f"the load kept tensors of {held[0]} beyond their bucket, and other weights lie "
                "there by now; clone what must outlive the call, or ask for clones_buckets"
            )
        self._answer(protocol.Released())

    def _load_bucket(self, bucket: protocol.Bucket, index: int) -> None:
        end = bucket.first + bucket.count
        fits = bucket.index == index and bucket.first == self._delivered
        if not fits or end > len(self._catalog.tensors):
            raise ProtocolError(
                f"bucket {bucket.index} has the tensors {bucket.first} ..< {end}; expected bucket "
                f"{index} from tensor {self._delivered} of {len(self._catalog.tensors)}"
            )
        start = time.monotonic()
        rows = self._catalog.tensors[bucket.first : end]
        self._call(f"the load of bucket {index}", lambda: self._run(rows))
        self._delivered = end
        self._answer(
            protocol.Loaded(index, sum(row.byte_count for row in rows), micros=_micros_since(start))
        )

    def _run(self, rows: tuple[protocol.TensorRow, ...]) -> None:
        if self._memory is None:
            raise ProtocolError("a bucket came before the catalog")
        names = (row.name for row in rows)
        self._hooks.run(list(zip(names, self._memory.tensors(rows), strict=True)))
        self._memory.synchronize()

    def _commit(self) -> None:
        self._stage = "commit"
        message = self._next("commit")
        if not isinstance(message, protocol.Commit):
            raise self._unexpected(message)
        start = time.monotonic()
        if self._hooks.post is not None:
            self._call("the commit", self._hooks.post)
        held = self._close_memory()
        if held:
            gc.collect()
            held = self._close_memory()
        if held:
            raise MemoryHeldError(
                f"the load kept tensors of {', '.join(held[:3])} beyond the commit, and the server "
                "will write other weights there; clone what must outlive the update"
            )
        self._answer(protocol.Committed(micros=_micros_since(start)))

    # Messages

    def _next(self, expected: str) -> protocol.ServerMessage:
        try:
            frames = self._channel.receive(self._deadline, expected)
        except ServerLostError:
            self._raise_unread_abort()
            raise
        self._owes_answer = True
        if frames[0][:1] == bytes([protocol.KNOWN_PROTOCOL_BYTE]):
            is_first = self._stage == "hello" and len(frames) == 1
            hello = protocol.hello_in_known_frame(frames[0]) if is_first else None
            if hello is None and is_first and self._device is not None:
                self._owes_answer = False
                raise KnownSenderError(frames[0])
            if hello is None:
                raise self._known_protocol()
            frames = [hello]
        message = protocol.decode_server(frames)
        if isinstance(message, protocol.Abort):
            raise AbortedError(message.reason)
        return message

    def _answer(self, message: protocol.WorkerMessage) -> None:
        self._owes_answer = False
        self._channel.send(protocol.encode(message))

    def _unexpected(self, message: protocol.ServerMessage) -> ProtocolError:
        return ProtocolError(
            f"the server sent {protocol.type_name(message)!r} in the stage {self._stage!r}"
        )

    def _known_protocol(self) -> KnownProtocolError:
        refusal = protocol.KNOWN_PROTOCOL_REFUSAL
        # In that protocol a text is an error; without an answer its sender would wait for ever.
        self._owes_answer = False
        with contextlib.suppress(ServerLostError):
            self._channel.send([refusal.encode()])
        return KnownProtocolError(refusal)

    def _raise_unread_abort(self) -> None:
        for frames in self._channel.unread():
            with contextlib.suppress(ProtocolError):
                message = protocol.decode_server(frames)
                if isinstance(message, protocol.Abort):
                    raise AbortedError(message.reason)

    # Failures

    def _call(self, what: str, action: Callable[[], object]) -> None:
        """Runs the engine's code; whatever it raises becomes a ``LoadError``."""
        try:
            action()
        except UpdateError:
            raise
        except Exception as error:
            raise LoadError(f"{what} failed: {summary(error)}") from error

    def _report(self, error: UpdateError) -> None:
        """Tells the server, undoes, and waits to be told that everybody stopped."""
        failure = failure_of(error, self._stage)
        if self._memory_kind == "cuda":
            # The tensors of the bucket that failed must be gone before `aborted`.
            drop_locals(error)
        again = protocol.failure(self._stage, "not done: an earlier message failed", "")
        self._deadline = min(self._deadline, time.monotonic() + ABORT_TIMEOUT_S)
        try:
            self._answer(failure)
            self._undo()
            while not self._is_abort(self._channel.receive(self._deadline, "abort")):
                self._answer(again)
            self._answer(protocol.Aborted())
        except (ServerLostError, DeadlineError) as end:
            _logger.warning("The failed update ended without an abort: %s", end)

    def _is_abort(self, frames: list[bytes]) -> bool:
        with contextlib.suppress(ProtocolError):
            return isinstance(protocol.decode_server(frames), protocol.Abort)
        return False

    def _undo(self) -> None:
        try:
            if self._hooks.abort is not None:
                self._hooks.abort()
        except Exception:
            _logger.exception("The engine's loader could not be reset after a failed update")
        with contextlib.suppress(DeviceMemoryError):
            self._close_memory()

    def _close_memory(self) -> list[str]:
        return [] if self._memory is None else self._memory.close()


def _micros_since(start: float) -> int:
    return int((time.monotonic() - start) * 1e6)
