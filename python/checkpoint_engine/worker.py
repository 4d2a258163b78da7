"""What inference engines import: the update of one worker, and vLLM's worker extension."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from . import __version__
from .channel import Channel
from .errors import KnownSenderError
from .hooks import Device, Hooks
from .known_session import KnownSession
from .session import Session
from .vllm_extension import VllmColocateWorkerExtension

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    import zmq

    from .catalog import TensorRow

__all__ = ["FlattenedTensorMetadata", "VllmColocateWorkerExtension", "update_weights_from_ipc"]


class FlattenedTensorMetadata(TypedDict):
    """One tensor of a bucket, as senders of the PyPI package's protocol describe it."""

    name: str
    shape: torch.Size
    dtype: torch.dtype
    # In bytes, from the start of the buffer.
    offset: int


def update_weights_from_ipc(
    zmq_ctx: zmq.Context[zmq.Socket[bytes]],
    zmq_handle: str,
    device_id: int | None = None,
    *,
    run: Callable[[list[tuple[str, torch.Tensor]]], object],
    post_hook: Callable[[], object] | None = None,
    abort_hook: Callable[[], object] | None = None,
    worker_id: str | None = None,
    software: str | None = None,
    clones_buckets: bool = False,
    catalog_hook: Callable[[tuple[TensorRow, ...]], object] | None = None,
) -> None:
    """Takes part in one update as the worker of one device; returns when it is committed.

    ``zmq_handle`` is the address that the server gave for this worker. ``run`` is called for each
    bucket with names and full tensors as they stand in the checkpoint, ``post_hook`` once when all
    workers have loaded everything, and ``abort_hook`` when the update fails, before the server is
    told that this worker has stopped.

    On the CPU the tensors are views of the server's memory, mapped for reading: writing to one ends
    the process. They hold their values until ``post_hook`` has returned or ``abort_hook`` is
    called; what must live longer has to be copied, and an update whose load kept one fails.

    On a GPU they are views of device memory and hold their values only until ``run``
    returns; the device is synchronised then. An update whose load kept one fails. With
    ``clones_buckets`` they are views of a copy instead, made in one piece for each bucket, and may
    be kept.

    ``catalog_hook`` is called before the first load, with a row (name, type, shape) for each tensor
    that will come. What it raises ends the update before any weight is changed. Senders of the PyPI
    package's protocol have no catalog.

    ``worker_id`` is ``GPU-<uuid>`` or ``CPU-<rank in the engine>``; by default that of the CUDA
    device ``device_id``, or ``CPU-0`` without CUDA. ``software`` names the engine to the server.

    Senders of the PyPI package's protocol are served too, on GPUs: their frames are read through a
    closed list of globals.

    Every wait for the server is bounded: by the deadline that it states, by ``HANDSHAKE_TIMEOUT_S``
    of ``checkpoint_engine.session`` before that; it ends at once when the connection is lost.

    Raises ``checkpoint_engine.errors.UpdateError``: ``LoadError`` from an exception of ``run`` or
    ``post_hook``, ``AbortedError`` when another worker or the server failed, and others. The socket
    is closed and the memory unmapped in any case.
    """
    channel = Channel(zmq_ctx, zmq_handle)
    owner: Channel | KnownSession = channel
    try:
        hooks = Hooks(run, post_hook, abort_hook, catalog_hook)
        device = _device(device_id, clones=clones_buckets)
        session = Session(
            channel,
            worker_id or _worker_id(device),
            software or f"checkpoint_engine {__version__}",
            hooks,
            device,
        )
        try:
            session.serve()
        except KnownSenderError as known:
            if device is None:
                raise
            owner = KnownSession(channel, hooks, device)
            owner.serve(known.frame)
    finally:
        owner.close()


def _device(device_id: int | None, *, clones: bool) -> Device | None:
    import torch

    if not torch.cuda.is_available():
        return None
    index = torch.cuda.current_device() if device_id is None else device_id
    return Device(index, clones)


def _worker_id(device: Device | None) -> str:
    import torch

    if device is None:
        return "CPU-0"
    return f"GPU-{torch.cuda.get_device_properties(device.index).uuid}"
