"""JSON as the protocol has it: no duplicate keys, no floats, no numbers beyond 2^53 - 1."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn

from .errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTEGER_MAX = 2**53 - 1
STRING_BYTES_MAX = 64 << 10


def _object(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ProtocolError(f"the key {twice!r} stands twice in one object")
    return result


def _integer(text: str) -> int:
    # 16 digits are enough for 2^53 - 1, and keep the conversion of hostile numbers cheap.
    if text.startswith("-") or len(text) > 16 or int(text) > INTEGER_MAX:
        raise ProtocolError(f"the number {text[:32]} is outside 0 … 2^53 - 1")
    return int(text)


def _no_fraction(text: str) -> NoReturn:
    raise ProtocolError(f"{text[:32]} is not an integer")


def parse_json(data: bytes, bytes_max: int, what: str) -> object:
    """The value that ``data`` holds. Raises ``ProtocolError``, which calls it ``what``."""
    if len(data) > bytes_max:
        raise ProtocolError(f"{what} has {len(data)} bytes; at most {bytes_max} are allowed")
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_no_fraction,
            parse_constant=_no_fraction,
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ProtocolError(f"{what} is not JSON in UTF-8: {error}") from error


def encode_json(value: object) -> bytes:
    """``value`` in the one form that the protocol allows."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def utf8_length(text: str) -> int:
    """How many bytes ``text`` has. Raises ``ProtocolError`` for half of a surrogate pair."""
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise ProtocolError("a string holds half of a surrogate pair") from error


class Fields:
    """The keys of one object, taken one after the other; what is left at the end is an error."""

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise ProtocolError(f"{what} is {_kind(value)}, not an object")
        self._values: dict[str, object] = value
        self._what = what

    def _take(self, key: str) -> object:
        if key not in self._values:
            raise ProtocolError(f"{self._what} lacks the key {key!r}")
        return self._values.pop(key)

    def integer(self, key: str, least: int = 0, most: int = INTEGER_MAX) -> int:
        """An integer in ``least … most``."""
        value = self._take(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, value, "an integer")
        if not least <= value <= most:
            raise ProtocolError(f"{key!r} of {self._what} is {value}; allowed: {least} … {most}")
        return value

    def string(self, key: str, bytes_max: int = STRING_BYTES_MAX) -> str:
        """A string of at most ``bytes_max`` bytes in UTF-8."""
        value = self._take(key)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        if utf8_length(value) > bytes_max:
            raise ProtocolError(f"{key!r} of {self._what} is longer than {bytes_max} bytes")
        return value

    def array(self, key: str) -> list[object]:
        """An array of anything."""
        value = self._take(key)
        if not isinstance(value, list):
            raise self._wrong(key, value, "an array")
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """An array of integers."""
        values = self.array(key)
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool):
                raise self._wrong(key, value, "an array of integers")
        return tuple(value for value in values if isinstance(value, int))

    def one_of(self, key: str, allowed: tuple[str, ...]) -> str:
        """A string out of a closed list."""
        value = self.string(key)
        if value not in allowed:
            raise ProtocolError(
                f"{key!r} of {self._what} is {value[:64]!r}; allowed: {', '.join(allowed)}"
            )
        return value

    def finish(self) -> None:
        """Raises when a key was not taken."""
        if self._values:
            raise ProtocolError(f"{self._what} has the unknown key {next(iter(self._values))!r}")

    def _wrong(self, key: str, value: object, expected: str) -> ProtocolError:
        return ProtocolError(f"{key!r} of {self._what} is {_kind(value)}, not {expected}")


def _kind(value: object) -> str:
    kinds = {bool: "a boolean", int: "an integer", str: "a string", list: "an array"}
    return "null" if value is None else kinds.get(type(value), "an object")
