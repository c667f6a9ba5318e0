"""
The table of columns: one source for the reader and the schema.
"""

import re

import pytest

from kling_async import Addition, InvalidInputError, Removal, Swap
from kling_async._cells import Unreadable
from kling_async._columns import COLUMNS, MODES, WORDS, parsed, unknown
from kling_async._ledger import FRAMES_MOST, POINTS_MOST
from kling_async.edits import PROMPT_LIMIT


def test_the_modes_are_those_of_the_edits():
    """
    Each edit mode once.
    """
    assert {kind.edit_mode for kind in (Addition, Swap, Removal)} == MODES.keys()
    assert {word for mode in MODES.values() for word in mode.words} == set(WORDS)


def test_every_column_is_described_and_has_its_limits_from_the_rules():
    """
    One sentence or two each; limits are those that the constructors check.
    """
    assert all(re.fullmatch(r"[a-zA-Z].+\.", column.about, re.DOTALL) for column in COLUMNS.values())
    assert {PROMPT_LIMIT} == {COLUMNS[name].schema["maxLength"] for name in ("prompt", "negative_prompt", *WORDS)}
    points = COLUMNS["points"].schema
    assert (FRAMES_MOST, POINTS_MOST) == (points["maxProperties"], points["additionalProperties"]["maxItems"])


@pytest.mark.parametrize(
    "name, value, spelled, found",
    [
        ("watermark", "true", True, True),
        ("watermark", True, True, True),
        ("images", "a.png|b.png", True, ["a.png", "b.png"]),
        ("images", ["a|b.png"], True, ["a|b.png"]),
        ("what", "a|b", True, "a|b"),
        ("duration", "5.0", True, "5"),
        ("duration", 5.0, False, 5),
    ],
)
def test_text_is_spelled_only_in_tables(name, value, spelled, found):
    """
    What is no text is read as in JSON, wherever it stands.
    """
    assert found == parsed(name, value, spelled=spelled)


@pytest.mark.parametrize(
    "name, value, spelled, said",
    [
        ("watermark", "true", False, "must be true or false, not text"),
        ("images", "a.png", False, "must be a list"),
        ("duration", b"\xff".decode(errors="surrogateescape"), True, "bytes that are not UTF-8"),
        ("what", Unreadable("holds bytes that are not UTF-8"), True, "holds bytes that are not UTF-8"),
        ("mode", 5, False, "must be text"),
        ("edit_mode", "remove", True, "did you mean 'removal'?"),
    ],
)
def test_what_is_spelled_otherwise_is_refused(name, value, spelled, said):
    """
    Under its column.
    """
    with pytest.raises(InvalidInputError, match=re.escape(said)) as refused:
        parsed(name, value, spelled=spelled)
    assert name == refused.value.field


@pytest.mark.parametrize(
    "name, said",
    [
        ("image", "is no column; did you mean 'images'?"),
        ("url", "is no column; did you mean 'video_url'?"),
        ("Key", "is no column; did you mean 'key'?"),
        (" points", "is no column; did you mean 'points'?"),
        ("zzz", "is no column"),
        ("key;video_url", "is no column; the cells of a CSV file are separated by commas"),
        ("key\tvideo_url", "is no column; the cells of a CSV file are separated by commas"),
    ],
)
def test_an_unknown_column_is_told_with_the_likeliest(name, said):
    """
    Or with why the whole header is one.
    """
    assert said == unknown(name)
