"""How long registrations take: in shared memory, from a cold disk, from the page cache."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from figures import Figures, median
from plain_reads import cached_share, copy_seconds, drop_from_cache, read_seconds
from sample_files import GIB, MIB, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from measured_daemon import Daemon

SHARED_MEMORY_ROUNDS = 31
DISK_ROUNDS = 7
DISK_BYTES = 2 * GIB
CACHED_SHARE_MAX = 0.01


def _timed_registration(daemon: Daemon, path: Path) -> float:
    """The daemon's own time; the checkpoint stays registered as ``bench``."""
    return float(daemon.register("bench", path)["register_seconds"])


def measure_shared_memory(figures: Figures, shared_memory: Path, daemon: Daemon) -> None:
    """Files that lie in shared memory are mapped only: their size must not matter."""
    folders = {
        label: write_checkpoint(shared_memory / label, byte_count, tensors=64)
        for label, byte_count in (("64MiB", 64 * MIB), ("1GiB", GIB), ("2GiB", 2 * GIB))
    }
    samples: dict[str, list[float]] = {label: [] for label in folders}
    for _ in range(SHARED_MEMORY_ROUNDS):
        for label, folder in folders.items():
            start = time.perf_counter()
            daemon.register("bench", folder)
            samples[label].append(time.perf_counter() - start)
            daemon.unregister("bench")
    small, middle, large = (median(samples[label]) for label in folders)
    figures.add(
        "shared_memory_time_ratio",
        max(middle, large) / small,
        "x",
        "registration in shared memory, over HTTP: time of 1 or 2 GiB / time of 64 MiB",
        **samples,
    )
    figures.add("shared_memory_2gib_ms", large * 1e3, "ms", "the time of 2 GiB")


def measure_disk(figures: Figures, disk: Path, shared_memory: Path, daemon: Daemon) -> None:
    """Files on disk are read about as fast as parallel reads can."""
    folder = write_checkpoint(disk / "checkpoint", DISK_BYTES, files=4)
    threads = min(8, 2 * (os.cpu_count() or 1))
    ways = {
        "next_version": Way(lambda: _register(daemon, folder)),
        "reads": Way(lambda: read_seconds(folder, threads)),
        "first_version": Way(
            lambda: _register(daemon, folder), prepare=lambda: _give_back(daemon, folder)
        ),
        "copies": Way(lambda: copy_seconds(folder, threads, shared_memory / "copy")),
    }
    cold, shares = _interleaved(ways, folder, is_cold=True)
    if max(shares) > CACHED_SHARE_MAX:
        print(f"warning: up to {max(shares):.0%} of the files stayed in the page cache")
    figures.add(
        "disk_next_version_ratio",
        median(cold["reads"]) / median(cold["next_version"]),
        "x",
        f"registration from a cold disk into memory of the version before / parallel reads by "
        f"{threads} threads that keep nothing",
        cached_share=shares,
        **cold,
    )
    figures.add(
        "disk_first_version_ratio",
        median(cold["copies"]) / median(cold["first_version"]),
        "x",
        f"registration from a cold disk into new memory / parallel copies by {threads} threads "
        "into a new file in shared memory",
    )
    figures.add(
        "disk_first_version_to_reads_ratio",
        median(cold["reads"]) / median(cold["first_version"]),
        "x",
        "the same registration / parallel reads that keep nothing and need no new memory",
    )
    _add_rates(figures, "disk", cold)
    warm, _ = _interleaved(ways, folder, is_cold=False)
    _add_rates(figures, "cached", warm)


def _register(daemon: Daemon, folder: Path) -> float:
    """Into the memory that the last registration left."""
    seconds = float(daemon.register("bench", folder)["register_seconds"])
    daemon.unregister("bench")
    return seconds


def _give_back(daemon: Daemon, folder: Path) -> None:
    """The daemon keeps no memory for the next version."""
    daemon.register("bench", folder)
    daemon.unregister("bench", release=True)


@dataclass(frozen=True)
class Way:
    """One way to read the files: what is timed, and what has to be done before."""

    seconds: Callable[[], float]
    prepare: Callable[[], object] = lambda: None


def _interleaved(
    ways: dict[str, Way], folder: Path, *, is_cold: bool
) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds by way, each round in the opposite order, and what was cached before each read."""
    samples: dict[str, list[float]] = {name: [] for name in ways}
    shares: list[float] = []
    for number in range(-1, DISK_ROUNDS):
        for name in sorted(ways, reverse=number % 2 == 1):
            ways[name].prepare()
            if is_cold:
                drop_from_cache(folder)
                shares.append(cached_share(folder))
            seconds = ways[name].seconds()
            # The round before the first one makes memory and caches as they are in the others.
            if number >= 0:
                samples[name].append(seconds)
    return samples, shares


def _add_rates(figures: Figures, source: str, samples: dict[str, list[float]]) -> None:
    place = {"disk": "a cold disk", "cached": "the page cache"}[source]
    what = {
        "next_version": f"registration from {place} into memory of the version before",
        "reads": f"parallel reads from {place} that keep nothing",
        "first_version": f"registration from {place} into new memory",
        "copies": f"parallel copies from {place} into a new file in shared memory",
    }
    for name, seconds in samples.items():
        rate = DISK_BYTES / median(seconds) / 1e9
        figures.add(f"{source}_{name}_gbs", rate, "GB/s", what[name], seconds=seconds)
