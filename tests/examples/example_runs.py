"""torchrun, and an engine that has workers but no model."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
BINARY = os.environ.get(
    "CHECKPOINT_ENGINE_BIN", str(REPOSITORY / ".build/release/checkpoint-engine")
)
WORKERS = 2
TIMEOUT_S = 180.0

# The tests import what the examples import.
sys.path.insert(0, str(EXAMPLES))
sys.path.append(str(REPOSITORY / "tests/faults"))

from daemon import indexed  # noqa: E402
from ports import free_port  # noqa: E402


def environment(**variables: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CHECKPOINT_ENGINE_")}
    own = {"CHECKPOINT_ENGINE_BIN": BINARY, "OMP_NUM_THREADS": "1"}
    return {**kept, "VIRTUAL_ENV": sys.prefix, **own, **variables}


def torchrun(
    processes: int, script: Path, *arguments: object, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``script`` in so many processes to their end."""
    return subprocess.run(
        _torchrun(processes, script, arguments),
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@contextlib.contextmanager
def staying(
    processes: int, script: Path, log: Path, *arguments: object, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs ``script`` in so many processes beside what is tested; ``log`` gets what they print."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            _torchrun(processes, script, arguments),
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            yield process
        finally:
            process.terminate()  # it ends its processes before itself
            process.wait(TIMEOUT_S)


def _torchrun(processes: int, script: Path, arguments: Sequence[object]) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--master-addr", "127.0.0.1"]
    command += ["--master-port", str(free_port()), "--nproc-per-node", str(processes)]
    return [*command, str(script), *map(str, arguments)]


def wait_until(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Returns when ``condition`` holds; ``process`` has to live until then."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < end, f"not so after {TIMEOUT_S} s"
        time.sleep(0.05)


def random_checkpoint(folder: Path, files: int) -> Path:
    """Tensors of odd sizes in several types."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    index = {}
    for number in range(files):
        name = f"model-{number}.safetensors"
        tensors = {
            f"layers.{number}.weight": torch.randn(130, 67),
            f"layers.{number}.scale": torch.randn(33).to(torch.bfloat16),
            f"layers.{number}.bits": torch.randint(0, 255, (5, 11), dtype=torch.uint8),
        }
        save_file(tensors, folder / name)
        index |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


class Engine:
    """``checkpoint-engine reference-engine``: its workers keep their slices of every tensor."""

    def __init__(self, uds: Path) -> None:
        self.uds = uds
        self.flags = ["--uds", str(uds), "--endpoint", "http://localhost"]

    def differences(self, folder: Path) -> str | None:
        """Compares every byte that the workers hold with files; ``None`` when all are equal."""
        connection = http.client.HTTPConnection("localhost", timeout=60)
        with contextlib.closing(connection):
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(self.uds))
            connection.request("POST", "/workers", f"verify 1 {indexed(folder)}")
            answer = connection.getresponse()
            text = answer.read().decode()
        if answer.status == http.HTTPStatus.OK:
            return None
        assert "tensors differ" in text, text
        return text
