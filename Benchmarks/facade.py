"""What the Python facade costs: registration of named tensors, and updates beside the CLI's.

``python Benchmarks/facade.py [--output FILE]`` prints JSON. Registrations are compared with copies
of the same bytes by as many threads, into memory that is there already and into new memory. Updates
by two ranks are compared with ``checkpoint-engine update`` of the same files into the same engine.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # what torchrun gives its ranks
REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "python"))

import torch  # noqa: E402
from checkpoint_engine.api import request_inference_to_update  # noqa: E402
from checkpoint_engine.ps import ParameterServer  # noqa: E402
from checkpoint_engine.tensor_copy import thread_count  # noqa: E402

from measured_daemon import Served, binary  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

RANKS = 2
ROUNDS = 9
TENSORS = 32
REGISTRATION_BYTES = 1 << 30
UPDATE_BYTES = 128 << 20
RATIO_MIN = 0.7
OVERHEAD_MS_MAX = 20.0
RUN_S_MAX = 600.0


def tensors(byte_count: int, prefix: str) -> dict[str, torch.Tensor]:
    """``TENSORS`` tensors of two bytes an element, ``byte_count`` together."""
    rows = byte_count // TENSORS // 2 // 1024
    return {
        f"{prefix}.{place}": torch.randint(-9999, 9999, (rows, 1024), dtype=torch.int16)
        for place in range(TENSORS)
    }


def timed(body: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    body()
    return time.perf_counter() - start


def copy(source: torch.Tensor, target: torch.Tensor, threads: int) -> None:
    """Plain copies of equal shares by ``threads`` threads."""
    share = source.nbytes // threads
    workers = [
        threading.Thread(
            target=ctypes.memmove,
            args=(target.data_ptr() + at * share, source.data_ptr() + at * share, share),
        )
        for at in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def ratio(ceilings: list[float], ours: list[float]) -> float:
    """The median of the ratios of neighbours, which the same disturbances have met."""
    return statistics.median(c / o for c, o in zip(ceilings, ours, strict=True))


def measure_registration(server: ParameterServer) -> dict[str, Any]:
    """Registrations and plain copies of the same bytes, in turns."""
    named = tensors(REGISTRATION_BYTES, "w")
    source = torch.cat([tensor.view(-1) for tensor in named.values()]).view(torch.uint8)
    target = torch.zeros_like(source)
    # The rank's own threads, times torch's, copy; as many plain copies run beside each other.
    threads = thread_count(1) * torch.get_num_threads()
    samples: dict[str, list[float]] = {}

    def sample(name: str, body: Callable[[], object]) -> None:
        samples.setdefault(name, []).append(timed(body))

    for _ in range(3):
        sample("first", lambda: server.register_checkpoint("bench", named_tensors=named))
        server.unregister_checkpoint("bench", force=True)
        sample("new_copy", lambda: copy(source, torch.empty_like(source), threads))
    server.register_checkpoint("bench", named_tensors=named)
    for _ in range(ROUNDS):
        server.unregister_checkpoint("bench")
        sample("later", lambda: server.register_checkpoint("bench", named_tensors=named))
        sample("copy", lambda: copy(source, target, threads))
    server.unregister_checkpoint("bench", force=True)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return {
        "bytes": REGISTRATION_BYTES,
        "threads": threads,
        "gb_per_second": {k: REGISTRATION_BYTES / v / 1e9 for k, v in medians.items()},
        "later_ratio": ratio(samples["copy"], samples["later"]),
        "first_ratio": ratio(samples["new_copy"], samples["first"]),
        "seconds": samples,
    }


def measure_updates(server: ParameterServer, rank: int, uds: str) -> dict[str, Any]:
    """Updates by all ranks, each after one by the CLI with copies of the same files."""
    server.register_checkpoint("bench", named_tensors=tensors(UPDATE_BYTES // RANKS, f"r{rank}"))
    server.gather_metas("bench")

    def call(paths: list[tuple[str, str]]) -> None:
        if rank == 0:
            request_inference_to_update("http://engine/collective_rpc", dict(paths), uds=uds)

    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="facade-cli-") as folder:
        for path in sorted(Path("/dev/shm").glob("checkpoint-engine-tensors-*/*.safetensors")):
            if rank == 0:
                shutil.copy(path, Path(folder) / f"{path.parent.name}.safetensors")
        for _ in range(ROUNDS + 1):
            server.store_based_barrier()
            if rank == 0:
                theirs.append(update_by_cli(Path(folder), uds))
            server.store_based_barrier()
            ours.append(timed(lambda: server.update("bench", call)))
    del ours[0]
    if rank != 0:
        return {}
    del theirs[0]  # the first one of an engine takes memory
    overhead = statistics.median(ours) - statistics.median(theirs)
    return {
        "bytes": UPDATE_BYTES,
        "ranks": RANKS,
        "facade_ms": statistics.median(ours) * 1e3,
        "cli_ms": statistics.median(theirs) * 1e3,
        "overhead_ms": overhead * 1e3,
        "seconds": {"facade": ours, "cli": theirs},
    }


def update_by_cli(folder: Path, uds: str) -> float:
    """Seconds of the update itself, as the program reports them: without start and registration."""
    command = [binary(), "update", "--checkpoint-path", folder, "--endpoint", "http://engine"]
    done = subprocess.run(
        [*map(str, command), "--uds", uds, "--json", "--device", "host"],
        env={k: v for k, v in os.environ.items() if "RANK" not in k and "MASTER" not in k}
        | {"VIRTUAL_ENV": sys.prefix},
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=True,
    )
    return float(json.loads(done.stdout)["seconds"])


def run_rank(rank: int, uds: str) -> None:
    """One rank of the updates; rank 0 prints what it has measured."""
    with ParameterServer(rank=rank, world_size=RANKS) as server:
        measured = measure_updates(server, rank, uds)
    if rank == 0:
        print(json.dumps(measured))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def run_updates() -> dict[str, Any]:
    """Starts an engine and the ranks; what rank 0 has measured."""
    with tempfile.TemporaryDirectory(prefix="facade-engine-") as folder:
        uds = Path(folder) / "engine.sock"
        arguments = ["reference-engine", "--workers", str(RANKS)]
        with Served(arguments, uds, "/health"):
            port = free_port()
            command = [sys.executable, __file__, "--uds", str(uds), "--rank"]
            ranks = [
                subprocess.Popen(
                    [*command, str(rank)],
                    env=os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for rank in range(RANKS)
            ]
            outputs = [rank.communicate(timeout=RUN_S_MAX)[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        sys.exit("error: a rank has failed")
    measured: dict[str, Any] = json.loads(outputs[0])
    return measured


def main() -> None:
    """Measures, prints, and fails where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--uds", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("CHECKPOINT_ENGINE_BIN", str(binary()))
    if arguments.rank is not None:
        run_rank(arguments.rank, arguments.uds)
        return
    with ParameterServer(
        rank=0, world_size=1, master_addr="127.0.0.1", master_port=free_port()
    ) as server:
        registration = measure_registration(server)
    updates = run_updates()
    text = json.dumps({"registration": registration, "updates": updates}, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")
    if registration["later_ratio"] < RATIO_MIN or updates["overhead_ms"] > OVERHEAD_MS_MAX:
        sys.exit(f"error: expected later_ratio >= {RATIO_MIN}, overhead <= {OVERHEAD_MS_MAX} ms")


if __name__ == "__main__":
    main()
