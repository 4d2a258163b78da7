"""Updates engines from a checkpoint on disk or in shared memory, from every GPU of the hosts.

    torchrun --nproc-per-node 8 examples/update.py --checkpoint-path /models/step-100 \\
        --endpoint http://localhost:19730 --inference-parallel-size 8

Each process registers its share of the files. One process of each engine calls it: 16 processes
with ``--inference-parallel-size 8`` are two engines, those of the processes 0 to 7 and 8 to 15, and
every host reaches its own at ``--endpoint`` or ``--uds``. Where no process has to be kept,
``checkpoint-engine update`` does the same without Python.

Engines that start later take the weights out of the memory of those processes, if they stay and
their daemon can be reached:

    CHECKPOINT_ENGINE_LISTEN=10.0.0.1:19731 CHECKPOINT_ENGINE_TOKEN_FILE=token torchrun … \\
        --save-metas-file metas.json --sleep-time 86400

    CHECKPOINT_ENGINE_SOURCE_TOKEN_FILE=token torchrun … --load-metas-file metas.json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoint_engine import request_inference_to_update
from checkpoint_engine.metas_json import metas_to_json, read_metas_file
from checkpoint_engine.ps import ParameterServer

from engine_http import reset_prefix_cache, set_weight_version, wait_until_ready

if TYPE_CHECKING:
    from collections.abc import Callable

READY_S = 600.0
UPDATE_S = 600.0
RESET_S = 60.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Updates engines from a checkpoint.")
    parser.add_argument("--checkpoint-path", help="a directory of safetensors files, or one file")
    parser.add_argument("--save-metas-file", help="writes what all processes hold, as JSON")
    parser.add_argument(
        "--load-metas-file", help="reads the weights from the hosts that it names, not from files"
    )
    parser.add_argument("--sleep-time", type=int, default=0, help="seconds to keep it afterwards")
    parser.add_argument("--endpoint", default="http://localhost:19730", help="the engine's URL")
    parser.add_argument("--uds", help="the engine's unix socket")
    parser.add_argument(
        "--inference-parallel-size", type=int, default=8, help="an engine's workers"
    )
    parser.add_argument("--checkpoint-name", default="my-checkpoint-iter-0")
    parser.add_argument(
        "--update-method",
        choices=["broadcast", "p2p", "all"],
        help="broadcast; p2p with --load-metas-file",
    )
    parser.add_argument("--weight-version", help="the name that the engine gives to the weights")
    options = parser.parse_args()
    joins = options.load_metas_file is not None
    if not joins and options.checkpoint_path is None:
        parser.error("--checkpoint-path is missing")
    if options.update_method is None:
        options.update_method = "p2p" if joins else "broadcast"
    return options


def share_of_files(path: Path, rank: int, world_size: int) -> list[str]:
    """The files of the checkpoint that this process registers, every ``world_size``-th."""
    index = path / "model.safetensors.index.json"
    if path.is_file():
        files = [path]
    elif index.is_file():
        names = set(json.loads(index.read_text())["weight_map"].values())
        files = [path / name for name in sorted(names)]
    else:
        files = sorted(path.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{path} has no *.safetensors file")
    return [str(file) for file in files[rank::world_size]]


class Engine:
    """The engine that this process belongs to, ``size`` processes each."""

    def __init__(self, options: argparse.Namespace, rank: int) -> None:
        self.endpoint: str = options.endpoint
        self.uds: str | None = options.uds
        self.size: int = options.inference_parallel_size
        self.first = rank // self.size * self.size
        # Only one process of an engine calls it.
        self.is_mine = rank == self.first

    def request(self, sockets: list[tuple[str, str]]) -> None:
        """Asks the engine to take weights; ``sockets`` has one (device, address) for each rank."""
        if self.is_mine:
            mine = dict(sockets[self.first : self.first + self.size])
            url = f"{self.endpoint}/collective_rpc"
            request_inference_to_update(url, mine, timeout=UPDATE_S, uds=self.uds)


def timed(rank: int, what: str, step: Callable[[], object]) -> None:
    start = time.monotonic()
    step()
    if rank == 0:
        print(f"{what}: {time.monotonic() - start:.3f} s", flush=True)


def main() -> None:
    options = arguments()
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if world_size % options.inference_parallel_size:
        raise SystemExit(
            f"error: {world_size} processes are no multiple of --inference-parallel-size "
            f"{options.inference_parallel_size}"
        )
    name, engine = options.checkpoint_name, Engine(options, rank)
    ps = ParameterServer(auto_pg=True)
    if options.load_metas_file is not None:
        metas = read_metas_file(Path(options.load_metas_file))
        timed(rank, "load metas", partial(ps.load_metas, metas))
    else:
        files = share_of_files(Path(options.checkpoint_path), rank, world_size)
        timed(rank, "register", partial(ps.register_checkpoint, name, files=files))
        timed(rank, "gather metas", partial(ps.gather_metas, name))
    if options.save_metas_file is not None and rank == 0:
        with open(options.save_metas_file, "w", opener=private) as file:
            file.write(metas_to_json(ps.get_metas()))
    if engine.is_mine:
        wait_until_ready(engine.endpoint, engine.uds, READY_S)
    ps.store_based_barrier(timedelta(seconds=READY_S))

    # "p2p" updates the first engine only, while the others go on serving.
    receivers = {"broadcast": None, "p2p": list(range(options.inference_parallel_size))}
    for method, ranks in receivers.items():
        if options.update_method in (method, "all"):
            timed(rank, f"update ({method})", partial(ps.update, name, engine.request, ranks=ranks))
    if engine.is_mine:
        reset_prefix_cache(engine.endpoint, engine.uds, RESET_S)
        if options.weight_version is not None:
            set_weight_version(engine.endpoint, engine.uds, options.weight_version)
    time.sleep(options.sleep_time)


def private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


if __name__ == "__main__":
    main()
