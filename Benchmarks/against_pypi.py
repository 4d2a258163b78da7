"""Measures PyPI's ``checkpoint-engine`` with the checkpoints and the workers of ``gpu.py``.

One ``ParameterServer`` process a GPU, as its users start it under torchrun, and the same torch
workers, with that package's own worker code. ``--pypi-path`` is the folder of its unpacked wheel;
what the wheel needs has to be installed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from inspect import signature
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gpu import MODELS, SHARED_MEMORY, check_space, end_after, parse_model, visible_devices
from shapes import FILE_BYTES_MAX, byte_count, tensors, write_checkpoint
from torch_engine_process import TorchEngine
from torch_worker import end_with_parent, use_package

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

CONTEXT = get_context("spawn")
START_S_MAX = 120.0
ORDER_S_MAX = 300.0
NAME = "checkpoint"


@dataclass(frozen=True)
class Place:
    """Which parameter server a process is."""

    rank: int
    devices: list[str]
    port: int
    pypi_path: str
    engine: str


class Rank:
    """One parameter server, inside its process."""

    def __init__(self, place: Place) -> None:
        os.environ |= {
            "CUDA_VISIBLE_DEVICES": ",".join(_physical(place.devices)),
            "RANK": str(place.rank),
            "LOCAL_RANK": str(place.rank),
            "WORLD_SIZE": str(len(place.devices)),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(place.port),
        }
        use_package(place.pypi_path, "checkpoint_engine")
        from checkpoint_engine.ps import ParameterServer

        self._place = place
        counts = {"gpu_count": len(place.devices)}
        if not counts.keys() & signature(ParameterServer.__init__).parameters.keys():
            counts = {}  # an older version, which counts the GPUs itself
        self._server = ParameterServer(auto_pg=True, **counts)

    def version(self) -> str:
        """What is measured."""
        from checkpoint_engine import _version

        return _version.__version__

    def register(self, files: list[str], in_place: bool) -> float:  # noqa: FBT001 - an order's
        """Seconds of the registration of this rank's files."""
        start = time.perf_counter()
        self._server.register_checkpoint(NAME, files=files, use_inplace_pin_memory=in_place)
        return time.perf_counter() - start

    def register_copied(self, files: list[str]) -> float:
        """The same into memory of its own, with the only flags that all versions have."""
        start = time.perf_counter()
        self._server.register_checkpoint(NAME, files=files)
        return time.perf_counter() - start

    def gather(self) -> float:
        """Seconds of the exchange of the metas."""
        start = time.perf_counter()
        self._server.gather_metas(NAME)
        return time.perf_counter() - start

    def update(self, bucket_gib: float) -> float:
        """Seconds of one update of the engine."""
        os.environ["PS_MAX_BUCKET_SIZE_GB"] = str(bucket_gib)
        start = time.perf_counter()
        self._server.update(NAME, self._request)
        return time.perf_counter() - start

    def unregister(self) -> float:
        """Seconds until the memory is given back."""
        start = time.perf_counter()
        self._server.unregister_checkpoint(NAME)
        return time.perf_counter() - start

    def _request(self, addresses: list[tuple[str, str]]) -> None:
        """The call that starts the reload; the first rank of an engine makes it."""
        if self._place.rank != 0:
            return
        try:
            _call_engine(self._place.engine, dict(addresses))
        except Exception:  # noqa: BLE001 - its thread has no other way to end the measurement
            traceback.print_exc()
            os._exit(4)


