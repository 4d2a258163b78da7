"""Files that are no checkpoints, each with words that its error has to contain."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INT64_MAX = (1 << 63) - 1


def header(text: str | bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file with ``text`` as its header; ``length`` is what it says of it."""
    content = text.encode() if isinstance(text, str) else text
    said = len(content) if length is None else length
    return struct.pack("<Q", said) + content + data


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def file(data: bytes = b"\0" * 8, **tensors: object) -> bytes:
    """A file with the given entries in its header."""
    return header(json.dumps(tensors), data)


def sparse_checkpoint(folder: Path, byte_count: int) -> Path:
    """A correct checkpoint of ``byte_count`` bytes, none of which takes room on the disk."""
    folder.mkdir()
    text = json.dumps({"w": entry("U8", [byte_count], [0, byte_count])})
    with (folder / "model.safetensors").open("wb") as target:
        target.write(header(text))
        target.truncate(target.tell() + byte_count)
    return folder


@dataclass(frozen=True)
class BadFile:
    """One malformed file: its bytes, and what the error has to say beside its name."""

    content: bytes
    words: tuple[str, ...] = ()


_GOOD = file(w=entry())
_NESTED = '{"w":' * 5000 + "1" + "}" * 5000

BAD_FILES: dict[str, BadFile] = {
    "empty": BadFile(b"", ("0 bytes",)),
    "seven-bytes": BadFile(b"\1\0\0\0\0\0\0", ("7 bytes",)),
    "length-zero": BadFile(header("", length=0)),
    "length-one": BadFile(header("{", length=1)),
    "length-beyond-the-file": BadFile(header("{}", length=3)),
    "length-of-the-sign-bit": BadFile(header("{}", length=1 << 63)),
    "length-of-all-bits": BadFile(header("{}", length=(1 << 64) - 1)),
    "length-beyond-the-limit": BadFile(header("{}", length=100_000_001)),
    "no-json": BadFile(header("hello, world")),
    "an-array": BadFile(header("[1,2]")),
    "a-number": BadFile(header("17")),
    "cut-json": BadFile(header('{"w":{"dtype":"F32"')),
    "text-after-json": BadFile(header("{} {}")),
    "zeros-after-json": BadFile(header("{}\0\0")),
    "invalid-utf8": BadFile(header(b'{"\xff\xfe":{}}')),
    "lone-surrogate": BadFile(header('{"\\ud800":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}')),
    "deep-nesting": BadFile(header(_NESTED)),
    "deep-brackets": BadFile(header('{"w":' + "[" * 100_000)),
    "huge-number": BadFile(file(w=entry(shape=[10**30]))),
    "fraction": BadFile(file(w=entry(shape=[2.5]))),
    "exponent": BadFile(
        header('{"w":{"dtype":"U8","shape":[1e9],"data_offsets":[0,8]}}', b"\0" * 8)
    ),
    "text-as-dimension": BadFile(file(w=entry(shape=["2"]))),
    "null-shape": BadFile(file(w=entry(shape=None))),
    "negative-dimension": BadFile(file(w=entry(shape=[-2])), ("w",)),
    "shape-overflows": BadFile(file(w=entry(shape=[1 << 32, 1 << 32])), ("w",)),
    "shape-overflows-to-zero": BadFile(
        file(b"", w=entry("U8", [1 << 32, 1 << 32], [0, 0])), ("w",)
    ),
    "shape-overflows-with-the-dtype": BadFile(file(w=entry("F64", [1 << 61], [0, 8])), ("w",)),
    "thousand-dimensions": BadFile(file(w=entry(shape=[1] * 1000))),
    "unknown-dtype": BadFile(file(w=entry("F17")), ("F17", "w")),
    "empty-dtype": BadFile(file(w=entry("")), ("w",)),
    "half-a-byte": BadFile(file(b"\0", w=entry("F4", [1], [0, 1])), ("w",)),
    "offsets-swapped": BadFile(file(w=entry(offsets=[8, 0])), ("w",)),
    "offsets-negative": BadFile(file(w=entry(offsets=[-8, 0])), ("w",)),
    "offsets-of-the-largest-number": BadFile(file(w=entry(offsets=[INT64_MAX - 8, INT64_MAX]))),
    "one-offset": BadFile(file(w=entry(offsets=[0])), ("w",)),
    "three-offsets": BadFile(file(w=entry(offsets=[0, 8, 16])), ("w",)),
    "length-and-shape-differ": BadFile(file(w=entry(shape=[3])), ("w", "8", "12")),
    "starts-with-a-hole": BadFile(file(b"\0" * 16, w=entry(offsets=[8, 16])), ("w",)),
    "hole": BadFile(file(b"\0" * 24, v=entry(), w=entry(offsets=[16, 24])), ("w",)),
    "overlap": BadFile(file(b"\0" * 12, v=entry(), w=entry(offsets=[4, 12])), ("w",)),
    "same-bytes-twice": BadFile(file(v=entry(), w=entry())),
    "truncated": BadFile(_GOOD[:-1], ("8", "7")),
    "trailing-byte": BadFile(_GOOD + b"\0", ("8", "9")),
    "missing-dtype": BadFile(file(w={"shape": [2], "data_offsets": [0, 8]}), ("w", "dtype")),
    "missing-offsets": BadFile(file(w={"shape": [2], "dtype": "F32"}), ("w", "data_offsets")),
    "entry-is-an-array": BadFile(file(w=[1])),
    "entry-is-null": BadFile(file(w=None)),
    "key-twice": BadFile(
        header('{"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', b"\0" * 8),
        ("dtype",),
    ),
    "tensor-twice": BadFile(
        header(
            '{"w":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},'
            '"w":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}}',
            b"\0" * 16,
        ),
        ("w", "twice"),
    ),
    "metadata-is-a-number": BadFile(header('{"__metadata__":1}')),
    "metadata-has-numbers": BadFile(header('{"__metadata__":{"a":1}}')),
    "name-of-a-megabyte": BadFile(file(**{"w" * (1 << 20): entry()})),
    "git-lfs-pointer": BadFile(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", ("git lfs pull",)
    ),
    "pickle": BadFile(b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94." + b"\0" * 32, ("PyTorch",)),
    "zip": BadFile(b"PK\x03\x04" + b"\0" * 64, ("PyTorch",)),
    "gguf": BadFile(b"GGUF\x03\0\0\0" + b"\xff" * 64, ("GGUF",)),
    "mostly-blanks": BadFile(header("{" + " " * 50_000_000 + '"w":1}')),
    "million-bad-tensors": BadFile(
        header("{" + ",".join(f'"{n}":{{}}' for n in range(1_000_000)) + "}")
    ),
}


def _index(weight_map: object, **files: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        for name, content in files.items():
            (folder / f"{name}.safetensors").write_bytes(content)
        text = json.dumps({"metadata": {}, "weight_map": weight_map})
        (folder / "model.safetensors.index.json").write_text(text)
        return folder

    return write


def _raw_index(text: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "model.safetensors.index.json").write_text(text)
        return folder

    return write


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "model.safetensors")
    return folder / "model.safetensors"


def _folder_with_suffix(folder: Path) -> Path:
    (folder / "model.safetensors").mkdir()
    return folder


def _link_to_device(folder: Path) -> Path:
    (folder / "model.safetensors").symlink_to("/dev/zero")
    return folder / "model.safetensors"


def _link_loop(folder: Path) -> Path:
    (folder / "model.safetensors").symlink_to("model.safetensors")
    return folder


def _two_indexes(folder: Path) -> Path:
    _index({"w": "a.safetensors"}, a=_GOOD)(folder)
    (folder / "other.safetensors.index.json").write_text("{}")
    return folder


def _same_tensor_in_two_files(folder: Path) -> Path:
    for number in (1, 2):
        (folder / f"model-{number}-of-2.safetensors").write_bytes(_GOOD)
    return folder


def _files(*names: str) -> Callable[[Path], Path]:
    """Files without a tensor, of these names."""

    def write(folder: Path) -> Path:
        for name in names:
            (folder / f"{name}.safetensors").write_bytes(header("{}"))
        return folder

    return write


def _pickles(folder: Path) -> Path:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    return folder


def _missing(folder: Path) -> Path:
    return folder / "is-not-there"


def _empty_folder(folder: Path) -> Path:
    return folder


# Checkpoints of several files; each makes its files in an empty folder and returns what to name.
BAD_FOLDERS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "missing": (_missing, ("is-not-there",)),
    "empty-folder": (_empty_folder, ()),
    "fifo": (_fifo, ("model.safetensors",)),
    "folder-as-file": (_folder_with_suffix, ("model.safetensors",)),
    "link-to-a-device": (_link_to_device, ("/dev/zero",)),
    "link-loop": (_link_loop, ("model.safetensors",)),
    "two-indexes": (_two_indexes, ("other.safetensors.index.json",)),
    "tensor-in-two-files": (
        _same_tensor_in_two_files,
        ("the tensor w", "model-1-of-2.safetensors", "model-2-of-2.safetensors"),
    ),
    "no-tensor": (_files("model"), ("no tensor",)),
    "set-is-incomplete": (_files("model-1-of-3", "model-3-of-3"), ("missing: 2;",)),
    "two-models": (
        _files("model", "model-1-of-1"),
        ("model.safetensors", "model-…-of-1.safetensors", "name the files"),
    ),
    "files-of-no-set": (_files("a", "b"), ("a.safetensors", "b.safetensors", "name the files")),
    "pickles": (_pickles, ("PyTorch", "convert")),
    "a-name-with-a-combining-mark": (
        _index({"w": "/\u0301a.safetensors"}),
        ("a plain name",),
    ),
    "index-is-empty": (_raw_index(""), ("index.json",)),
    "index-is-no-json": (_raw_index("{"), ("index.json",)),
    "index-is-an-array": (_raw_index("[]"), ("index.json",)),
    "index-without-map": (_raw_index('{"metadata":{}}'), ("weight_map",)),
    "index-of-nothing": (_raw_index('{"weight_map":{}}'), ("weight_map",)),
    "index-with-two-maps": (_raw_index('{"weight_map":{},"weight_map":{}}'), ("weight_map",)),
    "index-is-deep": (_raw_index("[" * 1_000_000), ("index.json",)),
    "map-is-a-list": (_index(["a"]), ("index.json",)),
    "map-has-numbers": (_index({"w": 1}), ("index.json",)),
    "map-leads-outside": (_index({"w": "../../etc/passwd.safetensors"}), ("passwd",)),
    "map-is-absolute": (_index({"w": "/etc/passwd.safetensors"}), ("passwd",)),
    "map-names-no-safetensors": (_index({"w": "a.bin"}), ("a.bin",)),
    "shard-is-missing": (
        _index({"w": "a.safetensors", "v": "b.safetensors"}, a=_GOOD),
        ("b.safetensors",),
    ),
    "tensor-is-missing": (
        _index({"w": "a.safetensors", "v": "a.safetensors"}, a=_GOOD),
        ("v", "a.safetensors"),
    ),
    "tensor-in-another-shard": (
        _index({"w": "b.safetensors", "v": "a.safetensors"}, a=_GOOD, b=file(v=entry())),
        ("safetensors",),
    ),
    "shard-is-malformed": (_index({"w": "a.safetensors"}, a=_GOOD[:-1]), ("a.safetensors",)),
}
