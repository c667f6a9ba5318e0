"""
From cells to a job: every fault of a row at once, each under its column.
"""

import re
import warnings

import pytest

from kling_async import Addition, Image, Job, KlingWarning, Point, Removal, Swap
from kling_async import _rows as rows
from kling_async._rows import ManifestRow, RowReader
from kling_async.pictures import BYTES_LIMIT
from tests.filing import ADDITION, CLIP, REMOVAL, SWAP
from tests.strategies import png

URL = "https://example.com/a.png"
CAT, HAT = Image.from_url("https://example.com/cat.png"), Image.from_url("https://example.com/hat.png")


def read(cells, folder, *, spelled=False, local=True):
    return RowReader(folder, spelled, local).read((7, cells))


def faults(cells, folder, **named):
    """
    Column and reason of each, all of row 7.
    """
    found = read(cells, folder, **named)
    assert isinstance(found, list)
    assert {7} == {fault.row for fault in found}
    return [(fault.column, fault.reason) for fault in found]


@pytest.mark.parametrize(
    "cells, job",
    [
        (REMOVAL, Job(CLIP, marks={40: [(0.8, 0.53)]}, edit=Removal.of("the bird"), key="a")),
        (SWAP, Job(CLIP, marks={40: [(0.8, 0.53)]}, edit=Swap.of("the rabbit", "the cat", CAT), key="b")),
        (ADDITION, Job(video_id="v-1", marks={}, edit=Addition.of("the hat", HAT), key="c")),
        (
            {
                **REMOVAL,
                "negative_prompt": "blur",
                "mode": "pro",
                "duration": "10",
                "watermark": False,
                "extra": {"model_name": "kling-v1-6"},
            },
            Job(
                CLIP,
                marks={40: [(0.8, 0.53)]},
                edit=Removal.of(
                    "the bird",
                    negative_prompt="blur",
                    mode="pro",
                    duration=10,
                    watermark=False,
                    extra={"model_name": "kling-v1-6"},
                ),
                key="a",
            ),
        ),
    ],
)
def test_a_row_is_a_job(tmp_path, cells, job):
    """
    The provider's template with its words, the overrides, and a file called after the key.
    """
    assert ManifestRow(7, job, f"{job.key}.mp4") == read(cells, tmp_path)


@pytest.mark.parametrize(
    "cells, edit",
    [
        (REMOVAL, Removal(prompt="Hide it in <<<video_1>>>")),
        (SWAP, Swap(prompt="Hide it in <<<video_1>>>", image=CAT)),
        (ADDITION, Addition(prompt="Hide it in <<<video_1>>>", images=[HAT])),
    ],
)
def test_a_prompt_stands_for_the_words(tmp_path, cells, edit):
    """
    As it is, in each mode.
    """
    own = {name: value for name, value in cells.items() if name not in {"what", "old", "new"}}
    assert edit == read({**own, "prompt": edit.prompt}, tmp_path).job.edit


@pytest.mark.parametrize("nothing", [None, "", [], {}])
def test_an_empty_cell_is_not_given(tmp_path, nothing):
    """
    Nulls and empty text, lists and objects alike.
    """
    empty = dict.fromkeys(["output", "video_id", "prompt", "old", "new", "images", "mode", "extra"], nothing)
    assert read(REMOVAL, tmp_path) == read({**REMOVAL, **empty}, tmp_path)
    assert [("key", "is missing: every row needs it")] == faults({**REMOVAL, "key": nothing}, tmp_path)


def test_an_output_of_its_own(tmp_path):
    """
    In place of the one that follows from the key.
    """
    assert "b.mp4" == read({**REMOVAL, "output": "b.mp4"}, tmp_path).output


