"""The stand-in for vLLM's native weight transfer, against a sender in Python."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from daemon import wait_until
from packed_chunks import DTYPES
from shapes import StoredTensor, stored_tensors
from simulated_gpu import Communicator, Gpu, Library, NcclError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from native_engine import NativeEngine

    StartNative = Callable[..., NativeEngine]

LIMIT = 1 << 20
NAMES = {stored: name for name, (_, stored) in DTYPES.items()}


def ask(engine: NativeEngine, path: str, body: object = None) -> tuple[int, Any]:
    """Status and content of a POST, or of a GET where there is no body."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{engine.url}{path}", content)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


class Sender:
    """Rank 0 of the group, on the first GPU."""

    def __init__(self, library: str, engine: NativeEngine, timeout: float = 20) -> None:
        self.library = Library(library)
        self.gpu = Gpu(self.library, 0)
        self._engine = engine
        self._timeout = timeout
        self._communicator: Communicator | None = None
        self.stream = self.gpu.stream()

    def init(self, *, packed: bool = True, **fields: object) -> tuple[int, Any]:
        """Joins together with the workers; the answer of the engine."""
        world_size = ask(self._engine, "/get_world_size")[1]["world_size"] + 1
        name = self.library.unique_id()
        info = {
            "nccl_unique_id_b64": base64.b64encode(name).decode(),
            "rank_offset": 1,
            "world_size": world_size,
            "packed": packed,
            "packed_buffer_size_bytes": LIMIT,
            **fields,
        }
        answer = _Background(
            lambda: ask(self._engine, "/init_weight_transfer_engine", {"init_info": info})
        )
        with contextlib.suppress(NcclError, TimeoutError):
            group = Communicator(self.gpu, name, 0, world_size, self._timeout)
            scratch = self.gpu.allocate(4)
            self.gpu.write(scratch, bytes(4))
            group.all_reduce(scratch, scratch, 1, self.stream)
            self.stream.wait(time.monotonic() + self._timeout, group.check)
            self.gpu.free(scratch)
            self._communicator = group
        return answer.wait()

    def send(self, parts: Sequence[bytes]) -> None:
        """One broadcast for each part."""
        assert self._communicator is not None
        for part in parts:
            buffer = self.gpu.allocate(len(part))
            try:
                self.stream.write(buffer, part)
                self._communicator.broadcast(buffer, buffer, len(part), 0, self.stream)
                self.stream.wait(time.monotonic() + self._timeout, self._communicator.check)
            except BaseException:
                self.leave()
                raise
            finally:
                self.gpu.free(buffer)

    def update(
        self, tensors: Sequence[StoredTensor], parts: Sequence[bytes]
    ) -> tuple[tuple[int, Any], Exception | None]:
        """The answer of ``/update_weights`` and the failure of the sender beside it."""
        info = {
            "names": [tensor.name for tensor in tensors],
            "dtype_names": [NAMES[tensor.dtype] for tensor in tensors],
            "shapes": [tensor.shape for tensor in tensors],
        }
        answer = _Background(lambda: ask(self._engine, "/update_weights", {"update_info": info}))
        failure: Exception | None = None
        try:
            self.send(parts)
        except (NcclError, TimeoutError) as error:
            failure = error
        return answer.wait(), failure

    def leave(self) -> None:
        if self._communicator is not None:
            self._communicator.abort()
            self._communicator = None


class _Background:
    """A call in a thread."""

    def __init__(self, call: Callable[[], tuple[int, Any]]) -> None:
        self._answers: list[tuple[int, Any]] = []
        self._thread = threading.Thread(target=lambda: self._answers.append(call()))
        self._thread.start()

    def wait(self) -> tuple[int, Any]:
        self._thread.join()
        return self._answers[0]


@pytest.fixture
def engine(start_native_engine: StartNative) -> NativeEngine:
    return start_native_engine(2, timeout=5.0)


@pytest.fixture
def sender(cuda_library: str, engine: NativeEngine) -> Iterator[Sender]:
    made = Sender(cuda_library, engine, timeout=5.0)
    yield made
    made.leave()
    made.stream.destroy()


def ordered(checkpoint: Path) -> list[StoredTensor]:
    """Larger elements first, so that every tensor begins where it may."""
    found = list(stored_tensors(checkpoint))
    return sorted(found, key=lambda tensor: -DTYPES[NAMES[tensor.dtype]][0])


