"""
A batch that an earlier release has begun, and that was cut off there, is finished by this one.

Its database lies among the samples as tests/golden.py has made it. The copy that is worked on tells newer times, for
the service keeps its tasks for 30 days and what is written of them counts no longer either; nothing else is changed.
"""

import shutil
import sqlite3
from contextlib import closing
from functools import partial

import orjson
import pytest

pytest.importorskip("dbos")

from kling_async import MemoryStore, SelectionSession
from kling_async.dbos import DbosRunner, _runner
from kling_async.simulator import Shape, Simulator
from tests.golden import EDITS, NAME, SAMPLES, client, current, job

pytestmark = [pytest.mark.real_clock, pytest.mark.timeout(60)]

ENDED = ("cancelled", "declined", "failed", "done")
PAID = ("sent", "submitted")
"""Those whose task was there already."""


@pytest.fixture
def anyio_backend():
    """
    The engine works on asyncio alone.
    """
    return "asyncio", {}


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """
    The URL of a copy.
    """
    monkeypatch.setattr(_runner, "LOOK_MOST", _runner.LOOK_FIRST)
    for name in (NAME, f"{NAME}.intents"):
        shutil.copy(SAMPLES / name, tmp_path)
    current(tmp_path / f"{NAME}.intents")
    return f"sqlite:///{tmp_path / NAME}"


@pytest.fixture
async def service(begun, tmp_path):
    """
    The service, with the two tasks that were paid before.
    """
    simulator = Simulator(task_seconds=0, shape=Shape(external_ids="repeatable"))
    with closing(sqlite3.connect(tmp_path / f"{NAME}.intents")) as connection:
        kept = dict(connection.execute("SELECT external_task_id, body FROM intents").fetchall())
    tasks = simulator._desk.machine.tasks
    async with client(simulator, MemoryStore()) as first:
        for each in map(job, PAID):
            async with SelectionSession(first, video_url=each.video_url) as selection:
                for frame, points in each.marks.items():
                    await selection.add_points(frame, points)
                task = await selection.create_task(each.edit, external_task_id=each.external_task_id)
            run = tasks._all.pop(task.task_id)
            # Under the id that its worker has written down, where it came to that.
            run.task_id = orjson.loads(kept[each.external_task_id])["task_id"] or run.task_id
            tasks._all[run.task_id] = run
    return simulator


async def test_a_batch_begun_by_an_earlier_release_is_finished_by_this_one(begun, service, tmp_path):
    """
    What was paid is not paid again, what has ended stays so, and what is in doubt is told.
    """
    runner = DbosRunner(begun, client=partial(client, service), out=tmp_path / "out", polling=0.1)
    async with runner, runner.working():
        states = {key: (await runner.result(key)).state for key in EDITS}
        assert {key: key for key in ENDED} == {key: states.pop(key) for key in ENDED}
        assert "unknown" == states.pop("sending")
        assert {"done"} == set(states.values())
        charges = {job(key).external_task_id: 1 for key in states}
        assert charges == dict(service.charges)
        assert set(states) == {path.stem for path in (tmp_path / "out").glob("*.mp4")}
        status = await runner.status()
        assert (len(EDITS), 1000) == (status.total, status.budget)
        assert 1 == await runner.retry(["failed"])
        assert "done" == (await runner.result("failed")).state
        assert len(charges) + 1 == sum(service.charges.values())
