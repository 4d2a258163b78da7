"""One worker of the stand-in engine: a process that holds its slices of a model on one device."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
import traceback
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shapes import StoredTensor, slice_of, stored_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    import torch

READ_THREADS = 8
# Types whose strided copies not every torch has on GPUs, or which it makes to values.
_INTEGERS_OF_WIDTH = {
    "torch.bool": "uint8",
    "torch.uint16": "int16",
    "torch.uint32": "int32",
    "torch.uint64": "int64",
    "torch.float8_e8m0fnu": "uint8",
    "torch.float8_e4m3fnuz": "uint8",
    "torch.float8_e5m2fnuz": "uint8",
    "torch.float4_e2m1fn_x2": "uint8",
}


@dataclass(frozen=True)
class Place:
    """Which worker of which engine a process is. ``device`` is ``cpu`` or the number of a GPU."""

    rank: int
    size: int
    device: str
    module: str
    path: str | None


@dataclass(frozen=True)
class Fault:
    """What goes wrong in the next update of one worker.

    ``stage`` is ``start`` (before the worker connects), ``bucket N`` (before call number N of the
    loader, from 0) or ``commit``; ``kind`` is ``raise``, ``exit`` or ``hang``, which lasts
    ``seconds``.
    """

    rank: int
    stage: str
    kind: str
    seconds: float = 30.0


@dataclass
class Comparison:
    """What a comparison of one worker with a checkpoint has found."""

    tensors: int = 0
    bytes: int = 0
    different: int = 0
    names: list[str] = field(default_factory=list)


class InjectedFaultError(RuntimeError):
    """The fault that was asked for."""


class Parameters:
    """The worker's slices of all tensors, each allocated when it is first seen."""

    def __init__(self, place: Place, device: torch.device) -> None:
        self._place = place
        self._device = device
        self.by_name: dict[str, torch.Tensor] = {}

    def load(self, tensors: list[tuple[str, torch.Tensor]]) -> None:
        """Copies this rank's slice of each tensor into its parameter."""
        import torch

        for name, tensor in tensors:
            part = slice_of(name, tensor.shape, self._place.rank, self._place.size)
            source = tensor if part is None else tensor.narrow(*part)
            parameter = self.by_name.get(name)
            if parameter is None:
                parameter = torch.empty(source.shape, dtype=tensor.dtype, device=self._device)
                self.by_name[name] = parameter
            integer = _INTEGERS_OF_WIDTH.get(str(tensor.dtype))
            if integer is None:
                parameter.copy_(source)
            else:
                plain = getattr(torch, integer)
                parameter.view(plain).copy_(source.view(plain))

    def scramble(self) -> int:
        """Fills all parameters with random bytes; returns how many."""
        import torch

        total = 0
        for parameter in self.by_name.values():
            if parameter.numel():
                limit = 2 if parameter.dtype == torch.bool else 256
                _bytes_of(parameter).random_(0, limit)
                total += parameter.nbytes
        return total

    def compare(self, directory: Path) -> Comparison:
        """Compares every byte with the files; a tensor that only one side has is a difference."""
        stored = {tensor.name: tensor for tensor in stored_tensors(directory)}
        result = Comparison()
        for name in sorted(stored.keys() ^ self.by_name.keys()):
            result.different += 1
            result.names.append(name)
        common = [stored[name] for name in stored if name in self.by_name]
        with ThreadPoolExecutor(READ_THREADS) as pool:
            for tensor, different in zip(common, pool.map(self._compare_one, common), strict=True):
                result.tensors += 1
                result.bytes += self.by_name[tensor.name].nbytes
                result.different += different
                if different:
                    result.names.append(tensor.name)
        return result

    def _compare_one(self, stored: StoredTensor) -> int:
        """The number of bytes that differ."""
        import numpy as np
        import torch

        parameter = self.by_name[stored.name]
        if stored.byte_count == 0:
            return parameter.nbytes
        # Copy on write, though nobody writes: torch wants writable memory.
        content = np.memmap(
            stored.path, np.uint8, "c", offset=stored.offset, shape=(stored.byte_count,)
        )
        expected = torch.from_numpy(content)
        part = slice_of(stored.name, stored.shape, self._place.rank, self._place.size)
        if part is not None:
            dim, start, length = part
            outer = 1
            for extent in stored.shape[:dim]:
                outer *= extent
            inner = stored.byte_count // outer // stored.shape[dim]
            rows = expected.view(outer, stored.shape[dim] * inner)
            expected = rows.narrow(1, start * inner, length * inner).reshape(-1)
        if expected.numel() != parameter.nbytes:
            return max(expected.numel(), parameter.nbytes)
        differs = _bytes_of(parameter) != expected.to(self._device)
        return int(torch.count_nonzero(differs).item())


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    return tensor.reshape(-1).view(torch.uint8)


