"""Senders of the PyPI package's protocol reach this worker; hostile frames do not."""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import zmq
from checkpoint_engine import known_session
from checkpoint_engine.errors import AbortedError, LoadError, ProtocolError
from checkpoint_engine.known_reader import KnownBucket, KnownEnd, KnownFailure, read_known_frame
from checkpoint_engine.worker import update_weights_from_ipc
from fake_gpu import FakeGpu
from torch.multiprocessing.reductions import rebuild_cuda_tensor
from torch.storage import TypedStorage, UntypedStorage
from worker_thread import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

BUFFER_BYTES = 1 << 16
ANSWER_TIMEOUT_MS = 30_000


def handle_frame(**changed: Any) -> bytes:
    arguments = {
        "tensor": torch.Tensor,
        "size": torch.Size((BUFFER_BYTES,)),
        "stride": (1,),
        "offset": 0,
        "storage": TypedStorage,
        "dtype": torch.uint8,
        "device": 0,
        "handle": secrets.token_bytes(64),
        "total": BUFFER_BYTES,
        "start": 0,
        "gradient": False,
        "counter": b"/torch_1_2",
        "counter_offset": 3,
        "event": bytes(64),
        "waits": True,
    }
    arguments.update(changed)
    return pickle.dumps((rebuild_cuda_tensor, tuple(arguments.values())))


class Sender:
    """The other package's server: a REQ socket, and its buffer."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        self._socket.setsockopt(zmq.RCVTIMEO, ANSWER_TIMEOUT_MS)
        self._socket.bind(address)
        self.buffer = torch.zeros(BUFFER_BYTES, dtype=torch.uint8)

    def ask(self, frame: bytes) -> bytes:
        self._socket.send(frame)
        return self._socket.recv()

    def tell(self, frame: bytes) -> None:
        self._socket.send(frame)

    def bucket(self, tensors: dict[str, torch.Tensor], start: int = 0) -> bytes:
        """Puts tensors into the buffer; the answer of the worker."""
        metas = []
        offset = start
        for name, tensor in tensors.items():
            raw = tensor.contiguous().view(-1).view(torch.uint8)
            self.buffer[offset : offset + raw.numel()] = raw
            metas.append(
                {"name": name, "dtype": tensor.dtype, "shape": tensor.shape, "offset": offset}
            )
            offset += -(-raw.numel() // 256) * 256
        return self.ask(pickle.dumps(metas))

    def close(self) -> None:
        self._socket.close(linger=1000)
        self._context.term()


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"ipc://{Path(folder) / 'worker.sock'}"


@pytest.fixture
def sender(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sender]:
    FakeGpu(monkeypatch)
    sender = Sender(address)
    monkeypatch.setattr(known_session, "open_buffer", lambda *_: sender.buffer)
    monkeypatch.setattr(torch.cuda, "ipc_collect", lambda: None)
    yield sender
    sender.close()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def tensors(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((7, 33), generator=generator).to(torch.bfloat16)
    scale = torch.randn((5,), generator=generator)
    return {f"{seed}.weight": weight, f"{seed}.scale": scale, f"{seed}.flag": torch.ones(()).bool()}


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("clones", [False, True])
def test_every_byte_arrives(sender, address, recorder, generation, clones):
    worker = recorder.start(address, clones_buckets=clones)
    assert sender.ask(handle_frame()) == b""
    sent = {}
    for seed in range(4):
        part = tensors(seed)
        sent.update(part)
        # Halves of the buffer in turn.
        assert sender.bucket(part, seed % 2 * BUFFER_BYTES // 2) == b""
    assert sender.ask(pickle.dumps(None)) == b""
    if generation == 1:
        sender.close()
    else:
        assert recorder.commits == 0
        assert sender.ask(pickle.dumps(None)) == b""
    assert worker.end() is None
    assert recorder.commits == 1
    assert recorder.aborts == 0
    assert list(recorder.loaded) == list(sent)
    for name, tensor in sent.items():
        assert torch.equal(recorder.loaded[name], tensor)


def test_an_older_sender_that_waits_for_the_engine_has_its_answer(
    sender, address, recorder, monkeypatch
):
    monkeypatch.setattr(known_session, "SECOND_WORD_S", 0.2)
    worker = recorder.start(address)
    assert sender.ask(handle_frame()) == b""
    assert sender.bucket(tensors(0)) == b""
    assert sender.ask(pickle.dumps(None)) == b""
    # It says no more until the engine has answered, and for that the worker has to return.
    assert worker.end() is None
    assert (recorder.commits, recorder.aborts) == (1, 0)


def test_a_late_last_word_of_a_newer_sender_is_answered(sender, address, recorder, monkeypatch):
    monkeypatch.setattr(known_session, "SECOND_WORD_S", 0.2)
    # Ended, not destroyed: that would close the socket of the thread that waits for the last word.
    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as pool:
        context = zmq.Context()
        stack.callback(context.term)
        worker = pool.submit(
            update_weights_from_ipc,
            context,
            address,
            run=recorder.run,
            post_hook=recorder.post_hook,
            worker_id="CPU-0",
        )
        assert sender.ask(handle_frame()) == b""
        assert sender.ask(pickle.dumps(None)) == b""
        worker.result(ANSWER_TIMEOUT_MS / 1000)
        assert recorder.commits == 1
        assert sender.ask(pickle.dumps(None)) == b""
        assert recorder.commits == 1


def test_a_failed_load_is_told_and_the_sender_ends_the_update(sender, address, recorder):
    def refuse(_: object) -> None:
        raise KeyError("no such layer")

    recorder.run = refuse
    worker = recorder.start(address)
    assert sender.ask(handle_frame()) == b""
    answer = sender.bucket(tensors(0)).decode()
    assert "KeyError" in answer
    assert "no such layer" in answer
    sender.tell(pickle.dumps(RuntimeError("Some workers failed to update weights")))
    assert "Some workers failed" in worker.error(AbortedError)
    assert (recorder.commits, recorder.aborts) == (0, 1)


def test_a_failed_commit_is_told(sender, address, recorder):
    def refuse() -> None:
        raise ValueError("not now")

    recorder.post_hook = refuse
    worker = recorder.start(address)
    assert sender.ask(handle_frame()) == b""
    assert sender.ask(pickle.dumps(None)) == b""
    assert b"not now" in sender.ask(pickle.dumps(None))
    assert "not now" in worker.error(LoadError)


def test_a_tensor_outside_the_buffer_is_refused(sender, address, recorder):
    worker = recorder.start(address)
    assert sender.ask(handle_frame()) == b""
    meta = {
        "name": "w",
        "dtype": torch.int64,
        "shape": torch.Size((2,)),
        "offset": BUFFER_BYTES - 8,
    }
    assert b"ends after the buffer" in sender.ask(pickle.dumps([meta]))
    sender.tell(pickle.dumps(RuntimeError("stop")))
    worker.error(AbortedError)
    assert recorder.loaded == {}


def test_a_first_frame_that_is_none_is_answered(sender, address, recorder):
    worker = recorder.start(address)
    assert b"not a handle" in sender.ask(pickle.dumps(None))
    sender.tell(b"anything")
    worker.error(ProtocolError)


class Evil:
    """What unpickling would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/evil",)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (pickle.dumps(Evil()), "posix.system"),
        (pickle.dumps([Evil()]), "posix.system"),
        (pickle.dumps(os.path.join), "join"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "builtins.eval"),
        # The names of the list cannot be called or changed.
        (b"\x80\x04\x8c\x05torch\x8c\x06Tensor\x93)R.", "cannot be read"),
        (b"\x80\x04\x8c\x05torch\x8c\x04Size\x93}\x8c\x01ax\x93b.", "cannot be read"),
        (b"\x80\x04\x8c\x05torch\x8c\x04Size\x93}(\x8c\x01aK\x01ub.", "cannot be read"),
        (b"\x80\x04N.N.", "after its end"),
        (b"\x80\x04N", "cannot be read"),
        (b"\x80\x04Pname\n.", "outside it"),
        (pickle.dumps("text"), "a str"),
        (pickle.dumps([1]), "name, dtype, shape and offset"),
        (handle_frame(dtype=torch.float32), "flat tensor of bytes"),
        (handle_frame(size=torch.Size((2, 2))), "flat tensor of bytes"),
        (handle_frame(handle=b"short"), "form of torch's"),
        (handle_frame(waits=1), "form of torch's"),
        (handle_frame(total=-1), "out of range"),
    ],
)
def test_hostile_frames_are_refused(frame, words):
    with pytest.raises(ProtocolError, match=words):
        read_known_frame(frame)


