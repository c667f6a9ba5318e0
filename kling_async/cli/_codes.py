"""
What a command's end is called: exit codes, and the two errors that only a command line has.

Decides nothing about what is said; that is `_run.py`'s.
"""

from enum import IntEnum

from kling_async.errors import (
    AuthenticationError,
    InvalidInputError,
    KeyConflictError,
    KlingError,
    TransportError,
    UnsupportedError,
)


class Exit(IntEnum):
    """
    The exit codes, as documented.
    """

    DONE = 0
    """Done."""
    FAILED = 1
    """The edit or the task failed."""
    USAGE = 2
    """Wrong usage or input."""
    CREDENTIALS = 3
    """No usable credentials."""
    UNREACHABLE = 4
    """The service could not be reached."""
    INTERRUPTED = 130
    """Interrupted."""


class UsageError(KlingError):
    """
    The command cannot be carried out as it was given.
    """


class CredentialsError(KlingError):
    """
    The environment holds no usable credentials.
    """


def exit_code(error: KlingError | OSError) -> Exit:
    """
    The exit code that stands for an error.

    Args:
        error: What ended the command.
    """
    match error:
        case CredentialsError() | AuthenticationError():
            return Exit.CREDENTIALS
        case UsageError() | InvalidInputError() | KeyConflictError() | UnsupportedError():
            return Exit.USAGE
        case TransportError():
            return Exit.UNREACHABLE
    return Exit.FAILED
