"""A running vLLM takes new weights, and answers as a fresh one that loaded the same files."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from model_files import read_tensors, write_tensors
from ports import free_port
from typing_extensions import Self
from vllm_server import VllmServer, fresh_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = os.environ.get(
    "CHECKPOINT_ENGINE_BIN", str(REPOSITORY / ".build/release/checkpoint-engine")
)
RUN_S = 120.0


def update(server: VllmServer, checkpoint: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            BINARY,
            "update",
            "--checkpoint-path",
            str(checkpoint),
            "--endpoint",
            server.url,
            "--timeout",
            "60",
            *more,
        ],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


def assert_committed(result: subprocess.CompletedProcess[str], worker_count: int = 1) -> None:
    assert result.returncode == 0, result.stderr
    status = json.loads(result.stdout)
    assert status["state"] == "succeeded"
    assert [worker["committed"] for worker in status["workers"]] == [True] * worker_count
    assert all(w["loaded_bytes"] == status["bytes"] > 0 for w in status["workers"])


@pytest.fixture(scope="module")
def dense(
    model: Callable[[str, int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """A dense Qwen3 on one worker, started with dummy weights."""
    log = tmp_path_factory.mktemp("dense") / "vllm.log"
    with VllmServer(model("qwen3", 1), log) as server:
        yield server


def test_dense_there_and_back(dense, model, fresh) -> None:
    first, second = model("qwen3", 1), model("qwen3", 2)
    dummy = dense.generate()
    expected = {path: fresh(path) for path in (first, second)}
    assert expected[first] != expected[second]
    assert dummy not in expected.values()
    for path in (first, second, first):
        assert_committed(update(dense, path, "--json"))
        assert dense.generate() == expected[path], path


def test_failed_update_then_a_good_one(dense, model, fresh) -> None:
    # The right names with the shapes of another model: the engine's loader refuses them.
    wrong = update(dense, model("qwen3-moe", 1))
    assert wrong.returncode == 1
    assert "worker CPU-0" in wrong.stderr
    assert "Traceback (most recent call last)" in wrong.stderr
    assert_committed(update(dense, model("qwen3", 2), "--json"))
    assert dense.generate() == fresh(model("qwen3", 2))


def test_a_part_of_a_layer_leaves_the_engine_as_it_was(dense, model, fresh, tmp_path) -> None:
    assert_committed(update(dense, model("qwen3", 1), "--json"))
    new = read_tensors(model("qwen3", 2))
    del new["model.layers.2.self_attn.k_proj.weight"]
    write_tensors(tmp_path, new, 1 << 20)
    refused = update(dense, tmp_path)
    assert refused.returncode == 1
    assert "worker CPU-0" in refused.stderr
    assert "mixture" not in refused.stderr
    assert "model.layers.2.self_attn.qkv_proj: of weight q, v, but not k" in refused.stderr
    assert dense.generate() == fresh(model("qwen3", 1))
    # Another layer, as a whole.
    part = {name: tensor for name, tensor in new.items() if ".layers.3." in name}
    write_tensors(tmp_path, part, 1 << 20)
    assert_committed(update(dense, tmp_path, "--json"))
    assert dense.generate() not in (fresh(model("qwen3", 1)), fresh(model("qwen3", 2)))


class Daemon:
    """``checkpoint-engine serve`` and its HTTP API."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process = subprocess.Popen(
            [BINARY, "serve", "--listen", f"127.0.0.1:{self.port}", "--no-token"],
            stderr=subprocess.DEVNULL,
        )

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=RUN_S)
        with closing(connection):
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content.startswith(b"{") else content

    def __enter__(self) -> Self:
        end = time.monotonic() + 10
        while not self._listens():
            assert time.monotonic() < end, "the daemon does not listen"
            time.sleep(0.02)
        return self

    def _listens(self) -> bool:
        try:
            return self.request("GET", "/v1/healthz")[0] == http.HTTPStatus.OK
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        assert self._process.wait(10) == 0


