"""Why the transfer agent cannot do what it was asked."""

from __future__ import annotations


class TransferError(RuntimeError):
    """A request cannot be done; the agent goes on with the next one."""


class TransferSetupError(TransferError):
    """The agent cannot start; the message says what to install or to set."""


class TransferStalledError(TransferError):
    """A read came to no end: its memory may still be written to, for as long as the agent lives."""
