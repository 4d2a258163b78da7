"""A real vLLM takes new weights by its own transfer over NCCL, without any Python of ours.

The first GPU under test sends; the engine is on the next one, or on the next two.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from daemon import run
from make_model import make_model
from torch_engine_process import zmq_flags
from vllm_engines import Engines, check_vllm
from vllm_process import GPU_ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs_gpus(2)

KINDS = ("qwen3", "qwen3-fp8-block")
WORKERS_MAX = 2
# Two workers can split it into whole blocks of FP8.
WIDE = {"num_attention_heads": 8, "num_key_value_heads": 4}
CHUNK = "256KiB"
TIMEOUT_S = 60
TRANSFER = ["--weight-transfer-config", '{"backend":"nccl"}']


@pytest.fixture(scope="module")
def vllm_folder() -> Path:
    """The folder of a vLLM whose workers can join a group by NCCL's unique id."""
    folder = check_vllm()
    common = folder / "distributed" / "weight_transfer" / "nccl_common.py"
    if not common.is_file() or "nccl_unique_id_b64" not in common.read_text():
        pytest.fail(
            f"the workers of the vLLM in {folder} cannot join a group of NCCL by its unique id: "
            "NCCLWeightTransferInitInfo has no nccl_unique_id_b64; vLLM 0.32 has it"
        )
    return folder


@pytest.fixture(scope="module", params=KINDS)
def served(request, devices, vllm_folder, shared_folder, tmp_path_factory) -> Iterator[Engines]:
    """An engine on the GPUs after the first one, without our worker extension."""
    folders = {name: shared_folder / f"native-{request.param}-{name}" for name in ("a", "b")}
    for seed, folder in enumerate(folders.values()):
        make_model(folder, request.param, seed, **WIDE)
    places = devices[1:][: min(len(devices) - 1, WORKERS_MAX)]
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(places)}
    logs = tmp_path_factory.mktemp("native")
    engines = Engines(logs, folders, len(places), devices, visible)
    with engines.started({}, extension=False, flags=TRANSFER):
        yield engines


@pytest.fixture(scope="module")
def nccl_flags() -> list[str]:
    """Tells the sender of the NCCL that torch has, if it brings its own."""
    spec = find_spec("nvidia.nccl") if find_spec("nvidia") is not None else None
    found = [
        str(path)
        for folder in (spec.submodule_search_locations if spec is not None else None) or []
        for path in Path(folder).glob("lib/libnccl.so*")
    ]
    return ["--nccl-library", found[0]] if found else []


def test_updates_of_the_command_line(devices, served, daemon_place, nccl_flags):
    [engine] = served.engines
    for name in ("a", "b", "a"):
        ended = run(
            *["update", "--engine-protocol", "vllm-native", "--sender-gpu", devices[0]],
            *["--endpoint", engine.url, "--checkpoint-path", str(served.folders[name])],
            *["--bucket-size", CHUNK, "--timeout", str(TIMEOUT_S), "--ready-timeout", "10"],
            *daemon_place.folders.flags,
            *zmq_flags(),
            *nccl_flags,
            timeout=2 * TIMEOUT_S,
            **GPU_ENVIRONMENT,
        )
        assert ended.code == 0, f"{ended.stderr}\n{engine.tail()}"
        served.check(engine, name)


def test_updates_of_a_daemon_that_stays_in_the_group(devices, served, daemon_place, nccl_flags):
    [engine] = served.engines
    body = {
        "instances": [{"update_url": engine.url}],
        "engine_protocol": "vllm-native",
        "sender_gpu": int(devices[0]),
        "timeout": TIMEOUT_S,
    }
    with daemon_place.start(CHUNK, *nccl_flags, **GPU_ENVIRONMENT) as daemon:
        for name, folder in served.folders.items():
            assert daemon.register(name, folder).status == 200
        for name in ("b", "a", "b"):
            path = f"/v1/checkpoints/{name}/update"
            answer = daemon.request("POST", path, body, timeout=2 * TIMEOUT_S)
            assert answer.status == 200, f"{answer.body}\n{engine.tail()}"
            served.check(engine, name)
