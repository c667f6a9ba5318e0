"""
What one cell says: JSON as strict as it is sent, and the spellings of tables.
"""

import math
import re

import pytest

from kling_async import InvalidInputError, Point
from kling_async import _cells as cells


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "is not JSON: Expecting value at character 1"),
        ('{"a": 1,}', "is not JSON: "),
        ('{"a": "\0"}', "is not JSON: Invalid control character at character 8"),
        ('{"a": 1} {}', "is not JSON: Extra data at character 10"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "holds the name 'c' twice"),
        ("[NaN]", "holds NaN, which is no JSON number"),
        ("[-Infinity]", "holds -Infinity, which is no JSON number"),
        ("9" * 5000, "holds a whole number with too many digits"),
        ("[" * 200_000, "is nested too deeply"),
    ],
)
def test_json_that_would_lose_something_is_refused(text, said):
    """
    Names that stand twice, numbers that are none, and whatever is broken, with its place.
    """
    with pytest.raises(ValueError, match=re.escape(said)):
        cells.read_json(text)


def test_json_is_read_with_exact_numbers():
    """
    Whole numbers stay whole, fractions are the nearest float.
    """
    assert {"a": [0.1, 2**63, -0.0], "b": None} == cells.read_json('{"a": [0.1, 9223372036854775808, -0.0], "b": null}')


@pytest.mark.parametrize(
    "read, value, said",
    [
        (cells.as_text, 7, "must be text, not a number, so put it in quotes"),
        (cells.as_text, 0.5, "must be text, not a number, so put it in quotes"),
        (cells.as_text, True, "must be text, not true or false"),
        (cells.as_text, None, "must be text, not null"),
        (cells.as_text, ["a"], "must be text, not a list"),
        (cells.as_text, {}, "must be text, not an object"),
        (cells.as_text, "a\0b", "holds a NUL"),
        (cells.as_text, "a\ud800", "lone surrogate"),
        (cells.as_text, b"\xff".decode(errors="surrogateescape"), "bytes that are not UTF-8"),
        (cells.as_key, " a", "no space at its ends"),
        (cells.as_key, "a\u3000", "no space at its ends"),
        (cells.as_key, "a\n", "no control character"),
        (cells.as_key, "a\tb", "no control character"),
        (cells.as_key, 1, "must be text"),
        (cells.as_output, "a.mov", "must end in .mp4"),
        (cells.as_output, 1, "must be text"),
        (cells.as_switch, 1, "must be true or false, not a number"),
        (cells.as_switch, "true", "must be true or false, not text"),
        (cells.spelled_switch, "yes", "must be true or false, not 'yes'"),
        (cells.as_list, "a.png", 'must be a list such as ["hat.png"], not text'),
        (cells.as_list, ["a.png", 7], "must be text, not a number"),
        (cells.as_list, ["a.png", ""], "holds an empty text"),
        (cells.spelled_list, "a.png|", "holds an empty text"),
        (cells.as_marks, [[0.8, 0.53]], 'must be an object such as {"40": [[0.8, 0.53]]}, not a list'),
        (cells.as_marks, {"040": [[0.8, 0.5]]}, "'040' is no frame index such as 40"),
        (cells.as_marks, {"-1": [[0.8, 0.5]]}, "'-1' is no frame index"),
        (cells.as_marks, {"1" * 10: [[0.8, 0.5]]}, "is no frame index"),
        (cells.as_marks, {"40": []}, "frame 40 must hold a list of points"),
        (cells.as_marks, {"40": {"x": 1}}, "frame 40 must hold a list of points"),
        (cells.as_marks, {"40": [0.8, 0.5]}, "frame 40: points[0] must be a Point or a pair"),
        (cells.as_marks, {"40": [["0.8", "0.5"]]}, "frame 40: x must be a number from 0 to 1, not '0.8'"),
        (cells.as_marks, {"40": [[0.8, 1.5]]}, "frame 40: y must lie from 0 to 1, not 1.5: that looks like pixels"),
        (cells.as_marks, {"40": [[math.inf, 0.5]]}, "frame 40: x must be finite"),
        (cells.spelled_marks, "40:0.8,0.5|", "'' is not FRAME:X,Y"),
        (cells.spelled_marks, "40:0.8,0.5;41:0.8,0.5", "is not FRAME:X,Y"),
        (cells.as_object, "{}", "must be an object such as"),
        (cells.as_object, {"a": 2**64}, "cannot be sent as JSON: Integer exceeds 64-bit range"),
        (cells.as_object, {"a": "\ud800"}, "cannot be sent as JSON"),
        (cells.as_object, {"a": [math.inf]}, "holds a number that is not finite"),
        (cells.spelled_object, "[]", "must be an object such as"),
        (cells.spelled_object, "{'a': 1}", "is not JSON: "),
    ],
)
def test_what_a_cell_cannot_say_is_refused_under_its_column(read, value, said):
    """
    With what may stand there instead.
    """
    with pytest.raises(InvalidInputError, match=re.escape(said)) as refused:
        read("column", value)
    assert "column" == refused.value.field


@pytest.mark.parametrize(
    "read, value, found",
    [
        (cells.as_text, " a\r\nb ", " a\r\nb "),
        (cells.as_key, "spring/1 ü", "spring/1 ü"),
        (cells.as_output, "a.mp4", "a.mp4"),
        (cells.as_switch, False, False),
        (cells.spelled_switch, "TRUE", True),
        (cells.as_seconds, 5.0, 5),
        (cells.as_seconds, 5.5, 5.5),
        (cells.as_seconds, "5", "5"),
        (cells.spelled_seconds, "10.0", "10"),
        (cells.as_list, ["a|b.png"], ["a|b.png"]),
        (cells.spelled_list, "a.png | https://example.com/b.png", ["a.png", "https://example.com/b.png"]),
        (cells.as_marks, {"40": [[0.8, 1]], "0": [[0, 0]]}, {40: (Point(0.8, 1),), 0: (Point(0, 0),)}),
        (
            cells.spelled_marks,
            "40:0.8,0.53 | 8:1,0|40:0.9,0.57",
            {40: [Point(0.8, 0.53), Point(0.9, 0.57)], 8: [Point(1, 0)]},
        ),
        (cells.as_object, {"a": {"b": [None]}}, {"a": {"b": [None]}}),
        (cells.spelled_object, '{"model_name": "kling-v1-6"}', {"model_name": "kling-v1-6"}),
    ],
)
def test_a_cell_says_the_same_in_either_spelling(read, value, found):
    """
    A JSON value, or the text of a table.
    """
    again = read("column", value)
    assert (found, type(found)) == (again, type(again))


def test_a_choice_names_the_likeliest():
    """
    All of them, and the one that was most likely meant.
    """
    assert "swap" == cells.as_choice("edit_mode", "swap", among=["addition", "swap", "removal"])
    with pytest.raises(InvalidInputError) as refused:
        cells.as_choice("edit_mode", "Remove", among=["addition", "swap", "removal"])
    assert "must be addition, swap or removal, not 'Remove'; did you mean 'removal'?" == refused.value.reason


def test_nothing_is_guessed_where_nothing_is_near():
    """
    However long it is.
    """
    assert "" == cells.guess("x" * 100_000, ["prompt", "points"])
    assert "; did you mean 'points'?" == cells.guess("Point", ["prompt", "points"])
