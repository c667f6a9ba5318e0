"""
Ids: what may stand in a path or a body, and how the id of a paid create is drawn.

Ids are text, for 18 digits do not survive a relay that reads numbers as floats.
"""

import os
import re
from base64 import b32encode

from .errors import InvalidInputError

EXTERNAL_LIMIT = 64
PREFIX = "ka1-"
_LETTERS = b"abcdefghijklmnopqrstuvwxyz234567" * 8
"""Of base32, for each byte the one that its last five bits stand for."""
_EXTERNAL = re.compile(r"[A-Za-z0-9._-]+")
_PLACEHOLDER = re.compile(r"<.*>|\{.*\}")


def check_id(name: str, value: object) -> str:
    """
    An id that the service gave.

    Raises:
        InvalidInputError: It is no text, empty, a placeholder of the documentation, or cannot stand in a path.
    """
    if not isinstance(value, str):
        raise InvalidInputError(name, f"must be text, not {type(value).__name__}: ids do not fit into numbers")
    if value.isalnum():
        return value
    if not value or value != value.strip() or value in {".", ".."}:
        raise InvalidInputError(name, f"must be the service's id, not {value!r}")
    if not value.isprintable():
        raise InvalidInputError(name, "holds a control character")
    if _PLACEHOLDER.fullmatch(value):
        raise InvalidInputError(name, f"{value!r} is the documentation's placeholder: put the real id there")
    return value


def check_external_task_id(value: object) -> str:
    """
    An id of the caller's for one paid create.

    Raises:
        InvalidInputError: It is empty, longer than 64, all digits, or has other characters than A-Z a-z 0-9 . _ -
    """
    if not isinstance(value, str) or not _EXTERNAL.fullmatch(value) or value in {".", ".."}:
        raise InvalidInputError("external_task_id", f"must be made of A-Z a-z 0-9 . _ - alone, not {value!r:.80}")
    if len(value) > EXTERNAL_LIMIT:
        raise InvalidInputError("external_task_id", f"has {len(value)} characters, more than {EXTERNAL_LIMIT}")
    if value.isdigit():
        raise InvalidInputError("external_task_id", "looks like a task_id, being all digits: put a letter before it")
    return value


def external_id(entropy: bytes) -> str:
    """
    An external_task_id from at least 20 bytes, drawn or derived.
    """
    return PREFIX + b32encode(entropy)[:32].decode().lower()


def drawn_id() -> str:
    """
    An external_task_id for a paid run that nobody named.
    """
    return PREFIX + os.urandom(32).translate(_LETTERS).decode()
