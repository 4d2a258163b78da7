"""Shared memory as tensors: content, alignment, every element type, and files that are others."""

from __future__ import annotations

import gc
import os
import random
import time
import warnings
from pathlib import Path

import pytest
import scripted_server
import torch
from checkpoint_engine.dtypes import DTYPES
from checkpoint_engine.errors import DTypeError, SegmentError
from checkpoint_engine.protocol import Segment, TensorRow
from checkpoint_engine.segments import SegmentTensors

EXACT = [name for name, dtype in DTYPES.items() if dtype.torch_name and dtype.packed == 1]


def write(memory, content, name="segment"):
    path = memory / name
    path.write_bytes(content)
    return path


def raw_bytes(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("shift", [0, 1, 8])
def test_every_dtype_at_any_offset(memory, name, shift):
    content = bytes(place * 7 % 2 if name == "BOOL" else place * 7 % 251 for place in range(512))
    path = write(memory, content)
    tensors = SegmentTensors([scripted_server.segment_of(path, data_offset=16)])
    row = TensorRow("a", name, (3, 4), 0, shift)
    tensors.check([row])
    tensor = tensors.tensor(row)
    assert tuple(tensor.shape) == (3, 4)
    assert tensor.dtype == getattr(torch, DTYPES[name].torch_name)
    assert raw_bytes(tensor) == content[16 + shift : 16 + shift + row.byte_count]


def test_aligned_tensors_are_views(memory):
    path = write(memory, bytes(4096))
    tensors = SegmentTensors([scripted_server.segment_of(path)])
    tensor = tensors.tensor(TensorRow("a", "F32", (8,), 0, 64))
    with path.open("r+b") as file:
        file.seek(64)
        file.write(torch.arange(8, dtype=torch.float32).numpy().tobytes())
    assert tensor.tolist() == list(range(8))


def test_packed_dtype_halves_the_last_dimension(memory):
    path = write(memory, bytes(range(64)))
    tensors = SegmentTensors([scripted_server.segment_of(path)])
    tensor = tensors.tensor(TensorRow("a", "F4", (4, 6), 0, 3))
    assert tuple(tensor.shape) == (4, 3)
    assert tensor.view(torch.uint8).flatten().tolist() == list(range(3, 15))
    with pytest.raises(DTypeError, match="last dimension"):
        tensors.check([TensorRow("a", "F4", (2, 3), 0, 0)])


def test_types_that_torch_lacks_are_named(memory):
    path = write(memory, bytes(64))
    tensors = SegmentTensors([scripted_server.segment_of(path)])
    with pytest.raises(DTypeError, match=r"the tensor odd has the type F6_E2M3"):
        tensors.check([TensorRow("odd", "F6_E2M3", (4,), 0, 0)])


def test_empty_and_scalar_tensors(memory):
    path = write(memory, torch.tensor(2.5).numpy().tobytes())
    empty = write(memory, b"", "empty")
    tensors = SegmentTensors([scripted_server.segment_of(path), scripted_server.segment_of(empty)])
    assert tensors.tensor(TensorRow("s", "F32", (), 0, 0)).item() == 2.5
    assert tuple(tensors.tensor(TensorRow("e", "BF16", (0, 7), 0, 4)).shape) == (0, 7)
    assert tuple(tensors.tensor(TensorRow("e", "BF16", (3, 0), 1, 0)).shape) == (3, 0)
    assert tensors.close() == []


def test_random_catalogs(memory):
    seed = time.time_ns()
    generator = random.Random(seed)
    torch.manual_seed(seed)
    dtypes = [torch.bfloat16, torch.float32, torch.int8, torch.float16, torch.int64, torch.bool]
    tensors = []
    for place in range(60):
        shape = [generator.randrange(6) for _ in range(generator.randrange(4))]
        tensor = (torch.randn(shape) * 40).to(generator.choice(dtypes))
        tensors.append((f"tensor.{place}", tensor))
    catalog = scripted_server.publish(
        tensors, memory, segments=4, data_offset=8, alignment=generator.choice([1, 2, 256])
    )
    mapped = SegmentTensors(catalog.segments)
    mapped.check(catalog.tensors)
    for (name, expected), row in zip(tensors, catalog.tensors, strict=True):
        found = mapped.tensor(row)
        assert row.name == name
        assert found.dtype == expected.dtype, f"seed {seed}: {row}"
        assert torch.equal(found, expected), f"seed {seed}: {row}"
    del found
    assert mapped.close() == []


def test_a_tensor_keeps_its_mapping(memory):
    path = write(memory, b"\x07" * 4096)
    tensors = SegmentTensors([scripted_server.segment_of(path)])
    tensor = tensors.tensor(TensorRow("a", "U8", (16,), 0, 0))
    part = tensor[4:8]
    del tensor
    assert tensors.close() == [str(path)]
    gc.collect()
    assert part.tolist() == [7] * 4
    del part
    assert tensors.close() == []


def test_no_warning_about_memory_that_is_not_writable(memory):
    path = write(memory, bytes(64))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tensors = SegmentTensors([scripted_server.segment_of(path)])
        tensors.tensor(TensorRow("a", "U8", (16,), 0, 0))
    assert [str(warning.message) for warning in caught] == []


def segment_at(path, inode, size):
    return Segment(str(path), inode, size, 0)


def test_other_files_are_refused(memory):
    path = write(memory, bytes(64))
    inode = path.stat().st_ino
    with pytest.raises(SegmentError, match="another file"):
        SegmentTensors([segment_at(path, inode + 1, 64)])
    with pytest.raises(SegmentError, match=r"expected inode \d+ of 65 bytes"):
        SegmentTensors([segment_at(path, inode, 65)])
    with pytest.raises(SegmentError, match="No such file"):
        SegmentTensors([segment_at(memory / "missing", 1, 64)])
    with pytest.raises(SegmentError, match="not a regular file"):
        SegmentTensors([segment_at(memory, memory.stat().st_ino, memory.stat().st_size)])


def test_links_are_not_followed(memory):
    path = write(memory, bytes(64))
    link = memory / "link"
    link.symlink_to(path)
    with pytest.raises(SegmentError, match="cannot be opened"):
        SegmentTensors([segment_at(link, path.stat().st_ino, 64)])


def test_a_pipe_is_refused_without_blocking(memory):
    path = memory / "pipe"
    os.mkfifo(path)
    with pytest.raises(SegmentError, match="not a regular file"):
        SegmentTensors([segment_at(path, path.stat().st_ino, 0)])


def test_descriptors_are_closed(memory):
    path = write(memory, bytes(64))
    bad = segment_at(path, 1, 64)
    before = len(list(Path("/proc/self/fd").iterdir()))
    good = SegmentTensors([scripted_server.segment_of(path)])
    assert good.close() == []
    for _ in range(20):
        with pytest.raises(SegmentError):
            SegmentTensors([scripted_server.segment_of(path), bad])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
