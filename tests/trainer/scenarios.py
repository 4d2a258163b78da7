"""What a trainer's ranks do that works. Each function is one scenario, run by every rank."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import torch
from checkpoint_engine.ps import ParameterServer, request_inference_to_update
from rank_tools import (
    FOLDER,
    OPTIONS,
    RANK,
    WORLD_SIZE,
    Report,
    call_engine,
    deliver,
    digests,
    gather,
    tensors,
    update,
)
from safetensors.torch import load_file, save_file


def twice(server: ParameterServer, report: Report) -> None:
    """Two updates with new values of equal layout; the memory of the first is used again."""
    rounds, inodes = [], []
    for _ in range(2):
        named = tensors()
        server.register_checkpoint("step", named_tensors=named)
        [part] = server._checkpoints._parts.values()
        inodes.append(part.tensor_file.path.stat().st_ino)
        server.gather_metas("step")
        update(server)
        rounds.append(digests(named))
        server.unregister_checkpoint("step")
    metas = server.get_metas()
    report.values |= {"rounds": rounds, "inodes": inodes, "metas": sorted(metas)}
    report.values["names"] = {
        rank: sorted(meta.name for item in one.memory_buffer_metas_list for meta in item.metas)
        for rank, one in metas.items()
    }
    server.unregister_checkpoint("step", force=True)


def default_group(server: ParameterServer, report: Report) -> None:
    """torch's default group can be used, and ends with the update."""
    import torch.distributed as torch_distributed

    seen = []
    for _ in range(2):
        server.init_process_group(timeout=timedelta(seconds=60))
        server.init_process_group()
        total = torch.tensor([RANK])
        torch_distributed.all_reduce(total)
        deliver(server, report)
        seen.append([int(total), torch_distributed.is_initialized()])
    report.values["groups"] = seen


def subset(server: ParameterServer, report: Report) -> None:
    """Only some ranks' workers receive; the others take part all the same."""
    seen: list[list[tuple[str, str]]] = []

    def call(paths: list[tuple[str, str]]) -> None:
        seen.append(paths)
        call_engine(paths)

    named = tensors() if RANK != 3 else {}
    gather(server, named)
    update(server, req_func=call)
    report.values |= {"delivered": [digests(named)], "paths": seen}


def two_engines(server: ParameterServer, report: Report) -> None:
    """Two engines with two workers each, which the first of their ranks calls."""

    def call(paths: list[tuple[str, str]]) -> None:
        if RANK % 2 == 0:
            url = OPTIONS["urls"][RANK // 2] + "/collective_rpc"
            request_inference_to_update(url, dict(paths[RANK : RANK + 2]), timeout=30)

    named = tensors()
    gather(server, named)
    update(server, req_func=call)
    report.values["delivered"] = [digests(named)]


def spread(server: ParameterServer, report: Report) -> None:
    """Two hosts; only the ``owners`` have tensors, and all workers get all of them."""
    named: dict[str, torch.Tensor] = {}
    if RANK in OPTIONS["owners"]:
        named = {f"part.{RANK}.{place}.weight": torch.randn(512, 700 + place) for place in range(4)}
        save_file(named, FOLDER / f"model-{RANK}.safetensors")
    for _ in range(2):
        gather(server, named)
        update(server, req_func=call_host_engine)
    report.values["metas"] = sorted(server.get_metas())


def leave_out_a_host(server: ParameterServer, report: Report) -> None:
    """After ``spread``: updates that name no rank of one of the hosts."""
    for ranks in ([0, 1], [3]):
        with report.expect_error():
            server.update("step", call_host_engine, ranks=ranks)
    update(server, req_func=call_host_engine)


def call_host_engine(paths: list[tuple[str, str]]) -> None:
    """The first of two ranks on each host calls the engine there."""
    if RANK % 2 == 0:
        uds = OPTIONS["uds"][RANK // 2]
        addresses = dict(paths[RANK : RANK + 2])
        request_inference_to_update("http://e/collective_rpc", addresses, 60, uds=uds)


def halves(server: ParameterServer, report: Report) -> None:
    """Both hosts have the same checkpoint, each of their two ranks a half; one engine a host."""
    generator = torch.Generator().manual_seed(OPTIONS["seed"] + RANK % 2)
    named = {
        f"half.{RANK % 2}.{place}.weight": torch.randn(512, 300 + place, generator=generator)
        for place in range(6)
    }
    if RANK < 2:
        save_file(named, FOLDER / f"model-{RANK}.safetensors")

    for _ in range(2):
        gather(server, named)
        update(server, req_func=call_host_engine)
    report.values["metas"] = sorted(server.get_metas())
    report.values["host"] = server._ranks.identity.host

    def call(paths: list[tuple[str, str]]) -> None:
        if RANK == 3:
            raise LookupError("no engine")

    gather(server, named)
    with report.expect_error():
        update(server, req_func=call)
    gather(server, named)
    update(server, req_func=call_host_engine)


def on_devices(server: ParameterServer, report: Report) -> None:
    """Tensors on this rank's GPU, where there is one; twice, with new values of equal layout."""
    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"

    def call(paths: list[tuple[str, str]]) -> None:
        if RANK == 0:
            request_inference_to_update("http://e/collective_rpc", dict(paths), 60, OPTIONS["uds"])

    pinned, inodes = [], []
    for _ in range(2):
        named = {name: tensor.detach().to(device) for name, tensor in tensors().items()}
        named |= {
            f"large.{RANK}": torch.randn(3000, 8000, device=device).bfloat16(),
            f"large.{RANK}.cut": torch.randn(640, 480, device=device)[::3, 1::2],
            f"large.{RANK}.turned": torch.randn(640, 480, device=device).t(),
            f"host.{RANK}": torch.randn(1000),
        }
        copies = {name: tensor.cpu().contiguous() for name, tensor in named.items()}
        save_file(copies, FOLDER / f"model-{RANK}.safetensors")
        gather(server, named)
        [part] = server._checkpoints._parts.values()
        pinned.append(part.tensor_file._is_pinned)
        inodes.append(part.tensor_file.path.stat().st_ino)
        update(server, req_func=call)
    report.values |= {"pinned": pinned, "inodes": inodes, "device": device}


def model(server: ParameterServer, report: Report) -> None:
    """A model's tensors, dealt out to the ranks, on their GPUs if ``on_gpus``; one engine."""
    device = f"cuda:{torch.cuda.current_device()}" if OPTIONS.get("on_gpus") else "cpu"
    loaded: dict[str, torch.Tensor] = {}
    for path in sorted(Path(OPTIONS["model"]).glob("*.safetensors")):
        loaded |= load_file(path)
    named = {name: loaded[name].to(device) for name in sorted(loaded)[RANK::WORLD_SIZE]}
    assert named
    gather(server, named)
    update(server)
    report.values |= {"tensors": sorted(named), "device": device}


def idle(server: ParameterServer, report: Report) -> None:
    """Nothing but the start."""


SCENARIOS = (
    default_group,
    deliver,
    halves,
    idle,
    leave_out_a_host,
    model,
    on_devices,
    spread,
    subset,
    twice,
    two_engines,
)