def test_every_fault_of_a_row_is_told_at_once(tmp_path):
    """
    What stands nowhere, what is no value, what does not belong there, and what a constructor refuses.
    """
    cells = {
        "key": "a\n",
        "output": "../a.mp4",
        "video_url": "clip.mp4",
        "edit_mode": "swap",
        "what": "it",
        "old": "the rabbit",
        "images": ["none.png"],
        "points": {"40": [[800, 530]]},
        "negative_prompt": "x" * 2501,
        "mode": "best",
        "duration": 7,
        "watermark": "yes",
        "extra": {"prompt": "it"},
        "weather": "fine",
    }
    told = [
        ("key", "must hold no control character"),
        ("output", "must be a file name without folders"),
        ("images", "none.png: cannot be read: No such file"),
        ("points", "frame 40: x must lie from 0 to 1, not 800.0"),
        ("watermark", "must be true or false, not text"),
        ("weather", "is no column"),
        ("what", "is not for this: a swap takes old and new, or a prompt of your own words"),
        ("new", "is missing: a swap takes old and new"),
        ("video_url", "must be a public https URL, not a relative path"),
        ("negative_prompt", "has 2501 characters, more than 2500"),
        ("mode", "must be 'std' or 'pro', not 'best'"),
        ("duration", "must be 5 or 10 seconds, or None for what the clip allows, not 7"),
        ("extra", "'prompt' has a field of its own"),
    ]
    found = faults(cells, tmp_path)
    assert [name for name, _ in told] == [name for name, _ in found]
    for (_, said), (_, reason) in zip(told, found, strict=True):
        assert reason.startswith(said)


@pytest.mark.parametrize(
    "base, change, told",
    [
        (REMOVAL, {"video_url": None}, [("video_url", "is missing: give it or video_id")]),
        (REMOVAL, {"video_id": "v-1"}, [("video_id", "stands beside video_url: give exactly one of them")]),
        (ADDITION, {"video_id": " v"}, [("video_id", "must be the service's id, not ' v'")]),
        (REMOVAL, {"edit_mode": None}, [("edit_mode", "is missing: every row needs it")]),
        (REMOVAL, {"edit_mode": "remove", "prompt": "<<<image_1>>>"}, [("edit_mode", "must be addition, swap or")]),
        (REMOVAL, {"edit_mode": "remove", "duration": 7}, [("edit_mode", "must be"), ("duration", "must be 5 or 10")]),
        (REMOVAL, {"what": None}, [("what", "is missing: a removal takes what, or a prompt of your own words")]),
        (REMOVAL, {"what": " "}, [("what", "must name it, such as 'the bird', not ' '")]),
        (REMOVAL, {"prompt": "hide <<<video_1>>>"}, [("what", "stands beside a prompt, which says it all")]),
        (REMOVAL, {"old": "it"}, [("old", "is not for this: a removal takes what")]),
        (
            REMOVAL,
            {"images": [URL]},
            [("images", "is not for this: a removal takes no pictures")],
        ),
        (REMOVAL, {"points": None}, [("points", "is missing: a removal needs marked points")]),
        (REMOVAL, {"points": {"0": [[n / 20, 0.5] for n in range(11)]}}, [("points", "holds 11 points, more than 10")]),
        (REMOVAL, {"points": {"0": [[0.5, 0.5]] * 2}}, [("points", "holds (0.5, 0.5) twice")]),
        (REMOVAL, {"points": {str(n): [[0.5, 0.5]] for n in range(11)}}, [("points", "holds 11 frames")]),
        (REMOVAL, {"extra": ["a"]}, [("extra", "must be an object")]),
        (REMOVAL, {"duration": True}, [("duration", "must be 5 or 10 seconds")]),
        (REMOVAL, {"duration": [5]}, [("duration", "must be 5 or 10 seconds")]),
        (SWAP, {"old": None, "new": None}, [("old", "is missing: a swap takes"), ("new", "is missing: a swap takes")]),
        (SWAP, {"images": None}, [("images", "is missing: a swap needs a picture of what comes")]),
        (SWAP, {"images": [URL] * 2}, [("images", "holds 2 pictures, but a swap takes 1")]),
        (
            SWAP,
            {"old": None, "new": None, "prompt": "<<<video_1>>>, <<<image_2>>>"},
            [("prompt", "<<<image_2>>> names")],
        ),
        (
            ADDITION,
            {"images": [URL] * 3},
            [("images", "holds 3 pictures, but an addition")],
        ),
        (
            ADDITION,
            {"what": None, "prompt": "<<<video_1>>> <<<image_2>>>", "images": ["none.png"] * 2},
            [("images", "none.png: cannot be read")],
        ),
        (SWAP, {"old": "x" * 1500, "new": "y" * 1500}, [("prompt", "has 3048 characters, more than 2500")]),
        (REMOVAL, {"what": "x" * 2500}, [("what", "has 2526 characters, more than 2500")]),
        (REMOVAL, {"key": 7, "video_url": None}, [("key", "must be text, not a number"), ("video_url", "is missing")]),
    ],
)
def test_each_fault_has_its_column(tmp_path, base, change, told):
    """
    And no other column is blamed for it.
    """
    cells = {name: value for name, value in {**base, **change}.items() if value is not None}
    found = faults(cells, tmp_path)
    assert [name for name, _ in told] == [name for name, _ in found]
    for (_, said), (_, reason) in zip(told, found, strict=True):
        assert reason.startswith(said)


