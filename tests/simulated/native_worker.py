"""One worker of the stand-in for vLLM: a process with a GPU, in a group with the sender."""

from __future__ import annotations

import base64
import binascii
import os
import signal
import time
import traceback
from typing import TYPE_CHECKING, Any

from packed_chunks import DTYPES, Tensor, chunks, slices
from shapes import stored_tensors
from simulated_gpu import ID_BYTES, Communicator, Gpu, Library, Stream

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

_INIT_FIELDS = {
    "master_address",
    "master_port",
    "rank_offset",
    "world_size",
    "nccl_unique_id_b64",
    "packed",
    "packed_buffer_size_bytes",
    "packed_num_buffers",
}
_UPDATE_FIELDS = {"names", "dtype_names", "shapes"}
_BUFFER_BYTES = 1 << 30
_BUFFERS = 2


def _fields(kind: str, given: dict[str, Any], known: set[str], needed: set[str]) -> None:
    if wrong := (given.keys() - known) | (needed - given.keys()):
        raise ValueError(f"Invalid {kind}: unexpected or missing {sorted(wrong)}")


def unique_id(info: dict[str, Any]) -> bytes:
    """The id of the group; ValueError where vLLM refuses it, or asks for a TCP store."""
    text = info.get("nccl_unique_id_b64")
    has_address = info.get("master_address") is not None or info.get("master_port") is not None
    if text and has_address:
        raise ValueError("pass nccl_unique_id_b64 OR master_address/master_port, not both")
    if not text:
        raise ValueError("need nccl_unique_id_b64: a group over a TCP store is not simulated")
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError("nccl_unique_id_b64 is not valid standard base64") from error
    if len(decoded) != ID_BYTES:
        raise ValueError(f"nccl_unique_id_b64 has to decode to {ID_BYTES} bytes: {len(decoded)}")
    return decoded


