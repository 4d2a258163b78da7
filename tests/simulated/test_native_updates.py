"""Updates by vLLM's own transfer: the daemon sends, a stand-in for vLLM's workers receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from daemon import wait_until
from reference import FILE_BYTES_MAX, TIMEOUT_S, device_bytes, files_of
from shapes import Entry, write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from daemon import Answer, Daemon
    from native_engine import NativeEngine

    StartDaemon = Callable[..., Daemon]
    StartNative = Callable[..., NativeEngine]

MIB = 1 << 20
# Every size of elements, odd numbers of bytes, empty tensors, one larger than a chunk.
ENTRIES: list[Entry] = [
    ("model.embed_tokens.weight", "BF16", (4096, 257)),
    ("model.table", "U8", (5_000_001,)),
    ("model.nothing", "F32", (0, 3)),
    ("model.scalar", "F64", ()),
    *(
        entry
        for layer in range(24)
        for entry in (
            (f"model.layers.{layer}.q_proj.weight", "F8_E4M3", (255, 1001)),
            (f"model.layers.{layer}.q_proj.weight_scale_inv", "F32", (2, 9)),
            (f"model.layers.{layer}.norm.weight", "BF16", (129,)),
            (f"model.layers.{layer}.flags", "U8", (2 * layer + 1,)),
        )
    ),
]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three checkpoints of one layout."""
    made = []
    for seed in range(3):
        folder = tmp_path_factory.mktemp(f"native-{seed}")
        write_tensors(folder, ENTRIES, FILE_BYTES_MAX, seed)
        made.append(folder)
    return made


@pytest.fixture
def start_sender(start_daemon: StartDaemon, cuda_library: str) -> StartDaemon:
    def start(*more: str, **variables: str) -> Daemon:
        flags = ["--nccl-library", cuda_library, *more]
        return start_daemon(*flags, bucket_size="1MiB", **variables)

    return start


def update(
    daemon: Daemon, name: str, *engines: NativeEngine, timeout: float = 20, **fields: object
) -> Answer:
    body: dict[str, Any] = {
        "instances": [{"update_url": engine.url} for engine in engines],
        "engine_protocol": "vllm-native",
        "timeout": timeout,
        **fields,
    }
    return daemon.request("POST", f"/v1/checkpoints/{name}/update", body, timeout=TIMEOUT_S)


def deliver(daemon: Daemon, name: str, checkpoint: Path, *engines: NativeEngine) -> Any:
    answer = update(daemon, name, *engines)
    assert answer.status == 200, answer.body
    for engine in engines:
        engine.check_holds(checkpoint)
    return answer.body


def test_every_byte_of_two_versions(
    start_sender: StartDaemon, start_native_engine: StartNative, versions: list[Path]
) -> None:
    engine = start_native_engine(2)
    with start_sender() as daemon:
        for number in (0, 1):
            assert daemon.register(f"step-{number}", versions[number]).status == 200
            status = deliver(daemon, f"step-{number}", versions[number], engine)
            assert status["loaded_bytes"] == status["bytes"]
            stages = [stage["stage"] for stage in status["stages"]]
            assert stages == ["handshake", "catalog", "reload", "commit", "finish"]
        # The group was joined once, and has more than two chunks to pass on.
        assert engine.inits == 1
        assert all(len(sizes) > 3 for sizes in engine.each("chunk_sizes"))
        # A sender that has left joins anew.
        assert daemon.request("POST", "/v1/gpus/release").body == {"held_bytes": 0}
        deliver(daemon, "step-0", versions[0], engine)
        assert engine.inits == 2


def test_two_engines_with_control(
    start_sender: StartDaemon, start_native_engine: StartNative, versions: list[Path]
) -> None:
    engines = [start_native_engine(1, 1), start_native_engine(2, 2)]
    with start_sender() as daemon:
        assert daemon.register("step", versions[0]).status == 200
        answer = update(daemon, "step", *engines, pause="keep", weight_version="seven")
        assert answer.status == 200, answer.body
        for engine in engines:
            engine.check_holds(versions[0])
            assert engine.weight_version == "seven"
            assert not engine.is_paused
            assert engine.calls.index("POST /pause") < engine.calls.index("POST /update_weights")