def test_a_reason_is_short_and_holds_no_key(tmp_path):
    """
    However long the cell is.
    """
    ((_, reason),) = faults({**REMOVAL, "duration": "sk-4711" + "x" * 100_000}, tmp_path)
    assert len(reason) <= 300
    assert "4711" not in reason


def test_a_warning_is_a_fault_where_the_program_makes_errors_of_them(tmp_path):
    """
    Else it is a warning.
    """
    cells = {name: value for name, value in REMOVAL.items() if name != "what"} | {"prompt": "hide the bird"}
    ((column, reason),) = faults(cells, tmp_path)
    assert ("prompt", "the prompt does not name <<<video_1>>>; the service advises to") == (column, reason)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert "hide the bird" == read(cells, tmp_path).job.edit.prompt
    assert [KlingWarning] == [each.category for each in told]


def test_keys_and_files_are_one_row_s_alone(tmp_path):
    """
    Both rows are named; files that differ in case alone are one. A faulty row has its key all the same.
    """
    reader = RowReader(tmp_path, spelled=False, local=True)
    reader.read((1, {**REMOVAL, "duration": 7}))
    assert "b.mp4" == reader.read((2, {**REMOVAL, "key": "b"})).output
    (key,) = reader.read((3, REMOVAL))
    assert (3, "key", "'a' is the key of row 1 too, and a key names one paid run") == (key.row, key.column, key.reason)
    (output,) = reader.read((4, {**REMOVAL, "key": "B"}))
    said = "'B.mp4' is the file of row 2 too where case makes no difference: give another"
    assert (4, "output", said) == (output.row, output.column, output.reason)
    assert "c.mp4" == reader.read((5, {**REMOVAL, "key": "B.", "output": "c.mp4"})).output


def test_a_file_that_was_refused_takes_no_name(tmp_path):
    """
    Nor does the one that would follow from its key.
    """
    reader = RowReader(tmp_path, spelled=False, local=True)
    assert ["output"] == [fault.column for fault in reader.read((1, {**REMOVAL, "output": "a/b.mp4"}))]
    assert "a.mp4" == reader.read((2, {**REMOVAL, "key": "b", "output": "a.mp4"})).output


def test_a_picture_is_a_file_beside_the_manifest_or_a_url(tmp_path):
    """
    Both at once in an addition; a table separates them.
    """
    (tmp_path / "pictures").mkdir()
    data = png(300, 300)
    (tmp_path / "pictures" / "hat.png").write_bytes(data)
    cells = {**ADDITION, "images": "pictures/hat.png | https://example.com/cat.png"}
    assert (Image.from_bytes(data), CAT) == read(cells, tmp_path, spelled=True).job.edit.images
    absolute = {**ADDITION, "images": [str(tmp_path / "pictures" / "hat.png")]}
    assert (Image.from_bytes(data),) == read(absolute, tmp_path).job.edit.images


