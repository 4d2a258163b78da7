"""The driver's calls, against the simulated driver: memory of another process, and errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import test_simulated_cuda as simulated
from checkpoint_engine.cuda_driver import CudaDriver
from checkpoint_engine.errors import DeviceMemoryError

DEVICE = {"SIMULATED_CUDA_DEVICES": "46", "CUDA_VISIBLE_DEVICES": "45"}
TAKE_IN = """
import sys
import test_simulated_cuda as simulated
from checkpoint_engine.cuda_driver import driver
from checkpoint_engine.errors import DeviceMemoryError

device = simulated.Driver()
address = driver().open(bytes.fromhex(sys.argv[1]))
assert device.read(address, simulated.MIB) == simulated.content_of(simulated.MIB)
device.write(address, b"seen")
driver().close(address)
for call in (lambda: driver().close(address), lambda: driver().open(b"x" * 64)):
    try:
        call()
    except DeviceMemoryError as error:
        print(error)
    else:
        sys.exit("no error")
"""


def test_memory_of_another_process():
    command = [str(simulated.ROOT / "scripts/build-simulated-cuda")]
    library = subprocess.run(command, check=True, capture_output=True, text=True).stdout[:-1]
    process = simulated.Process(library)
    paths = [str(Path(__file__).parent), str(simulated.ROOT / "python")]
    environment = {
        **process.environment,
        **DEVICE,
        "CHECKPOINT_ENGINE_CUDA_LIBRARY": library,
        "PYTHONPATH": ":".join(paths),
    }
    with process.start(simulated.export, **DEVICE) as maker:
        handle = maker.stdout.readline().strip()
        taker = subprocess.run(
            [sys.executable, "-c", TAKE_IN, handle],
            check=False,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        # The maker checks that it sees what the taker wrote.
        _, errors = maker.communicate("\n", timeout=60)
    assert taker.returncode == 0, taker.stderr
    assert maker.returncode == 0, errors
    closed, opened = taker.stdout.splitlines()
    assert "cuIpcCloseMemHandle: CUDA_ERROR_" in closed
    assert "cuIpcOpenMemHandle: CUDA_ERROR_" in opened
    assert "share the IPC namespace" in opened


@pytest.mark.parametrize("library", ["libnone.so.1", "libc.so.6"])
def test_libraries_that_are_no_driver(library):
    with pytest.raises(DeviceMemoryError, match="driver cannot be used"):
        CudaDriver(library)
