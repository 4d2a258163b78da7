"""Measures updates of torch processes on GPUs beside the ceilings of the machine, in one run.

Writes each checkpoint to shared memory, registers it in place, updates the workers several times,
compares every byte after an update over scrambled weights, and registers it a second time.
``CHECKPOINT_ENGINE_BIN`` is the program under measurement.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measured_daemon import Daemon, version
from shapes import byte_count, tensors, write_checkpoint
from torch_engine_process import TorchEngine, zmq_flags

SHARED_MEMORY = Path("/dev/shm")
CEILINGS_S_MAX = 180.0
MODELS = ["qwen3-32b:16", "qwen3-30b-a3b:20"]


def visible_devices() -> list[str]:
    """The numbers of the GPUs that torch sees."""
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def parse_model(text: str) -> tuple[str, int]:
    """``NAME:LAYERS``."""
    name, _, layers = text.partition(":")
    tensors(name, 1)
    return name, int(layers)


def check_space(models: list[tuple[str, int]]) -> None:
    """Ends the program when shared memory is too small for the largest checkpoint."""
    needed = max(
        sum(byte_count(dtype, shape) for _, dtype, shape in tensors(*model)) for model in models
    )
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < needed * 1.05:
        sys.exit(f"error: {SHARED_MEMORY} has {free} bytes free, the checkpoint needs {needed}")


def end_after(seconds: float) -> None:
    """Ends the program, and with it everything that it has started, after ``seconds``."""

    def stop(number: int, _: object) -> None:
        sys.exit(f"error: stopped by {signal.Signals(number).name}; not done after {seconds} s?")

    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--model",
        action="append",
        type=parse_model,
        metavar="NAME:LAYERS",
        help=f"a model of shapes.py; may be repeated (default: {' '.join(MODELS)})",
    )
    parser.add_argument("--devices", help="numbers of GPUs, or cpu: 0,1 (default: all GPUs)")
    parser.add_argument("--updates", type=int, default=5, help="updates after the first")
    parser.add_argument("--bucket-size", help="as for serve, such as 256MiB")
    parser.add_argument(
        "--daemon-flag", action="append", default=[], help="one more argument of serve; repeat it"
    )
    parser.add_argument("--deadline", type=float, default=540.0, help="seconds for everything")
    parser.add_argument("--no-ceilings", action="store_true", help="measure the updates only")
    parser.add_argument("--trace-dir", type=Path, help="write timelines of updates here")
    parser.add_argument("--output", type=Path, help="write all figures to this file, as JSON")
    arguments = parser.parse_args()
    arguments.model = arguments.model or [parse_model(text) for text in MODELS]
    arguments.devices = arguments.devices.split(",") if arguments.devices else visible_devices()
    if not arguments.devices:
        sys.exit("error: torch sees no GPU")
    return arguments


def ceilings(devices: list[str]) -> dict[str, Any]:
    """The ceilings, measured by a process of its own, whose memory is gone afterwards."""
    program = Path(__file__).with_name("gpu_ceilings.py")
    ended = subprocess.run(
        [sys.executable, str(program), "--devices", ",".join(devices)],
        stdout=subprocess.PIPE,
        timeout=CEILINGS_S_MAX,
        check=True,
    )
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def _update(daemon: Daemon, name: str, engine: TorchEngine) -> dict[str, Any]:
    """One update: the caller's seconds, and the daemon's account of it."""
    start = time.perf_counter()
    path = f"/v1/checkpoints/{name}/update"
    answer = daemon.request("POST", path, {**engine.instance, "wait": True})
    seconds = time.perf_counter() - start
    status = daemon.request("GET", f"/v1/updates/{answer['id']}")
    if status["state"] != "succeeded":
        sys.exit(f"error: the update has ended as {status['state']}")
    return {"wall_seconds": seconds, "worker_seconds": _worker_seconds(engine), **status}


def _worker_seconds(engine: TorchEngine) -> list[float]:
    return [worker["seconds"] for worker in engine.last()["workers"] if worker]


def _register(daemon: Daemon, name: str, checkpoint: Path) -> float:
    start = time.perf_counter()
    daemon.register(name, checkpoint)
    return time.perf_counter() - start


def _stage_medians(updates: list[dict[str, Any]]) -> dict[str, float]:
    samples: dict[str, list[float]] = {}
    for update in updates:
        for row in update["stages"]:
            samples.setdefault(row["stage"], []).append(row["seconds"])
    return {stage: statistics.median(values) for stage, values in samples.items()}


def _save_timeline(daemon: Daemon, update: dict[str, Any], folder: Path, name: str) -> None:
    for form in ("json", "svg"):
        path = f"/v1/updates/{update['id']}/trace?format={form}"
        (folder / f"{name}.{form}").write_bytes(daemon.content("GET", path))


def measure_model(
    checkpoint: Path,
    model: str,
    daemon: Daemon,
    engine: TorchEngine,
    update_count: int,
    *,
    trace_dir: Path | None = None,
) -> dict[str, Any]:
    """Everything about one checkpoint: a fresh daemon, workers that have their parameters."""
    memory = [engine.memory()]
    registered = _register(daemon, model, checkpoint)
    first = _update(daemon, model, engine)
    memory.append(engine.memory())
    later = [_update(daemon, model, engine) for _ in range(update_count)]
    memory.append(engine.memory())
    if trace_dir is not None:
        _save_timeline(daemon, first, trace_dir, f"{model}-first")
        _save_timeline(daemon, later[-1], trace_dir, f"{model}-later")
    engine.scramble()
    repaired = _update(daemon, model, engine)
    verified = engine.verify(checkpoint)
    daemon.unregister(model)
    again = _register(daemon, model, checkpoint)
    after_again = _update(daemon, model, engine)
    daemon.unregister(model, release=True)
    memory.append(engine.memory())
    return {
        "model": model,
        "tensors": first["tensors"],
        "bytes": first["bytes"],
        "register_seconds": registered,
        "register_again_seconds": again,
        "first_update_seconds": first["wall_seconds"],
        "later_update_seconds": [update["wall_seconds"] for update in later],
        "update_after_register_again_seconds": after_again["wall_seconds"],
        "stage_median_seconds": _stage_medians(later),
        "verified": verified,
        "memory": memory,
        "updates": [first, *later, repaired, after_again],
    }


def _print_row(row: dict[str, Any], together_gbs: float | None) -> None:
    later = statistics.median(row["later_update_seconds"] or [row["first_update_seconds"]])
    print(f"\n{row['model']}, {row['layers']} layers: {row['tensors']} tensors, ", end="")
    print(f"{row['bytes'] / 1e9:.1f} GB; {row['verified']['bytes']} bytes compared, all equal")
    lines = [
        ("registration", row["register_seconds"]),
        ("second registration", row["register_again_seconds"]),
        ("first update", row["first_update_seconds"]),
        ("later updates, median", later),
        ("later updates, best", min(row["later_update_seconds"], default=later)),
        ("update after second registration", row["update_after_register_again_seconds"]),
        *((f"  stage {stage}", value) for stage, value in row["stage_median_seconds"].items()),
    ]
    for what, seconds in lines:
        print(f"  {what:34} {seconds:9.4f} s {row['bytes'] / max(seconds, 1e-9) / 1e9:10.1f} GB/s")
    if together_gbs is not None:
        floor = row["bytes"] / together_gbs / 1e9
        row["floor_seconds"] = floor
        row["floor_ratio"] = later / floor
        print(f"  {'floor':34} {floor:9.4f} s; later updates take {later / floor:.2f} times that")


def _measure(
    model: str, layers: int, flags: list[str], arguments: argparse.Namespace
) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(dir=SHARED_MEMORY, prefix="checkpoint-engine-gpu-") as files,
        tempfile.TemporaryDirectory(prefix="checkpoint-engine-gpu-") as folder,
        TorchEngine(arguments.devices) as engine,
    ):
        checkpoint = Path(files)
        start = time.perf_counter()
        write_checkpoint(checkpoint, model, layers, seed=layers)
        written = time.perf_counter() - start
        # The workers take memory for their parameters when they first see them, unlike an engine.
        with Daemon(Path(folder), *flags) as daemon:
            daemon.register(model, checkpoint)
            _update(daemon, model, engine)
            engine.verify(checkpoint)
        with Daemon(Path(folder), *flags) as daemon:
            row = measure_model(
                checkpoint, model, daemon, engine, arguments.updates, trace_dir=arguments.trace_dir
            )
    return {**row, "layers": layers, "write_seconds": written}


def main() -> int:
    """Measures, shows, writes."""
    arguments = _arguments()
    end_after(arguments.deadline)
    check_space(arguments.model)
    document: dict[str, Any] = {"version": version(), "devices": arguments.devices, "models": []}
    together = None
    if not arguments.no_ceilings and "cpu" not in arguments.devices:
        document["ceilings"] = ceilings(arguments.devices)
        together = float(document["ceilings"]["h2d_together_gbs"])
        print(json.dumps(document["ceilings"], indent=1), flush=True)
    flags = [*zmq_flags(), *arguments.daemon_flag]
    if arguments.bucket_size:
        flags += ["--bucket-size", arguments.bucket_size]
    try:
        for model, layers in arguments.model:
            row = _measure(model, layers, flags, arguments)
            document["models"].append(row)
            _print_row(row, together)
    finally:
        if arguments.output is not None:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
