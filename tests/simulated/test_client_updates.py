"""Updates whose engine calls a client makes, on simulated GPUs, from checkpoints of parts."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from daemon import wait_until
from reference import TIMEOUT_S, device_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from daemon import Answer, Daemon
    from reference import SimulatedEngine

    StartDaemon = Callable[..., Daemon]
    StartEngine = Callable[..., SimulatedEngine]

UNKNOWN = "GPU-00000000-0000-0000-0000-000000000001"


def compose(daemon: Daemon, checkpoint: Path) -> int:
    """Registers each file as a part, and ``step`` as all of them; how many there are."""
    files = sorted(checkpoint.glob("*.safetensors"))
    assert len(files) > 1
    parts = [f"step.rank{rank}" for rank in range(len(files))]
    for part, file in zip(parts, files, strict=True):
        assert daemon.register(part, file).status == 200
    answer = daemon.request("POST", "/v1/checkpoints/step/parts", {"parts": parts})
    assert answer.status == 200, answer.body
    assert answer.body["parts"] == parts
    return len(parts)


def listed(daemon: Daemon) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = daemon.request("GET", "/v1/checkpoints").body["checkpoints"]
    return entries


def open_update(daemon: Daemon, workers: list[str], calls: int) -> Answer:
    body = {"workers": workers, "calls": calls, "timeout": 30}
    return daemon.request("POST", "/v1/checkpoints/step/open-update", body, timeout=TIMEOUT_S)


def report(daemon: Daemon, update: str, call: int, error: str | None = None) -> Answer:
    return daemon.request("POST", f"/v1/updates/{update}/calls/{call}", {"error": error})


def test_two_engines_that_the_client_calls(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path]
) -> None:
    engines = [start_engine(2, first_gpu=first) for first in (2, 0)]
    workers = [worker for engine in engines for worker in engine.ids]
    with start_daemon() as daemon:
        parts = compose(daemon, checkpoints[0])
        for engine in engines:
            engine.ask("fill 90")
        opened = open_update(daemon, workers, 2)
        assert opened.status == 202, opened.body
        update = opened.body["update"]
        addresses = dict(zip(workers, opened.body["sockets"], strict=True))

        def call(number: int) -> None:
            own = {worker: addresses[worker] for worker in engines[number].ids}
            status, body = engines[number].update(own)
            report(daemon, update, number, None if status == 200 else str(body))

        threads = [threading.Thread(target=call, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)
        ended = daemon.request("GET", f"/v1/updates/{update}?wait=30", timeout=TIMEOUT_S)
        assert ended.body["state"] == "succeeded", ended.body
        for engine in engines:
            engine.check_holds(checkpoints[0])
        # The first part that goes takes the whole with it, and only that.
        assert daemon.request("DELETE", "/v1/checkpoints/step.rank0").status == 200
        names = [entry["name"] for entry in listed(daemon)]
        assert names == [f"step.rank{rank}" for rank in range(1, parts)]


def test_a_call_that_fails_gives_the_memory_back(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path]
) -> None:
    engine = start_engine(2)
    with start_daemon() as daemon:
        compose(daemon, checkpoints[0])
        for workers, words in (([UNKNOWN], "sees no GPU-0"), (engine.ids * 2, "share a GPU")):
            open_update(daemon, workers, 1).check_failure(400, "invalid_argument", words)
        opened = open_update(daemon, engine.ids, 1)
        assert open_update(daemon, engine.ids, 1).status == 409
        update = opened.body["update"]
        assert report(daemon, update, 0, "the trainer's proxy said no").status == 200
        ended = daemon.request("GET", f"/v1/updates/{update}?wait=30", timeout=TIMEOUT_S)
        assert ended.body["error"]["code"] == "engine_failed"
        assert "proxy said no" in ended.body["error"]["message"]
        wait_until(lambda: device_bytes(daemon.program.pid) == 0, "the ring is given back")


def test_a_cancelled_update_tells_the_reason(
    start_daemon: StartDaemon, start_engine: StartEngine, checkpoints: list[Path]
) -> None:
    engine = start_engine(1)
    with start_daemon() as daemon:
        compose(daemon, checkpoints[0])
        update = open_update(daemon, engine.ids, 1).body["update"]
        path = f"/v1/updates/{update}?reason=rank%203%20is%20gone"
        assert daemon.request("DELETE", path).status == 202
        ended = daemon.request("GET", f"/v1/updates/{update}?wait=30", timeout=TIMEOUT_S)
        assert ended.body["error"]["code"] == "cancelled"
        assert "rank 3 is gone" in ended.body["error"]["message"]