def contents(tensors: Sequence[StoredTensor]) -> list[bytes]:
    found = []
    for tensor in tensors:
        with tensor.path.open("rb") as file:
            file.seek(tensor.offset)
            found.append(file.read(tensor.byte_count))
    return found


def packed(tensors: Sequence[StoredTensor], limit: int = LIMIT) -> list[bytes]:
    """The chunks, cut here by adding up alone."""
    parts: list[bytes] = [b""]
    for content in contents(tensors):
        if len(parts[-1]) > limit:
            parts.append(b"")
        parts[-1] += content
    return parts


def deliver(engine: NativeEngine, sender: Sender, checkpoint: Path, version: str) -> None:
    tensors = ordered(checkpoint)
    assert ask(engine, "/start_weight_update", {})[0] == 200
    answer, failure = sender.update(tensors, packed(tensors))
    assert failure is None
    assert answer == (200, {"message": "Weights updated"})
    finished = ask(engine, "/finish_weight_update", {"weight_version": version})
    assert finished == (200, {"message": "Weight update finished"})
    engine.check_holds(checkpoint)
    assert ask(engine, "/weight_info") == (200, {"weight_version": version})


def test_updates_bit_for_bit_over_one_group(
    engine: NativeEngine, sender: Sender, checkpoints: list[Path]
) -> None:
    assert sender.init() == (200, {"message": "Weight transfer initialized"})
    for number, checkpoint in enumerate(checkpoints):
        deliver(engine, sender, checkpoint, f"step-{number}")
        other = checkpoints[(number + 1) % 3]
        assert all(len(found) > 20 for found in engine.each("differences", other))
    assert all(len(sizes) > 8 for sizes in engine.each("chunk_sizes"))
    assert ask(engine, "/shutdown_weight_transfer_engine", {})[0] == 200


def test_tensor_by_tensor(engine: NativeEngine, sender: Sender, checkpoints: list[Path]) -> None:
    assert sender.init(packed=False)[0] == 200
    tensors = [tensor for tensor in stored_tensors(checkpoints[0]) if tensor.byte_count > 0]
    assert ask(engine, "/start_weight_update", {})[0] == 200
    answer, failure = sender.update(tensors, contents(tensors))
    assert (answer[0], failure) == (200, None)
    assert ask(engine, "/finish_weight_update", {})[0] == 200
    assert engine.each("differences", checkpoints[0]) == [["model.nothing: not received"]] * 2


def test_nothing_is_held_before_the_end(
    engine: NativeEngine, sender: Sender, checkpoints: list[Path]
) -> None:
    assert sender.init()[0] == 200
    deliver(engine, sender, checkpoints[0], "one")
    tensors = ordered(checkpoints[1])
    assert ask(engine, "/start_weight_update", {})[0] == 200
    assert sender.update(tensors, packed(tensors))[0][0] == 200
    engine.check_holds(checkpoints[0])
    assert ask(engine, "/finish_weight_update", {})[0] == 200
    engine.check_holds(checkpoints[1])


def test_a_tensor_off_its_border_is_refused(
    engine: NativeEngine, sender: Sender, checkpoints: list[Path]
) -> None:
    """One byte before a tensor of two: torch would not view it."""
    assert sender.init()[0] == 200
    by_size = sorted(ordered(checkpoints[0]), key=lambda tensor: tensor.byte_count)
    odd = next(tensor for tensor in by_size if tensor.byte_count % 2 == 1)
    wide = next(tensor for tensor in by_size if tensor.dtype == "BF16" and tensor.byte_count > 0)
    assert ask(engine, "/start_weight_update", {})[0] == 200
    (status, body), failure = sender.update([odd, wide], packed([odd, wide]))
    assert (status, failure) == (500, None)
    assert wide.name in body["error"]["message"]
    assert ask(engine, "/finish_weight_update", {})[0] == 500
    deliver(engine, sender, checkpoints[0], "after")