def _physical(devices: list[str]) -> list[str]:
    """The devices as the variable names them, which may have renumbered them already."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [visible.split(",")[int(device)] for device in devices] if visible else devices


def _call_engine(uds: str, addresses: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("localhost", timeout=ORDER_S_MAX)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(ORDER_S_MAX)
    connection.sock.connect(uds)
    body = {"method": "update_weights_from_ipc", "args": [addresses], "timeout": ORDER_S_MAX}
    connection.request("POST", "/collective_rpc", json.dumps(body))
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    if response.status != 200:
        raise RuntimeError(f"the engine answered {response.status}: {text}")


def _rank_main(place: Place, orders: Connection, parent: int) -> None:
    end_with_parent(parent)
    try:
        rank = Rank(place)
        orders.send((True, rank.version()))
        while True:
            order, arguments = orders.recv()
            orders.send((True, getattr(rank, order)(*arguments)))
    except EOFError:
        os._exit(0)  # the measurement has ended
    except Exception:  # noqa: BLE001 - the measurement shows it
        orders.send((False, traceback.format_exc()))


class RankError(RuntimeError):
    """A parameter server has failed."""


class Ranks:
    """All parameter servers, as a context."""

    def __init__(self, devices: list[str], pypi_path: Path, engine: TorchEngine) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1] - 1  # the package takes the next one
        self._orders = []
        self._processes = []
        for rank in range(len(devices)):
            ours, theirs = CONTEXT.Pipe()
            place = Place(rank, devices, port, str(pypi_path), str(engine.uds))
            process = CONTEXT.Process(
                target=_rank_main, args=(place, theirs, os.getpid()), daemon=True
            )
            process.start()
            theirs.close()
            self._orders.append(ours)
            self._processes.append(process)
        try:
            self.version: str = self._answers(START_S_MAX)[0]
        except BaseException:
            self.__exit__()
            raise

    def ask(self, order: str, *arguments: Any, each: list[Any] | None = None) -> float:
        """Gives all ranks one order; the seconds of the slowest. ``each`` is a rank's own part."""
        for number, orders in enumerate(self._orders):
            own = () if each is None else (each[number],)
            orders.send((order, (*own, *arguments)))
        return max(self._answers(ORDER_S_MAX))

    def _answers(self, timeout: float) -> list[Any]:
        end = time.monotonic() + timeout
        answers = []
        for rank, orders in enumerate(self._orders):
            try:
                if not orders.poll(max(0.0, end - time.monotonic())):
                    raise RankError(f"rank {rank} has not answered for {timeout} s")
                succeeded, answer = orders.recv()
            except EOFError as error:
                raise RankError(f"rank {rank} has ended; see its errors") from error
            if not succeeded:
                raise RankError(f"rank {rank}:\n{answer}")
            answers.append(answer)
        return answers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def share_files(checkpoint: Path, links: Path, count: int) -> list[list[str]]:
    """The files of each rank, even in bytes, as links: the package deletes what it registers."""
    links.mkdir(exist_ok=True)
    shares: list[list[str]] = [[] for _ in range(count)]
    loads = [0] * count
    files = sorted(checkpoint.glob("*.safetensors"), key=lambda f: f.stat().st_size, reverse=True)
    for file in files:
        link = links / file.name
        link.unlink(missing_ok=True)
        os.link(file, link)
        lightest = loads.index(min(loads))
        shares[lightest].append(str(link))
        loads[lightest] += file.stat().st_size
    return shares


