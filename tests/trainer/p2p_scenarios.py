"""Ranks that serve what they have to other fleets, and ranks that read it from them."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from checkpoint_engine.data_types import DaemonSource
from checkpoint_engine.metas_json import metas_to_json, read_metas_file
from checkpoint_engine.ps import MemoryBufferMetaList, ParameterServer
from fault_scenarios import kill_daemon
from rank_tools import (
    FOLDER,
    OPTIONS,
    RANK,
    UPDATE_TIMEOUT,
    Report,
    digests,
    engine_holds,
    tensors,
    update,
)
from scenarios import call_host_engine

WAIT_S = 120.0
Metas = dict[int, MemoryBufferMetaList]


def await_file(path: Path) -> Path:
    end = time.monotonic() + WAIT_S
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not come"
        time.sleep(0.05)
    return path


def serve_versions(server: ParameterServer, report: Report) -> None:
    """Gathers one version after the other, each until the file ``done-N`` is there."""
    for version in range(OPTIONS["versions"]):
        named = tensors(OPTIONS.get("first", 0) + RANK)
        server.unregister_checkpoint("step")
        server.register_checkpoint("step", named_tensors=named)
        server.gather_metas("step")
        report.values.setdefault("delivered", []).append(digests(named))
        report.write()
        server.store_based_barrier()
        if RANK == 0:
            path = FOLDER / f"metas-{version}.json"
            path.with_suffix(".new").write_text(metas_to_json(server.get_metas()))
            path.with_suffix(".new").rename(path)
        await_file(FOLDER / f"done-{version}")


def loaded(version: int = 0) -> Metas:
    """The metas of all fleets that serve, as one."""
    found: Metas = {}
    for folder in OPTIONS["fleets"]:
        metas = read_metas_file(await_file(Path(folder) / f"metas-{version}.json"))
        found |= {len(found) + rank: item for rank, item in metas.items()}
    return found


def pulls(server: ParameterServer, name: str) -> int:
    """How often the daemon of this host has read a checkpoint to its end; ``name`` is read now."""
    while state(server, name) != "ready":
        time.sleep(0.02)
    connection = server._daemon.client.address.connection(10)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    [line] = [line for line in lines if line.startswith("checkpoint_engine_pulls_total ")]
    return int(line.split()[1])


def state(server: ParameterServer, name: str) -> str | None:
    return server._daemon.client.state(name)


def join_twice(server: ParameterServer, report: Report) -> None:
    """As PyPI's example joins, under another name; the second update uses what is there."""
    server.init_process_group()
    server.gather_metas("mine")
    server.load_metas(loaded())
    counts = []
    for _ in range(2):
        update(server, "mine")
        server.store_based_barrier()
        counts.append(pulls(server, "mine"))
    server.store_based_barrier()
    server.unregister_checkpoint("mine")
    server.store_based_barrier()
    states = [state(server, "mine")]
    update(server, "mine")
    server.store_based_barrier()
    counts.append(pulls(server, "mine"))
    server.store_based_barrier()  # the daemon ends with the rank that has started it
    report.values |= {"pulls": counts, "states": states, "metas": sorted(server.get_metas())}


def follow_versions(server: ParameterServer, report: Report) -> None:
    """Loads the metas of each version under one name."""
    for version in range(OPTIONS["versions"]):
        server.load_metas(loaded(version))
        update(server)
        server.store_based_barrier()
        if RANK == 0:
            for folder in OPTIONS["fleets"]:
                (Path(folder) / f"done-{version}").touch()


def join_after_a_kill(server: ParameterServer, report: Report) -> None:
    """The daemon is killed between two updates; a new one reads again."""
    server.load_metas(loaded())
    update(server)
    server.store_based_barrier()
    if RANK == 0:
        kill_daemon(server)
    server.store_based_barrier()
    update(server)


def own_after_theirs(server: ParameterServer, report: Report) -> None:
    """What is registered under the name afterwards takes the place of what was read."""
    server.load_metas(loaded())
    update(server)
    named = tensors(50 + RANK)
    server.register_checkpoint("step", named_tensors=named)
    server.gather_metas("step")
    update(server)
    server.unregister_checkpoint("step")
    report.values["own"] = digests(named)


