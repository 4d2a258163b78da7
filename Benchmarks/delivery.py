"""How fast two workers on the CPU take a checkpoint, beside what their memory can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from figures import Figures, median
from measured_daemon import Daemon, ReferenceEngine, stage_seconds
from sample_files import GIB, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

WORKERS = 2
ROUNDS = 9
BYTES = 2 * GIB


def measure_delivery(
    figures: Figures, shared_memory: Path, daemon: Daemon, engine: ReferenceEngine
) -> None:
    """Both workers copy their halves: all bytes once, by two processes at a time."""
    checkpoint = write_checkpoint(shared_memory / "delivery", BYTES, files=4)
    daemon.register("delivery", checkpoint)
    # The first update makes the workers' memory and maps the checkpoint; later ones are the rule.
    first = stage_seconds(daemon.update("delivery", engine), "reload")
    engine.memcpy_seconds(BYTES // WORKERS)
    reload: list[float] = []
    whole: list[float] = []
    copies: list[float] = []
    for number in range(ROUNDS):
        if number % 2 == 0:
            copies.append(max(engine.memcpy_seconds(BYTES // WORKERS)))
        status = daemon.update("delivery", engine)
        reload.append(stage_seconds(status, "reload"))
        whole.append(float(status["seconds"]))
        if number % 2 == 1:
            copies.append(max(engine.memcpy_seconds(BYTES // WORKERS)))
    daemon.unregister("delivery")
    figures.add(
        "delivery_ratio",
        median(copies) / median(reload),
        "x",
        f"delivery of 2 GiB to {WORKERS} workers / the same bytes by plain memcpy in them",
        reload_seconds=reload,
        memcpy_seconds=copies,
        update_seconds=whole,
        first_reload_seconds=[first],
    )
    figures.add("delivery_gbs", BYTES / median(reload) / 1e9, "GB/s", "the delivery")
    figures.add("memcpy_gbs", BYTES / median(copies) / 1e9, "GB/s", "the plain memcpy")
    figures.add("first_delivery_gbs", BYTES / first / 1e9, "GB/s", "the first one, new memory")
    figures.add(
        "update_overhead_ms",
        (median(whole) - median(reload)) * 1e3,
        "ms",
        "all other stages of an update together",
    )
