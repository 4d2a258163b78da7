"""Reads the frames of the PyPI package's protocol, pickles, through a closed list of globals.

What a frame names stands for itself and is never called, but for sizes and errors, whose values
are taken as they are. A frame that names anything else is refused by that name.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from .catalog import TensorRow
from .dtypes import DTYPES
from .errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

FRAME_BYTES_MAX = 256 << 20
HANDLE_ARGUMENTS = 15
# Opcodes whose argument is the place of an object in the reader's memory.
_PLACES = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"})
# The bare handle, or one byte of a version and one of a kind before it.
_HANDLE_LENGTHS = (64, 66)
_INTEGER_MAX = (1 << 63) - 1


@dataclass(frozen=True)
class KnownHandle:
    """The buffer of a sender: the arguments of torch's ``rebuild_cuda_tensor`` that vary."""

    storage_handle: bytes
    storage_bytes: int
    storage_offset: int
    byte_count: int
    counter_name: bytes
    counter_offset: int
    event_handle: bytes
    waits_for_event: bool


@dataclass(frozen=True)
class KnownBucket:
    """Tensors that lie in the buffer now; the segment of each row is 0."""

    rows: tuple[TensorRow, ...]


@dataclass(frozen=True)
class KnownFailure:
    """The sender has ended the update, and why."""

    reason: str


class KnownEnd:
    """``None``: first let go of the buffer, then finish the load."""


KnownFrame = KnownHandle | KnownBucket | KnownFailure | KnownEnd


@dataclass(frozen=True, slots=True)
class _Name:
    """A global that stands for itself; it cannot be called."""

    text: str


class _Size:
    """``torch.Size``: a sequence of dimensions becomes a tuple."""

    __slots__ = ()

    def __call__(self, values: object) -> tuple[int, ...]:
        return _integers(values)


class _Failure:
    """``RuntimeError``: its text is kept, nothing is raised."""

    __slots__ = ()

    def __call__(self, *values: object) -> KnownFailure:
        return KnownFailure(" ".join(str(value) for value in values if isinstance(value, str)))


_REBUILD = _Name("torch.multiprocessing.reductions.rebuild_cuda_tensor")
_TENSOR = _Name("torch.Tensor")
_STORAGES = {name: _Name(f"torch.storage.{name}") for name in ("TypedStorage", "UntypedStorage")}
_TORCH_DTYPES = {
    dtype.torch_name: (_Name(f"torch.{dtype.torch_name}"), dtype)
    for dtype in DTYPES.values()
    if dtype.torch_name is not None
}
_DTYPES = dict(_TORCH_DTYPES.values())
_BYTE = _TORCH_DTYPES["uint8"][0]
_GLOBALS: dict[tuple[str, str], _Name | Callable[..., object]] = {
    ("torch.multiprocessing.reductions", "rebuild_cuda_tensor"): _REBUILD,
    ("torch", "Tensor"): _TENSOR,
    ("torch", "Size"): _Size(),
    ("builtins", "RuntimeError"): _Failure(),
    **{("torch.storage", name): value for name, value in _STORAGES.items()},
    **{("torch", name): value for name, (value, _) in _TORCH_DTYPES.items()},
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise ProtocolError(
                f"the sender's frame names {module[:128]}.{name[:128]}, which this protocol does "
                "not have"
            ) from None

    def persistent_load(self, _: object) -> NoReturn:
        raise ProtocolError("the sender's frame refers to something outside it")


def read_known_frame(frame: bytes) -> KnownFrame:
    """What a frame says. Raises ``ProtocolError``, also for anything that the protocol lacks."""
    if len(frame) > FRAME_BYTES_MAX:
        raise ProtocolError(f"the sender's frame has {len(frame)} bytes")
    stream = io.BytesIO(frame)
    try:
        _check_sizes(frame)
        value = _Reader(stream).load()
    except ProtocolError:
        raise
    except Exception as error:
        raise ProtocolError(f"the sender's frame cannot be read: {error}") from error
    if stream.tell() != len(frame):
        raise ProtocolError("the sender's frame has bytes after its end")
    if value is None:
        return KnownEnd()
    if isinstance(value, KnownFailure):
        return value
    if isinstance(value, list):
        return KnownBucket(tuple(_row(entry) for entry in value))
    if isinstance(value, tuple) and len(value) == 2 and value[0] is _REBUILD:
        return _handle(value[1])
    raise ProtocolError(f"the sender's frame is a {type(value).__name__}")


def _check_sizes(frame: bytes) -> None:
    """Raises for lengths and places beyond the frame.

    ``pickle`` allocates what an opcode says before it looks whether so many bytes follow.
    """
    for opcode, argument, _ in pickletools.genops(frame):
        if opcode.name in _PLACES and not 0 <= int(argument or 0) <= len(frame):
            raise ProtocolError(
                f"the sender's frame of {len(frame)} bytes has an object at the place {argument}"
            )


def _handle(arguments: object) -> KnownHandle:
    """The arguments of ``rebuild_cuda_tensor`` for a flat buffer of bytes, and nothing else."""
    if not isinstance(arguments, tuple) or len(arguments) != HANDLE_ARGUMENTS:
        raise ProtocolError("the sender's buffer is not described by 15 arguments")
    tensor, size, stride, offset, storage, dtype, _, handle, total, start = arguments[:10]
    gradient, counter, counter_offset, event, waits = arguments[10:]
    is_flat = (
        tensor is _TENSOR
        and storage in _STORAGES.values()
        and dtype is _BYTE
        and _integers(stride) == (1,)
        and offset == 0
        and gradient is False
    )
    if not is_flat or len(_integers(size)) != 1:
        raise ProtocolError("the sender's buffer is not a flat tensor of bytes")
    are_bytes = all(isinstance(value, bytes) for value in (handle, counter, event))
    if not are_bytes or not isinstance(waits, bool) or len(handle) not in _HANDLE_LENGTHS:
        raise ProtocolError("the handle of the sender's buffer has not the form of torch's")
    return KnownHandle(
        handle,
        _natural(total),
        _natural(start),
        _integers(size)[0],
        counter,
        _natural(counter_offset),
        event,
        waits,
    )


def _row(entry: object) -> TensorRow:
    if not isinstance(entry, dict) or set(entry) != {"name", "dtype", "shape", "offset"}:
        raise ProtocolError("a tensor of the sender is not name, dtype, shape and offset")
    name, shape = entry["name"], _integers(entry["shape"])
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], _Name) else None
    if not isinstance(name, str) or dtype is None:
        raise ProtocolError("a tensor of the sender has no name or no type")
    if dtype.packed > 1 and shape:
        shape = (*shape[:-1], shape[-1] * dtype.packed)
    return TensorRow(name, dtype.name, shape, 0, _natural(entry["offset"]))


def _integers(value: object) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)):
        raise ProtocolError("a shape of the sender is no sequence")
    return tuple(_natural(number) for number in value)


def _natural(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _INTEGER_MAX:
        raise ProtocolError("a number of the sender is none, or out of range")
    return value
