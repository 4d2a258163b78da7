"""A real vLLM as a process, with dummy weights, and the tokens of a fresh one."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ports import free_port

if TYPE_CHECKING:
    from types import TracebackType

EXTENSION = "checkpoint_engine.worker.VllmColocateWorkerExtension"
PROMPTS: tuple[tuple[int, ...], ...] = ((1, 2, 3, 4, 5), (200, 17, 99), (42,) * 20)
TOKEN_COUNT = 24
# A start takes about a minute on two cores.
READY_S = 300.0
STOP_S = 20.0
REQUEST_S = 60.0
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_SERVER_DEV_MODE": "1",
}

ACCEPTED = "vllm:spec_decode_num_accepted_tokens"

# Run by a process of its own: an engine cannot be thrown away inside one.
_FRESH = """
import json, sys
from vllm import LLM, SamplingParams
prompts, count, more, accepted = map(json.loads, sys.argv[2:])
llm = LLM(sys.argv[1], dtype="bfloat16", enforce_eager=True, max_model_len=512,
    disable_log_stats=False, **more)
sampling = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
# One after the other, as the server is asked.
outputs = [llm.generate({"prompt_token_ids": prompt}, sampling, use_tqdm=False)[0]
    for prompt in prompts]
tokens = [list(output.outputs[0].token_ids) for output in outputs]
guessed = sum(metric.value for metric in llm.get_metrics() if metric.name == accepted)
print("TOKENS " + json.dumps([tokens, guessed]))
"""


def fresh_tokens(model: Path) -> list[list[int]]:
    """What a vLLM that loads ``model`` from its files answers to every prompt."""
    return fresh_answers(model)[0]


def fresh_answers(model: Path, **more: object) -> tuple[list[list[int]], int]:
    """The same, and how many tokens of it a draft model had guessed. ``more`` is for vLLM."""
    arguments = [json.dumps(value) for value in (PROMPTS, TOKEN_COUNT, more, ACCEPTED)]
    result = subprocess.run(
        [sys.executable, "-c", _FRESH, str(model), *arguments],
        env=os.environ | ENVIRONMENT | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
        capture_output=True,
        text=True,
        timeout=READY_S,
        check=False,
    )
    lines = [line for line in result.stdout.splitlines() if line.startswith("TOKENS ")]
    assert lines, f"a fresh vLLM on {model} failed:\n{result.stderr[-4000:]}"
    tokens, guessed = json.loads(lines[-1].removeprefix("TOKENS "))
    return tokens, guessed


class VllmServer:
    """``with VllmServer(model, log) as server:`` starts it and waits until it is ready."""

    def __init__(self, model: Path, log: Path, *flags: str, worker_count: int = 1) -> None:
        self.model = model
        self.flags = flags
        self.log = log
        self.worker_count = worker_count
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(self.model), "--served-model-name", "model"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--dtype", "bfloat16", "--enforce-eager", "--max-model-len", "512"]
        command += ["--load-format", "dummy", "--worker-extension-cls", EXTENSION]
        command += self.flags
        environment = os.environ | ENVIRONMENT
        if self.worker_count > 1:
            command += ["--tensor-parallel-size", str(self.worker_count)]
            binding = "|".join(str(rank) for rank in range(self.worker_count))
            environment |= {"VLLM_CPU_OMP_THREADS_BIND": binding}
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def generate(self) -> list[list[int]]:
        """The greedy tokens for every prompt."""
        return [self._complete(prompt) for prompt in PROMPTS]

    def guessed(self) -> int:
        """How many tokens a draft model has guessed so far."""
        _, answer = self.request("GET", "/metrics")
        lines = answer.decode().splitlines()
        counts = [line for line in lines if line.startswith(f"{ACCEPTED}_total")]
        return sum(int(float(line.rpartition(" ")[2])) for line in counts)

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_S)
        with contextlib.closing(connection):
            headers = {"content-type": "application/json"} if body is not None else {}
            content = json.dumps(body) if body is not None else None
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def kill_engine(self) -> None:
        """Kills every process of the engine but the HTTP server, with SIGKILL."""
        assert self._process is not None
        for pid in _descendants(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ends the whole process group."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_S)

    def _complete(self, prompt: tuple[int, ...]) -> list[int]:
        status, answer = self.request(
            "POST",
            "/v1/completions",
            {
                "model": "model",
                "prompt": list(prompt),
                "max_tokens": TOKEN_COUNT,
                "temperature": 0,
                "ignore_eos": True,
                "return_token_ids": True,
            },
        )
        assert status == http.HTTPStatus.OK, answer
        tokens: list[int] = json.loads(answer)["choices"][0]["token_ids"]
        assert len(tokens) == TOKEN_COUNT
        return tokens

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            assert self._process.poll() is None, f"vLLM ended:\n{self.tail()}"
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("GET", "/health")[0] == http.HTTPStatus.OK:
                    return
            time.sleep(0.25)
        raise AssertionError(f"vLLM was not ready after {READY_S} s:\n{self.tail()}")

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found
