"""A process with SGLang's own code from the scheduler's call down to ``checkpoint_engine``.

Its model runner, its server's settings and the HTTP server are stand-ins, and torch's CUDA is one
simulated GPU whose memory the host can read. Nothing of SGLang is changed.
"""

from __future__ import annotations

import ctypes
import importlib.abc
import importlib.machinery
import json
import sys
import tempfile
import types
import uuid
import weakref
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import torch
from fault_workers import describe


def _nothing(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


class EmptyPackage(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty modules in the place of a package that the update never uses."""

    def __init__(self, name: str) -> None:
        self._name = name
        sys.meta_path.append(self)

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if name.split(".", maxsplit=1)[0] != self._name:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__getattr__ = _nothing  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing in it."""


class SimulatedGPU:
    """What the package asks torch and the driver about the one GPU."""

    def __init__(self, library: str, index: int) -> None:
        self._driver = ctypes.CDLL(library)
        self._ok("cuInit", 0)
        device = ctypes.c_int()
        self._ok("cuDeviceGet", ctypes.byref(device), index)
        self._context = ctypes.c_uint64()
        self._ok("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        raw = (ctypes.c_ubyte * 16)()
        self._ok("cuDeviceGetUuid_v2", raw, device)
        text = bytes(raw).hex()
        self.uuid = str(uuid.UUID(hex=text))

    def _ok(self, name: str, *arguments: object) -> None:
        code = self._driver[name](*arguments)
        assert code == 0, (name, code)

    def make_context(self, _device: int = 0) -> None:
        self._ok("cuCtxSetCurrent", self._context)

    def take_over(self) -> None:
        """Stands in for torch's CUDA in the package and in SGLang's platform."""
        from checkpoint_engine import device_memory, worker
        from checkpoint_engine.hooks import Device
        from sglang.srt.platforms import current_platform

        device_memory.make_context = self.make_context
        device_memory.bytes_at = bytes_at
        torch.cuda.synchronize = lambda device=None: None
        worker._device = lambda _id, clones: Device(0, clones)
        worker._worker_id = lambda _device: f"GPU-{self.uuid}"
        torch.cpu.current_device = lambda: 0
        platform = type(current_platform)
        platform.get_device_uuid = lambda _self, device_id=0: self.uuid
        platform.get_device = lambda _self, device_id=None: "cpu"


def bytes_at(address: int, length: int, _device: int) -> tuple[torch.Tensor, weakref.ref[object]]:
    class Export(ctypes.c_char * length):  # type: ignore[misc]
        pass

    export = Export.from_address(address)
    return torch.frombuffer(export, dtype=torch.uint8), weakref.ref(export)


class Model(torch.nn.Module):
    """Keeps what it is given, and takes faults: ``load`` or ``hook``."""

    def __init__(self) -> None:
        super().__init__()
        self.fault = ""
        self.held: dict[str, torch.Tensor] = {}
        self.hooks: list[str] = []
        self.quant_method = SimpleNamespace(process_weights_after_loading=self._process)

    def load_weights(self, weights: Any) -> None:
        if self.fault == "load":
            raise RuntimeError("this model refuses its weights")
        for name, tensor in weights:
            self.held[name] = tensor.clone()

    def _process(self, module: torch.nn.Module) -> None:
        assert module is self
        if self.fault == "hook":
            raise RuntimeError("this model cannot process its weights")
        self.hooks.append("process")

    def post_load_weights(self) -> None:
        self.hooks.append("post_load")


class Runner:
    """The stand-in for a model runner, with SGLang's own weight updater."""

    def __init__(self) -> None:
        from sglang.srt.model_executor.model_runner_components.weight_updater import WeightUpdater

        self.model = Model()
        self.weight_updater = WeightUpdater(
            tp_rank=0,
            device="cpu",
            gpu_id=0,
            model_config=None,
            custom_weight_loaders={},
            get_model=lambda: self.model,
            update_model_fields=lambda *_: None,
            recapture_cuda_graph=lambda: None,
            get_model_runner=lambda: self,
        )


class Scheduler:
    """SGLang's own manager of weight updates, for a model and perhaps one that drafts."""

    def __init__(self, *, drafts: bool) -> None:
        from sglang.srt.managers.scheduler_components import weight_updater as manager
        from sglang.srt.model_executor.model_runner_components import weight_updater as runner

        self.runners = {"target": Runner()} | ({"draft": Runner()} if drafts else {})
        self.version: str | None = None
        self.flushes = 0
        folder = tempfile.mkdtemp()
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/store", rank=0, world_size=1
        )
        runner.get_model = lambda: SimpleNamespace(weight_cache_mode="off")
        manager.get_parallel = lambda: SimpleNamespace(tp_group=SimpleNamespace(cpu_group=None))
        self._manager = manager.SchedulerWeightUpdaterManager(
            tp_worker=self._worker("target"),
            draft_worker=self._worker("draft") if drafts else None,
            memory_saver_adapter=None,
            flush_cache=self._flush,
            is_fully_idle=lambda **_: True,
            scheduler=SimpleNamespace(record_weight_version_change=self._set_version),
        )

    def _worker(self, role: str) -> SimpleNamespace:
        runner = self.runners[role]
        return SimpleNamespace(model_runner=runner, weight_update_runners=lambda: [(role, runner)])

    def _flush(self, empty_cache: bool = True) -> bool:  # noqa: FBT001, FBT002 - as it is called
        self.flushes += 1
        return True

    def _set_version(self, new_version: str | None) -> None:
        self.version = new_version

    def update(self, body: dict[str, Any]) -> dict[str, Any]:
        from sglang.srt.managers.io_struct import UpdateWeightsFromIPCReqInput

        result = self._manager.update_weights_from_ipc(UpdateWeightsFromIPCReqInput(**body))
        return {"success": result.success, "message": result.message}

    def state(self) -> dict[str, Any]:
        models = {
            role: {
                "digests": {name: describe(t) for name, t in runner.model.held.items()},
                "hooks": runner.model.hooks,
            }
            for role, runner in self.runners.items()
        }
        return {"models": models, "version": self.version, "flushes": self.flushes}

    def set_fault(self, fault: dict[str, str]) -> None:
        for runner in self.runners.values():
            runner.model.fault = ""
            runner.model.held.clear()
            runner.model.hooks.clear()
        for role, kind in fault.items():
            self.runners[role].model.fault = kind


class Handler(BaseHTTPRequestHandler):
    scheduler: Scheduler

    def do_GET(self) -> None:
        match self.path:
            case "/ping":
                self._send(503, {})
            case "/server_info":
                self._send(200, {"tp_size": 1, "dp_size": 1, "pp_size": 1})
            case "/state":
                self._send(200, self.scheduler.state())
            case _:
                self._send(404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        match self.path:
            case "/update_weights_from_ipc":
                answer = self.scheduler.update(body)
                self._send(200 if answer["success"] else 400, answer)
            case "/fault":
                self.scheduler.set_fault(body)
                self._send(200, {})
            case _:
                self._send(404, {})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """The log is SGLang's."""


def main(library: str, index: str, models: str) -> None:
    # Looks for torchvision, and must not find the empty one.
    from transformers import AutoProcessor  # noqa: F401

    EmptyPackage("torchvision")
    SimulatedGPU(library, int(index)).take_over()
    Handler.scheduler = Scheduler(drafts=models == "2")
    server = HTTPServer(("127.0.0.1", 0), Handler)
    print(f"port {server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
