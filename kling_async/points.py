"""
Points: places on a frame, as fractions.

They are sent exactly as given, since deleting one must repeat the very number that added it.
"""

import math
import numbers
import re
from collections.abc import Iterable, Sequence

from attrs import field, frozen

from .errors import InvalidInputError

__all__ = ("Point",)

_NUMBER = r"(-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"
_SPELLED = rf"([0-9]{{1,9}}):{_NUMBER},{_NUMBER}"
"""Nine digits are more frames than any clip has, and fewer than `int` refuses."""


def _fraction(name: str, value: object) -> float:
    """One coordinate, exact; numpy's floats are real numbers of their own."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidInputError(name, f"must be a number from 0 to 1, not {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidInputError(name, f"must be finite, not {number}")
    if not 0 <= number <= 1:
        hint = ": that looks like pixels, divide by width and height or use Point.from_pixels" if number > 1 else ""
        raise InvalidInputError(name, f"must lie from 0 to 1, not {number!r}{hint}")
    return number + 0.0  # -0.0 and 0.0 are one point, and must be spelled alike


def _x(value: float) -> float:
    return _fraction("x", value)


def _y(value: float) -> float:
    return _fraction("y", value)


@frozen
class Point:
    """
    A place on a frame, as fractions of its width and height; (0, 0) is the top left.

    The service says "[0, 1] is the top left", a slip that its users report as [0, 0].

    Example:
        >>> Point.from_pixels(640, 360, width=1280, height=720)
        Point(x=0.5, y=0.5)

    Raises:
        InvalidInputError: A coordinate is no finite number from 0 to 1.
    """

    x: float = field(converter=_x)
    """From 0 at the left to 1 at the right."""
    y: float = field(converter=_y)
    """From 0 at the top to 1 at the bottom."""

    @classmethod
    def from_pixels(cls, x: float, y: float, *, width: int, height: int) -> "Point":
        """
        The point at a pixel of a frame of this size.

        Raises:
            InvalidInputError: The pixel lies outside of the frame.
        """
        if width <= 0 or height <= 0:
            raise InvalidInputError("width and height", f"must be positive pixels, not {width!r} x {height!r}")
        if not (0 <= x <= width and 0 <= y <= height):
            raise InvalidInputError("point", f"pixel ({x!r}, {y!r}) lies outside of {width} x {height}")
        return cls(x / width, y / height)


PointLike = Point | tuple[float, float]
"""A Point, or a pair of fractions."""


def as_points(points: Sequence[PointLike]) -> tuple[Point, ...]:
    """
    Points from Points or pairs.

    Raises:
        InvalidInputError: One of them is neither, or its coordinates are wrong.
    """
    listed: object = points
    if not isinstance(listed, Iterable):
        raise InvalidInputError("points", f"must be a list of Points or pairs (x, y), not {points!r}")
    found = []
    for index, given in enumerate(points):
        if isinstance(given, Point):
            found.append(given)
            continue
        try:
            x, y = given
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"points[{index}]", f"must be a Point or a pair (x, y), not {given!r}") from error
        found.append(Point(x, y))
    return tuple(found)


def spelled_point(name: str, text: str) -> tuple[int, Point]:
    """
    A frame index and a point from `FRAME:X,Y`, as command lines and tables spell them.

    Args:
        name: The option or column, for the error.
        text: What was given.

    Raises:
        InvalidInputError: It is spelled otherwise, or is no place on a frame.
    """
    found = re.fullmatch(_SPELLED, text.strip())
    if found is None:
        raise InvalidInputError(name, f"{text!r:.80} is not FRAME:X,Y, such as 40:0.80,0.53")
    try:
        return int(found[1]), Point(float(found[2]), float(found[3]))
    except InvalidInputError as error:
        reason = f"{text:.80}: {error.field} must lie from 0 to 1, so divide pixels by the frame's width and height"
        raise InvalidInputError(name, reason) from error