def _write(folder: Path, model: str, layers: int, rank_count: int) -> tuple[Path, int]:
    """A checkpoint of so many files that every rank gets its share."""
    total = sum(byte_count(dtype, shape) for _, dtype, shape in tensors(model, layers))
    checkpoint = folder / "files"
    file_bytes = min(FILE_BYTES_MAX, total // (6 * rank_count))
    return checkpoint, write_checkpoint(checkpoint, model, layers, file_bytes, seed=layers)


def _register_again(
    ranks: Ranks, checkpoint: Path, links: Path, options: argparse.Namespace
) -> dict[str, float]:
    """The way of the next version: unregister, register, gather, update. Empty if one fails."""
    try:
        ranks.ask("unregister")
        shares = share_files(checkpoint, links, len(options.devices))
        return {
            "register_seconds": ranks.ask("register", options.in_place, each=shares),
            "gather_metas_seconds": ranks.ask("gather"),
            "update_seconds": ranks.ask("update", options.bucket_gib[0]),
        }
    except RankError as error:
        print(f"not registered a second time: {error}", file=sys.stderr)
        return {}


def measure_model(
    model: tuple[str, int], options: argparse.Namespace, engine: TorchEngine
) -> dict[str, Any]:
    """Everything about one checkpoint, with each of the bucket sizes."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY, prefix="checkpoint-engine-gpu-") as name:
        folder = Path(name)
        checkpoint, total = _write(folder, *model, len(options.devices))
        with Ranks(options.devices, options.pypi_path, engine) as ranks:
            links = folder / "links"
            shares = share_files(checkpoint, links, len(options.devices))
            registered = ranks.ask("register", options.in_place, each=shares)
            gather = ranks.ask("gather")
            first = ranks.ask("update", options.bucket_gib[0])
            later: dict[str, list[float]] = {}
            for size in options.bucket_gib:
                later[str(size)] = [ranks.ask("update", size) for _ in range(options.updates)]
            engine.scramble()
            ranks.ask("update", options.bucket_gib[0])
            verified = engine.verify(checkpoint)
            again = _register_again(ranks, checkpoint, links, options)
            version = ranks.version
    best = min(later, key=lambda size: statistics.median(later[size]))
    return {
        "version": version,
        "model": model[0],
        "layers": model[1],
        "bytes": total,
        "in_place": options.in_place,
        "register_seconds": registered,
        "gather_metas_seconds": gather,
        "first_update_seconds": first,
        "again": again,
        "later_update_seconds": later,
        "best_bucket_gib": float(best),
        "best_later_update_seconds": statistics.median(later[best]),
        "verified": verified,
    }


def _print_row(row: dict[str, Any]) -> None:
    print(f"\n{row['model']}, {row['layers']} layers, {row['bytes'] / 1e9:.1f} GB, ", end="")
    print(f"PyPI checkpoint-engine {row['version']}; every byte compared")
    lines = [
        ("register_checkpoint", row["register_seconds"]),
        ("gather_metas", row["gather_metas_seconds"]),
        ("first update, group still open", row["first_update_seconds"]),
        *(
            (f"later updates, median, {size} GiB", statistics.median(values))
            for size, values in row["later_update_seconds"].items()
        ),
        *((f"next version, {what}", seconds) for what, seconds in row["again"].items()),
    ]
    for what, seconds in lines:
        print(f"  {what:34} {seconds:9.4f} s {row['bytes'] / max(seconds, 1e-9) / 1e9:10.1f} GB/s")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pypi-path", type=Path, required=True, help="the unpacked wheel")
    parser.add_argument("--model", action="append", type=parse_model, metavar="NAME:LAYERS")
    parser.add_argument("--devices", help="numbers of GPUs: 0,1 (default: all)")
    parser.add_argument("--updates", type=int, default=5, help="updates for each bucket size")
    parser.add_argument(
        "--bucket-gib", default="1,2,4,8", help="bucket sizes to try (default: 1,2,4,8)"
    )
    parser.add_argument(
        "--in-place",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="pin the files where they are, which is the package's default",
    )
    parser.add_argument("--deadline", type=float, default=540.0, help="seconds for everything")
    parser.add_argument("--output", type=Path, help="write all figures to this file, as JSON")
    arguments = parser.parse_args()
    arguments.model = arguments.model or [parse_model(text) for text in MODELS]
    arguments.devices = arguments.devices.split(",") if arguments.devices else visible_devices()
    arguments.bucket_gib = [float(text) for text in arguments.bucket_gib.split(",")]
    arguments.pypi_path = arguments.pypi_path.resolve()
    if not (arguments.pypi_path / "checkpoint_engine/ps.py").is_file():
        sys.exit(f"error: {arguments.pypi_path} has no checkpoint_engine/ps.py")
    if not arguments.devices:
        sys.exit("error: torch sees no GPU")
    return arguments


def main() -> int:
    """Measures, shows, writes."""
    arguments = _arguments()
    end_after(arguments.deadline)
    check_space(arguments.model)
    rows: list[dict[str, Any]] = []
    try:
        for model in arguments.model:
            with TorchEngine(arguments.devices, arguments.pypi_path) as engine:
                rows.append(measure_model(model, arguments, engine))
            _print_row(rows[-1])
    finally:
        if arguments.output is not None:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps({"models": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
