"""The worker's side of an update whose sender speaks the PyPI package's protocol.

Senders of that protocol are that package's own server and others that imitate it. The buffer is
opened by torch, as they expect: it waits for their event and counts their references down.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
import traceback
from typing import TYPE_CHECKING

import zmq

from .errors import (
    AbortedError,
    DeadlineError,
    DeviceMemoryError,
    LoadError,
    ProtocolError,
    ServerLostError,
    UpdateError,
)
from .failures import drop_locals, summary
from .known_reader import KnownBucket, KnownEnd, KnownFailure, KnownHandle, read_known_frame
from .tensor_views import bucket_tensors, check_types

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from .catalog import TensorRow
    from .channel import Channel
    from .hooks import Device, Hooks

# That protocol states no deadline; a sender that is gone is noticed at once.
MESSAGE_TIMEOUT_S = 300.0
# Newer senders say twice that they are done, older ones once; the second time comes soon.
SECOND_WORD_S = 2.0

_logger = logging.getLogger(__name__)


class KnownSession:
    """One update. ``serve`` returns when it is done, and raises otherwise."""

    def __init__(self, channel: Channel, hooks: Hooks, device: Device) -> None:
        self._channel = channel
        self._hooks = hooks
        self._device = device
        self._buffer: torch.Tensor | None = None
        self._failure: UpdateError | None = None
        self._is_early = False

    def serve(self, first: bytes) -> None:
        """Runs the session from its first frame on. Raises ``UpdateError``."""
        try:
            self._open(first)
            self._load()
            self._finish()
        except BaseException:
            self._undo()
            raise

    def close(self) -> None:
        """Closes the channel: at once, or after the last word of a sender that was late with it."""
        if self._is_early:
            threading.Thread(target=self._linger, daemon=True).start()
        else:
            self._channel.close()

    def _linger(self) -> None:
        # The end of the context ends this too, and waits for it.
        quiet = contextlib.suppress(UpdateError, zmq.ContextTerminated)
        with contextlib.closing(self._channel), quiet:
            while True:
                self._next("the end of the update")
                self._channel.send([b""])

    def _open(self, first: bytes) -> None:
        try:
            frame = read_known_frame(first)
            if not isinstance(frame, KnownHandle):
                raise ProtocolError("the sender's first message is not a handle of its buffer")
            self._buffer = open_buffer(frame, self._device.index)
        except UpdateError as error:
            self._channel.send([_text(error)])
            # The sender says one thing more before it gives up.
            with contextlib.suppress(UpdateError):
                self._next("the end of the update")
            raise
        self._channel.send([b""])

    def _load(self) -> None:
        """Takes buckets until there are no more; a failed one is told, and the sender decides."""
        while True:
            frame = read_known_frame(self._next("a bucket"))
            if isinstance(frame, KnownEnd):
                break
            if isinstance(frame, KnownFailure):
                raise AbortedError(frame.reason) from self._failure
            if not isinstance(frame, KnownBucket):
                raise ProtocolError("the sender sent its handle twice")
            self._take(frame.rows)
        if self._failure is not None:
            raise self._failure

    def _take(self, rows: tuple[TensorRow, ...]) -> None:
        try:
            self._call("the load of a bucket", lambda: self._run(rows))
        except UpdateError as error:
            self._failure = self._failure or error
            text = _text(error)
            drop_locals(error)
            self._channel.send([text])
        else:
            self._channel.send([b""])

    def _run(self, rows: tuple[TensorRow, ...]) -> None:
        import torch

        buffer = self._buffer
        if buffer is None:
            raise ProtocolError("a bucket came after the buffer was given back")
        check_types(rows)
        for row in rows:
            if row.offset + row.byte_count > buffer.numel():
                raise ProtocolError(f"the tensor {row.name[:256]!r} ends after the buffer")
        if rows:
            tensors = bucket_tensors(buffer, rows, clones=self._device.clones)
            names = (row.name for row in rows)
            self._hooks.run(list(zip(names, tensors, strict=True)))
        torch.cuda.synchronize(self._device.index)

    def _finish(self) -> None:
        """Lets go of the buffer, and finishes the load at the second word.

        Older senders have no second word. They wait for the engine's answer to the call that began
        the update, and close the connection then: the load is finished without it. Every worker has
        loaded everything by the first word.
        """
        self._release()
        self._channel.send([b""])
        try:
            frame = read_known_frame(self._next("the end of the update", SECOND_WORD_S))
        except (DeadlineError, ServerLostError) as error:
            self._is_early = isinstance(error, DeadlineError)
            self._call("the commit", self._post)
            return
        if isinstance(frame, KnownFailure):
            raise AbortedError(frame.reason)
        try:
            self._call("the commit", self._post)
        except UpdateError as error:
            self._channel.send([_text(error)])
            raise
        self._channel.send([b""])

    def _post(self) -> None:
        if self._hooks.post is not None:
            self._hooks.post()

    def _release(self) -> None:
        """Gives the buffer back: torch counts its reference down with the last tensor on it."""
        import torch

        self._buffer = None
        gc.collect()
        torch.cuda.ipc_collect()

    def _next(self, expected: str, timeout: float = MESSAGE_TIMEOUT_S) -> bytes:
        frames = self._channel.receive(time.monotonic() + timeout, expected)
        if len(frames) != 1:
            raise ProtocolError(f"the sender's message has {len(frames)} frames")
        return frames[0]

    def _call(self, what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except UpdateError:
            raise
        except Exception as error:
            raise LoadError(f"{what} failed: {summary(error)}") from error

    def _undo(self) -> None:
        try:
            if self._hooks.abort is not None:
                self._hooks.abort()
        except Exception:
            _logger.exception("The engine's loader could not be reset after a failed update")
        self._release()


def open_buffer(handle: KnownHandle, device: int) -> torch.Tensor:
    """The sender's buffer as a tensor of bytes. Raises ``DeviceMemoryError``."""
    import torch
    from torch.multiprocessing.reductions import rebuild_cuda_tensor
    from torch.storage import TypedStorage

    try:
        buffer: torch.Tensor = rebuild_cuda_tensor(
            torch.Tensor,
            torch.Size((handle.byte_count,)),
            (1,),
            0,
            TypedStorage,
            torch.uint8,
            device,
            handle.storage_handle,
            handle.storage_bytes,
            handle.storage_offset,
            False,  # noqa: FBT003
            handle.counter_name,
            handle.counter_offset,
            handle.event_handle,
            handle.waits_for_event,
        )
    except RuntimeError as error:
        raise DeviceMemoryError(
            f"the sender's GPU memory cannot be opened: {error}; engine and sender must run on one "
            "host, use the same GPU for this worker, and share the IPC namespace"
        ) from error
    return buffer


def _text(error: UpdateError) -> bytes:
    """What a sender is told: the traceback of what the engine raised, or of ``error``."""
    origin = error.__cause__ or error
    return "".join(traceback.format_exception(type(origin), origin, origin.__traceback__)).encode(
        errors="replace"
    )
