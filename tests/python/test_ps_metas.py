"""Metas: plain dataclasses that can be pickled, and their JSON form."""

from __future__ import annotations

import json
import pickle
import random

import pytest
import torch
from checkpoint_engine import data_types
from checkpoint_engine.data_types import (
    DaemonSource,
    MemoryBufferMetaList,
    MemoryBufferMetas,
    ParameterMeta,
)
from checkpoint_engine.metas_json import metas_from_json, metas_to_json, read_metas_file
from checkpoint_engine.ps_errors import MetasError
from checkpoint_engine.rank_pulls import parts_of

# As the PyPI package's release 0.4.2 writes them.
KNOWN = (
    '{"3":{"p2p_store_addr":"10.0.0.1:5000","memory_buffer_metas_list":[{"metas":[{"name":"w",'
    '"dtype":"torch.float8_e4m3fn","shape":[2,3],"aligned_size":256}],"ptr":140000000,"size":256}],'
    '"rdma_device":"mlx5_0"}}'
)


def held(url, checkpoint, *names):
    """What a rank has that the daemon at ``url`` knows."""
    metas = [ParameterMeta(name, torch.bool, torch.Size([3]), 3) for name in names]
    source = None if url is None else DaemonSource(url, checkpoint)
    buffers = [MemoryBufferMetas(metas, 1 << 40, 3 * len(metas))] if metas else []
    return MemoryBufferMetaList(None, buffers, "", checkpoint_engine=source)


def some_metas():
    dtypes = [torch.bfloat16, torch.float32, torch.float8_e4m3fn, torch.bool]
    metas = [
        ParameterMeta(
            f"layer.{random.randrange(10**6)}.{place}",
            random.choice(dtypes),
            torch.Size([random.randrange(9) for _ in range(random.randrange(4))]),
            256 * random.randrange(5),
        )
        for place in range(20)
    ]
    buffers = [MemoryBufferMetas(metas[:12], 0, 77), MemoryBufferMetas(metas[12:], 1 << 47, 0)]
    return {
        0: MemoryBufferMetaList(None, buffers, ""),
        11: MemoryBufferMetaList("10.0.0.2:1", [], "mlx5_1"),
        12: held("http://[::1]:19731", "step-1", "w"),
    }


def test_json_there_and_back():
    metas = some_metas()
    assert metas_from_json(metas_to_json(metas)) == metas


def test_the_known_form():
    metas = metas_from_json(KNOWN)
    [buffer] = metas[3].memory_buffer_metas_list
    assert buffer.metas == [ParameterMeta("w", torch.float8_e4m3fn, torch.Size([2, 3]), 256)]
    assert isinstance(buffer.metas[0].shape, torch.Size)
    assert (metas[3].p2p_store_addr, metas[3].rdma_device) == ("10.0.0.1:5000", "mlx5_0")
    assert json.loads(metas_to_json(metas)) == json.loads(KNOWN)


def test_pickles_hold_plain_objects():
    metas = some_metas()
    assert pickle.loads(pickle.dumps(metas)) == metas


def test_the_other_classes():
    gathered = data_types.DataToGather(None, [], "", "10.0.0.1", "GPU-1")
    bucket = data_types.H2DBucket(5, [data_types.BucketRange(0, 1, 4)], [])
    memory = data_types.MemoryBuffer(torch.zeros(3), 12, [])
    assert isinstance(gathered, MemoryBufferMetaList)
    assert bucket.ranges[0].offset == 1
    assert memory.manually_pinned is False


A, B, C = "http://a:1", "http://b:1", "http://c:1"


@pytest.mark.parametrize(
    ("metas", "parts"),
    [
        ([held(A, "s", "v"), held(A, "s", "w")], [("s", A)]),
        ([held(A, "s", "v"), held(B, "s", "w")], [("s", A), ("s", B)]),
        ([held(A, "s", "v"), held(B, "t", "v")], [("s", A), ("t", B)]),
        ([held(A, "s", "v"), held(None, ""), held(B, "s", "v")], [("s", A, B)]),
        (
            [held(A, "s", "v"), held(B, "s", "v", "w"), held(C, "s", "u"), held(A, "s", "w")],
            [("s", A, B), ("s", C)],
        ),
    ],
)
def test_daemons_with_equal_tensors_share_a_part(metas, parts):
    found = parts_of(dict(enumerate(metas)))
    assert [(part.checkpoint, *part.urls) for part in found] == parts


