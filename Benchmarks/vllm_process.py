"""A real vLLM as a process, on GPUs or on the CPU."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE = Path(__file__).resolve().parents[1] / "python"
EXTENSION = "checkpoint_engine.worker.VllmColocateWorkerExtension"
PROMPTS: tuple[tuple[int, ...], ...] = (
    (1, 2, 3, 4, 5),
    (200, 17, 99),
    (42,) * 20,
    tuple(range(64)),
    tuple(range(255, 0, -3)),
    (7, 7, 7, 250, 250, 1),
)
TOKEN_COUNT = 24
READY_S_MAX = 240.0
REQUEST_S_MAX = 60.0
STOP_S_MAX = 20.0
LOG_TAIL = 6000

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_SERVER_DEV_MODE": "1",
}
GPU_ENVIRONMENT = {
    # Multicast over NVLink does not work everywhere.
    "NCCL_NVLS_ENABLE": "0",
    # Their kernels would be compiled for minutes.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_USE_DEEP_GEMM": "0",
    "VLLM_BLOCKSCALE_FP8_GEMM_FLASHINFER": "0",
}
CPU_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1"}
FLAGS = ["--dtype", "bfloat16", "--enforce-eager", "--max-model-len", "512"]
GPU_FLAGS = ["--attention-backend", "TRITON_ATTN", "--disable-custom-all-reduce"]
GPU_FLAGS += ["--gpu-memory-utilization", "0.3"]
# What vLLM logs by itself, and what its worker extension does.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)s %(asctime)s [%(name)s] %(message)s"}},
    "handlers": {"stream": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        name: {"handlers": ["stream"], "level": "INFO", "propagate": False}
        for name in ("vllm", "checkpoint_engine")
    },
}
_REFUSAL = "Weights are not loaded in place: "


class VllmError(RuntimeError):
    """vLLM did not do what it was asked to."""


class Vllm:
    """``with Vllm(model, folder) as engine:`` starts it and waits until it is ready.

    Its weights are dummies, unless ``loads``. Its log is in ``folder``. With ``extension`` it has
    our worker extension, else it cannot import anything of ours. ``flags`` come last.
    """

    def __init__(
        self,
        model: Path,
        folder: Path,
        worker_count: int = 1,
        *,
        on_gpu: bool = True,
        loads: bool = False,
        extension: bool = True,
        flags: Sequence[str] = (),
        variables: dict[str, str] | None = None,
    ) -> None:
        self.worker_count = worker_count
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"vllm-{self.port}.log"
        self._variables = variables or {}
        self._on_gpu = on_gpu
        self._has_extension = extension
        self._folder = folder
        self._command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        self._command += ["--model", str(model), "--served-model-name", "model"]
        self._command += ["--host", "127.0.0.1", "--port", str(self.port), *FLAGS]
        self._command += ["--tensor-parallel-size", str(worker_count)]
        self._command += ["--worker-extension-cls", EXTENSION] if extension else []
        self._command += ["--load-format", "auto" if loads else "dummy"]
        self._command += [*(GPU_FLAGS if on_gpu else []), *flags]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def instance(self) -> dict[str, object]:
        """The engine in the body of an update request."""
        ranks = list(range(self.worker_count))
        return {"update_url": f"{self.url}/collective_rpc", "inference_group_ranks": ranks}

    @property
    def load_path(self) -> str:
        """How its workers have loaded weights: in place, or why not."""
        for line in self.log.read_text(errors="replace").splitlines():
            if _REFUSAL in line:
                return "layer by layer: " + line.partition(_REFUSAL)[2]
        return "in place"

    def generate(self) -> list[list[int]]:
        """The greedy tokens for every prompt."""
        return [self._complete(prompt) for prompt in PROMPTS]

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and content of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_S_MAX)
        with contextlib.closing(connection):
            headers = {"content-type": "application/json"} if body is not None else {}
            content = json.dumps(body) if body is not None else None
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def __enter__(self) -> Self:
        settings = self._folder / "vllm-logging.json"
        settings.write_text(json.dumps(LOGGING))
        environment = {
            **(GPU_ENVIRONMENT if self._on_gpu else CPU_ENVIRONMENT),
            **os.environ,
            **ENVIRONMENT,
            "PYTHONPATH": self._python_path(),
            "VLLM_LOGGING_CONFIG_PATH": str(settings),
            **self._variables,
        }
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends it and all of its workers."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S_MAX)

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-LOG_TAIL:]

    def _python_path(self) -> str:
        inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        paths = [path for path in inherited if path and Path(path).resolve() != PACKAGE]
        return os.pathsep.join([str(PACKAGE), *paths] if self._has_extension else paths)

    def _complete(self, prompt: tuple[int, ...]) -> list[int]:
        body = {
            "model": "model",
            "prompt": list(prompt),
            "max_tokens": TOKEN_COUNT,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        status, answer = self.request("POST", "/v1/completions", body)
        if status != http.HTTPStatus.OK:
            raise VllmError(f"vLLM answered {status}: {answer!r}\n{self.tail()}")
        tokens: list[int] = json.loads(answer)["choices"][0]["token_ids"]
        if len(tokens) != TOKEN_COUNT:
            raise VllmError(f"vLLM gave {len(tokens)} tokens, not {TOKEN_COUNT}")
        return tokens

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + READY_S_MAX
        while time.monotonic() < end:
            if process.poll() is not None:
                raise VllmError(f"vLLM ended with {process.returncode}:\n{self.tail()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("GET", "/health")[0] == http.HTTPStatus.OK:
                    return
            time.sleep(0.25)
        raise VllmError(f"vLLM was not ready after {READY_S_MAX} s:\n{self.tail()}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
