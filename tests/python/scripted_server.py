"""A server of the worker protocol for tests: it sends what its script says, and keeps what comes.

``Server`` has one DEALER socket for one worker. ``publish`` writes tensors into files of shared
memory and describes them in a catalog; ``Server.deliver`` carries out a whole update.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zmq
from checkpoint_engine import protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from typing_extensions import Self

ANSWER_TIMEOUT_S = 60.0

# Names of safetensors' types by torch's.
DTYPE_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3",
    "int16": "I16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "float32": "F32",
    "complex64": "C64",
    "int64": "I64",
    "float64": "F64",
}


@dataclass(frozen=True)
class WorkerFailedError(Exception):
    """The worker answered with ``error``."""

    failure: protocol.Failure

    def __str__(self) -> str:
        return f"{self.failure.stage}: {self.failure.message}\n{self.failure.traceback}"


def publish(
    tensors: Sequence[tuple[str, torch.Tensor]],
    folder: Path,
    *,
    segments: int = 1,
    data_offset: int = 0,
    alignment: int = 256,
) -> protocol.Catalog:
    """Writes ``tensors`` into ``segments`` new files in ``folder``, in turns, and lists them."""
    import torch

    contents = [bytearray() for _ in range(segments)]
    rows = []
    for place, (name, tensor) in enumerate(tensors):
        content = contents[place % segments]
        content.extend(bytes(-len(content) % alignment))
        dtype = DTYPE_NAMES[str(tensor.dtype).removeprefix("torch.")]
        rows.append(
            protocol.TensorRow(name, dtype, tuple(tensor.shape), place % segments, len(content))
        )
        if tensor.numel() > 0:
            flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
            content.extend(flat.numpy().tobytes())
    found = []
    for content in contents:
        path = folder / f"segment-{secrets.token_hex(8)}"
        path.write_bytes(bytes(data_offset) + content)
        found.append(segment_of(path, data_offset))
    return protocol.Catalog(tuple(found), tuple(rows))


def segment_of(path: Path, data_offset: int = 0) -> protocol.Segment:
    """The segment that is the whole file at ``path``."""
    status = path.stat()
    return protocol.Segment(str(path), status.st_ino, status.st_size, data_offset)


def buckets_of(catalog: protocol.Catalog, tensors_each: int) -> list[protocol.Bucket]:
    """The buckets that cover ``catalog`` with ``tensors_each`` tensors, the last one with fewer."""
    count = len(catalog.tensors)
    return [
        protocol.Bucket(index, first, min(tensors_each, count - first))
        for index, first in enumerate(range(0, count, tensors_each))
    ]


class Server:
    """One bound DEALER socket; a context manager that closes it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="checkpoint-engine-test-")
        self.address = f"ipc://{self._folder.name}/worker"
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.bind(self.address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the socket: the worker loses its peer."""
        if not self._socket.closed:
            self._socket.close()
            self._context.term()
            self._folder.cleanup()

    def send(self, message: protocol.ServerMessage) -> None:
        """Sends a message."""
        self.send_frames(protocol.encode(message))

    def send_frames(self, frames: Sequence[bytes]) -> None:
        """Sends any frames as one message."""
        self._socket.send_multipart([b"", *frames])

    def receive_frames(self, timeout: float = ANSWER_TIMEOUT_S) -> list[bytes]:
        """The frames of the next answer. Raises ``TimeoutError``."""
        if not self._socket.poll(int(timeout * 1000)):
            raise TimeoutError(f"no answer within {timeout} s")
        delimiter, *frames = self._socket.recv_multipart()
        assert delimiter == b""
        return frames

    def receive(self, timeout: float = ANSWER_TIMEOUT_S) -> protocol.WorkerMessage:
        """The next answer."""
        return protocol.decode_worker(self.receive_frames(timeout))

    def ask(self, message: protocol.ServerMessage) -> protocol.WorkerMessage:
        """Sends a message and waits for its answer; ``WorkerFailedError`` for an ``error``."""
        self.send(message)
        return self.answer()

    def answer(self) -> protocol.WorkerMessage:
        """The next answer. Raises ``WorkerFailedError`` for an ``error``."""
        answer = self.receive()
        if isinstance(answer, protocol.Failure):
            raise WorkerFailedError(answer)
        return answer

    def greet(self, deadline_ms: int = 60_000) -> protocol.WorkerHello:
        """The exchange of hellos."""
        answer = self.ask(hello(deadline_ms))
        assert isinstance(answer, protocol.WorkerHello)
        return answer

    def reload(self, buckets: Sequence[protocol.Bucket], credits_: int) -> list[protocol.Loaded]:
        """Sends ``buckets``, at most ``credits_`` of them unanswered."""
        answers: list[protocol.Loaded] = []
        sent = 0
        while len(answers) < len(buckets):
            while sent < len(buckets) and sent - len(answers) < credits_:
                self.send(buckets[sent])
                sent += 1
            answer = self.answer()
            assert isinstance(answer, protocol.Loaded)
            answers.append(answer)
        return answers

    def deliver(self, catalog: protocol.Catalog, *, tensors_each: int = 8) -> None:
        """A whole update. After an ``error`` it aborts and raises ``WorkerFailedError``."""
        try:
            greeting = self.greet()
            assert self.ask(catalog) == protocol.Ready()
            buckets = buckets_of(catalog, tensors_each)
            for loaded, bucket in zip(self.reload(buckets, greeting.credits), buckets, strict=True):
                rows = catalog.tensors[bucket.first : bucket.first + bucket.count]
                assert loaded.index == bucket.index
                assert loaded.bytes == sum(row.byte_count for row in rows)
            assert self.ask(protocol.Release()) == protocol.Released()
            assert isinstance(self.ask(protocol.Commit()), protocol.Committed)
        except WorkerFailedError as error:
            self.abort(str(error.failure.message))
            raise

    def abort(self, reason: str) -> None:
        """Aborts; answers to what was sent before are read and dropped."""
        self.send(protocol.Abort(reason))
        limit = time.monotonic() + ANSWER_TIMEOUT_S
        while self.receive(limit - time.monotonic()) != protocol.Aborted():
            pass


def hello(deadline_ms: int = 60_000) -> protocol.ServerHello:
    """A hello with this package's version."""
    return protocol.ServerHello(
        versions=protocol.VERSIONS, update="update-1", checkpoint="test", deadline_ms=deadline_ms
    )


@contextlib.contextmanager
def shared_memory() -> Iterator[Path]:
    """A new folder in shared memory, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="checkpoint-engine-test-", dir="/dev/shm") as folder:
        yield Path(folder)
