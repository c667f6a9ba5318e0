"""
Jobs are added once, begun again, cancelled and counted, whoever does it at the same time.
"""

from decimal import Decimal

import anyio
import pytest

from kling_async import KeyConflictError
from kling_async.dbos import _records
from kling_async.dbos._entries import AGAIN, Kept, workflow_id
from tests.batching import (
    CLIP,
    given_url,  # noqa: F401 - a fixture
    in_database,
    job,
    wish,
)

pytestmark = pytest.mark.real_clock

FAILED = {"task_failed": True}


async def ended(kept, key="a", state="failed", **outcome):
    """
    A job that has run and come to this.
    """
    entry = await kept.records.get(key)
    await kept.money.reserve(entry, Decimal(3))
    await kept.money.end(entry, state, outcome, None)


async def test_a_job_is_added_once(url):
    """
    The engine hears of it once, with the name that key and account stand for; a second time nothing happens.
    """
    async with in_database(url, account="one") as kept:
        assert 2 == await kept.add(wish("a"), wish("b"))
        assert 1 == await kept.add(wish("a"), wish("c"))
        named = [workflow_id("one", job(key), 1) for key in "abc"]
        assert [("a", 1, named[0]), ("b", 1, named[1]), ("c", 1, named[2])] == kept.told.ids
        assert await kept.records.get("d") is None


async def test_each_attempt_has_a_turn_of_its_own(url):
    """
    In the order in which they were given, and after all that were begun before: a job is let in in its turn.
    """
    async with in_database(url, account="one") as kept, in_database(url, account="two") as other:
        await kept.add(wish("b"), wish("a"), wish("b"))
        await other.add(wish("a"))
        await kept.add(wish("a"), wish("c"))
        await ended(kept, "a")
        assert await kept.again("a")
        assert [1, 2, 3, 4] == kept.told.turns
        assert ["b", "a", "c", "a"] == [key for key, *_ in kept.told.ids]
        assert [1] == other.told.turns


async def test_another_link_to_the_same_clip_is_the_same_edit(url):
    """
    Signed links change from day to day.
    """
    async with in_database(url) as kept:
        await kept.add(wish())
        again = wish("a", clip=f"{CLIP}?sign=1")
        assert 0 == await kept.add(again)


async def test_a_key_stands_for_one_edit(url):
    """
    With another one, nothing of what came with it is added, and the engine is not told either.
    """
    async with in_database(url) as kept:
        await kept.add(wish("a"), batch="spring")
        with pytest.raises(KeyConflictError, match="'a' already stands for another edit") as caught:
            await kept.add(wish("b"), wish("a", "the stones"), batch="autumn")
        assert job("a").external_task_id == caught.value.external_task_id
        assert ["a"] == [entry.key for entry in await kept.records.entries()]
        assert ("spring",) == await kept.records.batches()


async def test_accounts_know_nothing_of_each_other(url):
    """
    The same key is another job there.
    """
    async with in_database(url, account="one") as one, in_database(url, account="two") as two:
        assert (1, 1) == (await one.add(wish("a")), await two.add(wish("a", "the stones")))
        await two.records.cancel(await two.records.entries())
        assert ("waiting", "cancelled") == (await one.state(), await two.state())
        assert {"waiting": 1} == dict((await one.records.counts()).states)


async def test_many_that_add_the_same_add_it_once(url):
    """
    From several connections at the same time.
    """
    async with in_database(url) as kept:
        new = []

        async def add():
            new.append(await kept.add(*(wish(key) for key in "abcd")))

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(add)
        assert [0, 0, 0, 0, 4] == sorted(new)
        assert 4 == len(kept.told.ids)


async def test_jobs_are_found_by_batch_key_and_state(url):
    """
    In the order in which they were added.
    """
    async with in_database(url) as kept:
        await kept.add(wish("b", number=1), wish("a", number=2), batch="spring")
        await kept.add(wish("c"), batch="autumn")
        await ended(kept, "a")

        async def keys(**which):
            return [entry.key for entry in await kept.records.entries(**which)]

        assert ["b", "a", "c"] == await keys()
        assert ["b", "a"] == await keys(batch="spring")
        assert ["a", "c"] == await keys(keys={"a", "c", "x"})
        assert ["b", "c"] == await keys(states=["waiting"])
        assert [] == await keys(batch="autumn", states=["failed"])
        assert ("autumn", "spring") == await kept.records.batches()


