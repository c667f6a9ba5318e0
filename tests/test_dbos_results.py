"""
What lies in the folder in the end: whole files, and records that tell everything but secrets.
"""

import errno
import os
from datetime import UTC, datetime
from decimal import Decimal

import orjson
import pytest
from attrs import evolve

import kling_async
from kling_async import Task, Video, _parts
from kling_async.dbos import BatchResult
from kling_async.dbos._entries import Entry
from kling_async.dbos._results import beside, digest, index, record, saved, written
from tests.batching import CLIP, job

NOW = datetime(2026, 11, 20, 1, 2, 3, tzinfo=UTC)
LINK = "https://cdn.example.com/out.mp4?sign=secret"
TASK = Task(
    task_id="t-1",
    status="succeed",
    created_at=NOW,
    updated_at=NOW,
    videos=(Video(video_id="v-1", url=LINK),),
    units=Decimal("3.0"),
)


def entry_of(key="a", state="done", **outcome):
    return Entry(
        account="default",
        key=key,
        batch="spring",
        number=7,
        attempt=2,
        run=1,
        output=f"{key}.mp4",
        job=job(key, clip=f"{CLIP}?sign=secret", negative_prompt="no blur", mode="pro", duration=5),
        state=state,
        cost=0,
        outcome=outcome,
        made_at=NOW.timestamp(),
        ended_at=None,
    )


def test_a_result_is_what_is_known_of_a_job():
    """
    Its cost as a number of units; what is not there, or makes no sense, is not known.
    """
    told = {"task_id": "t-1", "units": "2.5", "sha256": "ab", "error": "ServerError", "message": "so"}
    result = BatchResult.of(entry_of(state="failed", **told))
    assert ("a", "failed", "a.mp4", "t-1", Decimal("2.5"), "ab", "ServerError", "so") == (
        result.key,
        result.state,
        result.output,
        result.task_id,
        result.units,
        result.sha256,
        result.error,
        result.message,
    )
    assert job().external_task_id == result.external_task_id
    assert (None, None) == ((empty := BatchResult.of(entry_of(task_id=5))).units, empty.task_id)


def test_a_later_run_has_the_id_that_it_was_sent_with():
    """
    Not the one of the first.
    """
    later = evolve(entry_of(), run=2)
    assert later.paid_job.external_task_id == BatchResult.of(later).external_task_id != job().external_task_id


def test_a_record_tells_all_that_was_done_and_no_secret():
    """
    Clip, points, mask, prompt, ids, times, cost, file and versions; no query of a signed link.
    """
    prepared = {"areas": {"0": [1234]}, "session_id": "s-1", "worst": "5", "state": {"video_url": LINK}}
    told = record(entry_of(), prepared, TASK, {"bytes": 9, "sha256": "ab"})
    expected = {
        "key": "a",
        "batch": "spring",
        "source": CLIP,
        "points": {"0": [[0.5, 0.5]]},
        "mask_area": {"0": [1234]},
        "edit_mode": "removal",
        "prompt": "Delete the bird from <<<video_1>>>",
        "negative_prompt": "no blur",
        "mode": "pro",
        "duration": 5,
        "session_id": "s-1",
        "task_id": "t-1",
        "external_task_id": job().external_task_id,
        "video_id": "v-1",
        "attempt": 2,
        "submitted_at": "2026-11-20T01:02:03+00:00",
        "created_at": "2026-11-20T01:02:03+00:00",
        "updated_at": "2026-11-20T01:02:03+00:00",
        "units": "3.0",
        "worst_units": "5",
        "bytes": 9,
        "sha256": "ab",
        "kling_async": kling_async.__version__,
    }
    assert NOW < datetime.fromisoformat(told.pop("saved_at"))
    assert expected == told == orjson.loads(orjson.dumps(told))


def test_a_record_says_null_of_what_nobody_knows():
    """
    Such as the masks of a task that was there already, and what the host does not tell.
    """
    told = record(entry_of(), {"task_id": "t-1", "worst": None}, Task(task_id="t-1", status="succeed"), {})
    names = ("mask_area", "session_id", "video_id", "created_at", "updated_at", "units", "worst_units")
    assert [None] * 7 == [told[name] for name in names]


def test_an_index_has_a_line_for_each_job():
    """
    In the order that it was given, without secrets.
    """
    lines = index([entry_of("a", units="2.5"), entry_of("b", "waiting")]).splitlines()
    first, second = map(orjson.loads, lines)
    assert (7, "a", "done", "2.5") == tuple(first[name] for name in ("number", "key", "state", "units"))
    assert ("b", "waiting", None) == tuple(second[name] for name in ("key", "state", "units"))
    assert b"secret" not in b"".join(lines)
    assert b"" == index([])


def test_a_file_is_written_whole_over_what_was_there(tmp_path):
    """
    Its folder is made; nothing else is left.
    """
    path = tmp_path / "deep" / "er" / "a.json"
    for data in (b"one", b"other"):
        written(path, data)
        assert data == path.read_bytes()
    assert [path] == list(path.parent.iterdir())


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    """
    And past what another has, which may hang.
    """
    path, part = tmp_path / "a.json", tmp_path / "a.json.part"
    part.write_bytes(b"longer than the other")
    written(path, b"one")
    assert (b"one", [path]) == (path.read_bytes(), list(tmp_path.iterdir()))
    with part.open("ab") as file:
        assert _parts._held(part, file.fileno())
        written(path, b"other")
    assert (b"other", {path, part}) == (path.read_bytes(), set(tmp_path.iterdir()))


def test_a_file_that_could_not_be_written_is_as_it_was(tmp_path, monkeypatch):
    """
    And no part of the other stays.
    """
    written(tmp_path / "a.json", b"one")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path / "a.json", b"other")
    assert [b"one"] == [path.read_bytes() for path in tmp_path.iterdir()]


def test_a_result_is_there_when_its_record_says_so(tmp_path):
    """
    Of this task, and as it was; anything else must be fetched.
    """
    path = tmp_path / "a.mp4"
    assert saved(path, "t-1") is None
    path.write_bytes(b"clip")
    assert saved(path, "t-1") is None
    told = {"task_id": "t-1", **digest(path)}
    assert {"task_id": "t-1", "bytes": 4, "sha256": told["sha256"]} == told
    beside(path).write_bytes(orjson.dumps(told))
    assert (told, None) == (saved(path, "t-1"), saved(path, "t-2"))
    for text in (b"{", b"[]", b'{"task_id": "t-1"}'):
        beside(path).write_bytes(text)
        assert saved(path, "t-1") is None
    beside(path).write_bytes(orjson.dumps(told))
    path.write_bytes(b"clop")
    assert saved(path, "t-1") is None


def test_a_record_stands_beside_its_file(tmp_path):
    """
    Under the file's whole name.
    """
    assert tmp_path / "a.mp4.json" == beside(tmp_path / "a.mp4")
