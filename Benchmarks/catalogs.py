"""What many tensors cost: the daemon's memory, the time to parse and to exchange the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from figures import Figures, median
from measured_daemon import Daemon, ReferenceEngine, stage_seconds
from sample_files import write_many_tensors

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 5
TENSORS_MAX = 150_000
# As many as a model of 235 billion parameters with experts has layers times modules.
TENSORS_USUAL = 7_823


def measure_catalogs(figures: Figures, shared_memory: Path, folder: Path) -> None:
    """A fresh daemon, so that its memory is that of the checkpoint at hand."""
    many = write_many_tensors(shared_memory / "many", TENSORS_MAX)
    usual = write_many_tensors(shared_memory / "usual", TENSORS_USUAL)
    with ReferenceEngine(folder, workers=2) as engine, Daemon(folder) as daemon:
        idle = daemon.memory()
        seconds = [float(daemon.register("many", many)["register_seconds"])]
        registered = daemon.memory()
        for _ in range(ROUNDS - 1):
            daemon.unregister("many")
            seconds.append(float(daemon.register("many", many)["register_seconds"]))
        exchanges = [stage_seconds(daemon.update("many", engine), "catalog") for _ in range(ROUNDS)]
        updated = daemon.memory()
        daemon.unregister("many")
        daemon.register("usual", usual)
        exchanges_usual = [
            stage_seconds(daemon.update("usual", engine), "catalog") for _ in range(ROUNDS)
        ]
    what = "of the daemon's memory beyond the pool (anonymous and file pages)"
    figures.add("daemon_private_mib_idle", idle["private"], "MiB", f"{what}: idle")
    figures.add(
        "daemon_private_mib_registered",
        registered["private"],
        "MiB",
        f"{what}: {TENSORS_MAX} tensors registered",
        **{key: [value] for key, value in registered.items()},
    )
    figures.add(
        "daemon_private_mib_updated",
        updated["private"],
        "MiB",
        f"{what}: after {ROUNDS} updates from them",
        **{key: [value] for key, value in updated.items()},
    )
    figures.add("daemon_peak_rss_mib", updated["VmHWM"], "MiB", "the most it had at any time")
    figures.add(
        "register_150000_tensors_seconds",
        median(seconds),
        "s",
        f"registration of {TENSORS_MAX} tensors in shared memory",
        seconds=seconds,
    )
    figures.add(
        "catalog_150000_tensors_seconds",
        median(exchanges),
        "s",
        f"exchange of the catalog of {TENSORS_MAX} tensors with two workers",
        seconds=exchanges,
    )
    figures.add(
        "catalog_7823_tensors_seconds",
        median(exchanges_usual),
        "s",
        f"exchange of the catalog of {TENSORS_USUAL} tensors with two workers",
        seconds=exchanges_usual,
    )
