"""A trainer that puts its weights into an engine every few steps, without touching a disk.

    torchrun --nproc-per-node 4 examples/trainer_loop.py --endpoint http://localhost:19730 \\
        --inference-parallel-size 1

The model is a toy: what matters is ``push``. Every process hands over its own part of the tensors;
the first process of each engine calls it. On GPUs the tensors may lie on the GPU.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from checkpoint_engine import request_inference_to_update
from checkpoint_engine.ps import ParameterServer
from torch import nn

from engine_http import reset_prefix_cache

LEARNING_RATE = 0.05
BATCH = 64
WIDTH = 32


def push(
    ps: ParameterServer, tensors: dict[str, torch.Tensor], version: int, engine: Engine
) -> None:
    """Puts ``tensors``, the parts of all processes together, into the engines; collective.

    The memory of a version is reused by the next one, which has the same layout.
    """
    name = f"step-{version}"
    ps.register_checkpoint(name, named_tensors=tensors)
    try:
        ps.gather_metas(name)
        ps.update(name, engine.request)
        engine.forget_prefixes()
    finally:
        ps.unregister_checkpoint(name)


class Engine:
    """The engine of this process; its first process calls it."""

    def __init__(self, endpoint: str, uds: str | None, size: int, rank: int) -> None:
        self.endpoint, self.uds, self.size = endpoint, uds, size
        self.rank, self.first = rank, rank // size * size

    def request(self, sockets: list[tuple[str, str]]) -> None:
        if self.rank == self.first:
            mine = dict(sockets[self.first : self.first + self.size])
            url = f"{self.endpoint}/collective_rpc"
            request_inference_to_update(url, mine, timeout=600, uds=self.uds)

    def forget_prefixes(self) -> None:
        """Empties the cache that the old weights have filled."""
        if self.rank == self.first:
            reset_prefix_cache(self.endpoint, self.uds, 60)


def part_of(model: nn.Module, rank: int, world_size: int) -> dict[str, torch.Tensor]:
    """Every ``world_size``-th tensor, so that each one is registered once."""
    return dict(list(model.state_dict().items())[rank::world_size])


def train_step(model: nn.Module, target: nn.Module, generator: torch.Generator) -> float:
    """One step of data-parallel gradient descent; returns the mean loss of all processes."""
    inputs = torch.randn(BATCH, WIDTH, generator=generator)
    loss = nn.functional.mse_loss(model(inputs), target(inputs).detach())
    model.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
            parameter.sub_(parameter.grad, alpha=LEARNING_RATE / dist.get_world_size())
        dist.all_reduce(loss)
    return loss.item() / dist.get_world_size()


def toy_model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains a toy and pushes its weights.")
    parser.add_argument("--endpoint", default="http://localhost:19730", help="the engine's URL")
    parser.add_argument("--uds", help="the engine's unix socket")
    parser.add_argument(
        "--inference-parallel-size", type=int, default=1, help="an engine's workers"
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--push-every", type=int, default=10)
    options = parser.parse_args()

    dist.init_process_group("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    engine = Engine(options.endpoint, options.uds, options.inference_parallel_size, rank)
    model, target = toy_model(seed=1), toy_model(seed=2)
    generator = torch.Generator().manual_seed(100 + rank)
    # The trainer's own group stays as it is.
    with ParameterServer(rank=rank, world_size=world_size, auto_pg=False) as ps:
        for step in range(1, options.steps + 1):
            loss = train_step(model, target, generator)
            if step % options.push_every == 0:
                push(ps, part_of(model, rank, world_size), step, engine)
                if rank == 0:
                    print(f"step {step}: loss {loss:.4f}, pushed", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
