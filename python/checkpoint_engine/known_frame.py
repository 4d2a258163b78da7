"""What this protocol shares with the pickle-based one of the PyPI package: its first frame."""

from __future__ import annotations

# The first byte of a message of that protocol: the opcode PROTO of a pickle.
KNOWN_PROTOCOL_BYTE = 0x80
KNOWN_PROTOCOL_REFUSAL = (
    "the sender speaks the pickle-based protocol of the PyPI package checkpoint-engine, which "
    "workers on GPUs take as a first message, and workers on the CPU not at all: send with the "
    "checkpoint-engine daemon"
)
HELLO_BYTES_MAX = 1 << 20
# PROTO 4 and BINUNICODE, and POP: opcodes of a pickle.
_PICKLE_START = b"\x80\x04X"
_PICKLE_POP = b"0"


def hello_in_known_frame(frame: bytes) -> bytes | None:
    """The hello that a server with GPU memory puts in front of the known protocol's first message.

    It is a text that the pickle pushes and drops: ``PROTO 4``, ``BINUNICODE``, ``POP``. Nothing
    behind it is read. ``None`` when the frame has none.
    """
    head = len(_PICKLE_START) + 4
    if not frame.startswith(_PICKLE_START) or len(frame) < head:
        return None
    length = int.from_bytes(frame[head - 4 : head], "little")
    if length > HELLO_BYTES_MAX or frame[head + length : head + length + 1] != _PICKLE_POP:
        return None
    text = frame[head : head + length]
    return text if text.startswith(b'{"type":"hello"') else None