async def test_what_is_told_without_reading_edits(url):
    """
    Batch, state, file and digest, by key.
    """
    async with in_database(url) as kept:
        await kept.add(wish("a"), batch="spring")
        await kept.add(wish("b"), batch="autumn")
        found = await kept.records.kept()
        assert ["a", "b"] == sorted(found)
        assert {"b": found["b"]} == await kept.records.kept("autumn")
        assert Kept(batch="spring", state="waiting", output="a.mp4", payload=found["a"].payload) == found["a"]
        assert found["a"].payload == found["b"].payload


@pytest.mark.parametrize("state", sorted(AGAIN))
async def test_what_came_to_nothing_is_begun_again_under_its_own_key(url, state):
    """
    So that what may have been paid for is found.
    """
    async with in_database(url) as kept:
        await kept.add(wish())
        await ended(kept, state=state, stage="finish")
        assert await kept.again()
        entry = await kept.records.get("a")
        assert (2, 1, "waiting", {}) == (entry.attempt, entry.run, entry.state, entry.outcome)
        assert ("a", 2, workflow_id("default", job(), 2)) == kept.told.ids[-1]


async def test_a_task_that_failed_is_followed_by_another_paid_run(url):
    """
    Under a key of its own, and what the first one came to stays with it.
    """
    async with in_database(url) as kept:
        await kept.add(wish())
        await ended(kept, **FAILED)
        assert await kept.again()
        entry = await kept.records.get("a")
        assert (2, 2, "a~2", 3_000_000) == (entry.attempt, entry.run, entry.paid_job.key, entry.cost)
        assert Decimal(3) == await kept.spent()


async def test_what_has_not_ended_or_came_to_its_result_is_not_begun_again(url):
    """
    Nor what another has begun again meanwhile.
    """
    async with in_database(url) as kept:
        await kept.add(wish("a"), wish("b"))
        await ended(kept, "b", "done")
        assert (False, False) == (await kept.again("a"), await kept.again("b"))
        failed = await kept.records.get("a")
        await ended(kept, "a")
        failed = await kept.records.get("a")
        assert [1, 0] == [await kept.records.again([failed], kept.told) for _ in range(2)]
        assert [("a", 2)] == [(key, attempt) for key, attempt, _ in kept.told.ids[2:]]


async def test_what_waits_can_be_cancelled(url):
    """
    What runs goes on, for it may be paid for.
    """
    async with in_database(url) as kept:
        await kept.add(wish("a"), wish("b"))
        await kept.money.reserve(await kept.records.get("b"), Decimal(3))
        entries = await kept.records.entries()
        assert ["a"] == [entry.key for entry in await kept.records.cancel(entries)]
        assert () == await kept.records.cancel(entries)
        assert ("cancelled", "running") == (await kept.state("a"), await kept.state("b"))


async def test_batches_are_counted(url, monkeypatch):
    """
    By state, with their money and the latest ends; all of them together where none is named.
    """
    monkeypatch.setattr(_records, "LATEST", 2)
    async with in_database(url, slots=7) as kept:
        await kept.add(*(wish(key) for key in "abc"), batch="spring")
        await kept.add(wish("d"), wish("e"), batch="autumn")
        await kept.money.set_budget("spring", Decimal(10))
        for key in "abc":
            await ended(kept, key, "done")
        counts = await kept.records.counts("spring")
        assert ({"done": 3}, Decimal(9), Decimal(10)) == (dict(counts.states), counts.spent, counts.budget)
        assert (None, 7, 2) == (counts.paused, counts.slots, len(counts.ended_at))
        assert counts.ended_at[0] >= counts.ended_at[1] > 1_700_000_000
        assert ({"done": 3, "waiting": 2}, None) == (dict((c := await kept.records.counts()).states), c.budget)
        await kept.money.set_budget("autumn", Decimal("2.5"))
        await kept.account.pause("why")
        counts = await kept.records.counts()
        assert (Decimal("12.5"), Decimal(9), "why") == (counts.budget, counts.spent, counts.paused)
        assert (Decimal(0), None, ()) == ((c := await kept.records.counts("none")).spent, c.budget, c.ended_at)
