"""The simulated CUDA driver, which the tests of GPU code stand on: each check has its process."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from ctypes import byref, c_float, c_int, c_uint64
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from simulated_driver import Copy2D, Driver, IpcHandle, Uuid

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
UUIDS = [f"GPU-514d{index:02x}53-494d-554c-4154-45442d4750{index:02x}" for index in range(4)]
MIB = 1 << 20
NON_BLOCKING = 1
NO_TIMING = 2


def files_of(process: int) -> list[Path]:
    return list(Path("/dev/shm").glob(f"simulated-cuda-*-{process}-*"))


def content_of(byte_count: int) -> bytes:
    return bytes(place * 7 % 251 for place in range(byte_count))


# What the processes do.


def list_devices() -> None:
    driver = Driver()
    for device in range(driver.device_count()):
        uuid = Uuid()
        driver.ok("cuDeviceGetUuid_v2", byref(uuid), device)
        text = bytes(uuid.bytes).hex()
        groups = (text[0:8], text[8:12], text[12:16], text[16:20], text[20:32])
        print("GPU-" + "-".join(groups))


def initialise() -> None:
    print(ctypes.CDLL(os.environ["SIMULATED_CUDA_LIBRARY"]).cuInit(0))


def needs() -> None:
    library = ctypes.CDLL(os.environ["SIMULATED_CUDA_LIBRARY"])
    count = c_int()
    assert library.cuDeviceGetCount(byref(count)) == 3
    driver = Driver()
    driver.ok("cuCtxSetCurrent", None)
    assert driver.call("cuMemAlloc_v2", byref(c_uint64()), MIB) == 201
    driver.ok("cuCtxSetCurrent", driver.contexts[0])
    driver.ok("cuCtxEnablePeerAccess", driver.contexts[1], 0)
    assert driver.call("cuCtxEnablePeerAccess", driver.contexts[1], 0) == 704


def copy_in_order() -> None:
    driver = Driver()
    content = content_of(MIB)
    source = ctypes.create_string_buffer(content, MIB)
    target = ctypes.create_string_buffer(MIB)
    first, second, third = (driver.made("cuStreamCreate", NON_BLOCKING) for _ in range(3))
    staged, started, copied = (driver.made("cuEventCreate", 0) for _ in range(3))
    slot = driver.allocate(MIB)
    driver.ok("cuCtxSetCurrent", driver.contexts[1])
    replica = driver.allocate(MIB)
    driver.ok("cuCtxSetCurrent", driver.contexts[0])
    # An event that was never recorded holds nothing up.
    driver.ok("cuStreamWaitEvent", first, staged, 0)
    driver.ok("cuEventRecord", started, first)
    driver.ok("cuMemcpyHtoDAsync_v2", slot, source, MIB, first)
    driver.ok("cuEventRecord", staged, first)
    driver.ok("cuStreamWaitEvent", second, staged, 0)
    peer = (replica, driver.contexts[1], slot, driver.contexts[0], MIB)
    driver.ok("cuMemcpyPeerAsync", *peer, second)
    driver.ok("cuEventRecord", copied, second)
    driver.ok("cuStreamWaitEvent", third, copied, 0)
    driver.ok("cuMemcpyDtoHAsync_v2", target, replica, MIB, third)
    # At 10 MiB a second nothing can be there yet.
    assert driver.call("cuEventQuery", copied) == 600
    assert driver.call("cuStreamQuery", third) == 600
    assert target.raw == bytes(MIB)
    milliseconds = c_float()
    assert driver.call("cuEventElapsedTime", byref(milliseconds), started, copied) == 600
    driver.ok("cuStreamDestroy_v2", second)
    driver.ok("cuStreamSynchronize", third)
    assert target.raw == content
    driver.ok("cuEventQuery", copied)
    driver.ok("cuEventElapsedTime", byref(milliseconds), started, copied)
    assert milliseconds.value >= 200
    assert driver.call("cuStreamSynchronize", second) == 400
    # Freeing waits for the copies.
    driver.ok("cuMemcpyHtoDAsync_v2", slot, source, MIB, first)
    driver.ok("cuMemFree_v2", slot)
    driver.ok("cuStreamQuery", first)


def captured_records() -> None:
    driver = Driver()
    source = ctypes.create_string_buffer(MIB)
    slow, other = (driver.made("cuStreamCreate", NON_BLOCKING) for _ in range(2))
    event = driver.made("cuEventCreate", NO_TIMING)
    slot = driver.allocate(MIB)
    driver.ok("cuEventRecord", event, slow)
    driver.ok("cuEventSynchronize", event)
    driver.ok("cuStreamWaitEvent", other, event, 0)
    driver.ok("cuMemcpyHtoDAsync_v2", slot, source, MIB, slow)
    driver.ok("cuEventRecord", event, slow)
    # The stream waits for the first record only.
    driver.ok("cuStreamSynchronize", other)
    assert driver.call("cuEventQuery", event) == 600
    driver.ok("cuEventDestroy_v2", event)
    driver.ok("cuStreamSynchronize", slow)


def copy_rows() -> None:
    driver = Driver()
    source, target = driver.allocate(4096), driver.allocate(4096)
    driver.write(source, content_of(4096))
    driver.ok("cuMemsetD8Async", target, 9, 4096, None)
    copy = Copy2D(
        source_type=2, source_device=source, source_x=8, source_y=2, source_pitch=64,
        target_type=2, target_device=target, target_pitch=32, width=24, height=5,
    )  # fmt: skip
    driver.ok("cuMemcpy2DAsync_v2", byref(copy), None)
    expected = bytearray([9] * 4096)
    for row in range(5):
        at = (row + 2) * 64 + 8
        expected[row * 32 : row * 32 + 24] = content_of(4096)[at : at + 24]
    assert driver.read(target, 4096) == bytes(expected)
    copy.height = 1000
    assert driver.call("cuMemcpy2DAsync_v2", byref(copy), None) == 700
    copy.target_pitch = 23
    assert driver.call("cuMemcpy2DAsync_v2", byref(copy), None) == 1


def check_ranges() -> None:
    driver = Driver()
    host = ctypes.create_string_buffer(3 * MIB)
    start = ctypes.addressof(host)
    slot = driver.allocate(MIB)
    assert driver.call("cuMemcpyHtoDAsync_v2", slot + 1, host, MIB, None) == 700
    driver.ok("cuMemHostRegister_v2", start, MIB, 1)
    assert driver.call("cuMemHostRegister_v2", start + MIB - 1, MIB, 1) == 712
    driver.ok("cuMemHostRegister_v2", start + MIB, MIB, 1)
    driver.ok("cuMemcpyHtoDAsync_v2", slot, start, MIB, None)
    assert driver.call("cuMemcpyHtoDAsync_v2", slot, start + 1, MIB, None) == 1
    driver.ok("cuMemcpyHtoDAsync_v2", slot, start + 2 * MIB, MIB, None)
    assert driver.call("cuMemHostUnregister", start + 1) == 713
    driver.ok("cuMemHostUnregister", start)
    driver.ok("cuMemFree_v2", slot)
    assert driver.call("cuMemFree_v2", slot) == 1
    assert driver.call("cuMemcpyHtoDAsync_v2", slot, host, 1, None) == 700


def export() -> None:
    driver = Driver()
    pointer = driver.allocate(MIB)
    driver.write(pointer, content_of(MIB))
    handle = IpcHandle()
    driver.ok("cuIpcGetMemHandle", byref(handle), pointer)
    assert driver.call("cuIpcOpenMemHandle_v2", byref(c_uint64()), handle, 1) == 1
    print(bytes(handle).hex(), flush=True)
    sys.stdin.readline()
    assert driver.read(pointer, 4) == b"seen"


def take_in(text: str) -> None:
    driver = Driver()
    before = driver.free_memory()
    handle = IpcHandle.from_buffer_copy(bytes.fromhex(text))
    pointer = driver.made("cuIpcOpenMemHandle_v2", handle, 1)
    assert driver.call("cuIpcOpenMemHandle_v2", byref(c_uint64()), handle, 1) == 208
    assert driver.read(pointer, MIB) == content_of(MIB)
    driver.write(pointer, b"seen")
    driver.ok("cuIpcCloseMemHandle", pointer)
    assert driver.call("cuMemcpyHtoDAsync_v2", pointer, b"seen", 4, None) == 700
    # The memory of the other process counts, once.
    assert before == driver.free_memory() == 7 * MIB


def fill() -> None:
    driver = Driver()
    pointer = driver.allocate(6 * MIB)
    assert driver.call("cuMemAlloc_v2", byref(c_uint64()), 3 * MIB) == 2
    assert driver.free_memory() == 2 * MIB
    driver.ok("cuMemFree_v2", pointer)
    assert driver.free_memory() == 8 * MIB
    driver.allocate(8 * MIB)
    # Each device has memory of its own.
    driver.ok("cuCtxSetCurrent", driver.contexts[1])
    driver.allocate(8 * MIB)


def fail() -> None:
    driver = Driver()
    out = byref(c_uint64())
    assert [driver.call("cuMemAlloc_v2", out, 1) for _ in range(4)] == [0, 2, 0, 0]
    assert [driver.call("cuStreamCreate", out, 0) for _ in range(2)] == [999, 999]


def keep() -> None:
    driver = Driver()
    driver.allocate(MIB)
    assert len(files_of(os.getpid())) == 1
    print(os.getpid(), flush=True)
    sys.stdin.readline()


def release() -> None:
    driver = Driver()
    driver.allocate(MIB)
    stream = driver.made("cuStreamCreate", 0)
    driver.ok("cuDevicePrimaryCtxRelease_v2", 0)
    assert files_of(os.getpid()) == []
    assert driver.call("cuStreamSynchronize", stream) == 709
    driver.retain(0)
    assert driver.call("cuStreamSynchronize", stream) == 400


# The tests.


class Process:
    """Starts this file in a process that does one of the above."""

    def __init__(self, library: str) -> None:
        kept = {name: value for name, value in os.environ.items() if "CUDA" not in name}
        self.environment = {**kept, "SIMULATED_CUDA_LIBRARY": library}

    def start(
        self, role: Callable[..., None], *arguments: str, **environment: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, __file__, role.__name__, *arguments],
            env=self.environment | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, role: Callable[..., None], *arguments: str, **environment: str) -> list[str]:
        with self.start(role, *arguments, **environment) as process:
            out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return out.split()


@pytest.fixture(scope="module")
def process() -> Process:
    command = [str(ROOT / "scripts/build-simulated-cuda")]
    return Process(subprocess.run(command, check=True, capture_output=True, text=True).stdout[:-1])


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("2,0", [2, 0]),
        ("1,7,0", [1]),
        ("3,x,0", [3]),
        (UUIDS[3] + "," + UUIDS[1], [3, 1]),
        (UUIDS[2][:10], [2]),
        ("0,GPU-51", [0]),
    ],
)
def test_visible_devices(process: Process, visible: str | None, expected: list[int]) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    listed = process.run(list_devices, SIMULATED_CUDA_DEVICES="4", **environment)
    assert listed == [UUIDS[index] for index in expected]


@pytest.mark.parametrize("visible", ["", "-1", "9", "1,1", "GPU-51"])
def test_no_device(process: Process, visible: str) -> None:
    assert process.run(initialise, CUDA_VISIBLE_DEVICES=visible) == ["100"]


@pytest.mark.parametrize("role", [needs, copy_rows, check_ranges, release])
def test_rules(process: Process, role: Callable[..., None]) -> None:
    process.run(role)


@pytest.mark.parametrize("role", [copy_in_order, captured_records])
def test_streams(process: Process, role: Callable[..., None]) -> None:
    process.run(role, SIMULATED_CUDA_COPY_BYTES_PER_SECOND=str(10 * MIB))


def test_out_of_memory(process: Process) -> None:
    # A device that no other test has, as memory counts over all processes.
    process.run(
        fill,
        SIMULATED_CUDA_DEVICES="43",
        CUDA_VISIBLE_DEVICES="41,42",
        SIMULATED_CUDA_MEMORY=str(8 * MIB),
    )


def test_memory_of_another_process(process: Process) -> None:
    with process.start(export, SIMULATED_CUDA_DEVICES="44", CUDA_VISIBLE_DEVICES="43") as maker:
        assert maker.stdout is not None
        handle = maker.stdout.readline().strip()
        process.run(
            take_in,
            handle,
            SIMULATED_CUDA_DEVICES="44",
            CUDA_VISIBLE_DEVICES="43",
            SIMULATED_CUDA_MEMORY=str(8 * MIB),
        )
        _, errors = maker.communicate("\n", timeout=60)
    assert maker.returncode == 0, errors


def test_faults(process: Process) -> None:
    process.run(fail, SIMULATED_CUDA_FAIL="cuMemAlloc_v2:2:2,cuStreamCreate:*:999")


def test_files_go_at_exit(process: Process) -> None:
    (own,) = process.run(keep)
    assert files_of(int(own)) == []


def test_files_of_killed_processes_are_swept(process: Process) -> None:
    with process.start(keep) as killed:
        assert killed.stdout is not None
        own = int(killed.stdout.readline())
        killed.send_signal(signal.SIGKILL)
        while "Z" not in Path(f"/proc/{own}/stat").read_text().rpartition(")")[2].split()[0]:
            time.sleep(0.01)
        # Even before its parent has waited for it.
        assert len(files_of(own)) == 1
        process.run(initialise)
        assert files_of(own) == []


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
