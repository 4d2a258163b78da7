"""What the package must not do: unpickle, evaluate text, or import an engine with itself."""

from __future__ import annotations

import ast
import subprocess
import sys

import checkpoint_engine
import pytest
from checkpoint_engine.errors import UpdateError, WorkerIdError
from checkpoint_engine.ps import ParameterServer
from checkpoint_engine.vllm_extension import VllmColocateWorkerExtension, _address
from worker_thread import REPOSITORY

SOURCES = sorted((REPOSITORY / "python" / "checkpoint_engine").glob("*.py"))
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "ctypes", "importlib"}
# The handle of GPU memory is opened through the driver's C interface.
# Known senders' frames are read through a closed list of globals.
ALLOWED = {
    ("cuda_driver", "ctypes"),
    ("known_reader", "pickle"),
    ("transfer_memory", "ctypes"),
    ("transfer_pages", "ctypes"),
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "recv_pyobj", "send_pyobj"}


def imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        return [node.module]
    return []


def called(node):
    if not isinstance(node, ast.Call):
        return None
    return getattr(node.func, "id", getattr(node.func, "attr", None))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_way_to_run_what_a_peer_sends(path):
    for node in ast.walk(ast.parse(path.read_text())):
        for name in imported(node):
            module = name.split(".")[0]
            allowed = (path.stem, module) in ALLOWED
            assert allowed or module not in FORBIDDEN_MODULES, f"{path}:{node.lineno}"
        assert called(node) not in FORBIDDEN_CALLS, f"{path}:{node.lineno}"


def test_sources_were_found():
    assert len(SOURCES) >= 10


def test_importing_the_worker_imports_no_engine():
    program = (
        "import sys, checkpoint_engine.worker;"
        "heavy = {'torch', 'vllm', 'numpy', 'sglang'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_importing_the_facade_imports_no_torch():
    program = (
        "import sys, checkpoint_engine, checkpoint_engine.ps, checkpoint_engine.api;"
        "from checkpoint_engine import *;"
        "heavy = {'torch', 'vllm', 'numpy', 'sglang'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_extension_adds_its_method_and_the_hooks_of_vllm():
    names = [name for name in dir(VllmColocateWorkerExtension) if not name.startswith("__")]
    assert names == ["destroy_worker_extension", "init_worker_extension", "update_weights_from_ipc"]


def test_a_map_without_this_worker_names_its_keys():
    assert _address({"CPU-0": "ipc://a", "CPU-1": "ipc://b"}, "CPU-1", 2) == "ipc://b"
    with pytest.raises(WorkerIdError, match=r"CPU-2; it has them for: CPU-0, CPU-1"):
        _address({"CPU-1": "ipc://b", "CPU-0": "ipc://a"}, "CPU-2", 2)
    with pytest.raises(WorkerIdError, match="a list, not a dict"):
        _address(["ipc://a"], "CPU-0", 1)
    assert issubclass(WorkerIdError, UpdateError)


def test_the_version():
    pyproject = (REPOSITORY / "python" / "pyproject.toml").read_text()
    assert f'version = "{checkpoint_engine.__version__}"' in pyproject


def test_public_names():
    for name in checkpoint_engine.__all__:
        assert getattr(checkpoint_engine, name) is not None
    assert set(checkpoint_engine.__all__) <= set(dir(checkpoint_engine))
    assert checkpoint_engine.ParameterServer is ParameterServer
    with pytest.raises(AttributeError, match="no attribute 'P2PStore'"):
        checkpoint_engine.P2PStore  # noqa: B018
