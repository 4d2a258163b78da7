"""What goes wrong in an update, as the server is told it."""

from __future__ import annotations

import traceback

from . import protocol
from .errors import LoadError


def failure_of(error: BaseException, stage: str) -> protocol.Failure:
    """The message ``error`` that tells of ``error``; of its cause, if the engine raised that."""
    cause = error.__cause__ if isinstance(error, LoadError) else None
    origin = cause or error
    details = "".join(traceback.format_exception(type(origin), origin, origin.__traceback__))
    message = str(error) if cause is None else summary(cause)
    return protocol.failure(stage, message, details)


def summary(error: BaseException) -> str:
    """The type and the text of ``error``."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def drop_locals(error: BaseException) -> None:
    """Ends the life of what the functions that raised ``error`` had in their variables.

    A traceback keeps them, and with them the tensors of the bucket that could not be loaded.
    """
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        current = left.pop()
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            traceback.clear_frames(current.__traceback__)
            left += [current.__cause__, current.__context__]
