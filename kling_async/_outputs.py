"""
Names of result files: which may be given, which one a key stands for, and which are the same on some file system.

Decides names alone; no file is looked at. A name that is taken is a name on every system, so that a folder of
results can be copied to any other.
"""

import hashlib
import re
import unicodedata

from ._refusals import excerpt
from .errors import InvalidInputError

SUFFIX = ".mp4"
END = r"(?![\s\S])"
"""The end of a text in a pattern of JSON Schema; where Python reads it, `$` would let a last newline pass."""
OUTPUT = rf'^(?![\s.])[^<>:"/\\|?*\x00-\x1f\x7f-\x9f]+\.mp4{END}'
"""A file name as JSON Schema can say it."""
BYTES_MOST = 200
"""Of 255 that file systems allow; files beside it are called after it."""

_NAME = re.compile(OUTPUT)
# With any ending: https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *(\..*)?", re.IGNORECASE)
_UNFIT = re.compile(r"[^\w-]+")
_STEM_MOST = 80


def check_output(name: str, value: str) -> str:
    """
    A file name that is one on every system, and leads nowhere else.

    Args:
        name: The column, for the error.
        value: What was given.

    Raises:
        InvalidInputError: It has a folder, a character that some system refuses, or another ending.
    """
    if "/" in value or "\\" in value or value in {".", ".."}:
        raise InvalidInputError(name, f"must be a file name without folders, not {excerpt(value, 80)!r}")
    if not value.endswith(SUFFIX):
        raise InvalidInputError(name, f"must end in {SUFFIX}, not be {excerpt(value, 80)!r}")
    if not _NAME.fullmatch(value):
        reason = 'starts with a space or a dot, or holds one of < > : " | ? * or a control character'
        raise InvalidInputError(name, f"{excerpt(value, 80)!r} {reason}")
    if _RESERVED.fullmatch(value):
        raise InvalidInputError(name, f"{value!r} is the name of a device on Windows")
    size = len(value.encode())
    if size > BYTES_MOST:
        raise InvalidInputError(name, f"has {size} bytes, more than {BYTES_MOST}")
    return value


def derived_output(key: str) -> str:
    """
    The file name that a key stands for, whatever other keys there are.

    The key itself where it can be a name; else what can stand of it, and eight digits of its digest.

    Args:
        key: The key of a job.
    """
    plain = key if key.endswith(SUFFIX) else key + SUFFIX
    try:
        return check_output("key", plain)
    except InvalidInputError:
        fit = _UNFIT.sub("-", key).strip("-").encode()[:_STEM_MOST].decode(errors="ignore")
        return "-".join(filter(None, (fit, hashlib.sha256(key.encode()).hexdigest()[:8]))) + SUFFIX


def folded(output: str) -> str:
    """
    What two names have in common that are one file where case, or how an accent is composed, makes no difference.

    Args:
        output: A file name.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", output).casefold())