class Worker:
    """Carries out the engine's orders."""

    def __init__(self, place: Place) -> None:
        import torch
        import zmq

        self._place = place
        self._device = torch.device("cpu")
        if place.device != "cpu":
            self._device = torch.device("cuda", int(place.device))
            torch.cuda.set_device(self._device)
            torch.empty(1, device=self._device)  # makes the context
        self._update = _update_function(place)
        self._context = zmq.Context()
        self._parameters = Parameters(place, self._device)
        self._fault: Fault | None = None
        self._calls = 0
        self.identity = self._identity()

    def _identity(self) -> str:
        import torch

        if self._device.type == "cpu":
            return f"CPU-{self._place.rank}"
        return f"GPU-{torch.cuda.get_device_properties(self._device).uuid}"

    def update(self, addresses: dict[str, str], fault: Fault | None) -> dict[str, Any]:
        """Takes part in one update; returns what it has done."""
        self._fault, self._calls = fault, 0
        if self.identity not in addresses:
            raise KeyError(f"no address for {self.identity} among {sorted(addresses)}")
        start = time.monotonic()
        self._reach("start")
        # What workers of other packages know too; only ours is told of workers without a GPU.
        more: dict[str, Any] = {"device_id": self._device.index}
        if self._device.type == "cpu":
            more = {"worker_id": self.identity}
        self._update(
            self._context,
            addresses[self.identity],
            run=self._load,
            post_hook=self._commit,
            **more,
        )
        return {"loads": self._calls, "seconds": time.monotonic() - start}

    def _load(self, tensors: list[tuple[str, torch.Tensor]]) -> None:
        self._reach(f"bucket {self._calls}")
        self._calls += 1
        self._parameters.load(tensors)

    def _commit(self) -> None:
        self._reach("commit")
        self.synchronize()

    def _reach(self, stage: str) -> None:
        fault = self._fault
        if fault is None or fault.stage != stage:
            return
        match fault.kind:
            case "raise":
                raise InjectedFaultError(f"worker {self._place.rank} refuses at {stage}")
            case "exit":
                os._exit(3)
            case "hang":
                time.sleep(fault.seconds)
            case kind:
                raise ValueError(f"no such fault: {kind}")

    def synchronize(self) -> None:
        """Waits for the device."""
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def verify(self, path: str) -> dict[str, Any]:
        """Compares all parameters with the checkpoint in ``path``."""
        import torch

        found = self._parameters.compare(Path(path))
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # the comparison's own memory
        return {**asdict(found), "names": found.names[:5]}

    def scramble(self) -> dict[str, Any]:
        """Fills all parameters with random bytes."""
        total = self._parameters.scramble()
        self.synchronize()
        return {"bytes": total}

    def memory(self) -> dict[str, Any]:
        """Free and total bytes of the device, and what this process has of it."""
        import torch

        parameters = sum(tensor.nbytes for tensor in self._parameters.by_name.values())
        if self._device.type == "cpu":
            return {"parameters": parameters}
        self.synchronize()
        free, total = torch.cuda.mem_get_info(self._device)
        return {
            "free": free,
            "total": total,
            "allocated": torch.cuda.memory_allocated(self._device),
            "reserved": torch.cuda.memory_reserved(self._device),
            "parameters": parameters,
        }


def _update_function(place: Place) -> Callable[..., object]:
    """``update_weights_from_ipc`` of the package that is to be used."""
    if place.path is not None:
        use_package(place.path, place.module.partition(".")[0])
    function: Callable[..., object] = importlib.import_module(place.module).update_weights_from_ipc
    return function


def use_package(path: str, package: str) -> None:
    """Lets modules of ``package`` be imported from the folder ``path``, without its __init__.

    What that imports beside the wanted modules may be missing.
    """
    sys.path.insert(0, path)
    parent = types.ModuleType(package)
    parent.__path__ = [str(Path(path) / package)]
    sys.modules[package] = parent


def end_with_parent(parent: int) -> None:
    """Ends the process soon after its parent ``parent`` has ended, however that was."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(place: Place, orders: Connection, parent: int) -> None:
    """Answers ``(order, arguments)`` with ``(True, result)`` or ``(False, text)``."""
    end_with_parent(parent)
    try:
        worker = Worker(place)
    except Exception:  # noqa: BLE001 - the engine tells it to whoever started it
        orders.send((False, traceback.format_exc()))
        return
    orders.send((True, {"id": worker.identity, "pid": os.getpid()}))
    while True:
        try:
            order, arguments = orders.recv()
        except EOFError:
            os._exit(0)  # the engine has ended; nothing is to be waited for
        try:
            orders.send((True, getattr(worker, order)(*arguments)))
        except Exception:  # noqa: BLE001 - the caller decides
            orders.send((False, traceback.format_exc()))
