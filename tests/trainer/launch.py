"""Starts the ranks of a trainer, with torchrun or one by one, and reads what they report."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon import BINARY, Folders, environment
from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

TRAINER = Path(__file__).with_name("trainer.py")
WORLD_SIZE = 4
RUN_S_MAX = 150.0


@dataclass(frozen=True)
class Ended:
    """What the ranks of one run have reported, ``None`` for one that was killed."""

    reports: list[dict[str, Any] | None]
    codes: list[int]
    stderr: str

    def check(self, *killed: int) -> None:
        """All ranks but those that were ``killed`` have ended well."""
        for rank, code in enumerate(self.codes):
            expected = -9 if rank in killed else 0
            assert code == expected, f"rank {rank}: {code}\n{self.stderr[-8000:]}"

    def values(self, key: str) -> list[Any]:
        """What every rank that reported says as ``key``."""
        return [report[key] for report in self.reports if report is not None]

    def errors(self, place: int) -> dict[int, tuple[list[str], str, float, str]]:
        """Exception number ``place`` of every rank that reported: kinds, text, seconds, cause."""
        found = {}
        for rank, report in enumerate(self.reports):
            if report is not None:
                error = report["errors"][place]
                assert error is not None, f"rank {rank} did not fail"
                found[rank] = error
        return found


class Launcher:
    """Runs trainers with directories of their own, which a run that ends well leaves empty."""

    def __init__(self, folders: Folders, output: Path) -> None:
        self.folders = folders
        self.output = output

    def _environment(self, options: dict[str, Any], more: dict[str, str]) -> dict[str, str]:
        return {
            **environment(),
            "OMP_NUM_THREADS": "1",
            "TRAINER_OPTIONS": json.dumps(options),
            "CHECKPOINT_ENGINE_BIN": str(BINARY),
            "CHECKPOINT_ENGINE_BUCKET_SIZE": "64KiB",
            "CHECKPOINT_ENGINE_SHARED_MEMORY_DIR": str(self.folders.shared_memory),
            "CHECKPOINT_ENGINE_RUNTIME_DIR": str(self.folders.runtime),
            **more,
        }

    def torchrun(self, scenarios: str, count: int, **options: Any) -> Ended:
        """Runs ``scenarios`` on ``count`` ranks under torchrun."""
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
        # It takes a port itself: one that is looked for beforehand may be gone by then.
        done = subprocess.run(
            [*torchrun, "--standalone", str(TRAINER), scenarios, self.output],
            env=self._environment(options, {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_S_MAX,
            check=False,
        )
        return Ended(self._reports(count), [done.returncode] * count, done.stderr)

    def ranks(
        self,
        scenarios: str,
        count: int,
        *,
        variables: Sequence[dict[str, str]] = (),
        prefixes: Sequence[list[str]] = (),
        **options: Any,
    ) -> Ended:
        """Runs ``scenarios`` as ``count`` processes that nobody supervises.

        ``variables`` has for each rank what differs from the usual environment, ``prefixes`` the
        command that starts its process.
        """
        port = free_port()
        processes = []
        log = self.output / "stderr.log"
        with log.open("wb") as errors:
            for rank in range(count):
                usual = {
                    "RANK": str(rank),
                    "WORLD_SIZE": str(count),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    **(variables[rank] if variables else {}),
                }
                prefix = prefixes[rank] if prefixes else []
                processes.append(
                    subprocess.Popen(
                        [*prefix, sys.executable, str(TRAINER), scenarios, str(self.output)],
                        env=self._environment(options, usual),
                        stdin=subprocess.DEVNULL,
                        stdout=errors,
                        stderr=errors,
                    )
                )
            codes = _wait(processes)
        return Ended(self._reports(count), codes, log.read_text(errors="replace"))

    def _reports(self, count: int) -> list[dict[str, Any] | None]:
        paths = [self.output / f"rank-{rank}.json" for rank in range(count)]
        return [json.loads(path.read_text()) if path.exists() else None for path in paths]


def _wait(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    end = time.monotonic() + RUN_S_MAX
    try:
        return [process.wait(max(0.1, end - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