@pytest.mark.parametrize(
    ("path", "is_mixed"),
    [
        ("/init_weight_transfer_engine", False),
        ("/start_weight_update", True),
        ("/update_weights", True),
        ("/finish_weight_update", True),
    ],
)
def test_a_call_that_is_refused(
    start_sender: StartDaemon,
    start_native_engine: StartNative,
    versions: list[Path],
    path: str,
    is_mixed: bool,  # noqa: FBT001 - pytest's
) -> None:
    engine = start_native_engine(2)
    with start_sender() as daemon:
        assert daemon.register("step", versions[0]).status == 200
        # What a failure may have left open is finished before a sender joins.
        engine.fail(path, times=2 if path == "/finish_weight_update" else 1)
        answer = update(daemon, "step", engine)
        answer.check_failure(502, "engine_failed", path, engine.url)
        assert ("mixture" in answer.body["error"]["message"]) == is_mixed
        wait_until(lambda: device_bytes(daemon.program.pid) == 0, "the memory is given back")
        engine.respawn()
        deliver(daemon, "step", versions[0], engine)


@pytest.mark.parametrize("chunk", [0, 3])
def test_a_worker_that_dies(
    start_sender: StartDaemon, start_native_engine: StartNative, versions: list[Path], chunk: int
) -> None:
    engine = start_native_engine(2, timeout=5)
    with start_sender() as daemon:
        assert daemon.register("step", versions[0]).status == 200
        deliver(daemon, "step", versions[0], engine)
        engine.kill_worker(1, chunk)
        answer = update(daemon, "step", engine)
        assert answer.status in (500, 502), answer.body
        assert answer.seconds < 20
        engine.respawn()
        assert daemon.register("next", versions[1]).status == 200
        deliver(daemon, "next", versions[1], engine)


def test_an_engine_that_is_down_does_not_keep_the_sender(
    start_sender: StartDaemon, start_native_engine: StartNative, versions: list[Path]
) -> None:
    engine = start_native_engine(2)
    with start_sender() as daemon:
        assert daemon.register("step", versions[0]).status == 200
        nobody = [{"update_url": "http://127.0.0.1:9"}]
        for _ in range(2):
            answer = update(daemon, "step", timeout=20, instances=nobody)
            answer.check_failure(503, "engine_unreachable", "127.0.0.1:9")
        deliver(daemon, "step", versions[0], engine)


def test_another_number_of_workers_is_refused(
    start_sender: StartDaemon, start_native_engine: StartNative, versions: list[Path]
) -> None:
    engine = start_native_engine(2)
    with start_sender() as daemon:
        assert daemon.register("step", versions[0]).status == 200
        # It says that it has one worker more than there are.
        listed = [{"update_url": engine.url, "workers": 3}]
        answer = update(daemon, "step", timeout=30, instances=listed)
        answer.check_failure(400, "invalid_argument", "names 3 workers", "tells that it has 2")
        wait_until(lambda: files_of(daemon.program.pid) == {}, "the memory is given back")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sender_gpu": 9}, "no GPU 9"),
        ({"engine": "sglang"}, "no vLLM"),
        ({"engine_protocol": "worker-extension", "sender_gpu": 0}, "sender_gpu"),
        ({"engine_protocol": "carrier pigeon"}, "vllm-native"),
    ],
)
def test_what_is_refused(
    start_sender: StartDaemon,
    start_native_engine: StartNative,
    versions: list[Path],
    fields: dict[str, object],
    words: str,
) -> None:
    engine = start_native_engine(1)
    with start_sender() as daemon:
        assert daemon.register("step", versions[0]).status == 200
        answer = update(daemon, "step", engine, **fields)
        answer.check_failure(400, "invalid_argument", words)


def test_an_engine_on_the_senders_gpu_is_refused_by_nccl(
    start_sender: StartDaemon, start_native_engine: StartNative, versions: list[Path]
) -> None:
    engine = start_native_engine(1, 0, timeout=5)
    with start_sender() as daemon:
        assert daemon.register("step", versions[0]).status == 200
        answer = update(daemon, "step", engine, timeout=8)
        assert answer.status in (500, 502), answer.body
        assert answer.seconds < 15
