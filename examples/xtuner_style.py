"""Colocated training: every training process shares its GPU with a worker of an engine.

    torchrun --nproc-per-node 4 examples/xtuner_style.py --inference-parallel-size 4

The way of calling is that of xtuner: a parameter server inside each training process, on a process
group that exists already, one pool of shared memory for all versions, and one process of each
engine that calls it.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from checkpoint_engine.ps import ParameterServer, request_inference_to_update

LAYERS = 8
NAME = "policy"


def shard_of(rank: int, world_size: int, version: int) -> dict[str, torch.Tensor]:
    """The layers of this process: what a training framework gathers for it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        f"layers.{layer}.weight": torch.full((64, 64), version + layer / 100, device=device)
        for layer in range(rank, LAYERS, world_size)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Updates engines that share the trainer's GPUs.")
    parser.add_argument("--endpoint", default="http://localhost:19730")
    parser.add_argument("--uds")
    parser.add_argument("--inference-parallel-size", type=int, default=4)
    parser.add_argument("--versions", type=int, default=3)
    options = parser.parse_args()
    size = options.inference_parallel_size

    dist.init_process_group("cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    if torch.cuda.is_available():
        torch.cuda.set_device(rank % torch.cuda.device_count())
    ps = ParameterServer(auto_pg=False, rank=rank, world_size=world_size)

    def tell_engine(sockets: list[tuple[str, str]]) -> None:
        # One (device, address) for each process, by its rank.
        if rank % size == 0:
            request_inference_to_update(
                f"{options.endpoint}/collective_rpc",
                dict(sockets[rank : rank + size]),
                timeout=600,
                uds=options.uds,
            )

    for version in range(1, options.versions + 1):
        shard = shard_of(rank, world_size, version)
        ps.register_checkpoint(NAME, files=[], named_tensors=shard, use_shared_memory_pool=True)
        ps.gather_metas(NAME)
        dist.barrier()
        ps.update(NAME, tell_engine, ranks=None)
        # The last one gives the memory back, too.
        ps.unregister_checkpoint(NAME, force=version == options.versions)
        dist.barrier()
        if rank == 0:
            print(f"version {version} is in the engines", flush=True)
    ps.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
