"""Which RDMA devices the transfer agent uses, by flags, variables, and the way to the GPUs.

Everything is read from a tree like ``/sys``, so that it is tested with others.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

DEVICES_VARIABLE = "PS_P2P_STORE_RDMA_DEVICES"
NCCL_VARIABLE = "NCCL_IB_HCA"
DEVICES_MAX = 32
_BUS_ID = r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])"


class RDMAError(ValueError):
    """There is no device of the wanted kind; the message tells which there are."""


def present_devices(system: Path) -> list[str]:
    """The devices that have an active port, in the order of their names and numbers."""
    folder = system / "class" / "infiniband"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((name for name in names if _is_active(folder / name)), key=_natural)


def choose_devices(
    system: Path, named: Sequence[str], environment: Mapping[str, str], gpu_bus_ids: Sequence[str]
) -> list[str]:
    """The devices to use: the named ones, else those of the variables, else those near the GPUs.

    Devices that flags or ``PS_P2P_STORE_RDMA_DEVICES`` name are all used; of the others each GPU
    gets the nearest ones, as many as every GPU can have. Raises ``RDMAError``.
    """
    present = present_devices(system)
    wanted = list(named) or _names(environment.get(DEVICES_VARIABLE, ""))
    if wanted:
        for name in wanted:
            if name not in present:
                raise RDMAError(
                    f"there is no RDMA device {name!r} with an active port; there are: "
                    f"{', '.join(present) or 'none'}"
                )
        return list(dict.fromkeys(wanted))
    pattern = environment.get(NCCL_VARIABLE, "")
    devices = match_devices(pattern, {name: _ports(system, name) for name in present})
    if not devices:
        reason = f"none that {NCCL_VARIABLE}={pattern} allows" if pattern.strip() else "none"
        raise RDMAError(
            f"no RDMA device can be used: there are {', '.join(present) or 'none'}, {reason}; "
            "use --transfer-protocol tcp, or name devices with --transfer-device"
        )
    if gpu_bus_ids:
        chosen = spread_devices(system, devices, gpu_bus_ids)
        devices = [name for name in devices if any(name in one for one in chosen.values())]
    return devices[:DEVICES_MAX]


def match_devices(pattern: str, ports: Mapping[str, Sequence[int]]) -> list[str]:
    """The keys of ``ports`` that NCCL's ``pattern`` allows: those of which a port is allowed.

    A comma-separated list of prefixes, of whole names behind ``=``, with ``:PORT`` for one port of
    a device; ``^`` before all of it excludes what it lists. An empty list allows everything.
    """
    text = pattern.strip()
    exclude = text.startswith("^")
    text = text.removeprefix("^")
    exact = text.startswith("=")
    entries = [_entry(one) for one in _names(text.removeprefix("="))]
    if not entries:
        return list(ports)

    def is_listed(name: str, port: int) -> bool:
        return any(
            (name == listed if exact else name.startswith(listed)) and wanted in {None, port}
            for listed, wanted in entries
        )

    return [name for name in ports if any(is_listed(name, port) != exclude for port in ports[name])]


def spread_devices(
    system: Path, devices: Sequence[str], gpu_bus_ids: Sequence[str]
) -> dict[str, list[str]]:
    """The devices of each GPU: equally many each, the nearest first, the least used among equals.

    Near is who shares most of the way from the root of PCIe. Raises ``RDMAError``.
    """
    paths = {name: _path(system / "class" / "infiniband" / name / "device") for name in devices}
    gpus = {
        bus_id: _path(system / "bus" / "pci" / "devices" / _normal(bus_id))
        for bus_id in gpu_bus_ids
    }
    users = dict.fromkeys(devices, 0)
    order = {name: index for index, name in enumerate(devices)}
    chosen: dict[str, list[str]] = {bus_id: [] for bus_id in gpus}
    for _ in range(max(1, len(devices) // max(1, len(gpus)))):
        for bus_id, way in gpus.items():
            free = [name for name in devices if name not in chosen[bus_id]]
            best = min(free, key=lambda one: (-_shared(way, paths[one]), users[one], order[one]))
            chosen[bus_id].append(best)
            users[best] += 1
    return chosen


def _entry(text: str) -> tuple[str, int | None]:
    name, colon, port = text.partition(":")
    return (name, int(port)) if colon and port.isdecimal() else (name, None)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _natural(name: str) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def _is_active(device: Path) -> bool:
    states = list(device.glob("ports/*/state"))
    return not states or any("ACTIVE" in state.read_text() for state in states)


def _ports(system: Path, name: str) -> list[int]:
    folder = system / "class" / "infiniband" / name / "ports"
    found = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    return sorted(found) or [1]


def _normal(bus_id: str) -> str:
    """The name that the kernel gives the GPU: CUDA writes its domain with eight digits."""
    found = re.fullmatch(_BUS_ID, bus_id.strip().lower())
    if found is None:
        raise RDMAError(f"{bus_id[:32]!r} is no bus id of a GPU, such as 0000:1a:00.0")
    domain = int(found[1] or "0", 16)
    return f"{domain:04x}:{found[2]}"


def _path(link: Path) -> tuple[str, ...]:
    """The way from the root of PCIe; empty where the tree does not tell."""
    if not link.exists():
        return ()
    parts = link.resolve().parts
    roots = [index for index, part in enumerate(parts) if part.startswith("pci")]
    return parts[roots[-1] :] if roots else ()


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count