def test_a_picture_is_looked_at_once_and_held_once(tmp_path):
    """
    However many rows name it, and whether it is one or not.
    """
    path = tmp_path / "hat.png"
    path.write_bytes(png(300, 300))
    reader = RowReader(tmp_path, spelled=False, local=True)
    first = reader.read((1, {**ADDITION, "images": ["hat.png"]}))
    missing = reader.read((2, {**ADDITION, "key": "d", "images": ["cat.png"]}))
    path.rename(tmp_path / "cat.png")
    second = reader.read((3, {**ADDITION, "key": "e", "images": ["hat.png"]}))
    again = reader.read((4, {**ADDITION, "key": "f", "images": ["cat.png"]}))
    assert first.job.edit.images[0] is second.job.edit.images[0]
    assert [fault.reason for fault in missing] == [fault.reason for fault in again]


@pytest.mark.parametrize(
    "text, said",
    [
        ("none.png", "none.png: cannot be read: No such file or directory"),
        ("a\0.png", "holds a NUL"),
        ("x" * 300, "cannot be read: File name too long"),
        (".", ".: is a folder"),
        ("small.png", "small.png: is 200 x 300; both sides must have 300 pixels or more"),
        ("text.png", "text.png: is neither a JPEG nor a PNG"),
        ("empty.png", "empty.png: is empty"),
        ("large.png", "large.png: has 10,485,761 bytes, more than 10 MB: scale it down or give a URL"),
        ("ftp://example.com/a.png", "must be a public https URL, not a URL of 'ftp'"),
        ("data:image/png;base64,AAAA", "is a data: URL"),
        ("https://user:pass@example.com/a.png", "must not hold a user name or password"),
    ],
)
def test_what_is_no_picture_is_told_with_its_name(tmp_path, text, said):
    """
    A file is not read if it is too large, or no file.
    """
    (tmp_path / "small.png").write_bytes(png(200, 300))
    (tmp_path / "text.png").write_text("a hat")
    (tmp_path / "empty.png").touch()
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(BYTES_LIMIT + 1)
    ((column, reason),) = faults({**ADDITION, "images": [text]}, tmp_path)
    assert "images" == column
    assert said in reason


def test_pictures_come_to_so_much_at_most(tmp_path, monkeypatch):
    """
    Each file counted once; URLs weigh nothing.
    """
    monkeypatch.setattr(rows, "HELD_MOST", 100)
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(png(300, 300))
    reader = RowReader(tmp_path, spelled=False, local=True)
    for number, name in enumerate(["a.png", "a.png", "b.png", "https://example.com/c.png"]):
        assert isinstance(reader.read((number, {**ADDITION, "key": str(number), "images": [name]})), ManifestRow)
    (fault,) = reader.read((4, {**ADDITION, "key": "4", "images": ["c.png"]}))
    assert "c.png: the files of pictures come to more than 1 GB so far: give URLs" == fault.reason


@pytest.mark.parametrize(
    "column, change",
    [
        ("video_url", {"video_url": "http://example.com/clip.mp4"}),
        ("video_url", {"video_url": "https://127.0.0.1/clip.mp4"}),
        ("images", {"images": ["http://example.com/cat.png"]}),
        ("images", {"images": ["https://10.0.0.1/cat.png"]}),
    ],
)
def test_addresses_of_this_machine_are_for_hosts_on_it(tmp_path, column, change):
    """
    A real host could not fetch them.
    """
    assert isinstance(read({**SWAP, **change}, tmp_path), ManifestRow)
    assert [column] == [name for name, _ in faults({**SWAP, **change}, tmp_path, local=False)]
    assert isinstance(read(SWAP, tmp_path, local=False), ManifestRow)


def test_a_row_of_a_table_is_spelled(tmp_path):
    """
    Points, pictures, true and false, and the further fields.
    """
    cells = {
        "key": "a",
        "edit_mode": "removal",
        "video_url": CLIP,
        "what": "the bird",
        "points": "40:0.80,0.53|40:0.9,.57",
        "duration": "5",
        "watermark": "TRUE",
        "extra": '{"model_name": "kling-v1-6"}',
    }
    job = read(cells, tmp_path, spelled=True).job
    assert {40: (Point(0.8, 0.53), Point(0.9, 0.57))} == dict(job.marks)
    assert (5, True, {"model_name": "kling-v1-6"}) == (job.edit.duration, job.edit.watermark, job.edit.extra)
    assert re.match(r"must be an object", faults(cells, tmp_path)[0][1])
