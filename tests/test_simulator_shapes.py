"""
Spellings of replies: the client reads the same from all of them.
"""

from decimal import Decimal

import anyio
import pytest

from kling_async._endpoints import ADD, CLEAR, CREATE, DELETE, GET, LIST, PREVIEW
from kling_async._replies import read
from kling_async.errors import InvalidInputError, NotFoundError
from kling_async.models import Preview
from kling_async.simulator import Fault, Shape
from tests.simulating import calling, spots

ENVELOPES = ["raw", "wrapped1", "wrapped2", "flat", "openai"]


@pytest.mark.parametrize("envelope", ENVELOPES)
async def test_a_task_is_read_from_every_envelope(envelope):
    """
    Status and link are the same whatever the host wraps around them.
    """
    _, caller = calling(shape=Shape(envelope=envelope), task_seconds=10)
    created = read(CREATE, (await caller.create()).response)
    assert ("submitted", 18) == (created.status, len(created.task_id))
    seen = []
    for _ in range(3):
        task = read(GET, (await caller.get(created.task_id)).response)
        seen.append(task.status)
        await anyio.sleep(6)
    assert ["submitted", "processing", "succeed"] == seen
    assert task.video.url.startswith("https://simulator.invalid/media/")
    assert (envelope in {"raw", "wrapped1", "wrapped2"}) == (task.video.video_id is not None)


@pytest.mark.parametrize("envelope", ENVELOPES)
async def test_a_failure_is_read_from_every_envelope(envelope):
    """
    The reason of a failed task arrives in all of them.
    """
    fault = Fault("task", "failed", message="Image pixel is invalid")
    _, caller = calling(shape=Shape(envelope=envelope), task_seconds=0, faults=[fault])
    task_id = read(CREATE, (await caller.create()).response).task_id
    task = read(GET, (await caller.get(task_id)).response)
    assert ("failed", "Image pixel is invalid") == (task.status, task.status_message)


@pytest.mark.parametrize("envelope", ENVELOPES)
async def test_an_unknown_task_is_not_found_in_any_words(envelope):
    """
    Kling says 1203, gateways say task_not_exist.
    """
    _, caller = calling(shape=Shape(envelope=envelope))
    reply = await caller.get("none")
    assert (1203 if envelope == "raw" else "task_not_exist") == reply.json["code"]
    with pytest.raises(NotFoundError):
        read(GET, reply.response)


@pytest.mark.parametrize("code", [0, "0", "success"])
@pytest.mark.parametrize("message", ["SUCCEED", "success", ""])
async def test_success_has_many_names(code, message):
    """
    Code and message of a success are spelled as told.
    """
    _, caller = calling(shape=Shape(code=code, message=message))
    reply = await caller.list()
    assert (code, message) == (reply.json["code"], reply.json["message"])
    assert () == read(LIST, reply.response)


@pytest.mark.parametrize("empty, kept", [("{}", {"task_result": {}}), ("missing", {}), ("null", {"task_result": None})])
async def test_parts_with_nothing_in_them_are_spelled_as_told(empty, kept):
    """
    An empty part is an empty object, null, or not there.
    """
    _, caller = calling(shape=Shape(empty=empty))
    data = (await caller.get((await caller.create()).data["task_id"])).data
    assert kept == {name: value for name, value in data.items() if name == "task_result"}
    assert (empty == "missing") == ("task_info" not in data)


@pytest.mark.parametrize("size, sides", [("hw", [720, 1280]), ("wh", [1280, 720])])
async def test_a_mask_tells_its_size_in_either_order(size, sides):
    """
    The order of `size` changes, the mask does not.
    """
    _, caller = calling(shape=Shape(size=size))
    session_id = await caller.opened()
    reply = await caller.post("add", session_id=session_id, frame_index=0, points=spots((0.5, 0.5)))
    [mask] = reply.data["res"]["rle_mask_list"]
    assert [sides, sides] == [mask["rle_mask"]["size"], mask["png_mask"]["size"]]
    assert (720, 1280) == read(ADD, reply.response).masks[0].fitted(720, 1280).to_array().shape


@pytest.mark.parametrize("duration, told", [("5.04", "5.04"), ("5", "5"), (5, 5)])
async def test_seconds_are_text_or_number(duration, told):
    """
    A video's length is spelled as told.
    """
    _, caller = calling(shape=Shape(duration=duration), task_seconds=0)
    data = (await caller.get((await caller.create()).data["task_id"])).data
    assert told == data["task_result"]["videos"][0]["duration"]


@pytest.mark.parametrize("timestamps, kind, digits", [("ms", int, 13), ("s", int, 10), ("text", str, 13)])
async def test_times_are_milliseconds_seconds_or_text(timestamps, kind, digits):
    """
    Whatever the spelling, the client reads the year in which the simulator's clock begins.
    """
    _, caller = calling(shape=Shape(timestamps=timestamps))
    reply = await caller.create()
    assert (kind, digits) == (type(reply.data["created_at"]), len(str(reply.data["created_at"])))
    assert 2026 == read(CREATE, reply.response).created_at.year


async def test_brief_hosts_leave_data_out():
    """
    Delete, clear and preview may answer without data; the others never do.
    """
    _, caller = calling(shape=Shape(bare=True))
    session_id = await caller.marked()
    preview = await caller.post("preview", session_id=session_id)
    deleted = await caller.post("delete", session_id=session_id, frame_index=0, points=spots((0.5, 0.5)))
    cleared = await caller.post("clear", session_id=session_id)
    assert [False] * 3 == ["data" in reply.json for reply in (preview, deleted, cleared)]
    assert Preview() == read(PREVIEW, preview.response)
    assert () == read(DELETE, deleted.response).masks
    assert read(CLEAR, cleared.response) is None


async def test_a_host_may_take_an_external_id_twice():
    """
    Where nothing is unique the newest task is found, and the bill has both.
    """
    simulator, caller = calling(shape=Shape(external_ids="repeatable"))
    session_id = await caller.marked()
    await caller.create(session_id, external_task_id="job-1")
    newest = (await caller.create(session_id, external_task_id="job-1")).data["task_id"]
    assert newest == (await caller.get("job-1")).data["task_id"]
    assert {"job-1": 2} == simulator.charges


async def test_a_host_may_drop_external_ids():
    """
    Where it is dropped it is neither told nor found; the bill has it all the same.
    """
    simulator, caller = calling(shape=Shape(external_ids="dropped"), task_seconds=0)
    session_id = await caller.marked()
    for _ in range(2):
        created = (await caller.create(session_id, external_task_id="job-1")).data
    assert {} == created["task_info"]
    assert 1203 == (await caller.get("job-1")).json["code"]
    task = read(GET, (await caller.get(created["task_id"])).response)
    assert (None, Decimal(3)) == (task.external_task_id, task.units)
    assert {"job-1": 2} == simulator.charges


@pytest.mark.parametrize(
    "spelling",
    [
        {"envelope": "boxed"},
        {"code": False},
        {"code": 1},
        {"empty": None},
        {"size": "hxw"},
        {"duration": "6"},
        {"timestamps": "us"},
        {"bare": 1},
        {"message": None},
        {"external_ids": "lost"},
    ],
)
def test_spellings_are_a_closed_list(spelling):
    """
    A spelling that no host was seen to use is refused by name.
    """
    with pytest.raises(InvalidInputError) as caught:
        Shape(**spelling)
    assert f"shape.{next(iter(spelling))}" == caught.value.field
