"""
Tasks out of replies: the short way for what Kling documents says what the long way says.
"""

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from kling_async import DecodeError
from kling_async._tasks import plain_task, read_task

DONE = {
    "task_id": "878106242831892487",
    "task_status": "succeed",
    "task_status_msg": "",
    "task_info": {"external_task_id": "ka1-x"},
    "created_at": 1777385361501,
    "updated_at": 1777385363321,
    "task_result": {"videos": [{"id": "8", "url": "https://cdn.example.com/out.mp4", "duration": "5.04"}]},
    "final_unit_deduction": "3",
    "final_balance_deduction": {"quota": "1", "list_price": "2"},
    "watermark_info": {"enabled": False},
}
CREATED = {"task_id": "8", "task_status": "submitted", "created_at": 1777385361501, "updated_at": 0}
SAID = (
    some.none()
    | some.booleans()
    | some.sampled_from(["", "0", "5", "5.04", "nan", "inf", "1e400", "1_0", "SUCCEED", "2026-04-28T14:00:00Z", "-3"])
    | some.sampled_from(["submitted", "processing", "succeed", "failed"])
    | some.integers(-(2**70), 2**70)
    | some.integers(1_700_000_000_000, 1_900_000_000_000)
    | some.floats()
    | some.just([])
    | some.just({})
)
VIDEO = some.fixed_dictionaries({}, optional=dict.fromkeys(("id", "url", "watermark_url", "duration", "odd"), SAID))
LISTED = some.lists(VIDEO | SAID, max_size=2)
RESULT = SAID | some.fixed_dictionaries({}, optional={"videos": LISTED | SAID, "url": SAID, "video_url": SAID})
INFO = SAID | some.fixed_dictionaries({}, optional={"external_task_id": SAID, "odd": SAID})
WORDS = ("task_id", "task_status", "task_status_msg", "created_at", "updated_at", "final_unit_deduction")
OWN = ("status", "id", "error", "fail_reason", "submit_time", "finish_time", "url", "result_url", "data")
TASKS = some.fixed_dictionaries({}, optional=dict.fromkeys(WORDS, SAID) | {"task_info": INFO, "task_result": RESULT})
CHANGES = TASKS | some.fixed_dictionaries({}, optional=dict.fromkeys(OWN, SAID))


@given(task=some.sampled_from([DONE, CREATED]), changes=CHANGES)
@example(task=DONE, changes={})
@example(task=DONE, changes={"task_status": "failed", "status": "succeed", "url": "https://cdn.example.com/other.mp4"})
def test_the_short_way_says_what_the_long_way_says(task, changes):
    """
    Whatever stands in a task, the short way leaves it to the long one or makes the very same of it.
    """
    data = {**task, **changes}
    short = plain_task(data, {"data": data})
    if short is not None:
        # A word that nobody reads, and the short way is closed.
        assert short == read_task({**data, "nobody": 1}, {}, "data")
        assert {"data": data} == short.raw


@pytest.mark.parametrize("task", [DONE, CREATED, {**CREATED, "task_result": {}, "task_info": {}}])
def test_what_kling_documents_goes_the_short_way(task):
    """
    Tasks at their end, while they run, and just created.
    """
    short = plain_task(task, {"data": task})
    assert short == read_task(task, {"data": task}, "data")
    assert (task["task_id"], task["task_status"]) == (short.task_id, short.status)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "task",
        {},
        {**DONE, "task_id": ""},
        {**DONE, "task_id": 8},
        {**DONE, "created_at": "today"},
        {**DONE, "updated_at": -1},
        {**DONE, "task_status_msg": 8},
        {**DONE, "task_info": {"external_task_id": 8}},
        {**DONE, "task_result": "none"},
    ],
)
def test_what_is_no_plain_task_is_left_to_the_long_way(data):
    """
    No object, no id, or a field that is spelled as nobody documents it.
    """
    assert plain_task(data, {}) is None


def test_a_task_without_id_or_status_is_told_with_both_places():
    """
    The long way names what is missing and where.
    """
    with pytest.raises(DecodeError, match="not what it should be") as caught:
        read_task({}, {}, "data[3]")
    places = ("required field missing @ $.data[3].task_id", "required field missing @ $.data[3].task_status")
    assert places == tuple(caught.value.problems)