def with_source(url: str | None) -> Metas:
    """The metas with another daemon in them."""
    metas = loaded()
    for item in metas.values():
        item.checkpoint_engine = None if url is None else DaemonSource(url, "step")
    return metas


def in_memory(address: str | None = None) -> Metas:
    """The metas as PyPI's package writes them, of the sessions that serve or of ``address``."""
    metas = with_source(None)
    for item in metas.values():
        item.p2p_store_addr = address or item.p2p_store_addr
    return metas


def join_out_of_memory(server: ParameterServer, report: Report) -> None:
    """The metas name no daemon, but memory; a daemon that is started anew reads it again."""
    server.load_metas(in_memory())
    counts = []
    for place in range(3):
        update(server, "mine")
        server.store_based_barrier()
        counts.append(pulls(server, "mine"))
        server.store_based_barrier()
        if RANK == 0 and place == 1:
            kill_daemon(server)
        server.store_based_barrier()
    report.values["pulls"] = counts


def host_alone(server: ParameterServer, report: Report) -> None:
    """A host updates without the other one to what each reads for itself; what the engines hold."""
    called: list[int] = []

    def call(paths: list[tuple[str, str]]) -> None:
        called.append(len([address for _, address in paths if address]))
        call_host_engine(paths)

    server.register_checkpoint("old", files=[OPTIONS["old"]] if RANK == 3 else [])
    server.gather_metas("old")
    server.load_metas(loaded())
    steps = [("old", None), ("new", [0, 1]), ("new", None)]
    steps += [("old", None), ("new", [2, 3]), ("new", None)]
    held = []
    for name, ranks in steps:
        server.update(name, call, timeout=UPDATE_TIMEOUT, ranks=ranks)
        server.store_based_barrier()
        if RANK == 0:
            held.append(
                [
                    [which for which in ("old", "new") if engine_holds(uds, OPTIONS[which])]
                    for uds in OPTIONS["uds"]
                ]
            )
        server.store_based_barrier()
    report.values |= {"held": held, "called": called}


def wrong_metas(server: ParameterServer, report: Report) -> None:
    """Metas of a fleet that is gone, that lead nowhere, of another checkpoint, different ones."""
    gone, elsewhere = OPTIONS["gone"], with_source(OPTIONS["gone"])
    unknown = loaded()
    for item in unknown.values():
        item.checkpoint_engine.checkpoint = "other"  # type: ignore[union-attr]
    nowhere, mixed = with_source(None), loaded()
    for item in nowhere.values():
        item.p2p_store_addr = None
    mixed[1].checkpoint_engine = None
    lost = in_memory(gone.removeprefix("http://"))
    for metas in (with_source(gone), nowhere, unknown, mixed, lost):
        server.load_metas(metas)
        with report.expect_error():
            update(server)
    server.load_metas(elsewhere if RANK == 0 else loaded())
    with report.expect_error():
        update(server)
    server.load_metas(loaded())
    update(server)


def no_metas(server: ParameterServer, report: Report) -> None:
    """Nothing was registered, gathered or loaded."""
    with report.expect_error():
        update(server)


def taken_name(server: ParameterServer, report: Report) -> None:
    """A part of another name is there already, which stays as it is."""
    server.register_checkpoint("other", named_tensors={f"w.{RANK}": torch.zeros(3)})
    server.gather_metas("other")
    server.load_metas(loaded())
    with report.expect_error():
        update(server, "other.rank1")
    server.store_based_barrier()
    report.values["state"] = state(server, "other.rank1")
    server.store_based_barrier()  # a rank that ends takes its part with it


SCENARIOS = (
    follow_versions,
    host_alone,
    join_after_a_kill,
    join_out_of_memory,
    join_twice,
    no_metas,
    own_after_theirs,
    serve_versions,
    taken_name,
    wrong_metas,
)
