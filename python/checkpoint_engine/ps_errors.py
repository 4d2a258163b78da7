"""What goes wrong in a parameter server; failed updates are ``UpdateError`` as everywhere."""

from __future__ import annotations

from .errors import UpdateError


class ParameterServerError(RuntimeError):
    """The base of everything that ``checkpoint_engine.ps`` raises, but for failed updates."""


class ArgumentError(ParameterServerError, ValueError):
    """An argument, or a variable of the environment, is impossible."""


class CheckpointNameError(ArgumentError):
    """The name of a checkpoint is taken already, or is not registered."""


class FileKindError(ArgumentError):
    """A file is not a safetensors checkpoint."""


class TensorTypeError(ParameterServerError, TypeError):
    """A value is no dense torch tensor, or has a type that the safetensors format lacks."""


class TensorNameError(ArgumentError):
    """The name of a tensor is impossible."""


class SharedMemoryError(ParameterServerError):
    """The tensors do not fit into shared memory, or it cannot be used."""


class MetasError(ArgumentError):
    """Metas cannot be read, or have an unknown form."""


class DaemonError(ParameterServerError):
    """Something is wrong with the daemon of this host."""


class DaemonStartError(DaemonError):
    """The daemon is not found or does not start; the message has the end of its log."""


class DaemonVersionError(DaemonError):
    """The daemon has another version than this package."""


class DaemonLostError(DaemonError):
    """The daemon does not answer, or no longer."""


class DaemonRefusedError(DaemonError):
    """The daemon answered with an error. ``code`` is one of those that its HTTP API lists."""

    def __init__(self, status: int, code: str, message: str, cause: str | None) -> None:
        super().__init__(message if not cause else f"{message}\n{cause}")
        self.status = status
        self.code = code


class RankError(ParameterServerError):
    """Another rank has failed in a step of all. ``rank`` is the one where it began."""

    def __init__(self, rank: int, message: str) -> None:
        super().__init__(message)
        self.rank = rank


class RankFailedError(RankError):
    """Another rank raised an exception; the message repeats it."""


class RankLostError(RankError):
    """The process of another rank has ended."""


class RankDeadlineError(RankError, TimeoutError):
    """Another rank did not come to a step of all in time."""


class RankUpdateError(UpdateError):
    """An update of all ranks failed. ``rank`` is the one where it began, if one is to blame."""

    def __init__(self, message: str, rank: int | None = None) -> None:
        super().__init__(message)
        self.rank = rank
