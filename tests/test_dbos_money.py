"""
No budget is overspent, no cost is taken for nothing, and nothing is counted twice.
"""

from decimal import Decimal
from itertools import count

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from kling_async.dbos._database import Database
from kling_async.dbos._money import Money
from kling_async.dbos._tables import millionths
from tests.batching import (
    given_url,  # noqa: F401 - a fixture
    in_database,
    url_of,
    wish,
)

pytestmark = pytest.mark.real_clock

THREE = Decimal(3)
UNKNOWN = "nobody knows beforehand what it costs"
BATCHES = count()
COSTS = some.decimals(0, 12, places=2)
STEPS = some.lists(
    some.tuples(
        some.sampled_from(["reserve", "paid", "end", "fail", "again", "cancel"]), some.sampled_from("abc"), COSTS
    )
)


async def taken(kept, key="a", worst=THREE, **more):
    """
    Why a job must not run; None where it may.
    """
    return await kept.money.reserve(await kept.records.get(key), worst, **more)


async def ended(kept, key="a", cost=None, state="done", **outcome):
    await kept.money.end(await kept.records.get(key), state, outcome, cost)


async def test_what_a_job_may_cost_is_taken_before_it_runs(url):
    """
    And what it did cost is what it has cost in the end.
    """
    async with in_database(url) as kept:
        await kept.add(wish())
        assert await taken(kept) is None
        assert ("running", THREE) == (await kept.state(), await kept.spent())
        await ended(kept, cost=Decimal("2.5"), why="so")
        entry = await kept.records.get("a")
        assert ("done", {"why": "so"}, Decimal("2.5")) == (entry.state, entry.outcome, await kept.spent())
        assert entry.ended_at >= entry.made_at


async def test_a_cost_that_nobody_tells_stays_at_its_worst_case(url):
    """
    It is never nothing.
    """
    async with in_database(url) as kept:
        await kept.add(wish())
        await taken(kept)
        await ended(kept, cost=None)
        assert THREE == await kept.spent()


async def test_a_budget_refuses_what_it_might_not_cover(url):
    """
    Before anything is paid; the job may be begun again with a higher one, and is paid once then.
    """
    async with in_database(url) as kept:
        await kept.add(wish("a"), wish("b"))
        await kept.money.set_budget("default", Decimal("5.5"))
        assert await taken(kept, "a") is None
        assert "it may cost 3 units, and 2.5 of the budget are left" == await taken(kept, "b")
        await ended(kept, "b", Decimal(0), "refused")
        assert ("refused", THREE) == (await kept.state("b"), await kept.spent())
        await kept.money.set_budget("default", Decimal(6))
        assert await kept.again("b")
        assert await taken(kept, "b") is None
        assert Decimal(6) == await kept.spent()


async def test_a_budget_that_was_lowered_has_nothing_left(url):
    """
    Not less than nothing.
    """
    async with in_database(url) as kept:
        await kept.add(wish("a"), wish("b"))
        await taken(kept, "a")
        await kept.money.set_budget("default", Decimal(1))
        assert "it may cost 3 units, and 0 of the budget are left" == await taken(kept, "b")
        await kept.money.set_budget("default", None)
        assert await taken(kept, "b") is None


async def test_no_budget_covers_what_nobody_knows(url):
    """
    Without one it may run.
    """
    async with in_database(url) as kept:
        await kept.add(wish("a"), wish("b"))
        await kept.money.set_budget("default", Decimal(10**6))
        assert (await taken(kept, "a", None)).startswith(UNKNOWN)
        await kept.money.set_budget("default", None)
        assert await taken(kept, "a", None) is None
        assert Decimal(0) == await kept.spent()


async def test_each_batch_has_money_of_its_own(url):
    """
    A budget may be said before its first job comes.
    """
    async with in_database(url) as kept:
        await kept.money.set_budget("spring", Decimal(0))
        await kept.add(wish("a"), batch="spring")
        await kept.add(wish("b"), batch="autumn")
        assert (await taken(kept, "a"), await taken(kept, "b")) != (None, None)
        assert (Decimal(0), THREE) == (await kept.spent("spring"), await kept.spent("autumn"))


async def test_what_runs_already_has_its_units(url):
    """
    Where a worker died after it had taken them, the next one takes no more.
    """
    async with in_database(url) as kept:
        await kept.add(wish())
        await kept.money.set_budget("default", THREE)
        assert [None, None] == [await taken(kept) for _ in range(2)]
        assert THREE == await kept.spent()


async def test_what_was_cancelled_or_begun_anew_must_not_run(url):
    """
    Even where the engine had handed it out before.
    """
    async with in_database(url) as kept:
        await kept.add(wish())
        old = await kept.records.get("a")
        await kept.records.cancel([old])
        assert "it was cancelled" == await kept.money.reserve(old, THREE)
        assert await kept.again()
        assert await taken(kept) is None
        assert "it was cancelled" == await kept.money.reserve(old, THREE)
        await kept.money.end(old, "failed", {}, Decimal(0))
        assert ("running", THREE) == (await kept.state(), await kept.spent())


