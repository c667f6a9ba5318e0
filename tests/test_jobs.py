"""
Jobs: what one edit is, and under which id it is paid.
"""

import pickle

import orjson
import pytest

from kling_async import Addition, Image, InvalidInputError, Job, Point, Removal, Swap, from_dict, to_dict

CLIP = "https://example.com/clip.mp4"
MARKS = {40: [(0.8, 0.53), Point(0.9, 0.57)]}
EDIT = Removal.of("the stones")
HAT = Image.from_url("https://example.com/hat.png")


def test_the_id_is_derived_from_the_key_alone():
    """
    The same key is the same id in every process, whatever the rest says.
    """
    first = Job(CLIP, marks=MARKS, edit=EDIT, key="a")
    second = Job(video_id="v-1", marks={1: [(0.5, 0.5)]}, edit=Removal.of("it"), key="a")
    assert first.external_task_id == second.external_task_id
    assert 36 == len(first.external_task_id)
    assert first.external_task_id != Job(CLIP, marks=MARKS, edit=EDIT, key="b").external_task_id


def test_without_a_key_there_is_no_id_yet():
    """
    It is drawn for each run.
    """
    assert Job(CLIP, marks=MARKS, edit=EDIT).external_task_id is None


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("video_url and video_id", {"marks": MARKS, "edit": EDIT}),
        ("video_url and video_id", {"video_url": CLIP, "video_id": "v-1", "marks": MARKS, "edit": EDIT}),
        ("video_url", {"video_url": "clip.mp4", "marks": MARKS, "edit": EDIT}),
        ("video_id", {"video_id": "<video_id>", "marks": MARKS, "edit": EDIT}),
        ("marks", {"video_url": CLIP, "marks": {}, "edit": EDIT}),
        ("marks", {"video_url": CLIP, "marks": {}, "edit": Swap.of("a", "b", HAT)}),
        ("marks", {"video_url": CLIP, "marks": {n: [(0.5, 0.5)] for n in range(11)}, "edit": EDIT}),
        ("points", {"video_url": CLIP, "marks": {0: [(n / 20, 0.5) for n in range(11)]}, "edit": EDIT}),
        ("points", {"video_url": CLIP, "marks": {0: [(0.5, 0.5)] * 2}, "edit": EDIT}),
        ("frame_index", {"video_url": CLIP, "marks": {-1: [(0.5, 0.5)]}, "edit": EDIT}),
        ("edit", {"video_url": CLIP, "marks": MARKS, "edit": "delete it"}),
        ("key", {"video_url": CLIP, "marks": MARKS, "edit": EDIT, "key": " "}),
        ("key", {"video_url": CLIP, "marks": MARKS, "edit": EDIT, "key": 7}),
    ],
)
def test_a_wrong_job_cannot_be_built(field, named):
    """
    The field and the remedy, before anything is opened.
    """
    with pytest.raises(InvalidInputError) as caught:
        Job(**named)
    assert field == caught.value.field


def test_an_addition_needs_no_marks():
    """
    Only what replaces or deletes must be marked.
    """
    assert {} == dict(Job(CLIP, marks={}, edit=Addition.of("the hat", HAT)).marks)


@pytest.mark.parametrize("edit", [EDIT, Swap.of("a", "b", HAT), Addition.of("it", HAT, mode="pro", duration=10)])
def test_a_job_survives_json_and_pickle(edit):
    """
    Whichever edit it holds: the dictionary says which.
    """
    job = Job(CLIP, marks=MARKS, edit=edit, key="a")
    assert job == from_dict(Job, orjson.loads(orjson.dumps(to_dict(job))))
    assert job == pickle.loads(pickle.dumps(job))
    assert hash(job) == hash(from_dict(Job, to_dict(job)))


def test_a_source_is_named_without_the_query_of_a_signed_link():
    """
    Signed anew, it is still the same clip.
    """
    assert CLIP == Job(f"{CLIP}?signature=1", marks=MARKS, edit=EDIT).source
    assert "v-1" == Job(video_id="v-1", marks=MARKS, edit=EDIT).source
