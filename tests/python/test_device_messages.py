"""The messages of GPU memory: the hello inside a known frame, and segments that are none."""

from __future__ import annotations

import pytest
from checkpoint_engine import protocol
from checkpoint_engine.errors import KnownProtocolError, ProtocolError
from fake_gpu import HELLO, known_frame

TEXT = protocol.encode(HELLO)[0]


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x80\x04X",
        known_frame(TEXT, rest=b""),
        known_frame(TEXT, rest=b"1"),
        b"\x80\x05" + known_frame(TEXT)[2:],
        b"\x80\x04U" + known_frame(TEXT)[3:],
        b"\x80\x04X\xff\xff\xff\xff" + TEXT + b"0",
        known_frame(b'{"type":"abort","reason":""}'),
        known_frame(TEXT.ljust((1 << 20) + 1)),
        TEXT,
    ],
    ids=lambda frame: repr(frame[:8]),
)
def test_frames_without_a_hello(frame):
    assert protocol.hello_in_known_frame(frame) is None


def test_a_hello_in_a_known_frame():
    assert protocol.hello_in_known_frame(known_frame(TEXT)) == TEXT
    assert protocol.hello_in_known_frame(known_frame(TEXT, b"0" + b"\xff" * 9)) == TEXT
    longest = TEXT.ljust(1 << 20)
    assert protocol.hello_in_known_frame(known_frame(longest)) == longest


@pytest.mark.parametrize(
    "frames",
    [
        [known_frame(TEXT, rest=b"1")],
        [known_frame(b'{"type":"abort","reason":""}')],
        [known_frame(TEXT), b"[]"],
    ],
    ids=["no POP", "another message", "two frames"],
)
def test_other_frames_are_the_known_protocol(server, recorder, frames):
    worker = recorder.start(server.address)
    server.send_frames(frames)
    (answer,) = server.receive_frames()
    assert b"PyPI package" in answer
    worker.error(KnownProtocolError)


def test_a_known_frame_after_the_hello(server, recorder):
    worker = recorder.start(server.address)
    server.greet()
    server.send_frames([known_frame(TEXT)])
    (answer,) = server.receive_frames()
    assert b"PyPI package" in answer
    worker.error(KnownProtocolError)


def segment(handle):
    return f'{{"handle":"{handle}","bytes":512,"data_offset":256}}'


FILE = '{"path":"/dev/shm/a","inode":1,"bytes":8,"data_offset":0}'


@pytest.mark.parametrize(
    ("segments", "why"),
    [
        (segment("0" * 127), "128"),
        (segment("0" * 130), "128"),
        (segment("0" * 127 + "A"), "128"),
        (segment("0" * 127 + "g"), "128"),
        (segment("0" * 127 + "\\n"), "128"),
        (segment("0" * 127 + "٣"), "128"),
        (segment("0" * 128).replace("512", "255"), "after the end"),
        (f"{segment('0' * 128)},{FILE}", "handle"),
        (f"{FILE},{segment('0' * 128)}", "path"),
        (segment("0" * 128).replace("256", '256,"inode":1'), "unknown key"),
    ],
)
def test_hostile_segments(segments, why):
    header = f'{{"type":"catalog","tensors":0,"bytes":0,"segments":[{segments}]}}'
    with pytest.raises(ProtocolError, match=why):
        protocol.decode_server([header.encode(), b"[]"])
