"""Measures pulls over TCP on loopback beside Mooncake's own Python API: part of ``make bench``.

Readings of both are taken in turns, and the figures that count are ratios of their medians. Both
ends share one machine's cores here: with few of them, whatever else computes (checksums, first
touches of memory, the engine's copies) takes from the transfer.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from figures import Figures, median
from host import conclude
from measured_daemon import ReferenceEngine
from pull_daemon import PullDaemon, tree_seconds
from sample_files import write_checkpoint
from transfer_ceiling import GIB, KIB, MIB, Ceiling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch_engine_process import TorchEngine

WORKERS = 2
BYTES = GIB
TENSORS = 16
SMALL_BYTES = 768 * KIB
SMALL_TENSORS = 2000
# Ranges of mooncake's reads that do not spin.
NAPPING_BYTES = 16 * MIB
NAME = "measured"
# By then a source that nobody disturbs has computed the checksums of `BYTES`.
AHEAD_S = 3.0
# How long others read before an update begins beside them.
READ_S_BEFORE = 0.5


@dataclass
class Cluster:
    """A daemon with a checkpoint, one that reads it, and mooncake alone."""

    ceiling: Ceiling
    source: PullDaemon
    reader: PullDaemon
    rounds: int

    def processor_seconds(self) -> float:
        """What both daemons and their agents have computed so far."""
        return sum(self.source.cpu_seconds()) + sum(self.reader.cpu_seconds())

    def pull_seconds(self, body: Callable[[], None] | None = None) -> float:
        """How long a pull takes, or ``body``; what was read is forgotten, its memory kept."""
        start = time.perf_counter()
        if body:
            body()
        else:
            self.reader.pull(NAME, self.source)
        seconds = time.perf_counter() - start
        self.reader.forget(NAME)
        return seconds


@dataclass
class Readings:
    """Seconds by name."""

    of: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **seconds: float) -> None:
        for name, value in seconds.items():
            self.of.setdefault(name, []).append(value)

    def ratio(self, above: str, below: str) -> float:
        return median(self.of[above]) / median(self.of[below])


def _measure_pull(figures: Figures, at: Cluster, name: str, byte_count: int, piece: int) -> None:
    """Pulls into memory that the daemon has kept, beside mooncake's reads of the same bytes."""
    seconds = Readings()
    # The first makes the memory, and the source's checksums.
    seconds.add(first=at.pull_seconds())
    for _ in range(at.rounds):
        before = tree_seconds(at.ceiling.pid)
        seconds.add(mooncake=at.ceiling.seconds(byte_count, piece))
        seconds.add(mooncake_cpu=tree_seconds(at.ceiling.pid) - before)
        before = at.processor_seconds()
        seconds.add(pull=at.pull_seconds())
        seconds.add(pull_cpu=at.processor_seconds() - before)
        before = tree_seconds(at.ceiling.pid)
        seconds.add(napping=at.ceiling.seconds(byte_count, NAPPING_BYTES, spins=False))
        seconds.add(napping_cpu=tree_seconds(at.ceiling.pid) - before)
    what = f"mooncake's blocking reads of {piece // KIB} KiB / a pull, start to end"
    ratio = seconds.ratio("mooncake", "pull")
    figures.add(f"{name}_ratio", ratio, "x", what, **seconds.of)
    napping = "the same, mooncake's reads as the agent makes them, which occupy no core"
    figures.add(f"{name}_napping_ratio", seconds.ratio("napping", "pull"), "x", napping)
    for key, text in (("pull", "the pull"), ("mooncake", "mooncake's blocking reads")):
        rate = byte_count / median(seconds.of[key]) / GIB
        figures.add(f"{name}_{key}_rate", rate, "GiB/s", text)
    for key in ("pull", "mooncake", "napping"):
        cores = median(seconds.of[f"{key}_cpu"]) / byte_count * 1e9
        text = "CPU seconds of all processes for one GB"
        figures.add(f"{name}_{key}_cpu", cores, "s/GB", text)
    first = byte_count / seconds.of["first"][0] / GIB
    figures.add(f"{name}_first_rate", first, "GiB/s", "the first pull: new memory, no checksums")


def _measure_start(figures: Figures, at: Cluster, folder: Path) -> None:
    """What every pull takes, however short: leases, catalog, the start of the agent."""
    at.source.register(NAME, write_checkpoint(folder / "tiny", MIB, tensors=1))
    seconds = [at.pull_seconds() for _ in range(at.rounds + 1)][1:]
    at.source.unregister(NAME)
    figures.add("pull_start_ms", median(seconds) * 1e3, "ms", "a pull of 1 MiB", pull=seconds)


