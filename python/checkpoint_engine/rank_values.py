"""JSON values in a torch store, large ones compressed and cut into pieces that its server takes."""

from __future__ import annotations

import json
import zlib
from typing import Any, Protocol

_PLAIN_BYTES_MAX = 64 << 10
# torch's server refuses 8 MiB.
_PIECE_BYTES = 4 << 20
# More than the metas of any checkpoint.
_VALUE_BYTES_MAX = 1 << 30


class Store(Protocol):
    """What is used of ``torch.distributed.TCPStore``."""

    def set(self, key: str, value: bytes, /) -> object: ...

    def get(self, key: str, /) -> bytes: ...

    def check(self, keys: list[str], /) -> bool: ...

    def add(self, key: str, count: int, /) -> int: ...

    def delete_key(self, key: str, /) -> bool: ...

    def multi_get(self, keys: list[str], /) -> list[bytes]: ...


def write_value(store: Store, key: str, value: object) -> list[str]:
    """Writes ``value``; whoever finds ``key`` finds all of it. Returns all keys that it took."""
    text = json.dumps(value, separators=(",", ":")).encode()
    if len(text) <= _PLAIN_BYTES_MAX:
        store.set(key, b"J" + text)
        return [key]
    packed = zlib.compress(text, 1)
    pieces = [packed[at : at + _PIECE_BYTES] for at in range(0, len(packed), _PIECE_BYTES)]
    keys = [f"{key}/piece-{place}" for place in range(len(pieces))]
    for name, piece in zip(keys, pieces, strict=True):
        store.set(name, piece)
    store.set(key, b"Z" + str(len(pieces)).encode())
    return [key, *keys]


def read_values(store: Store, keys: list[str]) -> list[Any]:
    """The values of ``keys``, all of which have been written."""
    return [_decode(store, key, raw) for key, raw in zip(keys, store.multi_get(keys), strict=True)]


def _decode(store: Store, key: str, raw: bytes) -> Any:
    if raw[:1] == b"J":
        return json.loads(raw[1:])
    packed = b"".join(store.get(f"{key}/piece-{place}") for place in range(int(raw[1:])))
    reader = zlib.decompressobj()
    text = reader.decompress(packed, _VALUE_BYTES_MAX)
    if reader.unconsumed_tail:
        raise ValueError(f"the value of {key} has more than {_VALUE_BYTES_MAX} bytes")
    return json.loads(text)