@pytest.mark.parametrize(
    "frame",
    [
        b"\x80\x04B\x00\x00\x00\x40x.",
        b"\x80\x04X\x00\x00\x00\x40x.",
        b"\x80\x04\x8e\x00\x00\x00\x40\x00\x00\x00\x00x.",
        b"\x80\x05\x96\x00\x00\x00\x40\x00\x00\x00\x00x.",
        b"\x80\x04\x95\x00\x00\x00\x40\x00\x00\x00\x00N.",
        b"\x80\x04\x8b\x00\x00\x00\x40x.",
        b"\x80\x04Nr\x00\x00\x00\x02.",
        b"\x80\x04Np99999999\n.",
    ],
)
def test_lengths_beyond_the_frame_take_no_memory(frame):
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            read_known_frame(frame)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_frames_are_read():
    assert isinstance(read_known_frame(pickle.dumps(None)), KnownEnd)
    assert read_known_frame(pickle.dumps(RuntimeError("why"))) == KnownFailure("why")
    assert read_known_frame(pickle.dumps([])) == KnownBucket(())
    handle = read_known_frame(handle_frame(storage=UntypedStorage, start=512))
    assert (handle.byte_count, handle.storage_offset, handle.counter_offset) == (
        BUFFER_BYTES,
        512,
        3,
    )
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        meta = {"name": "w", "dtype": torch.bfloat16, "shape": torch.Size((2, 3)), "offset": 256}
        [row] = read_known_frame(pickle.dumps([meta], protocol)).rows
        assert (row.name, row.dtype, row.shape, row.offset) == ("w", "BF16", (2, 3), 256)
