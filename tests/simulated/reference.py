"""The reference engine with workers on simulated GPUs, and what lies on those GPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reference_engine import TIMEOUT_S, ReferenceEngine
from shapes import Entry, write_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon import Answer, Daemon

# GPUs that a process sees.
DEVICES = 4
FILE_BYTES_MAX = 9_000_000


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


class SimulatedEngine(ReferenceEngine):
    """The reference engine with a worker on each of ``gpus``."""

    def __init__(self, uds: Path, cuda_library: str, gpus: Sequence[int]) -> None:
        self.gpus = list(gpus)
        flags = ["--device", "cuda", "--cuda-library", cuda_library]
        for gpu in gpus:
            flags += ["--gpu", str(gpu)]
        super().__init__(uds, len(gpus), *flags)
        self.ids = self.ask("id")

    def update(self, addresses: dict[str, str]) -> tuple[int, Any]:
        """The call that starts an update; status and body of the answer."""
        call = {"method": "update_weights_from_ipc", "args": [addresses], "timeout": 30}
        return self.request("POST", "/collective_rpc", json.dumps(call))

    @property
    def instance(self) -> dict[str, object]:
        return {
            "update_url": f"http://engine-{self.gpus[0]}",
            "uds": str(self.uds),
            "ranks": self.gpus,
        }


def start_update(daemon: Daemon, name: str, *engines: SimulatedEngine, **fields: object) -> Answer:
    body = {"instances": [engine.instance for engine in engines], "timeout": 30, **fields}
    return daemon.request("POST", f"/v1/checkpoints/{name}/update", body, timeout=TIMEOUT_S)


def deliver(daemon: Daemon, name: str, checkpoint: Path, *engines: SimulatedEngine) -> Any:
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
