"""Measures updates of a real vLLM on GPUs, and compares its tokens with those of a fresh one.

Writes two versions of a model to shared memory. A vLLM that loads the second one from its files
says which tokens are right; then a vLLM with dummy weights is updated to the first, the second, the
first and so on. ``CHECKPOINT_ENGINE_BIN`` is the program under measurement, and vLLM must be
importable.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu import end_after, visible_devices
from measured_daemon import Daemon, version
from torch_engine_process import zmq_flags
from vllm_model import MODELS, byte_count, write_model
from vllm_process import Vllm

SHARED_MEMORY = Path("/dev/shm")
DEFAULT_MODEL = "qwen3-30b-a3b:20"
VERSIONS = {"a": 1, "b": 2}
# How the worker extension loads: as it decides itself, or always layer by layer.
RELOADS = {"auto": {}, "layerwise": {"CHECKPOINT_ENGINE_VLLM_RELOAD": "layerwise"}}


def parse_model(text: str) -> tuple[str, int]:
    """``NAME:LAYERS``, or ``NAME`` for as many layers as by default."""
    name, _, layers = text.partition(":")
    if name not in MODELS:
        raise argparse.ArgumentTypeError(f"known are {', '.join(MODELS)}")
    return name, int(layers or DEFAULT_MODEL.partition(":")[2])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--model",
        type=parse_model,
        default=parse_model(DEFAULT_MODEL),
        metavar="NAME[:LAYERS]",
        help=f"one of {', '.join(MODELS)} (default: {DEFAULT_MODEL})",
    )
    parser.add_argument("--tensor-parallel", type=int, help="workers (default: one for each GPU)")
    parser.add_argument("--updates", type=int, default=7, help="updates of each engine")
    parser.add_argument(
        "--reload",
        action="append",
        choices=list(RELOADS),
        help="how weights are loaded; each one starts an engine (default: auto)",
    )
    parser.add_argument("--bucket-size", help="as for serve, such as 256MiB")
    parser.add_argument(
        "--daemon-flag", action="append", default=[], help="one more argument of serve; repeat it"
    )
    parser.add_argument("--no-fresh", action="store_true", help="do not start a fresh vLLM")
    parser.add_argument("--deadline", type=float, default=560.0, help="seconds for everything")
    parser.add_argument("--trace-dir", type=Path, help="write timelines of updates here")
    parser.add_argument("--output", type=Path, help="write all figures to this file, as JSON")
    arguments = parser.parse_args()
    arguments.reload = arguments.reload or ["auto"]
    arguments.devices = visible_devices()
    arguments.tensor_parallel = arguments.tensor_parallel or max(1, len(arguments.devices))
    if find_spec("vllm") is None:
        sys.exit("error: vllm cannot be imported; put its folder on PYTHONPATH")
    return arguments


def _check_space(model: tuple[str, int]) -> None:
    needed = len(VERSIONS) * byte_count(*model)
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < needed * 1.05:
        sys.exit(f"error: {SHARED_MEMORY} has {free} bytes free, the models need {needed}")


def _engine(arguments: argparse.Namespace, model: Path, **more: Any) -> Vllm:
    on_gpu = bool(arguments.devices)
    return Vllm(model, arguments.folder, arguments.tensor_parallel, on_gpu=on_gpu, **more)


def _update(daemon: Daemon, name: str, engine: Vllm) -> dict[str, Any]:
    """One update: the caller's seconds, and the daemon's account of it."""
    start = time.perf_counter()
    path = f"/v1/checkpoints/{name}/update"
    answer = daemon.request("POST", path, {**engine.instance, "wait": True})
    seconds = time.perf_counter() - start
    status: dict[str, Any] = daemon.request("GET", f"/v1/updates/{answer['id']}")
    if status["state"] != "succeeded":
        sys.exit(f"error: the update has ended as {status['state']}\n{engine.tail()}")
    return {"wall_seconds": seconds, "to": name, **status}


def _save_timeline(daemon: Daemon, update: dict[str, Any], folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for form in ("json", "svg"):
        path = f"/v1/updates/{update['id']}/trace?format={form}"
        (folder / f"{name}.{form}").write_bytes(daemon.content("GET", path))


def measure(
    arguments: argparse.Namespace,
    models: dict[str, Path],
    reload: str,
    right: dict[str, list[list[int]]],
) -> dict[str, Any]:
    """One engine, updated to and fro; ``right`` learns the tokens of what it lacks."""
    flags = [*zmq_flags(), *arguments.daemon_flag]
    if arguments.bucket_size:
        flags += ["--bucket-size", arguments.bucket_size]
    updates: list[dict[str, Any]] = []
    with (
        _engine(arguments, models["a"], variables=RELOADS[reload]) as engine,
        Daemon(arguments.folder, *flags) as daemon,
    ):
        dummy = engine.generate()
        registered = {}
        for name, path in models.items():
            start = time.perf_counter()
            daemon.register(name, path)
            registered[name] = time.perf_counter() - start
        for number in range(arguments.updates):
            name = list(models)[number % len(models)]
            update = _update(daemon, name, engine)
            tokens = engine.generate()
            update["tokens_equal"] = tokens == right.setdefault(name, tokens)
            update["tokens_changed"] = tokens != dummy
            dummy = tokens
            updates.append(update)
            _print_update(update)
        if arguments.trace_dir is not None and updates:
            _save_timeline(daemon, updates[-1], arguments.trace_dir, f"vllm-{reload}-later")
        load_path = engine.load_path
    return {
        "reload": reload,
        "load_path": load_path,
        "register_seconds": registered,
        "first_update_seconds": updates[0]["wall_seconds"],
        "later_update_seconds": [update["wall_seconds"] for update in updates[1:]],
        "tokens_equal": all(update["tokens_equal"] for update in updates),
        "tokens_changed": all(update["tokens_changed"] for update in updates),
        "updates": updates,
    }


def _print_update(update: dict[str, Any]) -> None:
    loads = ", ".join(f"{worker['load_seconds']:.3f}" for worker in update["workers"])
    stages = ", ".join(f"{row['stage']} {row['seconds']:.3f}" for row in update["stages"])
    equal = "equal" if update["tokens_equal"] else "DIFFERENT"
    print(f"  to {update['to']}: {update['wall_seconds']:.3f} s; {stages}", flush=True)
    print(f"      workers load {loads}; tokens {equal}", flush=True)


def _print_engine(row: dict[str, Any], byte_total: int) -> None:
    later = row["later_update_seconds"] or [row["first_update_seconds"]]
    print(f"{row['reload']}: weights loaded {row['load_path']}")
    print(f"  first update {row['first_update_seconds']:.3f} s")
    for what, seconds in (("median", statistics.median(later)), ("best", min(later))):
        rate = byte_total / seconds / 1e9
        print(f"  later updates, {what:6} {seconds:.3f} s, {rate:.1f} GB/s", flush=True)


def _measure_all(arguments: argparse.Namespace, document: dict[str, Any], files: Path) -> None:
    model, layers = arguments.model
    models = {name: files / name for name in VERSIONS}
    start = time.perf_counter()
    for name, seed in VERSIONS.items():
        document["bytes"] = write_model(models[name], model, layers, seed)
    document["write_seconds"] = time.perf_counter() - start
    right: dict[str, list[list[int]]] = {}
    if not arguments.no_fresh:
        start = time.perf_counter()
        with _engine(arguments, models["b"], loads=True) as fresh:
            document["fresh_start_seconds"] = time.perf_counter() - start
            right["b"] = fresh.generate()
        print(f"a fresh vLLM took {document['fresh_start_seconds']:.1f} s", flush=True)
    for reload in arguments.reload:
        row = measure(arguments, models, reload, right)
        document["engines"].append(row)
        _print_engine(row, document["bytes"])
    document["tokens"] = right
    document["versions_differ"] = right["a"] != right.get("b")


def main() -> int:
    """Measures, shows, writes; 1 when tokens are not those of a fresh engine."""
    arguments = _arguments()
    end_after(arguments.deadline)
    _check_space(arguments.model)
    document: dict[str, Any] = {
        "version": version(),
        "model": arguments.model[0],
        "layers": arguments.model[1],
        "workers": arguments.tensor_parallel,
        "compared_with_fresh": not arguments.no_fresh,
        "engines": [],
    }
    try:
        with (
            tempfile.TemporaryDirectory(dir=SHARED_MEMORY, prefix="checkpoint-engine-") as files,
            tempfile.TemporaryDirectory(prefix="checkpoint-engine-vllm-") as folder,
        ):
            arguments.folder = Path(folder)
            _measure_all(arguments, document, Path(files))
    finally:
        if arguments.output is not None:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    rows = document["engines"]
    is_right = document["versions_differ"] and all(
        row["tokens_equal"] and row["tokens_changed"] for row in rows
    )
    print("tokens: " + ("all equal" if is_right else "NOT equal, see above"))
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
