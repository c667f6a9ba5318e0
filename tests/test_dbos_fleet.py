"""
Workers have places, show that they live, and take over from those that do not.
"""

import logging

import anyio
import pytest
from attrs import define, field
from psycopg import sql

from kling_async import StoreError
from kling_async.dbos import _fleet
from kling_async.dbos._database import Database
from kling_async.dbos._fleet import REAPING, Fleet, Place
from tests.batching import (
    emptied,
    given_url,  # noqa: F401 - a fixture
    in_database,
    until,
    url_of,
)

pytestmark = pytest.mark.real_clock

LEASE = 60.0


@define
class Hands:
    """
    An engine that says who holds what, and remembers what was handed on.
    """

    held: dict = field(factory=dict)
    known: set = field(factory=set)
    handed: list = field(factory=list)

    async def holders(self):
        await anyio.lowlevel.checkpoint()
        return dict(self.held)

    def lost(self, workflow_ids):
        return tuple(each for each in workflow_ids if each not in self.known)

    async def hand_on(self, workflow_ids):
        await anyio.lowlevel.checkpoint()
        self.handed.append(workflow_ids)


class Gone:
    """
    A lock that is another's by now.
    """

    def taken(self):
        return False


async def test_a_worker_takes_the_first_place_that_is_free(url):
    """
    And leaves it for the next.
    """
    async with in_database(url) as kept:
        other = Database(url)
        places = [await Place.taken(each) for each in (kept.database, other, kept.database)]
        assert ["w0", "w1", "w2"] == [place.name for place in places]
        await places[1].release()
        again = await Place.taken(kept.database)
        assert "w1" == again.name
        for place in (places[0], places[2], again):
            await place.release()
        other.close()


async def test_places_are_not_without_number(tmp_path, monkeypatch):
    """
    Who finds none is told so.
    """
    monkeypatch.setattr(_fleet, "PLACES", 1)
    database = Database(url_of(tmp_path))
    place = await Place.taken(database)
    with pytest.raises(StoreError, match="has 1 workers already"):
        await Place.taken(database)
    await place.release()
    database.close()


def fleet_of(kept, hands, *, lock=None, name="w0", lease=LEASE):
    return Fleet(Place(kept.database, name, lock or kept.database.lock(name)), kept.account, hands, lease, 0.02)


async def looked(kept, hands, *, times=1, **more):
    """
    What was handed on after so many looks.
    """
    fleet = fleet_of(kept, hands, **more)
    for _ in range(times):
        await fleet._look()
    await fleet.place.release()
    return hands.handed


async def test_a_worker_shows_that_it_lives(url):
    """
    Again and again, and looks after the others.
    """
    async with in_database(url) as kept:
        fleet = fleet_of(kept, hands := Hands({"w7": ("one",)}))

        async def heard():
            return not await kept.account.silent(["w0"], LEASE) and len(hands.handed) > 2

        async with anyio.create_task_group() as group:
            group.start_soon(fleet.run)
            await until(heard)
            group.cancel_scope.cancel()
        await fleet.place.release()


async def test_a_worker_whose_place_is_anothers_ends(url):
    """
    For whoever has it goes on with its work.
    """
    async with in_database(url) as kept:
        with pytest.raises(StoreError, match="place w0 is held by another worker now: start this one again"):
            await fleet_of(kept, Hands(), lock=Gone()).run()


async def test_a_place_is_lost_with_its_session(postgres):
    """
    As when a server has cut a worker off, and another was quicker.
    """
    url = emptied(postgres)
    async with in_database(url) as kept:
        fleet, other = fleet_of(kept, Hands()), Database(url)
        backend = fleet.place.lock._connection.connection.driver_connection.info.backend_pid
        postgres.execute(sql.SQL("SELECT pg_terminate_backend(%s)"), [backend])
        place = await Place.taken(other)
        while place.name != "w0":
            await place.release()
            place = await Place.taken(other)
        with pytest.raises(StoreError, match="place w0 is held by another worker"):
            await fleet.run()
        await place.release()
        other.close()