async def test_an_end_is_written_once(url):
    """
    Another worker that comes to another one later changes nothing.
    """
    async with in_database(url) as kept:
        await kept.add(wish())
        await taken(kept)
        await ended(kept, cost=Decimal(2))
        await ended(kept, cost=Decimal(9), state="failed")
        assert ("done", Decimal(2)) == (await kept.state(), await kept.spent())


async def test_what_is_paid_for_already_is_never_refused_nor_taken_twice(url):
    """
    A result that could not be fetched is fetched later, whatever is left of the budget by then.
    """
    async with in_database(url) as kept:
        await kept.add(wish())
        await kept.money.set_budget("default", THREE)
        await taken(kept)
        await ended(kept, cost=None, state="failed", stage="finish")
        assert await kept.again()
        assert await taken(kept, worst=Decimal(6), paid=True) is None
        assert THREE == await kept.spent()
        await ended(kept, cost=Decimal(2))
        assert Decimal(2) == await kept.spent()


async def test_what_is_paid_for_elsewhere_counts_without_being_refused(url):
    """
    Such as a task that an earlier database knew of.
    """
    async with in_database(url) as kept:
        await kept.add(wish())
        await kept.money.set_budget("default", Decimal(1))
        assert await taken(kept, paid=True) is None
        assert THREE == await kept.spent()


async def test_the_same_run_takes_its_units_once(url):
    """
    Begun again because nobody knew its outcome, it needs no room beside itself.
    """
    async with in_database(url) as kept:
        await kept.add(wish())
        await kept.money.set_budget("default", THREE)
        await taken(kept)
        await ended(kept, cost=None, state="unknown")
        assert await kept.again()
        assert await taken(kept) is None
        assert THREE == await kept.spent()


async def test_another_run_takes_units_of_its_own(url):
    """
    For it is another paid task.
    """
    async with in_database(url) as kept:
        await kept.add(wish())
        await kept.money.set_budget("default", Decimal(5))
        await taken(kept)
        await ended(kept, cost=None, state="failed", task_failed=True)
        assert await kept.again()
        assert "it may cost 3 units, and 2 of the budget are left" == await taken(kept)


async def test_workers_at_the_same_time_never_spend_more_than_there_is(url):
    """
    Each with connections of its own, as in processes of their own; as many run as the budget allows, and no more.
    """
    keys = [f"k{number}" for number in range(24)]
    async with in_database(url) as kept:
        await kept.add(*map(wish, keys))
        await kept.money.set_budget("default", Decimal(20))
        workers = [Database(url) for _ in range(3)]
        refused = []

        async def reserve(database, key):
            refused.append(await Money(database, "default").reserve(await kept.records.get(key), THREE))

        async with anyio.create_task_group() as group:
            for number, key in enumerate(keys):
                group.start_soon(reserve, workers[number % 3], key)
                group.start_soon(reserve, workers[(number + 1) % 3], key)
        for worker in workers:
            worker.close()
        assert {"running": 6, "waiting": 18} == dict((await kept.records.counts()).states)
        assert (12, Decimal(18)) == (refused.count(None), await kept.spent())


@given(steps=STEPS, budget=some.none() | COSTS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_happens_the_sum_is_right_and_within_the_budget(tmp_path, steps, budget):
    """
    What is spent is what each job holds and has cost; what is taken before a paid call never goes beyond the budget.
    """
    async with in_database(url_of(tmp_path)) as kept:
        batch = f"batch-{next(BATCHES)}"
        await kept.add(*(wish(f"{batch}{key}") for key in "abc"), batch=batch)
        await kept.money.set_budget(batch, budget)
        for step, letter, cost in steps:
            key = f"{batch}{letter}"
            before = await kept.spent(batch)
            match step:
                case "reserve":
                    if await taken(kept, key, cost) is None and budget is not None and cost > 0:
                        assert (now := await kept.spent(batch)) <= max(budget, before), now
                case "paid":
                    await taken(kept, key, cost, paid=True)
                case "end":
                    await ended(kept, key, cost)
                case "fail":
                    await ended(kept, key, None, "failed", task_failed=bool(cost % 2))
                case "again":
                    await kept.again(key)
                case "cancel":
                    await kept.records.cancel([await kept.records.get(key)])
        rows = await kept.database.read(
            lambda connection: connection.exec_driver_sql(
                "SELECT SUM(cost + reserved), MIN(reserved) FROM kling_jobs WHERE batch = ?", (batch,)
            ).one()
        )
        assert (millionths(await kept.spent(batch)), True) == (rows[0], rows[1] >= 0)
