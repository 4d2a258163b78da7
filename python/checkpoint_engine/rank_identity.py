"""Who the ranks are: which of them share a host, and whether their processes still live."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

_ENDED_STATES = {"Z", "X", "x"}


@dataclass(frozen=True)
class RankIdentity:
    """One rank's process. Ranks of equal ``host`` share its memory and its sockets."""

    rank: int
    world_size: int
    host: str
    host_name: str
    processes: str
    pid: int
    start: int
    visible_gpus: str | None

    @classmethod
    def of_this_process(cls, rank: int, world_size: int) -> RankIdentity:
        """The identity of the calling process, which is ``rank`` of ``world_size``."""
        pid = os.getpid()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return cls(
            rank=rank,
            world_size=world_size,
            host=f"{boot} {_namespace('ipc')} {_namespace('net')}",
            host_name=socket.gethostname(),
            processes=f"{boot} {_namespace('pid')}",
            pid=pid,
            start=process_state(pid)[1],
            visible_gpus=os.environ.get("CUDA_VISIBLE_DEVICES"),
        )

    def values(self) -> dict[str, object]:
        """The fields, for JSON."""
        return asdict(self)

    def describe(self) -> str:
        """``rank 2 (pid 123 on node-1)``."""
        return f"rank {self.rank} (pid {self.pid} on {self.host_name})"

    def has_ended(self, observer: RankIdentity) -> bool:
        """Whether the process has ended, as far as ``observer``'s host can see it."""
        if self.processes != observer.processes:
            return False
        return has_ended(self.pid, self.start)


def _namespace(kind: str) -> str:
    return str(Path(f"/proc/self/ns/{kind}").readlink())


def has_ended(pid: int, start: int) -> bool:
    """Whether the process ``pid`` that began at ``start`` is over; a zombie is."""
    try:
        state, now = process_state(pid)
    except OSError:
        return True
    return now != start or state in _ENDED_STATES


def process_state(pid: int) -> tuple[str, int]:
    """State and start time (in clock ticks since boot) of a process. Raises ``OSError``."""
    # The name in parentheses may hold anything, parentheses too.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[19])