def test_metas_that_name_memory():
    """One part, whatever their number is, without the ranks that have nothing."""
    metas = metas_from_json(KNOWN)
    metas[1] = metas_from_json(KNOWN.replace('"w"', '"v"'))[3]
    metas[2] = held(A, "s")
    [part] = parts_of(metas)
    assert (part.checkpoint, part.urls) == ("", ())
    assert metas_from_json(part.memory) == {1: metas[1], 3: metas[3]}
    [again] = parts_of({rank: metas[rank] for rank in (3, 2, 1)})
    assert again == part


@pytest.mark.parametrize(("key", "value"), [("p2p_store_addr", None), ("ptr", 0)])
def test_metas_that_nobody_can_read(key, value):
    path = ["3", key] if key == "p2p_store_addr" else [*BUFFER, key]
    with pytest.raises(MetasError, match=r"of rank 3 can be read from.*CHECKPOINT_ENGINE_LISTEN"):
        parts_of(metas_from_json(changed(path, value)))


def test_metas_that_name_both():
    metas = metas_from_json(KNOWN) | {0: held(A, "s", "v"), 7: held(B, "s", "v")}
    with pytest.raises(MetasError, match="of rank 0, 7 name daemons, those of rank 3 only the"):
        parts_of(metas)


def test_metas_without_tensors():
    with pytest.raises(MetasError, match="no tensors"):
        parts_of({0: held(A, "s")})


def changed(path, value):
    """The known form with another value at ``path``; without one if ``value`` is ``...``."""
    values = json.loads(KNOWN)
    place = values
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(values)


BUFFER = ["3", "memory_buffer_metas_list", 0]
META = [*BUFFER, "metas", 0]
SOURCE = "checkpoint_engine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "object of ranks"),
        ('{"-1": {}}', "'-1' is no rank"),
        (changed([*META, "dtype"], "torch.load"), "w has the unknown type 'torch.load'"),
        (changed([*META, "dtype"], "os.system"), "unknown type"),
        (changed([*META, "dtype"], 7), "unknown type"),
        (changed([*META, "shape"], [2, -1]), "'shape' of the tensor w"),
        (changed([*META, "shape"], [True]), "'shape' of the tensor w"),
        (changed([*META, "name"], None), "'name'"),
        (changed([*META, "aligned_size"], 1.5), "'aligned_size' of the tensor w"),
        (changed([*META, "more"], 1), "unknown key 'more'"),
        (changed([*META, "name"], ...), "lacks 'name'"),
        (changed([*BUFFER, "size"], -1), "'size' of buffer 0 of rank 3"),
        (changed([*BUFFER, "metas"], 3), "'metas' of buffer 0"),
        (changed(["3", "p2p_store_addr"], 3), "no string"),
        (changed(["3", SOURCE], 3), "'checkpoint_engine' of rank 3 is no object"),
        (changed(["3", SOURCE], {"url": A}), "lacks 'checkpoint'"),
        (changed(["3", SOURCE], {"url": "file:///x", "checkpoint": "s"}), "'url' of rank 3"),
        (changed(["3", SOURCE], {"url": A + "/v1", "checkpoint": "s"}), "'url' of rank 3"),
        (changed(["3", SOURCE], {"url": A, "checkpoint": ""}), "'checkpoint' of rank 3"),
        (changed(["3"], []), "rank 3 is no object"),
    ],
)
def test_other_forms_are_refused(text, words):
    with pytest.raises(MetasError) as raised:
        metas_from_json(text)
    assert words in str(raised.value)


def test_files(tmp_path):
    path = tmp_path / "metas.json"
    path.write_text(KNOWN)
    assert read_metas_file(path) == metas_from_json(KNOWN)
    path.write_text(KNOWN[:-1])
    with pytest.raises(MetasError, match=str(path)):
        read_metas_file(path)
    with pytest.raises(MetasError, match="missing"):
        read_metas_file(tmp_path / "missing.json")


def test_a_pickled_file_is_not_opened(tmp_path):
    path = tmp_path / "metas.pkl"
    with pytest.raises(MetasError, match="JSON form"):
        read_metas_file(path)
