"""The stand-in's borders and views of packed chunks, judged by vLLM's code where it is there."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from packed_chunks import DTYPES, Tensor, chunks, slices


def _real_consumer() -> Any:
    """vLLM's module alone: the package is not imported."""
    pytest.importorskip("torch")
    found = importlib.util.find_spec("vllm")
    if found is None or not found.submodule_search_locations:
        pytest.skip("vLLM is not installed")
    folder = Path(found.submodule_search_locations[0]) / "distributed/weight_transfer"
    spec = importlib.util.spec_from_file_location("real_packed", folder / "packed_tensor.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["real_packed"] = module
    spec.loader.exec_module(module)
    return module


class _FakeGroup:
    """Takes the place of the communicator: random bytes, and what it was asked for."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.content = b""

    def broadcast(self, tensor: Any, src: int) -> None:
        import torch

        content = os.urandom(tensor.numel())
        self.sizes.append(len(content))
        if content:
            tensor.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self.content = content


def test_chunks_and_views_are_those_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both cut random lists of tensors alike, give the same bytes, and refuse the same tensors."""
    module = _real_consumer()
    import torch

    stream = type("Stream", (), {"synchronize": lambda self: None})()
    monkeypatch.setattr(module, "_get_streams", lambda _index, count: (stream,) * count)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: contextlib.nullcontext())
    seed = random.randrange(1 << 30)
    generator = random.Random(seed)
    known = [name for name in DTYPES if hasattr(torch, name)]
    refused = 0
    for _ in range(300):
        kinds = generator.sample(known, generator.choice((1, 2, 4)))
        tensors = []
        for number in range(generator.randrange(1, 12)):
            rank = generator.randrange(3)
            shape = tuple(generator.randrange(7) for _ in range(rank))
            tensors.append(Tensor(f"t{number}", generator.choice(kinds), shape))
        if generator.random() < 0.5:
            tensors.sort(key=lambda tensor: -tensor.item_size)
        limit = generator.randrange(200)
        refused += _compare(module, tensors, limit, seed)
    assert 10 < refused < 290, seed


def _compare(module: Any, tensors: list[Tensor], limit: int, seed: int) -> bool:
    """Whether both have refused; a difference is a failure."""
    import torch

    group = _FakeGroup()
    taken: list[tuple[str, bytes]] = []
    expected: list[tuple[str, bytes]] = []
    cut = chunks(tensors, limit)

    def unpack(found: list[tuple[str, Any]]) -> None:
        chunk = next(cut)
        expected.extend((tensor.name, group.content[a:b]) for tensor, a, b in slices(chunk))
        taken.extend(
            (name, bytes(tensor.reshape(-1).view(torch.uint8).tolist())) for name, tensor in found
        )

    real_refuses = False
    try:
        module.packed_nccl_broadcast_consumer(
            iter((t.name, (list(t.shape), getattr(torch, t.dtype))) for t in tensors),
            group,
            0,
            unpack,
            buffer_size_bytes=limit,
            device="cpu",
        )
    except RuntimeError:
        real_refuses = True
    sizes = [sum(tensor.byte_count for tensor in chunk) for chunk in chunks(tensors, limit)]
    assert sizes[: len(group.sizes)] == group.sizes, (seed, tensors, limit)
    assert taken == expected, (seed, tensors, limit)
    try:
        for chunk in chunks(tensors, limit):
            list(slices(chunk))
    except ValueError:
        assert real_refuses, (seed, tensors, limit)
        return True
    assert not real_refuses, (seed, tensors, limit)
    assert len(sizes) == len(group.sizes), (seed, tensors, limit)
    return False
