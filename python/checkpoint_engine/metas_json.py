"""Metas as JSON: what ``ParameterServer.get_metas`` returns, for files and for the network.

The form is ``{"0": {"p2p_store_addr": null, "memory_buffer_metas_list": [{"metas": [{"name": "w",
"dtype": "torch.bfloat16", "shape": [2, 3], "aligned_size": 256}], "ptr": 0, "size": 256}],
"rdma_device": ""}}``, by rank. Files of the PyPI package's JSON form are read as well. Where other
hosts can read a rank's tensors, it has one key more, which PyPI's package passes over:
``"checkpoint_engine": {"url": "http://10.0.0.1:19731", "checkpoint": "step-100"}``, and in it
``"content"``, which names the bytes, where they were known.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from .data_types import DaemonSource, MemoryBufferMetaList, MemoryBufferMetas, ParameterMeta
from .ps_errors import MetasError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

Metas = dict[int, MemoryBufferMetaList]

ALIGNMENT = 256
FILE_BYTES_MAX = 1 << 30
_URL = r"http://[A-Za-z0-9._:\[\]-]{1,1000}/?"
_NAME_CHARACTERS_MAX = 128


def aligned(byte_count: int) -> int:
    """``byte_count`` rounded up to a multiple of ``ALIGNMENT``."""
    return -(-byte_count // ALIGNMENT) * ALIGNMENT


def metas_to_json(metas: Metas) -> str:
    """``metas`` as one JSON object."""
    return json.dumps(metas_to_values(metas), ensure_ascii=False, separators=(",", ":"))


def metas_from_json(text: str | bytes) -> Metas:
    """The metas that ``text`` holds. Raises ``MetasError``, which names what is wrong."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MetasError(f"the metas are not JSON: {error}") from error
    return metas_from_values(values)


def read_metas_file(path: Path) -> Metas:
    """The metas of a JSON file. Raises ``MetasError``; a pickled file is refused."""
    if path.suffix == ".pkl":
        raise MetasError(
            f"{path} is a pickle, which could run any code: it is not read. Load it where "
            "you trust it, with the package that wrote it, and write its JSON form: "
            "pydantic.TypeAdapter(dict[int, MemoryBufferMetaList]).dump_json(metas)"
        )
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise MetasError(f"{path} has more than {FILE_BYTES_MAX} bytes")
        return metas_from_json(path.read_bytes())
    except OSError as error:
        raise MetasError(f"{path} cannot be read: {error}") from error
    except MetasError as error:
        raise MetasError(f"{path}: {error}") from error


def metas_to_values(metas: Metas) -> dict[str, Any]:
    """``metas`` as what ``json`` writes."""
    return {str(rank): _list_values(item) for rank, item in metas.items()}


def _list_values(item: MemoryBufferMetaList) -> dict[str, Any]:
    buffers = [
        {"metas": [_meta_values(meta) for meta in one.metas], "ptr": one.ptr, "size": one.size}
        for one in item.memory_buffer_metas_list
    ]
    values: dict[str, Any] = {
        "p2p_store_addr": item.p2p_store_addr,
        "memory_buffer_metas_list": buffers,
        "rdma_device": item.rdma_device,
    }
    if (source := item.checkpoint_engine) is not None:
        told = {"url": source.url, "checkpoint": source.checkpoint}
        if source.content is not None:
            told["content"] = source.content
        values["checkpoint_engine"] = told
    return values


def _meta_values(meta: ParameterMeta) -> dict[str, Any]:
    return {
        "name": meta.name,
        "dtype": str(meta.dtype),
        "shape": list(meta.shape),
        "aligned_size": meta.aligned_size,
    }


def metas_from_values(values: object) -> Metas:
    """The metas that parsed JSON holds. Raises ``MetasError``."""
    if not isinstance(values, dict):
        raise MetasError("metas are an object of ranks")
    metas: Metas = {}
    for key, item in values.items():
        if not isinstance(key, str) or not key.isdecimal():
            raise MetasError(f"the key {str(key)[:64]!r} is no rank")
        metas[int(key)] = _list(item, f"rank {key}")
    return metas


