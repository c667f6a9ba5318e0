"""
Points: exact fractions, refused where they cannot be meant.
"""

import math
import pickle
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import InvalidInputError, Point
from kling_async.points import as_points, spelled_point
from tests.strategies import fractions, modest


@pytest.mark.parametrize(
    "value, reason",
    [
        pytest.param(math.nan, "finite", id="B1"),
        pytest.param(math.inf, "finite", id="B2"),
        pytest.param(-math.inf, "finite", id="B2-negative"),
        pytest.param(10**400, "finite", id="B2-beyond-floats"),
        pytest.param(1.0000001, "from 0 to 1", id="B4"),
        pytest.param(-1e-9, "from 0 to 1", id="B4-negative"),
        pytest.param(True, "a number", id="B6"),
        pytest.param(False, "a number", id="B6-false"),
        pytest.param("0.5", "a number", id="B7-text"),
        pytest.param(Decimal("0.5"), "a number", id="B7-decimal"),
        pytest.param(None, "a number", id="B7-none"),
        pytest.param(640, "divide by width and height", id="B9"),
    ],
)
def test_a_coordinate_that_is_no_fraction_is_refused(value, reason):
    """
    On either axis, by name, with the way out.
    """
    with pytest.raises(InvalidInputError, match=reason) as refused:
        Point(value, 0.5)
    assert "x" == refused.value.field
    with pytest.raises(InvalidInputError, match=reason) as refused:
        Point(0.5, value)
    assert "y" == refused.value.field


@pytest.mark.parametrize(
    "given, kept",
    [
        pytest.param(-0.0, 0.0, id="B3"),
        pytest.param(0, 0.0, id="B5"),
        pytest.param(1, 1.0, id="B5-one"),
        pytest.param(np.float32(0.1), 0.10000000149011612, id="B7-numpy"),
        pytest.param(np.int64(1), 1.0, id="B7-numpy-int"),
        pytest.param(Fraction(1, 2), 0.5, id="B7-fraction"),
        pytest.param(5e-324, 5e-324, id="B8"),
        pytest.param(0.1 + 0.2, 0.30000000000000004, id="B8-digits"),
    ],
)
def test_a_real_number_becomes_a_float_without_a_change(given, kept):
    """
    Spelled as `repr` has it, and minus zero is zero.
    """
    point = Point(given, given)
    assert repr(kept) == repr(point.x) == repr(point.y)
    assert float is type(point.x)


@given(fractions, fractions)
@modest
def test_a_point_keeps_its_very_digits(x, y):
    """
    The service deletes a point by the number that added it.
    """
    point = Point(x, y)
    assert (x, y) == (point.x, point.y)
    assert point == pickle.loads(pickle.dumps(point))
    assert hash(point) == hash(Point(x, y))


def test_a_pixel_becomes_a_fraction():
    """
    Of the frame's width and height, corners included.
    """
    assert Point(0.5, 0.25) == Point.from_pixels(640, 180, width=1280, height=720)
    assert Point(1.0, 1.0) == Point.from_pixels(1280, 720, width=1280, height=720)
    assert Point(0.0, 0.0) == Point.from_pixels(0, 0, width=1280, height=720)


@pytest.mark.parametrize(
    "x, y, width, height, field",
    [
        (1281, 0, 1280, 720, "point"),
        (0, 721, 1280, 720, "point"),
        (-1, 0, 1280, 720, "point"),
        (math.nan, 0, 1280, 720, "point"),
        (0, 0, 0, 720, "width and height"),
        (0, 0, 1280, 0, "width and height"),
        (0, 0, 1280, -1, "width and height"),
    ],
)
def test_a_pixel_outside_of_its_frame_is_refused(x, y, width, height, field):
    """
    Nothing is clamped to the edge.
    """
    with pytest.raises(InvalidInputError) as refused:
        Point.from_pixels(x, y, width=width, height=height)
    assert field == refused.value.field


@given(st.integers(1, 4000), st.integers(1, 4000), st.data())
@modest
def test_every_pixel_of_a_frame_is_a_point(width, height, data):
    """
    No pixel of any frame falls outside of 0 to 1.
    """
    x, y = data.draw(st.integers(0, width)), data.draw(st.integers(0, height))
    assert (x / width, y / height) == (Point.from_pixels(x, y, width=width, height=height).x, y / height)


def test_points_and_pairs_may_stand_side_by_side():
    """
    Points, tuples and lists give the same; none gives none.
    """
    assert (Point(0.1, 0.2), Point(0.3, 0.4), Point(0.5, 0.6)) == as_points([Point(0.1, 0.2), (0.3, 0.4), [0.5, 0.6]])
    assert () == as_points([])


@pytest.mark.parametrize(
    "given, field",
    [
        ([(0.1, 0.2), 0.3], "points[1]"),
        ([(0.1,)], "points[0]"),
        ([(0.1, 0.2, 0.3)], "points[0]"),
        ([None], "points[0]"),
        ((0.5, 0.5), "points[0]"),
        (["xy"], "x"),
        ([{"x": 0.1, "y": 0.2}], "x"),
        ([(2, 0)], "x"),
        (Point(0.1, 0.2), "points"),
        (None, "points"),
        (0.5, "points"),
    ],
)
def test_what_is_no_list_of_pairs_is_refused_by_its_place(given, field):
    """
    A single point or pair, without its list, is the likeliest slip.
    """
    with pytest.raises(InvalidInputError) as refused:
        as_points(given)
    assert field == refused.value.field


def test_a_misspelt_field_is_a_type_error():
    """
    B60: as for any Python call.
    """
    with pytest.raises(TypeError):
        Point(x=0.1, z=0.2)


@pytest.mark.parametrize(
    "text, found",
    [
        ("40:0.80,0.53", (40, Point(0.8, 0.53))),
        (" 0:1,.5\n", (0, Point(1, 0.5))),
        ("007:1e-07,5E-324", (7, Point(1e-07, 5e-324))),
        ("40:-0.0,0", (40, Point(0, 0))),
    ],
)
def test_a_point_is_spelled_with_its_frame(text, found):
    """
    As on the command line, and in the cells of a table.
    """
    assert found == spelled_point("points", text)


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "'' is not FRAME:X,Y, such as 40:0.80,0.53"),
        ("0.8,0.53", "'0.8,0.53' is not FRAME:X,Y"),
        ("40:0.8", "is not FRAME:X,Y"),
        ("-1:0.8,0.5", "is not FRAME:X,Y"),
        ("40:1.,0.5", "is not FRAME:X,Y"),
        ("٤:0.5,0.5", "is not FRAME:X,Y"),
        ("1234567890:0.5,0.5", "is not FRAME:X,Y"),
        ("40:" + "1" * 100_000 + "x,0.5", "is not FRAME:X,Y"),
        ("40:0.8,1.53", "40:0.8,1.53: y must lie from 0 to 1, so divide pixels"),
        ("40:-0.1,0.5", "x must lie from 0 to 1"),
        ("40:1e999,0.5", "x must lie from 0 to 1"),
        ("40:" + "1" * 100_000 + ",0.5", "x must lie from 0 to 1"),
    ],
)
def test_a_point_that_is_spelled_otherwise_is_refused_under_its_name(text, said):
    """
    The option or the column, and how it is spelled; the longest nonsense takes no time.
    """
    with pytest.raises(InvalidInputError) as refused:
        spelled_point("points", text)
    assert "points" == refused.value.field
    assert said in refused.value.reason
    assert len(refused.value.reason) < 200