async def test_work_of_a_place_that_nobody_holds_is_handed_on(url, caplog, monkeypatch):
    """
    Once its worker was not seen for a little while; and the log says so.
    """
    async with in_database(url) as kept:
        await kept.account.seen("w1")
        hands = Hands({"w1": ("one", "two"), "": ("three",)})
        monkeypatch.setattr(_fleet, "MISSED", 0)
        with caplog.at_level(logging.WARNING):
            assert [("one", "two"), ("three",)] == await looked(kept, hands)
        assert ["worker w1 is gone: its 2 jobs are handed on", "worker ? is gone: its 1 jobs are handed on"] == [
            record.message for record in caplog.records
        ]
        free = kept.database.lock("w1")
        assert free is not None
        free.release()


async def test_a_worker_that_was_just_seen_lives_although_nobody_holds_its_place(url, monkeypatch):
    """
    A server that was started anew has let go of all places, and not everybody has taken theirs again.
    """
    async with in_database(url) as kept:
        await kept.account.seen("w1")
        monkeypatch.setattr(_fleet, "MISSED", 1_000_000)
        assert [] == await looked(kept, Hands({"w1": ("one",)}))


async def test_who_could_show_no_sign_of_life_does_not_judge_by_those_of_others(url, monkeypatch):
    """
    It was stopped, or the database was away for all of them: the others get time to show one.
    """
    async with in_database(url) as kept:
        fleet, looks = fleet_of(kept, Hands()), []
        seen, times = kept.account.seen, iter([0.0, 0.05, 0.2, 0.0])

        async def late(name):
            await anyio.sleep(next(times, 0.0))
            await seen(name)

        async def look(_fleet):
            looks.append(_fleet._steady)
            await anyio.lowlevel.checkpoint()

        monkeypatch.setattr(type(kept.account), "seen", lambda _account, name: late(name))
        monkeypatch.setattr(Fleet, "_look", look)
        async with anyio.create_task_group() as group:
            group.start_soon(fleet.run)
            with anyio.fail_after(15):
                while len(looks) < 4:  # noqa: ASYNC110 - what is waited for is elsewhere
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        assert 0.0 == looks[0] < looks[-1]
        await fleet.place.release()


@pytest.mark.parametrize("missed", [0, 1_000_000])
async def test_work_of_a_worker_that_lives_stays_with_it(url, monkeypatch, missed):
    """
    It holds its place, and was seen of late.
    """
    monkeypatch.setattr(_fleet, "MISSED", missed)
    async with in_database(url) as kept:
        await kept.account.seen("w1")
        lock = kept.database.lock("w1")
        assert [] == await looked(kept, Hands({"w1": ("one",)}))
        lock.release()


async def test_work_of_a_worker_that_is_silent_is_handed_on(url):
    """
    Although it holds its place: it may be stopped, or its machine cut off.
    """
    async with in_database(url) as kept:
        await kept.account.seen("w1")
        lock = kept.database.lock("w1")
        assert [("one",)] == await looked(kept, Hands({"w1": ("one",)}), lease=-1.0)
        lock.release()


async def test_ones_own_work_is_handed_on_when_it_is_unknown_twice(url):
    """
    Once it may only just have been handed out; what is known is at work.
    """
    async with in_database(url) as kept:
        hands = Hands({"w0": ("known", "lost")}, {"known"})
        assert [] == await looked(kept, hands)
        assert [("lost",)] == await looked(kept, hands, times=2)


async def test_what_was_doubted_and_is_known_by_now_is_at_work(url):
    """
    And what is new is doubted for the first time.
    """
    async with in_database(url) as kept:
        hands = Hands({"w0": ("one",)})
        fleet = fleet_of(kept, hands)
        await fleet._look()
        hands.held, hands.known = {"w0": ("one", "two")}, {"one"}
        await fleet._look()
        assert [] == hands.handed
        await fleet._look()
        assert [("two",)] == hands.handed
        await fleet.place.release()


async def test_one_at_a_time_looks_after_the_others(url):
    """
    Whoever comes while another does leaves it, unless that one hangs in the midst of it.
    """
    name = f"{REAPING}-default"
    async with in_database(url) as kept:
        turn = kept.database.lock(name)
        await kept.account.seen(name)
        assert [] == await looked(kept, Hands({"w7": ("one",)}))
        assert [("one",)] == await looked(kept, Hands({"w7": ("one",)}), lease=-1.0)
        turn.release()
        assert [("one",)] == await looked(kept, Hands({"w7": ("one",)}))
