"""Trainer and rollout apart: some processes have weights, others stand for an engine's workers.

    torchrun --nproc-per-node 4 examples/verl_style.py --trainers 2

The way of calling is that of verl: every process has a parameter server, those of the trainer
register tensors, those of the rollout register nothing, and only the ranks of the rollout receive.
"""

from __future__ import annotations

import argparse
import os
from datetime import timedelta

import torch
from checkpoint_engine import distributed as dist
from checkpoint_engine.ps import ParameterServer, request_inference_to_update


def weights_of(trainer: int, trainers: int, version: int) -> dict[str, torch.Tensor]:
    """The tensors that one trainer process holds."""
    generator = torch.Generator().manual_seed(version * 1000 + trainer)
    return {
        f"layers.{layer}.weight": torch.randn(64, 64, generator=generator)
        for layer in range(trainer, 8, trainers)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Updates the engines of a rollout from a trainer.")
    parser.add_argument("--endpoint", default="http://localhost:19730")
    parser.add_argument("--uds")
    parser.add_argument("--trainers", type=int, default=2, help="processes that have weights")
    parser.add_argument("--versions", type=int, default=2)
    options = parser.parse_args()

    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    rollout = list(range(options.trainers, world_size))
    ps = ParameterServer(rank=rank, world_size=world_size, auto_pg=False)
    ps.init_process_group(timeout=timedelta(minutes=5))

    def tell_engine(sockets: list[tuple[str, str]]) -> None:
        # All processes of the rollout belong to one engine here; the first one calls it.
        if rank == rollout[0]:
            request_inference_to_update(
                f"{options.endpoint}/collective_rpc",
                dict(sockets[r] for r in rollout),
                timeout=600,
                uds=options.uds,
            )

    for version in range(1, options.versions + 1):
        name = f"version-{version}"
        if rank in rollout:
            ps.register_checkpoint(checkpoint_name=name)
        else:
            tensors = weights_of(rank, options.trainers, version)
            ps.register_checkpoint(checkpoint_name=name, named_tensors=tensors)
        ps.gather_metas(name)
        ps.update(name, tell_engine, ranks=rollout)
        ps.unregister_checkpoint(name)
        dist.barrier()
        if rank == 0:
            print(f"{name} is in the engine", flush=True)
    dist.destroy_process_group()
    ps.close()


if __name__ == "__main__":
    main()
