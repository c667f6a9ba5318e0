"""
What the workers of an account agree on: slots that are said or learned, a pause, and who is alive.
"""

import anyio
import pytest

from kling_async import InvalidInputError
from kling_async.dbos import _account
from kling_async.dbos._account import START, checked_account, checked_slots
from tests.batching import (
    given_url,  # noqa: F401 - a fixture
    in_database,
)

pytestmark = pytest.mark.real_clock


@pytest.mark.parametrize("name", ["a", "spring-26", "Studio_7", "0"])
def test_an_account_is_a_plain_name(name):
    """
    Letters, digits, dashes and underlines.
    """
    assert name == checked_account(name)


@pytest.mark.parametrize("name", [None, "", "-", "a b", "a/b", "ä", "a'b"])
def test_an_account_is_nothing_else(name):
    """
    It stands in names of queues; and what was given is not shown, for it might be a key.
    """
    with pytest.raises(InvalidInputError, match=r"^account: must be a name of letters, digits, - and _; it is no key$"):
        checked_account(name)


@pytest.mark.parametrize("slots", [None, "learned", 1, 50])
def test_slots_are_a_number_or_learned(slots):
    """
    Or nothing is said of them.
    """
    assert slots == checked_slots(slots)


@pytest.mark.parametrize("slots", [0, -1, True, 1.5, "5", "many"])
def test_slots_are_nothing_else(slots):
    """
    Not even text with digits.
    """
    with pytest.raises(InvalidInputError, match=r"^slots: must be a whole number from 1, or 'learned', not "):
        checked_slots(slots)


async def test_slots_stay_as_they_were_said(url):
    """
    Until something else is said; of learned ones it is gone on from what was learned.
    """
    async with in_database(url) as kept:
        said = [None, 12, None, "learned", "learned", 3, None, "learned"]
        assert [5, 12, 12, 5, 5, 3, 3, 5] == [await kept.account.make(slots) for slots in said]


async def test_what_was_learned_is_gone_on_from(url):
    """
    By the next worker that learns.
    """
    async with in_database(url, slots="learned") as kept:
        assert 4 == await kept.account.learned(refused=True)
        assert (4, 4) == (await kept.account.make("learned"), await kept.account.make(None))


async def test_slots_that_were_said_learn_nothing(url):
    """
    Neither from refusals nor from ends.
    """
    async with in_database(url, slots=4) as kept:
        assert (None, None) == (await kept.account.learned(refused=True), await kept.account.learned(refused=False))
        assert 4 == await kept.account.make(None)


async def test_refusals_shrink_learned_slots_once_in_a_while(url, monkeypatch):
    """
    Many that come at the same time are one and the same; one slot is always left.
    """
    async with in_database(url, slots="learned") as kept:
        assert [4, None, None] == [await kept.account.learned(refused=True) for _ in range(3)]
        monkeypatch.setattr(_account, "CALM", 0.0)
        assert [3, 2, None, 1, None, None] == [await kept.account.learned(refused=True) for _ in range(6)]
        assert 1 == await kept.account.make("learned")


async def test_ends_let_learned_slots_grow(url):
    """
    As many as there are slots add one.
    """
    async with in_database(url, slots="learned") as kept:
        grown = [await kept.account.learned(refused=False) for _ in range(2 * int(START) + 2)]
        assert [6, 7] == [slots for slots in grown if slots is not None]
        assert 5 == next(number for number, slots in enumerate(grown) if slots == 6)


async def test_workers_learn_together(url):
    """
    No end is lost of those that come at the same time.
    """
    async with in_database(url, slots="learned") as kept:
        told = []

        async def end():
            told.append(await kept.account.learned(refused=False))

        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(end)
        assert [6, 7] == sorted(slots for slots in told if slots is not None)


async def test_a_pause_says_why(url):
    """
    To all, until it is over.
    """
    async with in_database(url) as kept, in_database(url, account="other") as other:
        assert await kept.account.paused() is None
        assert await kept.account.pause("no balance")
        assert ("no balance", None) == (await kept.account.paused(), await other.account.paused())
        assert await kept.account.pause(None)
        assert await kept.account.paused() is None
        assert not await kept.account.pause(None)


async def test_a_pause_is_begun_by_one(url):
    """
    However many run into an empty balance at the same time; the first reason stays.
    """
    async with in_database(url) as kept:
        new = []

        async def pause(reason):
            if await kept.account.pause(reason):
                new.append(reason)

        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(pause, f"reason {number}")
        assert [await kept.account.paused()] == new


async def test_who_gives_no_sign_is_silent(url):
    """
    By the database's clock; so is who never gave one.
    """
    async with in_database(url) as kept:
        assert ("w0", "w1") == await kept.account.silent(["w0", "w1"], 60.0)
        await kept.account.seen("w0")
        await kept.account.seen("w0")
        assert ("w1",) == await kept.account.silent(["w0", "w1"], 60.0)
        assert ("w0",) == await kept.account.silent(["w0"], -1.0)
        assert () == await kept.account.silent([], 60.0)