def _list(value: object, what: str) -> MemoryBufferMetaList:
    needed = {"memory_buffer_metas_list", "p2p_store_addr"}
    fields = _fields(value, what, needed, {"rdma_device", "checkpoint_engine"})
    address, device = fields["p2p_store_addr"], fields.get("rdma_device", "")
    if not (address is None or isinstance(address, str)) or not isinstance(device, str):
        raise MetasError(f"'p2p_store_addr' or 'rdma_device' of {what} is no string")
    buffers = fields["memory_buffer_metas_list"]
    if not isinstance(buffers, list):
        raise MetasError(f"'memory_buffer_metas_list' of {what} is no array")
    made = [_buffer(one, f"buffer {place} of {what}") for place, one in enumerate(buffers)]
    source = _source(fields.get("checkpoint_engine"), what)
    return MemoryBufferMetaList(address, made, device, checkpoint_engine=source)


def _source(value: object, what: str) -> DaemonSource | None:
    if value is None:
        return None
    fields = _fields(value, f"'checkpoint_engine' of {what}", {"url", "checkpoint"}, {"content"})
    url, checkpoint, content = fields["url"], fields["checkpoint"], fields.get("content")
    if not isinstance(url, str) or not re.fullmatch(_URL, url):
        raise MetasError(f"'url' of {what} is {str(url)[:80]!r}: expected http://HOST:PORT")
    if not isinstance(checkpoint, str) or not 1 <= len(checkpoint) <= _NAME_CHARACTERS_MAX:
        raise MetasError(f"'checkpoint' of {what} is no name of a checkpoint")
    if not (content is None or isinstance(content, str)):
        raise MetasError(f"'content' of {what} is no string")
    return DaemonSource(url, checkpoint, content)


def _buffer(value: object, what: str) -> MemoryBufferMetas:
    fields = _fields(value, what, {"metas", "ptr", "size"})
    if not isinstance(fields["metas"], list):
        raise MetasError(f"'metas' of {what} is no array")
    metas = [_meta(meta, what) for meta in fields["metas"]]
    return MemoryBufferMetas(metas, _count(fields, "ptr", what), _count(fields, "size", what))


def _meta(value: object, what: str) -> ParameterMeta:
    import torch

    fields = _fields(value, f"a tensor of {what}", {"name", "dtype", "shape", "aligned_size"})
    name, shape = fields["name"], fields["shape"]
    if not isinstance(name, str):
        raise MetasError(f"'name' of a tensor of {what} is no string")
    if not isinstance(shape, list) or not all(_is_count(length) for length in shape):
        raise MetasError(f"'shape' of the tensor {name} is no array of lengths")
    return ParameterMeta(
        name,
        _dtype(fields["dtype"], name),
        torch.Size(shape),
        _count(fields, "aligned_size", f"the tensor {name}"),
    )


def _dtype(text: object, name: str) -> torch.dtype:
    import torch

    found = None
    if isinstance(text, str) and text.startswith("torch."):
        found = getattr(torch, text.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise MetasError(f"the tensor {name} has the unknown type {str(text)[:64]!r}")
    return found


def _fields(
    value: object, what: str, needed: set[str], optional: set[str] | None = None
) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MetasError(f"{what} is no object")
    if missing := needed - value.keys():
        raise MetasError(f"{what} lacks {min(missing)!r}")
    if unknown := value.keys() - needed - (optional or set()):
        raise MetasError(f"{what} has the unknown key {min(unknown)!r}")
    return value


def _count(fields: dict[str, Any], key: str, what: str) -> int:
    value = fields[key]
    if not _is_count(value):
        raise MetasError(f"{key!r} of {what} is no number from 0 on")
    count: int = value
    return count


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
