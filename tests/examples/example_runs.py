"""torchrun, and an engine that has workers but no model."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
BINARY = os.environ.get(
    "CHECKPOINT_ENGINE_BIN", str(REPOSITORY / ".build/release/checkpoint-engine")
)
WORKERS = 2
TIMEOUT_S = 180.0

# The tests import what the examples import.
sys.path.insert(0, str(EXAMPLES))


def environment(**variables: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CHECKPOINT_ENGINE_")}
    own = {"CHECKPOINT_ENGINE_BIN": BINARY, "OMP_NUM_THREADS": "1"}
    return {**kept, "VIRTUAL_ENV": sys.prefix, **own, **variables}


def torchrun(
    processes: int, script: Path, *arguments: object, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``script`` in so many processes to their end."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), str(script), *map(str, arguments)]
    return subprocess.run(
        command,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


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
            connection.request("POST", "/workers", f"verify 1 {folder}")
            answer = connection.getresponse()
            text = answer.read().decode()
        if answer.status == http.HTTPStatus.OK:
            return None
        assert "tensors differ" in text, text
        return text