def test_daemon_over_its_http_api(dense, model, fresh) -> None:
    with Daemon() as daemon, concurrent.futures.ThreadPoolExecutor() as pool:
        for seed in (2, 1):
            path = model("qwen3", seed)
            name = f"/v1/checkpoints/step-{seed}"
            files = [str(file) for file in sorted(path.glob("*.safetensors"))]
            assert daemon.request("POST", f"{name}/files", {"files": files})[0] == 200
            assert daemon.request("POST", f"{name}/gather-metas")[0] == 200
            running = pool.submit(
                daemon.request,
                "POST",
                f"{name}/update",
                {
                    "update_url": f"{dense.url}/collective_rpc",
                    "inference_group_ranks": [0],
                    "timeout": 60,
                },
            )
            healthy = 0
            while not running.done():
                assert daemon.request("GET", "/v1/healthz")[0] == 200
                healthy += 1
            status, answer = running.result()
            assert status == 200, answer
            assert healthy > 0
            assert daemon.request("GET", f"/v1/updates/{answer['id']}")[1]["state"] == "succeeded"
            assert dense.generate() == fresh(path)
            assert daemon.request("DELETE", name)[0] == 200
        metrics = daemon.request("GET", "/metrics")[1].decode()
        assert "checkpoint_engine_" in metrics


def test_moe_over_two_workers(model, fresh, tmp_path) -> None:
    first, second = model("qwen3-moe", 1), model("qwen3-moe", 2)
    with VllmServer(first, tmp_path / "vllm.log", worker_count=2) as server:
        tokens = []
        for path in (first, second, first):
            assert_committed(update(server, path, "--json"), worker_count=2)
            tokens.append(server.generate())
        # Two ranks add in another order than one, so the referee of this engine is itself: the
        # tokens of each file come back exactly, and differ between files.
        assert tokens[0] == tokens[2] != tokens[1]
        assert tokens[0][0][:4] == fresh(first)[0][:4]
        # What all workers refuse leaves no answer behind that the next call would get.
        part = read_tensors(second)
        part = {name: part[name] for name in part if ".layers.1.mlp.experts.3.up_" not in name}
        (tmp_path / "part").mkdir()
        write_tensors(tmp_path / "part", part, 1 << 20)
        for _ in range(2):
            refused = update(server, tmp_path / "part")
            assert refused.returncode == 1
            assert "only a part of" in refused.stderr
            assert_committed(update(server, second, "--json"), worker_count=2)
            assert server.generate() == tokens[1]


def test_moe_on_one_worker(model, fresh, tmp_path) -> None:
    with VllmServer(model("qwen3-moe", 1), tmp_path / "vllm.log") as server:
        for seed in (1, 2, 1):
            path = model("qwen3-moe", seed)
            assert_committed(update(server, path, "--json"))
            assert server.generate() == fresh(path), path
        server.kill_engine()
        start = time.monotonic()
        killed = update(server, model("qwen3-moe", 1), "--ready-timeout", "5", "--timeout", "10")
        assert killed.returncode == 1
        assert server.url in killed.stderr
        assert time.monotonic() - start < 30


def test_tied_embeddings(model, fresh, tmp_path) -> None:
    # The files of the second kind have the output embedding too, in another bucket.
    with VllmServer(model("qwen3-tied", 1), tmp_path / "vllm.log") as server:
        for kind, seed in (("qwen3-tied", 1), ("qwen3-tied-alias", 2), ("qwen3-tied", 1)):
            path = model(kind, seed)
            assert_committed(update(server, path, "--json", "--bucket-size", "64KiB"))
            assert server.generate() == fresh(path), path


def test_quantised(model, fresh, tmp_path) -> None:
    first, second = model("qwen3-int8", 1), model("qwen3-int8", 2)
    with VllmServer(first, tmp_path / "vllm.log") as server:
        tokens = []
        for path in (second, first, second):
            assert_committed(update(server, path, "--json", "--bucket-size", "64KiB"))
            tokens.append(server.generate())
        assert tokens[0] == tokens[2] == fresh(second) != tokens[1]


def test_latent_attention_and_a_draft_model(model, tmp_path) -> None:
    speculation = {"method": "mtp", "num_speculative_tokens": 1}
    flags = ("--speculative-config", json.dumps(speculation))
    first, second = model("deepseek-mtp", 1), model("deepseek-mtp", 2)
    with VllmServer(first, tmp_path / "vllm.log", *flags) as server:
        assert_committed(update(server, first, "--json"))
        tokens = server.generate()
        assert_committed(update(server, second, "--json", "--bucket-size", "64KiB"))
        before = server.guessed()
        expected, guessed = fresh_answers(second, speculative_config=speculation)
        assert server.generate() == expected != tokens
        # The draft model has its new weights: it guesses as well as that of a fresh engine.
        assert server.guessed() - before == guessed > 0
