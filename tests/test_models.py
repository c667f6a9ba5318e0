"""
What the service returns, as values.
"""

import pickle
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from attrs import evolve
from hypothesis import given

from kling_async import (
    DecodeError,
    InvalidInputError,
    Job,
    Marks,
    Point,
    Preview,
    Removal,
    SelectionInfo,
    SelectionState,
    Task,
    TaskFailedError,
    Video,
)
from kling_async.models import check_frame_index
from tests import strategies
from tests.strategies import modest

LINK = Video(video_id="v-1", url="https://cdn.example.com/out.mp4", duration=5.04)
NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(-1, id="B16"),
        pytest.param(True, id="B17-bool"),
        pytest.param(1.0, id="B17-float"),
        pytest.param("1", id="B17-text"),
        pytest.param(None, id="B17-none"),
    ],
)
def test_a_frame_index_is_a_whole_number_from_zero(value):
    """
    For a call and for a mapping of marks alike.
    """
    with pytest.raises(InvalidInputError) as refused:
        check_frame_index(value)
    assert "frame_index" == refused.value.field
    with pytest.raises(InvalidInputError):
        Marks({value: [(0.5, 0.5)]})
    assert 0 == check_frame_index(0)


def test_marks_are_sorted_and_hold_no_empty_frames():
    """
    Two ways to the same marks give the same value.
    """
    marks = Marks({40: [(0.8, 0.5)], 7: [], 2: iter([Point(0.1, 0.2), (0.3, 0.4)])})
    assert [2, 40] == list(marks)
    assert (Point(0.1, 0.2), Point(0.3, 0.4)) == marks[2]
    assert 2 == len(marks)
    assert "Marks({40: (Point(x=0.8, y=0.5),)})" == repr(Marks({40: [(0.8, 0.5)]}))
    assert Marks() == Marks(None) == Marks({}) == {}
    with pytest.raises(KeyError):
        marks[7]


def test_marks_do_not_follow_what_they_were_made_from():
    """
    They are copied, and putting a frame makes other marks.
    """
    given = {0: [(0.5, 0.5)]}
    marks = Marks(given)
    given[0].append((0.6, 0.6))
    assert {0: (Point(0.5, 0.5),)} == marks
    assert {0: (Point(0.5, 0.5),), 3: (Point(1, 1),)} == marks.put(3, (Point(1, 1),))
    assert {} == marks.put(0, ())
    assert {0: (Point(0.5, 0.5),)} == marks


@pytest.mark.parametrize("given", [{0: [(2, 0)]}, {0: [0.5]}, {0: (0.5, 0.5)}])
def test_marks_hold_points(given):
    """
    What is no point is refused when the marks are made.
    """
    with pytest.raises(InvalidInputError):
        Marks(given)


@given(strategies.marks)
@modest
def test_marks_are_a_value(marks):
    """
    Equal to their pickle and to themselves put together again, in hash too.
    """
    again = pickle.loads(pickle.dumps(marks))
    assert again == marks == Marks(dict(marks))
    assert hash(again) == hash(marks)


def test_a_state_takes_plain_marks():
    """
    A dictionary becomes Marks, Marks stay, and None stays unknown.
    """
    state = SelectionState(session_id="1", opened_at=NOW, marks={0: [(0.5, 0.5)]}, uncertain=[3, 3])
    assert Marks({0: [(0.5, 0.5)]}) == state.marks
    assert isinstance(state.marks, Marks)
    assert frozenset({3}) == state.uncertain
    assert state.marks is evolve(state, session_id="2").marks
    assert SelectionState(session_id="1", opened_at=NOW).marks is None


@given(strategies.values)
@modest
def test_every_value_is_hashable_and_pickles(value):
    """
    Into a set, across a process and back.
    """
    assert {value} == {pickle.loads(pickle.dumps(value))}


@pytest.mark.parametrize(
    "status, done",
    [("submitted", False), ("processing", False), ("succeed", True), ("failed", True), ("warming_up", False)],
)
def test_a_task_is_done_in_two_states(status, done):
    """
    A status that nobody knows is not the end.
    """
    assert done == Task(task_id="8781", status=status).done


@pytest.mark.parametrize(
    "task, settled",
    [
        (Task(task_id="8781", status="failed"), True),
        (Task(task_id="8781", status="succeed", videos=(LINK,)), True),
        (Task(task_id="8781", status="succeed"), False),
        (Task(task_id="8781", status="processing", videos=(LINK,)), False),
    ],
)
def test_a_task_is_settled_when_another_look_tells_nothing_new(task, settled):
    """
    A success may arrive a little before its link.
    """
    assert settled == task.settled


def test_the_video_of_a_success_is_its_only_one():
    """
    With a link to fetch.
    """
    task = Task(task_id="8781", status="succeed", videos=(LINK,))
    assert LINK == task.video
    assert task.has_video


@pytest.mark.parametrize(
    "task, error, text",
    [
        (Task(task_id="8781", status="failed", status_message="no"), TaskFailedError, "8781 failed: no"),
        (Task(task_id="8781", status="processing"), InvalidInputError, "8781 is processing: wait"),
        (Task(task_id="8781", status="warming_up", videos=(LINK,)), InvalidInputError, "warming_up"),
        (Task(task_id="8781", status="succeed"), DecodeError, "names no video"),
        (Task(task_id="8781", status="succeed", videos=(Video(video_id="v-1"),)), DecodeError, "names no video"),
    ],
)
def test_a_task_without_a_video_says_why(task, error, text):
    """
    Failed, still running, or done without a link: three errors.
    """
    with pytest.raises(error, match=text):
        task.video  # noqa: B018 - reading it is the point
    assert not task.has_video or not task.done


def test_a_task_keeps_the_name_that_the_reply_left_out():
    """
    And the one that the reply gave.
    """
    task = Task(task_id="8781", status="submitted", units=Decimal(3))
    assert "order-1" == task.named("order-1").external_task_id
    assert task.named("order-1") == task.named("order-1").named("order-2")


def test_a_whole_reply_is_kept_beside_the_value():
    """
    `raw` shows in no repr and takes no part in equality or hash.
    """
    bare, full = (SelectionInfo(session_id="1", raw=raw) for raw in (None, {"data": {"token": "secret"}}))
    assert bare == full
    assert hash(bare) == hash(full)
    assert "secret" not in repr(full)


def test_no_repr_shows_the_query_of_a_signed_link():
    """
    It opens the file for whoever reads the log.
    """
    link = "https://cdn.example.com/a.mp4?signature=secret"
    values = [
        Video(url=link, watermark_url=link),
        Preview(video_url=link, cover_url=link, tracking_url=link),
        SelectionInfo(session_id="1", normalized_video_url=link),
        SelectionState(session_id="1", opened_at=datetime(2026, 11, 20, tzinfo=UTC), video_url=link),
        Job(link, marks={0: [(0.5, 0.5)]}, edit=Removal.of("it")),
    ]
    shown = repr(values)
    assert "https://cdn.example.com/a.mp4" in shown
    assert "secret" not in shown
    assert "url=None" in repr(Video())
