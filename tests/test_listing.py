"""
Pages of the list as the poller reads them.
"""

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from attrs import evolve

from kling_async import DecodeError, NotFoundError, ServerError, Task
from kling_async._listing import REST_LEAST, REST_MOST, Page, page_of, rested
from kling_async._replies import DEPTH_MOST
from kling_async.transport import Response
from tests.doubles import envelope, task_reply

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
ROW = orjson.loads(task_reply("succeed").body)["data"]


def page(*rows):
    return page_of(envelope(list(rows)))


def test_the_rows_of_a_page_stay_as_they_came():
    """
    What is no object is left out.
    """
    assert (ROW, {}) == page(ROW, None, {}, 5, [ROW]).rows


@pytest.mark.parametrize(
    "body",
    [
        {"code": 0, "data": {"tasks": [ROW]}},
        {"code": "0", "data": [ROW]},
        {"code": "success", "message": "", "data": [ROW]},
        {"data": [ROW]},
    ],
)
def test_a_list_is_read_in_other_shapes_too(body):
    """
    As gateways tell it.
    """
    found = page_of(Response(200, {}, orjson.dumps(body)))
    assert (ROW,) == found.rows
    assert "8781" == found.task(ROW).task_id


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (Response(200, {}, b"<html>"), DecodeError),
        (Response(200, {}, b"[]"), DecodeError),
        (envelope(), DecodeError),
        (envelope({"task_id": "1"}), DecodeError),
        (envelope(code=1203, status=404), NotFoundError),
        (Response(502, {}, b"<html>"), ServerError),
        (envelope([ROW], code=5000), ServerError),
    ],
)
def test_what_is_no_list_is_an_error(response, kind):
    """
    Told as for any other call.
    """
    with pytest.raises(kind):
        page_of(response)


def test_a_row_is_the_task_that_a_single_look_would_show():
    """
    With a reply of its own; but not where that look may show more: no video, or no task at all.
    """
    found = page(ROW)
    task = found.task(ROW)
    assert ("8781", "succeed") == (task.task_id, task.status)
    assert ROW == task.raw["data"]
    assert None is found.task({**ROW, "task_result": {}})
    assert None is found.task({"task_id": "8781"})


def made(*minutes):
    return [Task(task_id="1", status="submitted", created_at=NOON + timedelta(minutes=each)) for each in minutes]


@pytest.mark.parametrize(
    ("created_at", "minutes", "expected"),
    [(-2, (0, 5), True), (-0.5, (0, 5), False), (1, (0, 5), False), (3, (5,), True), (None, (0,), False)],
)
def test_a_page_precedes_tasks_that_are_newer_than_its_last_row(created_at, minutes, expected):
    """
    By a minute at least; a time that is not told proves nothing.
    """
    told = {} if created_at is None else {"created_at": (NOON + timedelta(minutes=created_at)).timestamp() * 1000}
    assert expected == page(ROW, {**ROW, **told}).precedes(made(*minutes))


def test_a_page_precedes_nothing_whose_time_is_not_known():
    """
    Nor does one without rows.
    """
    last = {**ROW, "created_at": NOON.timestamp() * 1000}
    assert page(last).precedes(made(9))
    for other in (None, Task(task_id="1", status="submitted")):
        assert not page(last).precedes([*made(9), other])
    assert not Page({}, ()).precedes(made(9))


def test_rests_double_up_to_a_few_minutes():
    """
    From seconds, however often the list was of no use.
    """
    assert [REST_LEAST, 2 * REST_LEAST, 4 * REST_LEAST] == [rested(times) for times in (1, 2, 3)]
    assert REST_MOST == rested(7) == rested(10**9)


@pytest.mark.parametrize("depth", [DEPTH_MOST, 300, 1000])
def test_a_row_that_is_nested_too_deep_is_looked_at_alone(depth):
    """
    Even one so deep that it can be read and not be written again.
    """
    deep = b'{"code":0,"data":[{"task_id":"1","task_status":"succeed","watermark_info":%s}]}'
    found = page_of(Response(200, {}, deep % (b"[" * depth + b"]" * depth)))
    assert ["1"] == [row["task_id"] for row in found.rows]
    assert None is found.task(found.rows[0])


def test_a_row_beside_an_error_is_no_task():
    """
    What a single look would raise is left to it, although the list was told with success.
    """
    found = page_of(Response(200, {}, orjson.dumps({"code": 0, "data": [ROW], "error": "down"})))
    assert (ROW,) == found.rows
    assert None is found.task(ROW)


@pytest.mark.parametrize(
    "more", [{}, {"watermark_info": {"a": [1]}}, {"status": "running"}, {"created_at": "1777385361"}]
)
def test_a_row_is_read_the_same_on_its_short_way(more):
    """
    As from a page that holds more than Kling documents, whose rows take the long way.
    """
    rows = [{**ROW, **more}]
    short, long = (
        page_of(Response(200, {}, orjson.dumps({"code": 0, "data": rows, **rest}))).task(rows[0])
        for rest in ({}, {"trace": "1"})
    )
    assert short.raw == {"code": 0, "data": rows[0]}
    assert long == evolve(short, raw={**short.raw, "trace": "1"})
