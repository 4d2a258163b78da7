"""The reference engine with workers on simulated GPUs, and what lies on those GPUs."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon import Answer, Daemon, Program, _UnixConnection, wait_until
from shapes import Entry, write_tensors

if TYPE_CHECKING:
    import http.client
    from collections.abc import Sequence

# GPUs that a process sees.
DEVICES = 4
FILE_BYTES_MAX = 9_000_000
TIMEOUT_S = 60.0


def _entries() -> list[Entry]:
    """About 24 MB: rows and columns that 1, 2 and 4 workers cut, and tensors that none cuts."""
    entries: list[Entry] = [
        ("model.embed_tokens.weight", "BF16", (4096, 256)),
        ("lm_head.weight", "F32", (2048, 257)),
        ("model.norm.weight", "U8", (1,)),
        ("model.nothing", "BF16", (0, 7)),
        ("model.scalar", "F32", ()),
    ]
    for layer in range(6):
        prefix = f"model.layers.{layer}"
        entries += [
            (f"{prefix}.self_attn.q_proj.weight", "BF16", (1024, 387)),
            (f"{prefix}.self_attn.o_proj.weight", "BF16", (387, 1024)),
            (f"{prefix}.mlp.down_proj.weight", "F8_E4M3", (1001, 1300)),
            (f"{prefix}.mlp.down_proj.weight_scale_inv", "F32", (7, 9)),
            (f"{prefix}.mlp.bias", "U8", (2 * layer + 1,)),
        ]
    return entries


TENSORS = len(_entries())


def small_checkpoint(folder: Path, seed: int) -> Path:
    """Writes it; the layout does not depend on ``seed``."""
    write_tensors(folder, _entries(), FILE_BYTES_MAX, seed)
    return folder


def files_of(*pids: int) -> dict[str, int]:
    """Lengths of the device memory that processes have taken."""
    found = {}
    for pid in pids:
        for path in Path("/dev/shm").glob(f"simulated-cuda-*-{pid}-*"):
            found[path.name] = path.stat().st_size
    return found


def device_bytes(pid: int) -> int:
    return sum(files_of(pid).values())


class ReferenceEngine:
    """``checkpoint-engine reference-engine --device cuda``."""

    def __init__(self, uds: Path, cuda_library: str, gpus: Sequence[int]) -> None:
        self.uds = uds
        self.gpus = list(gpus)
        arguments = ["reference-engine", "--device", "cuda", "--cuda-library", cuda_library]
        arguments += ["--uds", str(uds), "--workers", str(len(gpus))]
        for gpu in gpus:
            arguments += ["--gpu", str(gpu)]
        self.program = Program(*arguments)
        wait_until(self._is_up, "the engine answers")
        self.ids = self.ask("id")
        self.pids = [int(pid) for pid in self.ask("pid")]

    def _is_up(self) -> bool:
        assert self.program.is_running, self.program.wait().stderr
        try:
            return self._request("GET", "/health")[0] == 200
        except OSError:
            return False

    def _request(self, method: str, path: str, body: str = "") -> tuple[int, Any]:
        connection: http.client.HTTPConnection = _UnixConnection(self.uds, TIMEOUT_S)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            content = response.read()
            return response.status, json.loads(content) if content else None
        finally:
            connection.close()

    def update(self, addresses: dict[str, str]) -> tuple[int, Any]:
        """The call that starts an update; status and body of the answer."""
        call = {"method": "update_weights_from_ipc", "args": [addresses], "timeout": 30}
        return self._request("POST", "/collective_rpc", json.dumps(call))

    @property
    def instance(self) -> dict[str, object]:
        return {
            "update_url": f"http://engine-{self.gpus[0]}",
            "uds": str(self.uds),
            "ranks": self.gpus,
        }

    def ask(self, line: str, rank: int | None = None) -> list[str]:
        """What the workers answer to a line, or one of them."""
        path = "/workers" if rank is None else f"/workers/{rank}"
        status, body = self._request("POST", path, line)
        assert status == 200, body
        return [str(value) for value in body["results"]]

    def respawned(self) -> None:
        """Asks until every worker lives: a dead one is replaced when it is asked."""
        for rank in range(len(self.gpus)):
            while self._request("POST", f"/workers/{rank}", "pid")[0] != 200:
                pass
        self.pids = [int(pid) for pid in self.ask("pid")]

    def fails_to_hold(self, checkpoint: Path) -> bool:
        status, body = self._request("POST", "/workers", f"verify 2 {checkpoint}")
        return status == 500 and "differ" in str(body)

    def check_holds(self, checkpoint: Path) -> None:
        """Every byte of every worker is that of the files."""
        found = [int(count) for count in self.ask(f"verify 2 {checkpoint}")]
        assert all(count > 1_000_000 for count in found), found

    def stop(self) -> None:
        if not self.program.is_running:
            return
        self.program.send(signal.SIGTERM)
        ended = self.program.wait(20)
        ended.check_orderly()
        assert ended.code == 0, ended.stderr


def start_update(daemon: Daemon, name: str, *engines: ReferenceEngine, **fields: object) -> Answer:
    body = {"instances": [engine.instance for engine in engines], "timeout": 30, **fields}
    return daemon.request("POST", f"/v1/checkpoints/{name}/update", body, timeout=TIMEOUT_S)


def deliver(daemon: Daemon, name: str, checkpoint: Path, *engines: ReferenceEngine) -> Any:
    """A successful update after which every byte is right; its status."""
    for engine in engines:
        engine.ask("fill 90")
    answer = start_update(daemon, name, *engines)
    assert answer.status == 200, answer.body
    assert answer.body["state"] == "succeeded"
    assert answer.body["tensors"] == TENSORS
    workers = [identity for engine in engines for identity in engine.ids]
    assert [worker["id"] for worker in answer.body["workers"]] == workers
    assert all(worker["committed"] for worker in answer.body["workers"])
    for engine in engines:
        engine.check_holds(checkpoint)
    return answer.body
