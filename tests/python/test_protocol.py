"""Messages: the golden ones both ways, those to refuse, limits, and mutated ones."""

from __future__ import annotations

import json
import random
import time

import pytest
from checkpoint_engine import protocol
from checkpoint_engine.errors import ProtocolError
from worker_thread import REPOSITORY

FIXTURES = REPOSITORY / "Fixtures" / "wire" / "v1"
GOLDEN = sorted(FIXTURES.glob("*.json"))
REJECTED = sorted((FIXTURES / "rejected").glob("*.json"))
MUTATIONS = 4000


def load(path):
    document = json.loads(path.read_text("utf-8"))
    decode = protocol.decode_server if document["from"] == "server" else protocol.decode_worker
    return decode, [frame.encode() for frame in document["frames"]]


def test_fixtures_are_there():
    assert len(GOLDEN) >= 16
    assert len(REJECTED) >= 36


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_messages_both_ways(path):
    decode, frames = load(path)
    assert protocol.encode(decode(frames)) == frames


@pytest.mark.parametrize("path", REJECTED, ids=lambda path: path.stem)
def test_rejected_messages(path):
    decode, frames = load(path)
    with pytest.raises(ProtocolError):
        decode(frames)


def test_values_of_a_golden_catalog():
    decode, frames = load(FIXTURES / "server-catalog.json")
    catalog = decode(frames)
    assert catalog.byte_count == 1_048_836
    assert catalog.segments[1].path == '/dev/shm/model "é".safetensors'
    assert catalog.tensors[1] == protocol.TensorRow("model.norm.weight", "F8_E4M3", (4, 65), 1, 0)


def test_values_of_a_golden_catalog_of_gpu_memory():
    decode, frames = load(FIXTURES / "server-catalog-cuda.json")
    catalog = decode(frames)
    handle = bytes(range(64)).hex()
    assert catalog.segments == (
        protocol.DeviceSegment(handle, 2 << 20, 0),
        protocol.DeviceSegment(handle, 2 << 20, 1 << 20),
    )
    assert catalog.tensors[0].offset == catalog.tensors[3].offset, "of different buckets"


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([], "0 frames"),
        ([b'{"type":"release"}', b"[]", b"[]"], "3 frames"),
        ([b'{"type":"bucket","index":1e0,"first":0,"count":1}'], "not an integer"),
        ([b'{"type":"bucket","index":NaN,"first":0,"count":1}'], "not an integer"),
        ([b'{"type":"bucket","index":-0,"first":0,"count":1}'], "outside"),
        ([b'{"type":"bucket","index":' + b"9" * 5000 + b',"first":0,"count":1}'], "outside"),
        ([b'{"type":"abort","reason":"\\ud800"}'], "surrogate"),
        ([b'{"type":"abort","reason":"\xff"}'], "UTF-8"),
        ([b"[" * 100_000], "not JSON"),
        ([b'\xff\xfe{\x00"\x00'], "UTF-8"),
        ([b'{"type":"abort","reason":"' + b"a" * 65_537 + b'"}'], "longer than"),
        ([b'{"type":"abort","reason":"' + b"a" * (1 << 20) + b'"}'], "at most"),
        ([b'{"type":["bucket"]}'], "not a string"),
        ([b"null"], "null"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_frames(frames, why):
    with pytest.raises(ProtocolError, match=why):
        protocol.decode_server(frames)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ('["a","F4",[3],0,0]', "whole byte"),
        ('["a","F32",[true],0,0]', "wrong kind"),
        ('["a","F32",[1],0]', "five values"),
        ('["a","F32",1,0,0]', "wrong kind"),
        ('[1,"F32",[1],0,0]', "wrong kind"),
        ('{"a":1}', "five values"),
    ],
)
def test_hostile_catalog_rows(row, why):
    segment = '{"path":"/dev/shm/a","inode":1,"bytes":8,"data_offset":0}'
    header = f'{{"type":"catalog","tensors":1,"bytes":4,"segments":[{segment}]}}'
    with pytest.raises(ProtocolError, match=why):
        protocol.decode_server([header.encode(), f"[{row}]".encode()])


@pytest.mark.parametrize("path", ["", "/dev/shm/\\u0000a", "a"])
def test_hostile_segment_paths(path):
    segment = f'{{"path":"{path}","inode":1,"bytes":8,"data_offset":0}}'
    header = f'{{"type":"catalog","tensors":0,"bytes":0,"segments":[{segment}]}}'
    with pytest.raises(ProtocolError, match="absolute"):
        protocol.decode_server([header.encode(), b"[]"])


def test_mutated_messages_are_refused_or_understood():
    """No mutation of a golden message raises anything but ``ProtocolError``."""
    seed = time.time_ns()
    generator = random.Random(seed)
    golden = [load(path) for path in GOLDEN]
    understood = 0
    for _ in range(MUTATIONS):
        decode, frames = generator.choice(golden)
        mutated = [bytearray(frame) for frame in frames]
        for _ in range(generator.randint(1, 3)):
            frame = generator.choice(mutated)
            place = generator.randrange(len(frame))
            action = generator.randrange(3)
            if action == 0:
                frame[place] = generator.randrange(256)
            elif action == 1:
                del frame[place : place + generator.randint(1, 8)]
            else:
                frame[place:place] = generator.choice([b"0", b'"', b",", b"[", b"{}", b"-", b"\\"])
            if not frame:
                frame += b"0"
        data = [bytes(frame) for frame in mutated]
        try:
            message = decode(data)
        except ProtocolError:
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}: {data}") from error
        understood += 1
        assert decode(protocol.encode(message)) == message, f"seed {seed}: {data}"
    assert 0 < understood < MUTATIONS, f"seed {seed}"


def test_failures_fit_the_limits():
    failure = protocol.failure("bucket", "a\nb\r" + "é" * 40_000, "\x01" * 300_000 + "end")
    assert failure.message.startswith("a b ")
    assert len(failure.message.encode()) <= 65_536
    frames = protocol.encode(failure)
    assert len(frames[0]) <= 1 << 20
    assert failure.traceback.endswith("end")
    assert protocol.decode_worker(frames) == failure


def test_failures_survive_broken_text():
    failure = protocol.failure("commit", "half \ud800", "line\nof \udfff")
    assert protocol.decode_worker(protocol.encode(failure)) == failure