@pytest.mark.parametrize("limit", [LIMIT // 2, LIMIT * 2])
def test_a_sender_with_other_borders_is_found(
    engine: NativeEngine, sender: Sender, checkpoints: list[Path], limit: int
) -> None:
    assert sender.init()[0] == 200
    tensors = ordered(checkpoints[0])
    assert ask(engine, "/start_weight_update", {})[0] == 200
    (status, body), failure = sender.update(tensors, packed(tensors, limit))
    assert status == 500
    assert isinstance(failure, NcclError)
    assert "differs" in str(failure)
    assert "elements" in body["error"]["message"]


STEPS = [
    "/init_weight_transfer_engine",
    "/start_weight_update",
    "/update_weights",
    "/finish_weight_update",
]


@pytest.mark.parametrize("step", STEPS)
def test_an_error_in_any_step(
    engine: NativeEngine, sender: Sender, checkpoints: list[Path], step: str
) -> None:
    engine.fail(step, status=503)
    assert ask(engine, step, {"init_info": {}, "update_info": {}})[0] == 503
    assert sender.init()[0] == 200
    deliver(engine, sender, checkpoints[0], "after")


def test_a_worker_that_dies_in_the_middle(
    engine: NativeEngine, sender: Sender, checkpoints: list[Path]
) -> None:
    assert sender.init()[0] == 200
    engine.kill_worker(1, 3)
    tensors = ordered(checkpoints[0])
    assert ask(engine, "/start_weight_update", {})[0] == 200
    (status, body), failure = sender.update(tensors, packed(tensors))
    assert status == 500
    assert "worker 1: the worker died in update" in body["error"]["message"]
    assert isinstance(failure, NcclError)
    wait_until(lambda: ask(engine, "/health")[0] == 500, "the engine is not well")
    engine.respawn()
    assert ask(engine, "/health")[0] == 200
    assert sender.init()[0] == 200
    deliver(engine, sender, checkpoints[1], "after")


def test_init_twice(engine: NativeEngine, sender: Sender, checkpoints: list[Path]) -> None:
    """The second group takes the place of the first, unless the engine refuses it."""
    assert sender.init()[0] == 200
    deliver(engine, sender, checkpoints[0], "one")
    sender.leave()
    assert sender.init()[0] == 200
    deliver(engine, sender, checkpoints[1], "two")
    engine.refuses_second_init = True
    status, body = ask(engine, "/init_weight_transfer_engine", {"init_info": {}})
    assert status == 500
    assert "before" in body["error"]["message"]
    assert engine.inits == 2


WRONG_INITS = {
    "no id": ({"nccl_unique_id_b64": None}, "TCP store"),
    "both": ({"master_address": "127.0.0.1", "master_port": 1}, "not both"),
    "not base64": ({"nccl_unique_id_b64": "-_-_"}, "base64"),
    "short": ({"nccl_unique_id_b64": "AAAA"}, "128 bytes"),
    "rank": ({"rank_offset": 2}, "out of range"),
    "unknown": ({"backend": "nccl"}, "backend"),
}


@pytest.mark.parametrize("case", WRONG_INITS)
def test_an_init_that_is_refused(engine: NativeEngine, sender: Sender, case: str) -> None:
    fields, word = WRONG_INITS[case]
    sender._timeout = 0.5
    status, body = sender.init(**fields)
    assert status == 500
    assert word in body["error"]["message"]


def test_the_order_of_the_session(engine: NativeEngine) -> None:
    update = {"update_info": {"names": [], "dtype_names": [], "shapes": []}}
    assert ask(engine, "/update_weights", update)[0] == 500
    assert ask(engine, "/finish_weight_update", {})[0] == 500
    assert ask(engine, "/start_weight_update", {})[0] == 200
    assert ask(engine, "/start_weight_update", {})[0] == 500
    assert ask(engine, "/shutdown_weight_transfer_engine", {})[0] == 500
    status, body = ask(engine, "/update_weights", update)
    assert (status, "not initialized" in body["error"]["message"]) == (500, True)
    # A failed call has ended the session.
    assert ask(engine, "/start_weight_update", {})[0] == 200
    assert ask(engine, "/update_weights", {"info": {}})[0] == 400
    assert ask(engine, "/nothing", {})[0] == 404


def test_pause_and_version(engine: NativeEngine) -> None:
    assert ask(engine, "/is_paused") == (200, {"is_paused": False})
    assert ask(engine, "/pause?mode=never", {})[0] == 400
    assert ask(engine, "/pause?mode=keep&clear_cache=false", {}) == (200, {"status": "paused"})
    assert ask(engine, "/is_paused") == (200, {"is_paused": True})
    assert ask(engine, "/resume", {}) == (200, {"status": "resumed"})
    answer = ask(engine, "/update_weight_version", {"new_version": "seven"})
    assert answer == (200, {"success": True, "new_version": "seven"})
    assert ask(engine, "/weight_info") == (200, {"weight_version": "seven"})
