"""Pages are made ahead of transfers, whatever the mapping is, and until it ends."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from pathlib import Path

import pytest
from checkpoint_engine import transfer_pages
from checkpoint_engine.transfer_pages import Prefault

MIB = 1 << 20


@pytest.fixture
def memory():
    """A new mapping of shared memory that nobody has touched, and its address."""
    descriptor = os.memfd_create("pages")
    os.ftruncate(descriptor, 8 * MIB)
    mapping = mmap.mmap(descriptor, 8 * MIB)
    os.close(descriptor)
    anchor = ctypes.c_char.from_buffer(mapping)
    yield mapping, ctypes.addressof(anchor)
    del anchor
    mapping.close()


def resident(address):
    """Bytes of the mapping that begins at ``address`` that this process has present."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.startswith(f"{address:08x}-"):
            return next(int(one.split()[1]) << 10 for one in lines if one.startswith("Rss:"))
    raise AssertionError("there is no such mapping")


def test_all_pages_are_present_and_zero(memory, monkeypatch):
    mapping, address = memory
    monkeypatch.setattr(transfer_pages, "STEP_BYTES", MIB)
    assert resident(address) == 0
    prefault = Prefault()
    prefault.add(address, 8 * MIB)
    prefault.join()
    assert resident(address) == 8 * MIB
    assert mapping[:] == bytes(8 * MIB)


def test_bytes_stay_what_they_are(memory):
    mapping, address = memory
    mapping[5 * MIB : 5 * MIB + 3] = b"abc"
    prefault = Prefault()
    prefault.add(address, 8 * MIB)
    prefault.join()
    assert mapping[5 * MIB : 5 * MIB + 3] == b"abc"


def test_a_removal_waits_for_the_step_and_begins_no_other(memory, monkeypatch):
    _, address = memory
    monkeypatch.setattr(transfer_pages, "STEP_BYTES", MIB)
    monkeypatch.setattr(transfer_pages, "THREADS", 1)
    begun, goes_on, steps = threading.Event(), threading.Event(), []

    class Slow:
        def madvise(self, start, length, advice):
            steps.append((start, length, advice))
            begun.set()
            assert goes_on.wait(10)
            return 0

    monkeypatch.setattr(transfer_pages, "_libc", Slow())
    prefault = Prefault()
    prefault.add(address, 8 * MIB)
    assert begun.wait(10)
    stopping = threading.Thread(target=prefault.remove, args=(address,))
    stopping.start()
    stopping.join(0.05)
    assert stopping.is_alive()
    goes_on.set()
    stopping.join(10)
    assert not stopping.is_alive()
    prefault.join()
    assert steps == [(address, MIB, 22)]


def test_a_kernel_that_refuses_is_asked_once(memory, monkeypatch):
    _, address = memory
    calls = []

    class Refusing:
        def madvise(self, *arguments):
            calls.append(arguments)
            return -1

    monkeypatch.setattr(transfer_pages, "STEP_BYTES", MIB)
    monkeypatch.setattr(transfer_pages, "THREADS", 1)
    monkeypatch.setattr(transfer_pages, "_libc", Refusing())
    prefault = Prefault()
    prefault.add(address, 8 * MIB)
    prefault.join()
    assert len(calls) == 1


def test_one_mapping_after_the_other(memory, monkeypatch):
    _, address = memory
    begun, goes_on, steps = threading.Event(), threading.Event(), []

    class Slow:
        def madvise(self, start, length, _):
            steps.append((start - address, length))
            begun.set()
            assert goes_on.wait(10)
            return 0

    monkeypatch.setattr(transfer_pages, "STEP_BYTES", MIB)
    monkeypatch.setattr(transfer_pages, "THREADS", 1)
    monkeypatch.setattr(transfer_pages, "_libc", Slow())
    prefault = Prefault()
    for number in range(4):
        prefault.add(address + 2 * number * MIB, 2 * MIB)
    assert begun.wait(10)
    # One that has not been reached ends without a wait.
    prefault.remove(address + 4 * MIB)
    goes_on.set()
    prefault.join()
    assert steps == [(place * MIB, MIB) for place in (0, 1, 2, 3, 6, 7)]
    # They are all done: the threads begin again with the next one.
    prefault.add(address + 4 * MIB, 2 * MIB)
    prefault.join()
    assert steps[6:] == [(4 * MIB, MIB), (5 * MIB, MIB)]


def test_several_threads_take_different_mappings(memory, monkeypatch):
    _, address = memory
    together, steps = threading.Barrier(2), []

    class Meeting:
        def madvise(self, start, length, _):
            steps.append((start - address, length))
            together.wait(10)
            return 0

    monkeypatch.setattr(transfer_pages, "STEP_BYTES", MIB)
    monkeypatch.setattr(transfer_pages, "THREADS", 2)
    monkeypatch.setattr(transfer_pages, "_libc", Meeting())
    prefault = Prefault()
    # No thread begins before both are there.
    with prefault._changed:
        for number in range(2):
            prefault.add(address + 4 * number * MIB, 4 * MIB)
    prefault.join()
    assert sorted(steps) == [(place * MIB, MIB) for place in range(8)]
    assert sorted(steps[:2]) == [(0, MIB), (4 * MIB, MIB)]
