"""The reference engine as a process, whose workers compare what they hold with files."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

from daemon import Program, UnixConnection, indexed, wait_until

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 60.0
# A worker that has died is replaced when it is asked; a process starts in less.
RESPAWN_S = 30.0


class ReferenceEngine:
    """``checkpoint-engine reference-engine``."""

    def __init__(self, uds: Path, workers: int, *flags: str) -> None:
        self.uds = uds
        self.worker_count = workers
        self.program = Program(
            "reference-engine", "--uds", str(uds), "--workers", str(workers), *flags
        )
        wait_until(self._is_up, "the engine answers")
        self.pids = self._living_pids()

    def _is_up(self) -> bool:
        assert self.program.is_running, self.program.wait().stderr
        try:
            return self.request("GET", "/health")[0] == 200
        except OSError:
            return False

    def request(self, method: str, path: str, body: str = "") -> tuple[int, Any]:
        """Status and body of the engine's answer."""
        connection = UnixConnection(self.uds, TIMEOUT_S)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            content = response.read()
            return response.status, json.loads(content) if content else None
        finally:
            connection.close()

    def ask(self, line: str, rank: int | None = None) -> list[str]:
        """What the workers answer to a line, or one of them."""
        path = "/workers" if rank is None else f"/workers/{rank}"
        status, body = self.request("POST", path, line)
        assert status == 200, (line, body)
        return [str(value) for value in body["results"]]

    def _living_pids(self) -> list[int]:
        def pids() -> list[int] | None:
            answers = [
                self.request("POST", f"/workers/{rank}", "pid") for rank in range(self.worker_count)
            ]
            if any(status != 200 for status, _ in answers):
                return None
            return [int(body["results"][0]) for _, body in answers]

        return list(wait_until(pids, "all workers live", RESPAWN_S))

    def respawned(self) -> None:
        """Asks until every worker lives: a dead one is replaced when it is asked."""
        self.pids = self._living_pids()

    def fails_to_hold(self, checkpoint: Path) -> bool:
        status, body = self.request("POST", "/workers", f"verify 2 {indexed(checkpoint)}")
        return status == 500 and "differ" in str(body)

    def check_holds(self, checkpoint: Path) -> None:
        """Every byte of every worker is that of the files."""
        found = [int(count) for count in self.ask(f"verify 2 {indexed(checkpoint)}")]
        assert all(count > 1_000_000 for count in found), found

    def stop(self) -> None:
        if not self.program.is_running:
            return
        self.program.send(signal.SIGTERM)
        ended = self.program.wait(20)
        ended.check_orderly()
        assert ended.code == 0, ended.stderr
