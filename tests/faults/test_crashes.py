"""Fatal signals leave a line that says what it was, and end the program as they always do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import daemon
import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Swift's own report, on machines that have its toolchain, takes seconds.
OURS_ALONE = {"SWIFT_BACKTRACE": "enable=no"}
FATAL = ["SIGILL", "SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGTRAP", "SIGSYS"]


@pytest.mark.parametrize("name", FATAL)
def test_a_fatal_signal_is_told(folders: daemon.Folders, socket_path: Path, name: str) -> None:
    number = signal.Signals[name]
    program = daemon.Daemon(folders, socket_path, **OURS_ALONE).program
    program.send(number)
    ended = program.wait(20)
    assert ended.code == -number, ended.stderr
    version = daemon.run("--version").stdout.strip()
    first, second = [line for line in ended.stderr.splitlines() if line.startswith("crash: ")]
    assert first.startswith(
        f"crash: checkpoint-engine {version} is ended by {name} from process {os.getpid()}, "
    )
    assert re.search(rf"in thread {program.pid} \(\S+\)$", first)
    assert re.match(r"crash: in \S+\+0x[0-9a-f]+, called from \S+\+0x[0-9a-f]+", second)
    # The next one removes what a killed one leaves.
    with daemon.Daemon(folders, socket_path):
        pass


def test_the_places_are_those_of_the_program(folders: daemon.Folders, socket_path: Path) -> None:
    """A tool for symbols finds the program's own start among the calls."""
    program = daemon.Daemon(folders, socket_path, **OURS_ALONE).program
    program.send(signal.SIGSEGV)
    ended = program.wait(20)
    places = re.findall(rf"{daemon.BINARY.name}\+(0x[0-9a-f]+)", ended.stderr)
    headers = subprocess.run(
        ["readelf", "--wide", "--segments", str(daemon.BINARY)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    [(start, length)] = re.findall(r"LOAD +\S+ (0x[0-9a-f]+) \S+ \S+ (0x[0-9a-f]+) R E", headers)
    code = range(int(start, 16), int(start, 16) + int(length, 16))
    assert places
    assert all(int(place, 16) in code for place in places), (places, code)
    with daemon.Daemon(folders, socket_path):
        pass


def test_ordered_stops_are_no_crashes(folders: daemon.Folders, socket_path: Path) -> None:
    ended = daemon.Daemon(folders, socket_path).stop()
    assert ended.code == 0, ended.stderr
    assert "crash" not in ended.stderr