def _measure_engine(figures: Figures, at: Cluster, engine: ReferenceEngine) -> None:
    """From the memory of another daemon into the workers of an engine, while bytes arrive."""

    def pull_and_update() -> None:
        at.reader.pull(NAME, at.source, wait=False)
        at.reader.update(NAME, engine)

    seconds = Readings()
    at.pull_seconds(pull_and_update)
    for _ in range(at.rounds):
        seconds.add(mooncake=at.ceiling.seconds(BYTES, BYTES // TENSORS))
        seconds.add(both=at.pull_seconds(pull_and_update))
    what = f"mooncake's reads / pull and update of {WORKERS} workers together"
    figures.add("pull_and_update_ratio", seconds.ratio("mooncake", "both"), "x", what, **seconds.of)


def _measure_source(figures: Figures, at: Cluster, checkpoint: Path) -> None:
    """What the source computes for one GB while it is read.

    By a reader that comes with the registration, and needs its checksums at once; by one that comes
    when they have been computed ahead.
    """
    early, later = Readings(), Readings()
    for _ in range(max(2, at.rounds // 2)):
        # Registered again, it has no checksums.
        at.source.unregister(NAME)
        at.source.register(NAME, checkpoint)
        for readings in (early, later):
            if readings is later:
                at.source.unregister(NAME)
                at.source.register(NAME, checkpoint)
                time.sleep(AHEAD_S)
            before = at.source.cpu_seconds()
            at.pull_seconds()
            own, agent = (b - a for a, b in zip(before, at.source.cpu_seconds(), strict=True))
            readings.add(daemon=own / BYTES * 1e9, agent=agent / BYTES * 1e9)
    for name, readings, text in (
        ("_early", early, "a reader that comes at once"),
        ("", later, "the first that comes later"),
    ):
        for who, values in readings.of.items():
            what = f"cores of the source's {who} for one GB/s to {text}"
            figures.add(f"source_{who}_cores{name}", median(values), "cores", what, seconds=values)


@contextmanager
def _again_and_again(body: Callable[[], object]) -> Iterator[None]:
    """Runs ``body`` in a thread, once and again until the context ends."""
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            body()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def update_seconds(at: Cluster, engine: ReferenceEngine | TorchEngine, count: int = 1) -> Readings:
    """Updates by the source of its own engine, in turns: one ``alone``, then ``count`` while it is
    ``read``, in pulls that take ``pull``, and as many ``beside`` mooncake that reads other memory.
    """
    seconds = Readings()

    def update() -> float:
        return float(at.source.update(NAME, engine)["seconds"])

    def updates_beside(name: str, body: Callable[[], object]) -> None:
        with _again_and_again(body):
            time.sleep(READ_S_BEFORE)
            for _ in range(count):
                seconds.add(**{name: update()})

    update()
    at.pull_seconds()
    for _ in range(at.rounds):
        seconds.add(alone=update())
        updates_beside("read", lambda: seconds.add(pull=at.pull_seconds()))
        updates_beside("beside", lambda: at.ceiling.seconds(BYTES, BYTES // TENSORS))
    return seconds


def _measure_updates(figures: Figures, at: Cluster, engine: ReferenceEngine) -> None:
    seconds = update_seconds(at, engine)
    what = "an update by the source while it is read / alone; the reader computes here too"
    figures.add("source_update_ratio", seconds.ratio("read", "alone"), "x", what, **seconds.of)
    what = "the same while mooncake alone reads other memory"
    figures.add("source_update_beside_ratio", seconds.ratio("beside", "alone"), "x", what)


def _measure(figures: Figures, rounds: int, small_tensors: int) -> None:
    with ExitStack() as stack:

        def folder(parent: Path | None) -> Path:
            name = tempfile.TemporaryDirectory(prefix="checkpoint-engine-bench-", dir=parent)
            return Path(stack.enter_context(name))

        shared_memory, sockets = folder(Path("/dev/shm")), folder(None)
        ceiling = stack.enter_context(Ceiling())
        source = stack.enter_context(PullDaemon("--checksums", "ahead"))
        reader = stack.enter_context(PullDaemon())
        at = Cluster(ceiling, source, reader, rounds)
        _measure_start(figures, at, shared_memory)
        small = small_tensors * SMALL_BYTES
        many = write_checkpoint(shared_memory / "many", small, files=4, tensors=small_tensors)
        source.register(NAME, many)
        _measure_pull(figures, at, "pull_many", small, SMALL_BYTES)
        # What the reader has kept of these is of no use for the next.
        reader.pull(NAME, source)
        reader.forget(NAME, release=True)
        source.unregister(NAME)
        shutil.rmtree(many)
        few = write_checkpoint(shared_memory / "few", BYTES, files=2, tensors=TENSORS)
        source.register(NAME, few)
        _measure_pull(figures, at, "pull", BYTES, BYTES // TENSORS)
        _measure_source(figures, at, few)
        with ReferenceEngine(sockets, WORKERS) as engine:
            _measure_engine(figures, at, engine)
            _measure_updates(figures, at, engine)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="write all figures to this file, as JSON")
    parser.add_argument("--rounds", type=int, default=7, help="of each measurement")
    parser.add_argument(
        "--tensors",
        type=int,
        default=SMALL_TENSORS,
        help="of 768 KiB; takes this memory twice, beside 4 GiB (default: %(default)s)",
    )
    parser.add_argument(
        "--no-thresholds",
        action="store_true",
        help="exit with 0 also when a figure misses its threshold",
    )
    return parser.parse_args()


def main() -> int:
    """Measures, shows, writes; the exit code tells whether all thresholds are met."""
    arguments = _arguments()
    figures = Figures(Path(__file__).with_name("pull_thresholds.json"))
    start = time.time()
    _measure(figures, arguments.rounds, arguments.tensors)
    return conclude(figures, start, arguments, load=os.getloadavg()[0])


if __name__ == "__main__":
    sys.exit(main())
