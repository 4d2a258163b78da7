"""Tensors as safetensors files in shared memory: layout, bytes, reuse, refusals."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
import torch
from checkpoint_engine import tensor_copy
from checkpoint_engine.dtypes import DTYPES
from checkpoint_engine.ps_errors import SharedMemoryError, TensorNameError, TensorTypeError
from checkpoint_engine.tensor_file import TensorFiles
from checkpoint_engine.tensor_layout import DATA_ALIGNMENT, layout_of
from safetensors import safe_open


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="ps-tensors-") as folder:
        yield Path(folder)


@pytest.fixture
def files(folder):
    files = TensorFiles(folder)
    yield files
    files.close()
    assert list(folder.iterdir()) == []


def random_bytes(shape, dtype):
    """A tensor of any type whose bits are random; of type bool, whose values are."""
    if dtype == torch.bool:
        return torch.randint(0, 2, shape).bool()
    count = torch.Size(shape).numel() * dtype.itemsize
    content = bytearray(os.urandom(count)) or bytearray(1)
    return torch.frombuffer(content, dtype=torch.uint8)[:count].view(dtype).view(shape)


def raw(tensor):
    if tensor.numel() == 0:
        return b""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return plain.view(-1).view(torch.uint8).numpy().tobytes()


def check_content(file, tensors):
    """Another reader of the format finds the same names, types, shapes and bytes."""
    with safe_open(file.path, framework="pt") as found:
        assert sorted(found.keys()) == sorted(tensors)
        for name, tensor in tensors.items():
            read = found.get_tensor(name)
            assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape), name
            assert raw(read) == raw(tensor), name


def every_kind():
    known = [getattr(torch, d.torch_name, None) for d in DTYPES.values() if d.torch_name]
    tensors = {
        f"type.{dtype}": random_bytes((5, 6), dtype)
        for dtype in known
        # The reader that the test compares with has no view for it.
        if dtype is not None and dtype != getattr(torch, "float4_e2m1fn_x2", None)
    }
    base = torch.randn(40, 30)
    return tensors | {
        "scalar": torch.randn(()),
        "nothing": torch.empty(3, 0, 2),
        "turned": base.t(),
        "strided": base[::3, 1::2],
        "backwards": base.flip(0)[1:],
        "expanded": torch.randn(1, 7).expand(5, 7),
        "conjugated": torch.randn(9, dtype=torch.complex64).conj(),
        "imaginary": torch.randn(9, dtype=torch.complex64).conj().imag,
        "parameter": torch.nn.Parameter(torch.randn(4, 4)),
        "ünï/code 名": torch.randn(2),
    }


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("piece", [64, 16 << 20])
def test_every_kind_of_tensor(files, monkeypatch, threads, piece):
    monkeypatch.setattr(tensor_copy, "PIECE_BYTES", piece)
    tensors = every_kind()
    layout = layout_of(tensors)
    file = files.take(layout)
    file.write(layout, threads)
    check_content(file, tensors)
    assert len(layout.header) % DATA_ALIGNMENT == 0
    for placement in layout.placements:
        assert placement.offset % placement.tensor.element_size() == 0
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_packed_types_count_their_elements():
    dtype = getattr(torch, "float4_e2m1fn_x2", None)
    if dtype is None:
        pytest.skip("this torch has no packed type")
    layout = layout_of({"w": torch.zeros(4, 8, dtype=torch.uint8).view(dtype)})
    assert b'"w":{"dtype":"F4","shape":[4,16],"data_offsets":[0,32]}' in layout.header


def test_equal_layout_takes_the_memory_again(files):
    inodes = set()
    for _ in range(3):
        tensors = {"a": random_bytes((700, 3), torch.int16), "b": random_bytes((5,), torch.int64)}
        layout = layout_of(tensors)
        file = files.take(layout)
        file.write(layout, 2)
        check_content(file, tensors)
        inodes.add(file.path.stat().st_ino)
        files.give_back(file, release=False)
    assert len(inodes) == 1


def test_another_layout_ends_what_is_kept(files):
    first = files.take(layout_of({"a": torch.zeros(3)}))
    files.give_back(first, release=False)
    second = files.take(layout_of({"a": torch.zeros(4)}))
    assert not first.path.exists()
    assert second.path.exists()
    files.give_back(second, release=True)
    assert not second.path.exists()


def test_a_file_in_use_is_not_taken_again(files):
    layout = layout_of({"a": torch.zeros(3)})
    first, second = files.take(layout), files.take(layout)
    assert first.path != second.path


def test_a_file_is_not_written_with_another_layout(files):
    file = files.take(layout_of({"a": torch.zeros(3)}))
    with pytest.raises(ValueError, match="another file"):
        file.write(layout_of({"b": torch.zeros(3)}), 1)


def test_more_than_is_free_is_refused_with_the_numbers(files, folder):
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    # One element that is expanded: the tensor itself takes no memory.
    tensors = {"large": torch.zeros(1, dtype=torch.uint8).expand(free + (64 << 20))}
    layout = layout_of(tensors)
    with pytest.raises(SharedMemoryError, match=rf"need {layout.byte_count} bytes in {folder}"):
        files.take(layout)
    small = layout_of({"a": torch.zeros(3)})
    files.take(small).write(small, 1)


def test_a_failed_copy_is_raised_and_the_file_can_be_written_again(files):
    class Wrong(torch.Tensor):
        """Fails when it is copied."""

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func is torch.Tensor.copy_:
                raise LookupError("no such values")
            return super().__torch_function__(func, types, args, kwargs or {})

    good = {"a": torch.randn(30), "b": torch.randn(30)}
    layout = layout_of(good | {"b": good["b"].as_subclass(Wrong)})
    file = files.take(layout)
    with pytest.raises(LookupError, match="no such values"):
        file.write(layout, 2)
    file.write(layout_of(good), 2)
    check_content(file, good)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(2, dtype=torch.complex128), "torch.complex128"),
        (torch.eye(3).to_sparse(), "to_dense"),
        (torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8), "int_repr"),
        (torch.empty(3, device="meta"), "meta"),
        ([1.0, 2.0], "list"),
        (None, "NoneType"),
    ],
    ids=["complex128", "sparse", "quantised", "meta", "list", "none"],
)
def test_what_is_no_plain_tensor_is_refused_by_name(tensor, words):
    with pytest.raises(TensorTypeError, match=r"layers\.7\.odd") as raised:
        layout_of({"fine": torch.zeros(2), "layers.7.odd": tensor})
    assert words in str(raised.value)
    assert isinstance(raised.value, TypeError)


@pytest.mark.parametrize("name", ["", "__metadata__", 3, None, "\ud800"])
def test_impossible_names(name):
    with pytest.raises(TensorNameError):
        layout_of({name: torch.zeros(2)})


def test_threads_are_shared_with_other_ranks(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert [tensor_copy.thread_count(count) for count in (1, 4, 100)] == [16, 4, 1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert tensor_copy.thread_count(1) == 2


class OnGpu(torch.Tensor):
    """A tensor that says it is on a GPU; its bytes are on the host."""

    is_cuda = property(lambda _: True)
    device = property(lambda self: torch.device("cuda", int(self.shape[0] % 2)))


class Runtime:
    """CUDA's runtime as far as a file needs it: what is pinned, and what was waited for."""

    def __init__(self, patch, code=0):
        self.pinned, self.waited, self.code = {}, [], code
        patch.setattr(torch.cuda, "cudart", lambda: self)
        patch.setattr(torch.cuda, "synchronize", self.waited.append)

    def cudaHostRegister(self, pointer, byte_count, flags):  # noqa: N802
        self.pinned[pointer] = byte_count
        return self.code

    def cudaHostUnregister(self, pointer):  # noqa: N802
        del self.pinned[pointer]


def test_memory_is_pinned_once_for_tensors_on_gpus(files, monkeypatch):
    runtime = Runtime(monkeypatch)
    file = None
    for _ in range(2):
        plain = {"a": torch.randn(4, 30), "b": torch.randn(5, 31).t(), "c": torch.randn(7)}
        tensors = {name: plain[name].as_subclass(OnGpu) for name in "ab"} | {"c": plain["c"]}
        layout = layout_of(tensors)
        file = files.take(layout)
        file.write(layout, 2)
        check_content(file, plain)
        assert list(runtime.pinned.values()) == [layout.byte_count]
        assert set(runtime.waited) == {torch.device("cuda", 0), torch.device("cuda", 1)}
        runtime.waited.clear()
        files.give_back(file, release=False)
    files.release_kept()
    assert runtime.pinned == {}


def test_memory_that_cannot_be_pinned(files, monkeypatch):
    Runtime(monkeypatch, code=2)
    layout = layout_of({"a": torch.randn(4, 30).as_subclass(OnGpu)})
    with pytest.raises(SharedMemoryError, match="cudaHostRegister returned 2"):
        files.take(layout).write(layout, 1)
