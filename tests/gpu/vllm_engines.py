"""Real engines of the tests with vLLM on GPUs, and what fresh ones answer."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from vllm_process import Vllm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Tokens = list[list[int]]

# Several engines start on the same GPUs at once, so none may take what it finds free.
SHARED_GPU_FLAGS = ("--kv-cache-memory-bytes", str(1 << 30))


def check_vllm() -> Path:
    """The folder of vLLM; a test without one fails."""
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.fail("vllm cannot be imported; put the folder of an unpacked one on PYTHONPATH")
    return Path(spec.origin).parent


class Engines:
    """Engines with dummy weights, and the tokens of fresh ones with those in ``folders``."""

    def __init__(
        self,
        logs: Path,
        folders: Mapping[str, Path],
        worker_count: int,
        devices: Sequence[str],
        variables: dict[str, str] | None = None,
    ) -> None:
        self.folders = folders
        self.engines: list[Vllm] = []
        self._logs = logs
        self._worker_count = worker_count
        self._on_gpu = "cpu" not in devices
        self._variables = variables or {}
        self._right: dict[str, Tokens] = {}

    @contextlib.contextmanager
    def started(self, *variables: dict[str, str], **more: Any) -> Iterator[None]:
        """An engine for each of ``variables``, ``more`` are arguments of all of them.

        On GPUs everything starts at once, the engines that only tell their tokens too.
        """
        first = next(iter(self.folders.values()))
        self.engines = [self._engine(first, variables=each, **more) for each in variables]
        calls: list[Callable[[], Tokens]] = [
            *(lambda folder=folder: self._fresh(folder) for folder in self.folders.values()),
            *(lambda engine=engine: engine.__enter__().generate() for engine in self.engines),
        ]
        with contextlib.ExitStack() as stack:
            for engine in self.engines:
                stack.callback(engine.stop)
            with ThreadPoolExecutor(len(calls) if self._on_gpu else 1) as pool:
                answers = list(pool.map(lambda call: call(), calls))
            self._right = dict(zip(self.folders, answers, strict=False))
            right = list(self._right.values())
            assert all(tokens not in right[:place] for place, tokens in enumerate(right))
            assert all(tokens not in right for tokens in answers[len(right) :])
            yield

    def check(self, engine: Vllm, name: str) -> None:
        """``engine`` answers as a fresh one with the files ``name``."""
        assert engine.generate() == self._right[name], f"after the update to {name}"

    def _fresh(self, folder: Path) -> Tokens:
        with self._engine(folder, loads=True) as engine:
            return engine.generate()

    def _engine(self, folder: Path, **more: Any) -> Vllm:
        more["variables"] = {**self._variables, **more.get("variables", {})}
        more["flags"] = [*(SHARED_GPU_FLAGS if self._on_gpu else ()), *more.get("flags", ())]
        return Vllm(folder, self._logs, self._worker_count, on_gpu=self._on_gpu, **more)
