"""
Jobs as rows: plain JSON, their pictures apart, and the key of each paid run.
"""

import orjson
import pytest
from attrs import evolve

from kling_async import Addition, Image, Job, Swap
from kling_async.dbos._entries import LARGE, Wish, row_of, workflow_id
from kling_async.dbos._tables import JOBS, PICTURES
from tests.batching import (
    CLIP,
    SPOT,
    given_url,  # noqa: F401 - a fixture
    in_database,
    job,
    wish,
)
from tests.commanding import picture

pytestmark = pytest.mark.real_clock

SMALL = Image.from_url("https://example.com/cat.png")
BIG = Image.from_bytes(picture() + bytes(LARGE))


def swap(key, image):
    return Job(CLIP, marks=SPOT, edit=Swap.of("the cat", "the dog", image), key=key)


async def test_a_job_comes_back_as_it_was_given(url):
    """
    With its points, its edit, its pictures and its extras, whichever edit it is.
    """
    removal = job("a", mode="pro", duration=10, extra={"more": [{"sha256": "1"}, {"wire": "2" * LARGE}]})
    addition = Job(video_id="v-1", marks={}, edit=Addition.of("the hat", SMALL, BIG), key="c")
    jobs = removal, swap("b", BIG), addition
    async with in_database(url) as kept:
        await kept.add(*(Wish(job=each, output="o.mp4", number=number) for number, each in enumerate(jobs)))
        assert list(jobs) == [entry.job for entry in await kept.records.entries()]


async def test_a_large_picture_is_kept_once_for_all_jobs(url):
    """
    A row of a job has its digest alone; a small one stays where it is.
    """
    async with in_database(url) as kept:
        await kept.add(
            *(Wish(job=swap(key, image), output="o.mp4") for key, image in zip("abc", [BIG, BIG, SMALL], strict=True))
        )
        pictures = await kept.database.read(lambda connection: connection.execute(PICTURES.select()).all())
        specs = await kept.database.read(lambda connection: connection.execute(JOBS.select()).mappings().all())
        assert [BIG.wire] == [wire for _, wire in pictures]
        assert all(len(row["spec"]) < LARGE for row in specs)
        assert ["c"] == [row["key"] for row in specs if SMALL.wire in row["spec"]]


async def test_a_row_is_plain_json(url):
    """
    Nothing in it needs this program to be read.
    """
    async with in_database(url) as kept:
        row = await kept.database.transact(lambda connection: row_of(connection, "default", "spring", wish()))
        assert ("spring", "a", 1, 1, "waiting") == tuple(row[n] for n in ("batch", "key", "attempt", "run", "state"))
        assert {"0": [{"x": 0.5, "y": 0.5}]} == orjson.loads(row["spec"])["marks"]


async def test_a_paid_run_after_the_first_has_a_key_of_its_own(url):
    """
    Everything else of the job stays; the first run has the job's own.
    """
    async with in_database(url) as kept:
        await kept.add(wish())
        first = await kept.records.get("a")
        assert first.job is first.paid_job
        third = evolve(first, run=3).paid_job
        assert ("a~3", first.job) == (third.key, evolve(third, key="a"))
        assert first.job.external_task_id != third.external_task_id


def test_an_attempt_is_called_after_account_and_key():
    """
    The same each time, and another for another account, key or attempt.
    """
    named = [("a", job("k"), 1), ("b", job("k"), 1), ("a", job("l"), 1), ("a", job("k"), 2)]
    assert 4 == len({workflow_id(*each) for each in named})
    assert f"edit-a-{job('k').external_task_id}-1" == workflow_id("a", job("k", "something else"), 1)
