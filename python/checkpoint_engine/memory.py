"""The server's memory of either kind: shared files of the host, or memory of a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .catalog import Catalog, DeviceSegment, Segment
from .device_memory import DeviceSegments
from .errors import ProtocolError
from .segments import SegmentTensors

if TYPE_CHECKING:
    from .hooks import Device

Memory = SegmentTensors | DeviceSegments


def open_memory(catalog: Catalog, kind: str, device: Device | None) -> Memory:
    """Maps the segments of ``catalog``, which must be of the ``kind`` that the hello stated.

    Raises ``ProtocolError``, and ``SegmentError`` or ``DeviceMemoryError`` when one cannot be.
    """
    files = [item for item in catalog.segments if isinstance(item, Segment)]
    pieces = [item for item in catalog.segments if isinstance(item, DeviceSegment)]
    if pieces if kind == "host" else files:
        raise ProtocolError(f"a segment is not of the kind {kind!r}")
    if kind == "host":
        return SegmentTensors(files)
    if device is None:
        raise ProtocolError("the server has GPU memory, but this worker is on the CPU")
    return DeviceSegments(pieces, device.index, clones=device.clones)
