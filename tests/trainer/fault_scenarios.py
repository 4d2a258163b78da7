"""What goes wrong in a trainer's ranks. Each function is one scenario, run by every rank."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

import torch
from checkpoint_engine.ps import ParameterServer, request_inference_to_update
from rank_tools import OPTIONS, RANK, Report, call_engine, digests, gather, tensors, update


def same_names(server: ParameterServer, report: Report) -> None:
    """Ranks 1 and 3 have tensors of the same names."""
    server.register_checkpoint("step", named_tensors=tensors(1 if RANK == 3 else RANK))
    with report.expect_error():
        server.gather_metas("step")


def one_cannot_register(server: ParameterServer, report: Report) -> None:
    """What rank 2 has cannot be registered; the others deliver what they have."""
    named = {} if RANK == 2 else tensors()
    with report.expect_error():
        added = {"odd": torch.zeros(3, dtype=torch.complex128)} if RANK == 2 else {}
        server.register_checkpoint("step", named_tensors={**named, **added})
    server.gather_metas("step")
    update(server)
    report.values.setdefault("delivered", []).append(digests(named))


def req_func_raises(server: ParameterServer, report: Report) -> None:
    """Rank 1's raises, before any worker has come."""

    def call(paths: list[tuple[str, str]]) -> None:
        if RANK == 1:
            raise LookupError("rank 1 does not find its engine")

    gather(server, tensors())
    with report.expect_error():
        update(server, req_func=call)


def no_engine(server: ParameterServer, report: Report) -> None:
    """Nobody listens where the engine should be."""

    def call(paths: list[tuple[str, str]]) -> None:
        if RANK == 0:
            request_inference_to_update("http://127.0.0.1:9/collective_rpc", dict(paths), 10)

    gather(server, tensors())
    with report.expect_error():
        update(server, req_func=call)


def engine_does_not_call(server: ParameterServer, report: Report) -> None:
    """All calls return with success, but no worker ever comes."""
    gather(server, tensors())
    with report.expect_error():
        server.update("step", lambda _: None, timeout=timedelta(seconds=4))


def not_gathered(server: ParameterServer, report: Report) -> None:
    """An update without ``gather_metas``, and impossible ``ranks``."""
    server.unregister_checkpoint("step")
    server.register_checkpoint("step", named_tensors=tensors())
    with report.expect_error():
        update(server)
    server.gather_metas("step")
    for ranks in ([7], [1, 1]):
        with report.expect_error():
            server.update("step", call_engine, ranks=ranks)
    with report.expect_error():
        server.update("step", call_engine, ranks=[RANK])


def kill_daemon(server: ParameterServer) -> None:
    pid = int(server._daemon._setup.process.read_text().split()[0])  # type: ignore[union-attr]
    os.kill(pid, signal.SIGKILL)


def daemon_killed_between(server: ParameterServer, report: Report) -> None:
    """The daemon is killed after registration; a new one is told what the ranks have."""
    named = tensors()
    server.unregister_checkpoint("step")
    server.register_checkpoint("step", named_tensors=named)
    server.gather_metas("step")
    server.store_based_barrier()
    if RANK == 3:
        kill_daemon(server)
    server.store_based_barrier()
    update(server)
    report.values.setdefault("delivered", []).append(digests(named))


def daemon_killed_in_update(server: ParameterServer, report: Report) -> None:
    def call(paths: list[tuple[str, str]]) -> None:
        if RANK == 2:
            kill_daemon(server)

    gather(server, tensors())
    with report.expect_error():
        update(server, req_func=call)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_register(server: ParameterServer, report: Report) -> None:
    """Rank 2 is killed while it registers; the others come to ``gather_metas``, twice."""
    if RANK == 2:
        server._checkpoints._tell = lambda *_: die()  # type: ignore[method-assign]
    server.register_checkpoint("step", named_tensors=tensors())
    for _ in range(2):
        with report.expect_error():
            server.gather_metas("step")


def die_in_update(server: ParameterServer, report: Report) -> None:
    """The rank that ``victim`` names is killed in its call of the engine."""
    gather(server, tensors())

    def call(paths: list[tuple[str, str]]) -> None:
        if OPTIONS["victim"] == RANK:
            die()

    with report.expect_error():
        update(server, req_func=call)
    with report.expect_error():
        server.store_based_barrier(timedelta(seconds=20))
    server.unregister_checkpoint("step")
    server.register_checkpoint("step", named_tensors=tensors())
    report.values["registers"] = True


def kill_everybody(server: ParameterServer, report: Report) -> None:
    server.register_checkpoint("step", named_tensors=tensors())
    server.store_based_barrier()
    if RANK == 0:
        for peer in server._ranks.peers:
            os.kill(peer.pid, signal.SIGKILL)
        die()
    time.sleep(60)


SCENARIOS = (
    daemon_killed_between,
    daemon_killed_in_update,
    die_in_register,
    die_in_update,
    engine_does_not_call,
    kill_everybody,
    no_engine,
    not_gathered,
    one_cannot_register,
    req_func_raises,
    same_names,
)
