"""Hosts on one machine: network namespaces around a bridge, each with a link of a chosen rate."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

PLAIN = Path(__file__).with_name("plain_transfer.py")
PLAIN_S_MAX = 60.0
_PREFIX = "ce-pull-"


def _run(*command: str, check: bool = True) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if check and result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout


def missing() -> str | None:
    """Why this machine cannot have such hosts; ``None`` when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root: run these tests as root"
    absent = [name for name in ("ip", "tc") if shutil.which(name) is None]
    if absent:
        return f"{' and '.join(absent)} missing: apt-get install iproute2 (scripts/setup-iproute2)"
    return None


class Host:
    """One namespace with the address ``address`` on its only link."""

    def __init__(self, network: Network, number: int) -> None:
        self.name = f"{network.name}-{number}"
        self.address = f"{network.subnet}.{number}"
        self._hub = network.name
        self._port = f"port{number}"
        _run("ip", "netns", "add", self.name)
        self._ip("link", "set", "lo", "up")
        _run(
            *("ip", "-n", self._hub, "link", "add", self._port, "type", "veth"),
            *("peer", "name", "eth0", "netns", self.name),
        )
        _run("ip", "-n", self._hub, "link", "set", self._port, "master", "hub", "up")
        self._ip("address", "add", f"{self.address}/24", "dev", "eth0")
        self._ip("link", "set", "eth0", "up")

    @property
    def command(self) -> list[str]:
        """What comes before the command line of a process of this host."""
        return ["ip", "netns", "exec", self.name]

    def shape(self, megabits: int) -> None:
        """Limits what the host sends and what it is sent, each to so many Mbit/s."""
        for namespace, device in ((self.name, "eth0"), (self._hub, self._port)):
            _run(
                *("tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", "tbf"),
                *("rate", f"{megabits}mbit", "burst", "128kb", "latency", "60ms"),
            )

    def cut(self) -> None:
        """Takes the cable out: nothing gets through, and nobody is told."""
        _run("ip", "-n", self._hub, "link", "set", self._port, "down")

    def restore(self) -> None:
        _run("ip", "-n", self._hub, "link", "set", self._port, "up")

    @property
    def sent_byte_count(self) -> int:
        """All bytes that the host has sent, with the headers of its packets."""
        link = json.loads(self._ip("-s", "-j", "link", "show", "dev", "eth0"))[0]
        return int(link["stats64"]["tx"]["bytes"])

    def end_processes(self) -> None:
        """Kills what runs in the namespace."""
        for pid in _run("ip", "netns", "pids", self.name, check=False).split():
            os.kill(int(pid), signal.SIGKILL)

    def _ip(self, *arguments: str) -> str:
        return _run("ip", "-n", self.name, *arguments)


class Network:
    """``with Network(count) as network:`` makes ``network.hosts``, and this process one of them."""

    def __init__(self, count: int) -> None:
        _remove_leftovers()
        self.name = f"{_PREFIX}{os.getpid()}"
        self.subnet = self._free_subnet()
        atexit.register(self.close)
        try:
            self._make_hub()
            self.hosts = [Host(self, number) for number in range(1, count + 1)]
        except BaseException:
            self.close()
            raise

    def _free_subnet(self) -> str:
        for number in range(256):
            subnet = f"10.77.{(os.getpid() + number) % 256}"
            if not _run("ip", "-4", "address", "show", "to", f"{subnet}.0/24"):
                return subnet
        raise RuntimeError("no network of 10.77.0.0/16 is free")

    def _make_hub(self) -> None:
        """The bridge has a namespace of its own: no packet filter of this machine is in its way."""
        link = f"cep{os.getpid()}"
        _run("ip", "netns", "add", self.name)
        _run("ip", "-n", self.name, "link", "add", "hub", "type", "bridge")
        _run("ip", "-n", self.name, "link", "set", "hub", "up")
        _run("ip", "link", "add", link, "type", "veth", "peer", "name", "tests", "netns", self.name)
        _run("ip", "-n", self.name, "link", "set", "tests", "master", "hub", "up")
        _run("ip", "address", "add", f"{self.subnet}.254/24", "dev", link)
        _run("ip", "link", "set", link, "up")

    def close(self) -> None:
        """Ends all processes of the hosts, and removes everything."""
        atexit.unregister(self.close)
        _remove(self.name)
        _run("ip", "link", "delete", f"cep{os.getpid()}", check=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _remove(name: str) -> None:
    names = [line.split()[0] for line in _run("ip", "netns", "list").splitlines() if line]
    for one in names:
        if one == name or one.startswith(f"{name}-"):
            for pid in _run("ip", "netns", "pids", one, check=False).split():
                os.kill(int(pid), signal.SIGKILL)
            _run("ip", "netns", "delete", one, check=False)


def _remove_leftovers() -> None:
    """Namespaces of runs that were killed before they could remove them."""
    for line in _run("ip", "netns", "list").splitlines():
        pid = line.removeprefix(_PREFIX).split("-")[0].split()[0] if line else ""
        if line.startswith(_PREFIX) and not Path(f"/proc/{pid}").exists():
            _remove(f"{_PREFIX}{pid}")


def plain_seconds(senders: list[Host], receiver: Host, byte_count: int) -> float:
    """How long ``byte_count`` bytes take from the first to the last over plain TCP connections,
    one from each sender with an equal share."""
    share = byte_count // len(senders)
    command = [sys.executable, str(PLAIN)]
    receiving = subprocess.Popen(
        [*receiver.command, *command, "receive", receiver.address, str(len(senders))],
        stdout=subprocess.PIPE,
        text=True,
    )
    started = []
    try:
        assert receiving.stdout is not None
        port = receiving.stdout.readline().strip()
        started = [
            subprocess.Popen([*s.command, *command, "send", receiver.address, port, str(share)])
            for s in senders
        ]
        output, _ = receiving.communicate(timeout=PLAIN_S_MAX)
    finally:
        for process in (receiving, *started):
            process.kill()
            process.wait()
    seconds, received = output.split()
    assert int(received) == share * len(senders), output
    return float(seconds)
