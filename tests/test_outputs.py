"""
Names of result files: names on every system, and as many as there are keys.
"""

import re
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given

from kling_async import InvalidInputError
from kling_async._outputs import BYTES_MOST, OUTPUT, check_output, derived_output, folded
from tests.strategies import modest, words


@pytest.mark.parametrize(
    "name",
    [
        "a.mp4",
        "a meadow.mp4",
        "été & Ärger (2).mp4",
        "a.b.mp4",
        "-.mp4",
        "console.mp4",
        "x" * 196 + ".mp4",
    ],
)
def test_a_plain_name_stays_as_it_is(name):
    """
    Spaces, accents and dots are fine.
    """
    assert name == check_output("output", name)
    assert re.search(OUTPUT, name)


@pytest.mark.parametrize(
    "name, said",
    [
        ("../a.mp4", "without folders"),
        ("/tmp/a.mp4", "without folders"),
        ("spring/a.mp4", "without folders"),
        ("spring\\a.mp4", "without folders"),
        ("..", "without folders"),
        (".", "without folders"),
        ("C:a.mp4", "holds one of"),
        ("a:b.mp4", "holds one of"),
        ("a?.mp4", "holds one of"),
        ('"a".mp4', "holds one of"),
        ("a\nb.mp4", "a control character"),
        ("a\x7f.mp4", "a control character"),
        (".mp4", "starts with a space or a dot"),
        (".a.mp4", "starts with a space or a dot"),
        (" a.mp4", "starts with a space or a dot"),
        ("a", "must end in .mp4"),
        ("a.MP4", "must end in .mp4"),
        ("a.mp4 ", "must end in .mp4"),
        ("a.mp4\n", "must end in .mp4"),
        ("a.mov", "must end in .mp4"),
        ("nul.mp4", "a device on Windows"),
        ("CON.mp4", "a device on Windows"),
        ("com1.x.mp4", "a device on Windows"),
        ("LPT\u00b2 .mp4", "a device on Windows"),
        ("x" * 197 + ".mp4", "has 201 bytes, more than 200"),
        ("é" * 99 + ".mp4", "has 202 bytes"),
    ],
)
def test_a_name_that_leads_elsewhere_or_is_none_somewhere_is_refused(name, said):
    """
    Folders, devices, and what some system could not write.
    """
    with pytest.raises(InvalidInputError, match=re.escape(said)) as refused:
        check_output("output", name)
    assert "output" == refused.value.field


@pytest.mark.parametrize(
    "key, name",
    [
        ("clip-1", "clip-1.mp4"),
        ("IMG_0001", "IMG_0001.mp4"),
        ("été 3", "été 3.mp4"),
        ("clip.mp4", "clip.mp4"),
        ("spring/1", "spring-1-b5f66364.mp4"),
        ("../../etc/passwd", "etc-passwd-3754d6cb.mp4"),
        ("nul", "nul-99e62427.mp4"),
        ("?", "8a8de823.mp4"),
        ("été/3", "été-3-7edd1c54.mp4"),
    ],
)
def test_a_key_stands_for_one_name(key, name):
    """
    Itself where it can; else what is left of it and its digest, whatever other keys there are.
    """
    assert name == derived_output(key)


@modest
@given(words)
def test_every_key_gives_a_name_without_a_folder(key):
    """
    On every system, and within its length.
    """
    name = derived_output(key)
    assert name == check_output("output", name)
    assert (name, name) == (PurePosixPath(name).name, PureWindowsPath(name).name)
    assert len(name.encode()) <= BYTES_MOST


def test_a_long_key_is_cut_and_told_by_its_digest():
    """
    Two that begin alike stay two; a character is never cut in halves.
    """
    first, second = derived_output("é" * 200 + "/1"), derived_output("é" * 200 + "/2")
    assert first != second
    assert re.fullmatch(r"é{40}-[0-9a-f]{8}\.mp4", first)


def test_names_that_differ_in_case_or_composition_are_one():
    """
    As on macOS and Windows.
    """
    assert folded("Été.mp4") == folded("e\u0301t\u00e9.mp4")
    assert folded("STRASSE.mp4") == folded("straße.mp4")
    assert folded("a.mp4") != folded("b.mp4")
