"""What every scenario of a rank uses: its report, its tensors, the usual update."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from checkpoint_engine.daemon_client import UnixConnection
from checkpoint_engine.ps import ParameterServer, request_inference_to_update

if TYPE_CHECKING:
    from collections.abc import Iterator

RANK = int(os.environ["RANK"])
WORLD_SIZE = int(os.environ["WORLD_SIZE"])
OPTIONS: dict[str, Any] = json.loads(os.environ.get("TRAINER_OPTIONS", "{}"))
FOLDER = Path(sys.argv[2])
UPDATE_TIMEOUT = timedelta(seconds=30)

# Type, shape and digest of all bytes, as the engine's workers report them.
Digests = dict[str, tuple[str, list[int], str]]


class Report:
    """What this rank tells the test."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"pid": os.getpid(), "errors": []}

    @contextlib.contextmanager
    def expect_error(self) -> Iterator[None]:
        """Notes what is raised inside, and how long that took."""
        start = time.monotonic()
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the test decides what it may be
            kinds = [kind.__name__ for kind in type(error).__mro__]
            seconds = time.monotonic() - start
            cause = type(error.__cause__).__name__
            self.values["errors"].append([kinds, str(error), seconds, cause])
        else:
            self.values["errors"].append(None)

    def write(self) -> None:
        path = FOLDER / f"rank-{RANK}.json"
        path.with_suffix(".new").write_text(json.dumps(self.values))
        path.with_suffix(".new").rename(path)


def describe(tensor: torch.Tensor) -> tuple[str, list[int], str]:
    flat = tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor
    content = flat.numpy().tobytes() if tensor.numel() else b""
    return str(tensor.dtype), list(tensor.shape), hashlib.sha256(content).hexdigest()


def tensors(rank: int = RANK) -> dict[str, torch.Tensor]:
    """Fresh random tensors of every kind that matters; names differ from rank to rank."""
    made = {
        f"layers.{rank}.q_proj.weight": torch.randn(128, 96).bfloat16(),
        f"layers.{rank}.turned": torch.randn(64, 48).t(),
        f"layers.{rank}.strided": torch.randn(64, 48)[::3, 1::2],
        f"layers.{rank}.scale": torch.randn(()),
        f"layers.{rank}.mask": torch.rand(33) > 0.5,
        f"layers.{rank}.nothing": torch.empty(0, 7),
        f"layers.{rank}.fp8": torch.randn(64, 96).to(torch.float8_e4m3fn),
        f"layers.{rank}.wide": torch.randint(0, 1 << 40, (17,)),
        f"layers.{rank}.trained": torch.nn.Parameter(torch.randn(300, 31)),
    }
    assert not made[f"layers.{rank}.turned"].is_contiguous()
    return made


def digests(named: dict[str, torch.Tensor]) -> Digests:
    return {name: describe(tensor.detach()) for name, tensor in named.items()}


def call_engine(paths: list[tuple[str, str]]) -> None:
    """Rank 0 calls the one engine, whose workers are those of all ranks that receive."""
    ranks = OPTIONS.get("ranks") or list(range(WORLD_SIZE))
    if ranks[0] == RANK:
        addresses = dict(paths[rank] for rank in ranks)
        request_inference_to_update(OPTIONS["url"] + "/collective_rpc", addresses, timeout=30)


def engine_holds(uds: str, checkpoint: str) -> bool:
    """Whether all workers of the engine at ``uds`` hold the files, byte for byte."""
    connection = UnixConnection(uds, UPDATE_TIMEOUT.total_seconds())
    with contextlib.closing(connection):
        connection.request("POST", "/workers", f"verify 2 {checkpoint}")
        response = connection.getresponse()
        answer = response.read().decode()
    assert response.status == 200 or "differ" in answer, answer
    return response.status == 200


def update(server: ParameterServer, name: str = "step", req_func: Any = call_engine) -> None:
    server.update(name, req_func, timeout=UPDATE_TIMEOUT, ranks=OPTIONS.get("ranks"))


def gather(server: ParameterServer, named: dict[str, torch.Tensor]) -> None:
    """Registers ``step`` anew on every rank."""
    server.unregister_checkpoint("step")
    server.register_checkpoint("step", named_tensors=named)
    server.gather_metas("step")


def deliver(server: ParameterServer, report: Report) -> None:
    """The next call works: ``step`` is registered anew and delivered."""
    named = tensors()
    gather(server, named)
    update(server)
    report.values.setdefault("delivered", []).append(digests(named))
