"""Why an update failed. Everything that this package raises on purpose is an ``UpdateError``."""

from __future__ import annotations


class UpdateError(RuntimeError):
    """An update failed; the engine may hold a mixture of old and new weights.

    The next successful update of the whole checkpoint overwrites all of them.
    """


class ProtocolError(UpdateError):
    """The server sent something that the protocol does not allow at this point."""


class KnownProtocolError(ProtocolError):
    """The sender speaks the pickle-based protocol of the PyPI package ``checkpoint-engine``."""


class KnownSenderError(KnownProtocolError):
    """Not a failure yet: the first frame is such a sender's, and the worker may serve it."""

    def __init__(self, frame: bytes) -> None:
        super().__init__("the sender speaks the protocol of the PyPI package")
        self.frame = frame


class VersionError(ProtocolError):
    """Server and worker have no version of the protocol in common."""


class DeviceMemoryError(UpdateError):
    """The server's memory on the GPU cannot be opened or closed."""


class SegmentError(UpdateError):
    """A file of the server's shared memory is not the one that the catalog describes."""


class DTypeError(UpdateError):
    """The catalog has a tensor whose element type the installed torch does not have."""


class MemoryHeldError(UpdateError):
    """The load kept a tensor of the server's memory beyond the commit; on a GPU, the release."""


class ServerLostError(UpdateError):
    """The connection to the server does not exist, or no longer."""


class DeadlineError(UpdateError):
    """The server did not send the next message in time."""


class AbortedError(UpdateError):
    """The server ended the update; the message is its reason, which names the culprit."""


class LoadError(UpdateError):
    """The engine's own loader failed on a bucket or at the commit. The cause is its exception."""


class WorkerIdError(UpdateError):
    """The call that started the update has no address for this worker."""