class Worker:
    """What one worker holds, and its part of each call of the HTTP API."""

    def __init__(self, library: str, gpu: int, rank: int, timeout: float) -> None:
        self._gpu = Gpu(Library(library), gpu)
        self._rank = rank
        self._timeout = timeout
        self._group: Communicator | None = None
        self._info: dict[str, Any] = {}
        self._streams: list[Stream] = []
        self._is_active = False
        self._received: dict[str, tuple[Tensor, bytes]] = {}
        self._held: dict[str, tuple[Tensor, bytes]] = {}
        self._chunks: list[int] = []
        self._dies_at: int | None = None
        self._pauses_at: tuple[int, float] | None = None

    def init(self, info: dict[str, Any]) -> None:
        """Joins the group, then sums one float with all others as vLLM's communicator does."""
        _fields("init_info", info, _INIT_FIELDS, {"rank_offset", "world_size"})
        name = unique_id(info)
        rank = info["rank_offset"] + self._rank
        if not 0 <= rank < info["world_size"]:
            raise ValueError(f"rank {rank} out of range for world_size {info['world_size']}")
        if self._group is not None:
            # vLLM drops the one before without leaving it.
            self._group = None
        group = Communicator(self._gpu, name, rank, info["world_size"], self._timeout)
        self._info = info
        self._streams = [
            self._gpu.stream() for _ in range(info.get("packed_num_buffers", _BUFFERS))
        ]
        source, target = (self._gpu.allocate(4) for _ in range(2))
        self._gpu.write(source, bytes(4))
        try:
            group.all_reduce(source, target, 1, self._streams[0])
            self._wait(group, self._streams[0])
            if self._gpu.read(target, 4) != bytes(4):
                raise RuntimeError("the warm-up sum is not zero: a member has sent something else")
        except BaseException:
            group.abort()
            raise
        finally:
            self._gpu.free(source)
            self._gpu.free(target)
        self._group = group

    def _wait(self, group: Communicator, stream: Stream) -> None:
        stream.wait(time.monotonic() + self._timeout, group.check)

    def start(self) -> None:
        if self._is_active:
            raise RuntimeError("start_weight_update called while a weight update is already active")
        self._is_active = True
        self._received = {}
        self._chunks = []

    def update(self, info: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Receives what the info tells; a failure ends the session."""
        if not self._is_active:
            raise RuntimeError("start_weight_update must be called before update_weights.")
        try:
            own = info[self._rank] if isinstance(info, list) else info
            _fields("update_info", own, _UPDATE_FIELDS, _UPDATE_FIELDS)
            if len({len(own[field]) for field in _UPDATE_FIELDS}) != 1:
                raise ValueError("`names`, `dtype_names` and `shapes` should be of the same size")
            self._receive(
                [
                    Tensor(name, dtype, tuple(shape))
                    for name, dtype, shape in zip(
                        own["names"], own["dtype_names"], own["shapes"], strict=True
                    )
                ]
            )
        except BaseException:
            # The group stays: a sender that still waits for the worker has to leave it by itself.
            self._is_active = False
            raise

    def _receive(self, tensors: Sequence[Tensor]) -> None:
        if self._group is None:
            raise RuntimeError("NCCL weight transfer not initialized.")
        if not self._info.get("packed", False):
            for tensor in tensors:
                self._receive_chunk([tensor])
            return
        limit = self._info.get("packed_buffer_size_bytes", _BUFFER_BYTES)
        for chunk in chunks(tensors, limit):
            self._receive_chunk(chunk)

    def _receive_chunk(self, chunk: Sequence[Tensor]) -> None:
        """One broadcast from rank 0, on the streams by turns."""
        assert self._group is not None
        number = len(self._chunks)
        if self._dies_at == number:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._pauses_at is not None and self._pauses_at[0] == number:
            time.sleep(self._pauses_at[1])
        byte_count = sum(tensor.byte_count for tensor in chunk)
        content = b""
        if byte_count > 0:
            stream = self._streams[number % len(self._streams)]
            buffer = self._gpu.allocate(byte_count)
            try:
                self._group.broadcast(buffer, buffer, byte_count, 0, stream)
                self._wait(self._group, stream)
                content = self._gpu.read(buffer, byte_count)
            except BaseException:
                # vLLM would wait for ever; here an abort ends what waits and still has the buffer.
                self._group.abort()
                self._group = None
                raise
            finally:
                self._gpu.free(buffer)
        self._chunks.append(byte_count)
        for tensor, start, end in slices(chunk):
            self._received[tensor.name] = (tensor, content[start:end])

    def finish(self) -> None:
        if not self._is_active:
            raise RuntimeError(
                "finish_weight_update called without a matching start_weight_update."
            )
        self._is_active = False
        self._held |= self._received

    def shutdown(self) -> None:
        if self._is_active:
            raise RuntimeError("Cannot release a trainer connection during a weight update")
        if self._group is not None:
            self._group.abort()
            self._group = None

    def die_at(self, chunk: int | None) -> None:
        self._dies_at = chunk

    def pause_at(self, chunk: int, seconds: float) -> None:
        self._pauses_at = (chunk, seconds)

    def chunk_sizes(self) -> list[int]:
        """Bytes of each chunk of the last session."""
        return self._chunks

    def fill(self, value: int) -> None:
        """Overwrites what it holds."""
        self._held = {
            name: (tensor, bytes([value]) * len(content))
            for name, (tensor, content) in self._held.items()
        }

    def differences(self, directory: Path) -> list[str]:
        """What differs between what it holds and the safetensors files, in names and in bytes."""
        found = []
        stored = {tensor.name: tensor for tensor in stored_tensors(directory)}
        found += [f"{name}: not received" for name in stored.keys() - self._held.keys()]
        found += [f"{name}: not in the files" for name in self._held.keys() - stored.keys()]
        for name in stored.keys() & self._held.keys():
            file, (tensor, content) = stored[name], self._held[name]
            if (DTYPES[tensor.dtype][1], tensor.shape) != (file.dtype, file.shape):
                found.append(f"{name}: {tensor.dtype} {tensor.shape}, {file.dtype} {file.shape}")
                continue
            with file.path.open("rb") as opened:
                opened.seek(file.offset)
                if opened.read(file.byte_count) != content:
                    found.append(f"{name}: other bytes")
        return sorted(found)


def main(connection: Connection, library: str, gpu: int, rank: int, timeout: float) -> None:
    """Serves calls ``(method, arguments)`` with ``(answer, None)`` or ``(None, error)``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker(library, gpu, rank, timeout)
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = getattr(worker, method)(*arguments), None
        except Exception as error:  # noqa: BLE001 - told to the caller, as vLLM's executor does
            traceback.print_exc()
            answer = None, f"{type(error).__name__}: {error}"
        connection.send(answer)
