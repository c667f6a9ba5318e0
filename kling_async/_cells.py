"""
What one cell of a manifest says: a JSON value, or the text by which a table spells it.

Decides types and spellings. What the values may be is decided by the constructors of what they stand for.
"""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final, NoReturn, cast

from attrs import frozen

from ._codec import encode
from ._outputs import END, check_output
from ._refusals import excerpt
from .errors import InvalidInputError
from .points import Point, PointLike, as_points, spelled_point

SEPARATOR: Final = "|"
"""Between several values in one cell of a table. No URL holds it: there it is spelled %7C (RFC 3986)."""
EMPTY: Final[tuple[object, ...]] = (None, "", [], {})
"""What stands in a cell in which nothing is given."""
KEY: Final = rf"^(?!\s)[^\x00-\x1f\x7f-\x9f]+(?<!\s){END}"
"""A key as JSON Schema can say it."""
FRAME: Final = rf"^(0|[1-9][0-9]{{0,8}}){END}"
"""A frame index as the name of a JSON object's member."""

_UNSENDABLE = re.compile("[\0\ud800-\udfff]")
_DIGITS_MOST = 20


@frozen
class Unreadable:
    """
    A cell that holds no value at all.
    """

    reason: str
    """Why."""


def read_json(text: str) -> object:
    """
    JSON, read as strictly as it was meant: no name twice, no NaN, no number that cannot be sent.

    Args:
        text: One value.

    Raises:
        ValueError: It is no such JSON; the message says why and where.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """
    A mapping from pairs.

    Args:
        pairs: Names and values.

    Raises:
        ValueError: A name stands twice, so one of its values would be lost.
    """
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"holds the name {excerpt(name, 80)!r} twice")
        found[name] = value
    return found


def _constant(text: str) -> NoReturn:
    raise ValueError(f"holds {text}, which is no JSON number")


def _whole(text: str) -> int:
    if len(text) > _DIGITS_MOST:
        raise ValueError("holds a whole number with too many digits")
    return int(text)


_DECODER = json.JSONDecoder(object_pairs_hook=unique, parse_constant=_constant, parse_int=_whole)


def guess(word: str, among: Iterable[str]) -> str:
    """
    The end of a sentence about a name that is not known.

    Args:
        word: What was given.
        among: What it may have been meant to be.
    """
    near = get_close_matches(word[:80].lower(), list(among), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _kind(value: object) -> str:
    kinds: dict[type, str] = {str: "text", bool: "true or false", list: "a list", dict: "an object", type(None): "null"}
    return kinds.get(type(value), "a number")


def as_text(name: str, value: object) -> str:
    """
    Any text that can be sent.

    Raises:
        InvalidInputError: It is none.
    """
    if not isinstance(value, str):
        quoted = ", so put it in quotes" if type(value) in {int, float} else ""
        raise InvalidInputError(name, f"must be text, not {_kind(value)}{quoted}")
    if _UNSENDABLE.search(value):
        raise InvalidInputError(name, "holds a NUL, a lone surrogate, or bytes that are not UTF-8")
    return value


def as_key(name: str, value: object) -> str:
    """
    A key that nobody takes for another.

    Raises:
        InvalidInputError: It is none.
    """
    text = as_text(name, value)
    if not re.fullmatch(KEY, text):
        reason = "must hold no control character, and no space at its ends, which would make it another key"
        raise InvalidInputError(name, f"{reason}: {excerpt(repr(text), 80)}")
    return text


def as_output(name: str, value: object) -> str:
    """
    The name of a result's file.

    Raises:
        InvalidInputError: It is none.
    """
    return check_output(name, as_text(name, value))


def as_choice(name: str, value: object, *, among: Iterable[str]) -> str:
    """
    One of a few words.

    Raises:
        InvalidInputError: It is none of them; the likeliest is named.
    """
    text = as_text(name, value)
    if text not in among:
        *others, last = among
        known = f"{', '.join(others)} or {last}"
        raise InvalidInputError(name, f"must be {known}, not {excerpt(text, 80)!r}{guess(text, among)}")
    return text


def as_seconds(_name: str, value: object) -> object:
    """
    A duration, for an edit to judge; what counts whole numbers as fractions gets its whole numbers back.
    """
    return int(value) if isinstance(value, float) and value.is_integer() else value


def spelled_seconds(_name: str, text: str) -> object:
    """
    The same from text.
    """
    return text.removesuffix(".0")


def as_switch(name: str, value: object) -> bool:
    """
    True or false.

    Raises:
        InvalidInputError: It is neither.
    """
    if not isinstance(value, bool):
        raise InvalidInputError(name, f"must be true or false, not {_kind(value)}")
    return value


def spelled_switch(name: str, text: str) -> bool:
    """
    The same from text, in any case.

    Raises:
        InvalidInputError: It is neither.
    """
    found = {"true": True, "false": False}.get(text.lower())
    if found is None:
        raise InvalidInputError(name, f"must be true or false, not {excerpt(text, 80)!r}")
    return found


def as_list(name: str, value: object) -> list[str]:
    """
    Texts, none of them empty.

    Raises:
        InvalidInputError: It is none.
    """
    if not isinstance(value, list):
        raise InvalidInputError(name, f'must be a list such as ["hat.png"], not {_kind(value)}')
    listed = [as_text(name, each) for each in value]
    if not all(listed):
        raise InvalidInputError(name, "holds an empty text in place of a URL or a file")
    return listed


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(SEPARATOR)]


def spelled_list(name: str, text: str) -> list[str]:
    """
    The same from text.

    Raises:
        InvalidInputError: One of them is empty.
    """
    return as_list(name, _parts(text))


def as_marks(name: str, value: object) -> dict[int, tuple[Point, ...]]:
    """
    Points by frame index.

    Raises:
        InvalidInputError: It is no such object, or a point lies on no frame.
    """
    if not isinstance(value, dict):
        raise InvalidInputError(name, f'must be an object such as {{"40": [[0.8, 0.53]]}}, not {_kind(value)}')
    found: dict[int, tuple[Point, ...]] = {}
    for frame, listed in value.items():
        if not re.fullmatch(FRAME, frame):
            raise InvalidInputError(name, f"{excerpt(repr(frame), 80)} is no frame index such as 40")
        if not isinstance(listed, list) or not listed:
            raise InvalidInputError(name, f"frame {frame} must hold a list of points such as [[0.8, 0.53]]")
        try:
            found[int(frame)] = as_points(cast("list[PointLike]", listed))
        except InvalidInputError as error:
            raise InvalidInputError(name, f"frame {frame}: {error.field} {error.reason}") from error
    return found


def spelled_marks(name: str, text: str) -> dict[int, list[Point]]:
    """
    The same from text, as `spelled_point`.

    Raises:
        InvalidInputError: A point is spelled otherwise.
    """
    found: dict[int, list[Point]] = {}
    for part in _parts(text):
        frame_index, point = spelled_point(name, part)
        found.setdefault(frame_index, []).append(point)
    return found


def as_object(name: str, value: object) -> dict[str, object]:
    """
    A JSON object that can be sent as it is.

    Raises:
        InvalidInputError: It is none.
    """
    if not isinstance(value, dict):
        raise InvalidInputError(name, f'must be an object such as {{"model_name": "kling-v1-6"}}, not {_kind(value)}')
    try:
        encode(value)
        json.dumps(value, allow_nan=False)  # for what was sent would be null in its place
    except InvalidInputError as error:
        raise InvalidInputError(name, error.reason) from error
    except ValueError as error:
        raise InvalidInputError(name, "holds a number that is not finite") from error
    return value


def spelled_object(name: str, text: str) -> dict[str, object]:
    """
    The same from text.

    Raises:
        InvalidInputError: It is none.
    """
    try:
        value = read_json(text)
    except ValueError as error:
        raise InvalidInputError(name, str(error)) from error
    return as_object(name, value)
