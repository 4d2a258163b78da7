"""Measures registration, delivery and memory on this machine: ``make bench``.

Every figure that counts is a ratio of two measurements of the same run; README.md beside this file
tells what each is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from catalogs import measure_catalogs
from delivery import WORKERS, measure_delivery
from figures import Figures
from measured_daemon import REPOSITORY, Daemon, ReferenceEngine, version
from registration import measure_disk, measure_shared_memory
from sample_files import GIB

# The most that the checkpoints and the workers' memory take at one time.
SHARED_MEMORY_BYTES = 8 * GIB
DISK_BYTES = 3 * GIB
FORMAT = 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="write all figures to this file, as JSON")
    parser.add_argument(
        "--disk",
        type=Path,
        default=REPOSITORY / ".build",
        help="a directory on the disk that is measured (default: .build)",
    )
    parser.add_argument(
        "--no-thresholds",
        action="store_true",
        help="exit with 0 also when a figure misses its threshold",
    )
    return parser.parse_args()


def machine() -> dict[str, object]:
    """The processor, its cores, the memory and the kernel."""
    page = os.sysconf("SC_PAGE_SIZE")
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * page,
        "kernel": platform.release(),
    }


def _check_space(shared_memory: Path, disk: Path) -> None:
    for path, needed in ((shared_memory, SHARED_MEMORY_BYTES), (disk, DISK_BYTES)):
        free = shutil.disk_usage(path).free
        if free < needed:
            sys.exit(f"error: {path} has {free} bytes free, the measurement needs {needed}")


def _measure(figures: Figures, disk: Path) -> None:
    with ExitStack() as stack:

        def folder(parent: Path | None) -> Path:
            name = tempfile.TemporaryDirectory(prefix="checkpoint-engine-bench-", dir=parent)
            return Path(stack.enter_context(name))

        shared_memory, on_disk, sockets = folder(Path("/dev/shm")), folder(disk), folder(None)
        daemon = stack.enter_context(Daemon(sockets))
        measure_shared_memory(figures, shared_memory, daemon)
        for label in shared_memory.iterdir():
            shutil.rmtree(label)
        measure_disk(figures, on_disk, shared_memory, daemon)
        with ReferenceEngine(sockets, WORKERS) as engine:
            measure_delivery(figures, shared_memory, daemon, engine)
        shutil.rmtree(shared_memory / "delivery")
        catalogs = sockets / "catalogs"
        catalogs.mkdir()
        measure_catalogs(figures, shared_memory, catalogs)


def conclude(
    figures: Figures, start: float, arguments: argparse.Namespace, **conditions: object
) -> int:
    """Writes the figures of a run that began at ``start``; the exit code of the program.

    ``conditions`` stand beside the machine. ``arguments`` has ``output`` and ``no_thresholds``.
    """
    document = {
        "format": FORMAT,
        "version": version(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)),
        "seconds": round(time.time() - start, 1),
        "machine": {**machine(), **conditions},
        "figures": figures.document(),
    }
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    if figures.missed:
        print(f"missed: {', '.join(figures.missed)}", file=sys.stderr)
    return 1 if figures.missed and not arguments.no_thresholds else 0


def main() -> int:
    """Measures, shows, writes; the exit code tells whether all thresholds are met."""
    arguments = _arguments()
    arguments.disk.mkdir(parents=True, exist_ok=True)
    _check_space(Path("/dev/shm"), arguments.disk)
    figures = Figures()
    start = time.time()
    _measure(figures, arguments.disk)
    return conclude(figures, start, arguments)


if __name__ == "__main__":
    sys.exit(main())
