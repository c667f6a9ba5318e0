"""
Slots: first come first served, on no loop in particular; and the rules by which learned ones find a quota.
"""

from functools import partial
from itertools import count
from random import Random

import anyio
import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as some
from trio.testing import MockClock

from kling_async import InvalidInputError, Slots
from kling_async.slots import TRIED_MOST, Quota
from tests.checkpoints import cuts
from tests.conftest import JumpingLoop

WAITS = {"pause": 1.0, "alone": 5.0, "most": 60.0}
QUOTAS = some.integers(1, 60)


async def test_no_more_than_the_limit_hold_a_slot_and_the_first_come_is_first_served():
    """
    Ten want three slots; they get them in the order in which they came.
    """
    slots, order, most = Slots(3), [], 0

    async def hold(number):
        nonlocal most
        async with slots:
            order.append(number)
            most = max(most, slots.held)
            await anyio.sleep(100 + number)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(hold, number)
            await anyio.sleep(1)
    assert 3 == most
    assert list(range(10)) == order
    assert (0, "<Slots 0 of 3, 0 waiting>") == (slots.held, repr(slots))


async def test_nobody_overtakes_those_who_wait():
    """
    A slot that comes free goes to the longest waiting, even when another asks in that moment.
    """
    slots, order = Slots(1), []

    async def hold(name):
        async with slots:
            order.append(name)

    async with anyio.create_task_group() as group:
        async with slots:
            group.start_soon(hold, "first")
            await anyio.wait_all_tasks_blocked()
        await hold("second")
    assert ["first", "second"] == order


async def test_a_cancelled_waiter_gives_its_place_up():
    """
    Neither a slot nor a place in the queue is lost.
    """
    slots = Slots(1)
    async with slots:
        with anyio.move_on_after(1):
            async with slots:
                pytest.fail("there was no slot")
        assert "<Slots 1 of 1, 0 waiting>" == repr(slots)
    async with slots:
        assert 1 == slots.held


async def test_a_waiter_cancelled_as_its_turn_comes_passes_the_slot_on():
    """
    Granted and cancelled at once: the next in the queue gets it.
    """
    slots, got = Slots(1), anyio.Event()

    async def wait(scope):
        with scope:
            async with slots:
                pytest.fail("it was cancelled")

    async def next_in_line():
        async with slots:
            got.set()

    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()
        async with slots:
            group.start_soon(wait, scope)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(next_in_line)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
        with anyio.fail_after(1):
            await got.wait()
    assert 0 == slots.held


def test_one_object_serves_one_loop_after_another():
    """
    It may stand at module level: nothing of it belongs to a loop.
    """
    slots = Slots(1)

    async def hold():
        async with slots:
            assert 1 == slots.held

    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(hold, backend=backend)
    assert 0 == slots.held


async def told(slots):
    """
    The limit before and after a refusal of one of three, and after seventeen more that were not refused.
    """
    limits = []

    async def hold(number):
        async with slots:
            await anyio.sleep(100 + number)
            if number == 0:
                limits.append(slots.limit)
                slots.refused()
                limits.append(slots.limit)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(hold, number)
            await anyio.sleep(1)
    return *limits, slots.limit


async def test_learned_slots_follow_the_account():
    """
    A refusal takes one off, and ends while all are held show room for more.
    """
    slots = Slots.learned(start=3)
    before, after, found = await told(slots)
    assert (3, 2) == (before, after)
    assert found > 3
    assert f"<Slots 0 of {found}, 0 waiting>" == repr(slots)


async def test_plain_slots_do_not_move():
    """
    Neither a refusal nor an end changes their number.
    """
    assert (3, 3, 3) == await told(Slots(3))


async def test_what_failed_is_no_sign_of_room():
    """
    Only an end without an error lets learned slots grow.
    """
    slots = Slots.learned(start=1)
    with pytest.raises(KeyError):
        async with slots:
            raise KeyError
    assert 1 == slots.limit


async def test_growing_slots_let_several_waiters_in():
    """
    Room for two is given to two.
    """
    slots, inside = Slots.learned(start=1), []

    async def hold():
        async with slots:
            inside.append(slots.held)
            await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(hold)
    assert 2 == max(inside)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, "5"])
def test_a_number_of_slots_is_a_whole_number_from_one(wrong):
    """
    Anything else is told by name.
    """
    with pytest.raises(InvalidInputError, match="slots"):
        Slots(wrong)


@given(limit=some.integers(1, 6), holds=some.lists(some.integers(0, 5), max_size=25))
def test_running_never_exceeds_the_slots(limit, holds):
    """
    Whatever the lengths of the holds and the limit.
    """
    slots, most = Slots(limit), 0

    async def hold(turns):
        nonlocal most
        async with slots:
            most = max(most, slots.held)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()

    async def main():
        async with anyio.create_task_group() as group:
            for turns in holds:
                group.start_soon(hold, turns)

    anyio.run(main)
    assert most <= limit
    assert 0 == slots.held


@define
class Counter:
    """
    An account of which one client is the only one, and which tells it all at once; no time passes.
    """

    allowed: int
    quota: Quota
    running: int = 0
    ends: int = 0
    refusals: int = 0

    def fill(self):
        """
        Create until there is no room, or it is refused.
        """
        while self.quota.admits(self.running, 0):
            if self.running >= self.allowed:
                self.refusals += 1
                self.quota.refused(self.running, 0)
                return
            self.running += 1
            self.quota.accepted(self.running, 0)

    def end(self):
        """
        One ends, and whoever waits begins.
        """
        self.running -= 1
        self.ends += 1
        self.quota.ended()
        self.fill()

    def ends_until(self, running):
        """
        How many ends it takes until so many run.
        """
        begun = self.ends
        while self.running != running:
            self.end()
        return self.ends - begun


def settled(allowed, start=5):
    counter = Counter(allowed, Quota(start))
    counter.fill()
    counter.ends_until(allowed)
    return counter


@given(allowed=QUOTAS, start=QUOTAS)
def test_the_quota_is_found_at_once_with_one_refusal(allowed, start):
    """
    Whether the guess at first was too low or too high: nothing has to end for it.
    """
    counter = Counter(allowed, Quota(start))
    counter.fill()
    assert (allowed, allowed, 1) == (counter.running, counter.quota.level, counter.refusals)


@given(allowed=QUOTAS, more=QUOTAS, ends=some.integers(0, 200))
def test_a_quota_that_rose_is_found_soon(allowed, more, ends):
    """
    After two rounds at most, or two dozen ends where that is more, one more is accepted, and then all others are.
    """
    counter = settled(allowed)
    for _ in range(ends):
        counter.end()
    counter.allowed = allowed + more
    assert counter.ends_until(allowed + more) <= max(TRIED_MOST, 2 * allowed) + 2


@given(allowed=QUOTAS, less=QUOTAS, ends=some.integers(0, 200))
def test_a_quota_that_fell_is_found_with_a_few_refusals(allowed, less, ends):
    """
    As many run in the end as it allows now, and a dozen refusals are enough to find that out.
    """
    counter = settled(allowed)
    for _ in range(ends):
        counter.end()
    counter.allowed, before = max(1, allowed - less), counter.refusals
    while counter.running > counter.allowed:
        counter.end()
    assert counter.refusals - before <= 9
    assert counter.ends_until(counter.allowed) <= 2 * allowed


@given(allowed=QUOTAS, start=QUOTAS)
def test_a_quota_that_stays_is_seldom_tried(allowed, start):
    """
    A thousand ends cost a refusal for two dozen of them, or for two rounds, and a few at first.
    """
    counter = settled(allowed, start)
    for _ in range(1000):
        counter.end()
    assert counter.refusals <= 1000 / max(TRIED_MOST, 2 * allowed) + 8
    assert allowed == counter.running


@define
class Shuffled:
    """
    An account of which nothing is known for sure: creates are underway for a while, answers overtake each other, ends
    are noticed late, others come and go, and the quota changes.
    """

    quota: Quota
    allowed: int = 20
    others: int = 0
    unnoticed: int = 0
    """Tasks of ours that have ended."""
    running: int = 0
    """Tasks of ours that run, as far as we know."""
    most: int = 0
    underway: list = field(factory=list)
    """Whether they will turn out to be accepted."""

    def begin(self, _number):
        """Send a create, for somebody insists; the account decides at once."""
        ours = self.running - self.unnoticed + sum(self.underway)
        self.underway.append(ours + self.others < self.allowed)

    def begin_if_admitted(self, number):
        """Send a create if there is room."""
        if self.quota.admits(self.running, len(self.underway)):
            self.begin(number)

    def answer(self, number):
        """One of the answers comes in: an acceptance takes nothing off, a refusal adds nothing."""
        if self.underway:
            level, limit = self.quota.level, self.quota.limit
            accepted = self.underway.pop(number % len(self.underway))
            self.running += accepted
            self.most = max(self.most, self.running)
            if accepted:
                self.quota.accepted(self.running, len(self.underway))
                assert level <= self.quota.level <= max(level, self.running + 1)
            else:
                self.quota.refused(self.running, len(self.underway))
                assert self.quota.limit <= limit

    def end(self, _number):
        """One ends, unnoticed."""
        self.unnoticed = min(self.unnoticed + 1, self.running)

    def notice(self, _number):
        """It is noticed."""
        if self.running:
            self.running -= 1
            self.unnoticed = max(0, self.unnoticed - 1)
            self.quota.ended()

    def allow(self, number):
        """The quota changes."""
        self.allowed = number

    def visit(self, number):
        """So many others are there now."""
        self.others = number % 10


MOVES = ["begin", *["begin_if_admitted"] * 4, *["answer"] * 4, "end", "notice", "allow", "visit"]


@settings(max_examples=200, deadline=None)
@given(start=QUOTAS, moves=some.lists(some.tuples(some.sampled_from(MOVES), QUOTAS), max_size=150))
def test_whatever_comes_the_level_stays_between_one_and_one_more_than_ever_ran(start, moves):
    """
    It may be tried with one more, and when nothing is left that runs or is underway, one may always begin.
    """
    it = Shuffled(Quota(start))
    for move, number in moves:
        getattr(it, move)(number)
        assert 1 <= it.quota.level <= max(start, it.most + 1)
        assert it.quota.level <= it.quota.limit <= it.quota.level + 1
    while it.underway:
        it.answer(0)
    while it.running:
        it.notice(0)
    assert it.quota.admits(0, 0)


def test_who_holds_little_beside_others_tries_sooner():
    """
    Others who were seen, or who fill an account of which we have nothing, are reason to try every few ends.
    """
    alone, seen, unseen = Quota(3), Quota(23), Quota(3)
    seen.shown(0, 20)
    unseen.refused(0, 0)
    unseen.accepted(1, 0)
    for quota in (alone, seen, unseen):
        for running in range(1, 4):
            quota.accepted(running, 0)
        for _ in range(10):
            quota.refused(quota.level, 0)
        assert quota.level == quota.limit
        quota.ended()
    assert [False, True, True] == [quota.limit > quota.level for quota in (alone, seen, unseen)]


@define(eq=False)
class Account:
    """
    An account on a clock: it allows so many at once, and each of our tasks is noticed late to have ended.
    """

    allowed: int
    late: float = 0.0
    running: int = 0
    most: int = 0
    refusals: int = 0

    def create(self):
        """
        Whether it was accepted.
        """
        if self.running >= self.allowed:
            self.refusals += 1
            return False
        self.running += 1
        self.most = max(self.most, self.running)
        return True

    async def run(self, seconds):
        """
        Run to the end, and notice it.
        """
        try:
            await anyio.sleep(seconds)
        finally:
            self.running -= 1
        await anyio.sleep(self.late)


async def work(slots, account, seconds, *, asked=None, told=lambda what: None):
    """
    One job as `edit` does it; a create takes a tenth of a second.
    """
    async with slots.slot(asked) as slot:
        told("begun")
        await anyio.sleep(0.1)
        while not account.create():
            told("refused")
            await slot.refused(**WAITS)
            told("begun")
            await anyio.sleep(0.1)
        told("accepted")
        slot.accepted()
        await account.run(seconds)


def on_a_jumping_clock(main):
    """
    Run it on both loops.
    """
    anyio.run(main, backend_options={"loop_factory": JumpingLoop})
    anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


def overtaken(events):
    """
    Who waited as a later one began, and did not begin in the same moment.
    """
    since, waits, begins = {}, [], []
    for at, what, number in events:
        if what in {"came", "refused"}:
            since[number] = at
        elif what == "begun":
            waits.append((number, since.pop(number), at))
            begins.append((number, at))
    return [
        number for number, come, begun in waits if any(number < later and come < at < begun for later, at in begins)
    ]


@settings(max_examples=60, deadline=None)
@given(
    start=some.integers(1, 8),
    allowed=some.integers(1, 8),
    jobs=some.lists(some.tuples(some.floats(0, 5), some.floats(5, 100)), min_size=10, max_size=40),
    late=some.floats(0, 10),
)
def test_all_jobs_end_and_who_waits_is_not_overtaken(start, allowed, jobs, late):
    """
    Whatever their lengths, and whether they were refused meanwhile.
    """

    async def main():
        account, slots, events = Account(allowed, late), Slots.learned(start), []

        async def one(number, seconds):
            def told(what):
                events.append((anyio.current_time(), what, number))

            told("came")
            await work(slots, account, seconds, told=told)

        async with anyio.create_task_group() as group:
            for number, (after, seconds) in enumerate(jobs):
                group.start_soon(one, number, seconds)
                await anyio.sleep(after + 0.01)
        assert len(jobs) == sum(what == "accepted" for _, what, _ in events)
        assert [] == overtaken(events)
        assert account.most <= allowed
        assert (0, 0, account.running) == (slots.held, slots.running, 0)
        assert "0 waiting" in repr(slots)

    on_a_jumping_clock(main)


async def test_a_refused_job_keeps_its_place_and_takes_a_pause():
    """
    Room that comes within its pause is kept for it, though others wait behind it.
    """
    account, slots, told = Account(2), Slots.learned(start=3), []
    start = anyio.current_time()

    def teller(number):
        return lambda what: told.append((number, what, anyio.current_time() - start))

    async with anyio.create_task_group() as group:
        for number, seconds in enumerate((0.5, 50, 10, 10, 10)):
            group.start_soon(partial(work, slots, account, seconds, told=teller(number)))
            await anyio.sleep(0.01)
    assert [0, 1, 2, 2] == [number for number, what, _ in told if what == "begun"][:4]
    refused = next(at for number, what, at in told if what == "refused")
    _, again = (at for number, what, at in told if (number, what) == (2, "begun"))
    assert WAITS["pause"] == pytest.approx(again - refused)


async def test_a_refused_job_is_woken_by_an_end():
    """
    It goes on within the second in which a task of ours ends, not after a wait that has grown meanwhile.
    """
    account, slots, begun = Account(1), Slots.learned(start=2), []

    async def second():
        await work(slots, account, 10, told=lambda what: begun.append((what, anyio.current_time() - start)))

    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(work, slots, account, 40)
        await anyio.sleep(0.01)
        group.start_soon(second)
    assert ["begun", "refused", "begun", "accepted"] == [what for what, _ in begun]
    assert 40 <= begun[-1][1] <= 41
    assert 1 == account.refusals


async def test_where_nothing_ends_it_tries_again_after_a_while():
    """
    Others may have left: the first in line tries after a minute, later the next, and with the second they all come.
    """
    account, slots = Account(1), Slots.learned(start=4)
    async with anyio.create_task_group() as group:
        group.start_soon(work, slots, account, 1000)
        await anyio.sleep(1)
        for _ in range(5):
            group.start_soon(work, slots, account, 1000)
        await anyio.sleep(30)
        assert (3, 1) == (account.refusals, account.running)
        account.allowed = 10
        await anyio.sleep(32)
        assert (3, 2) == (account.refusals, account.running)
        await anyio.sleep(122)
        assert (3, 6) == (account.refusals, account.running)


async def test_where_nothing_of_ours_runs_one_tries_and_the_others_wait_for_it():
    """
    An account that others fill is asked every few seconds, by one job at a time.
    """
    account, slots = Account(0), Slots.learned(start=4)
    with anyio.move_on_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(work, slots, account, 100)
    assert 4 <= account.refusals <= 4 + 60 / WAITS["alone"]
    assert (0, "<Slots 0 of 1, 0 waiting>") == (slots.held, repr(slots))


async def test_a_refused_job_that_is_cancelled_makes_way():
    """
    Before its pause is over, after it, and in the moment in which its turn comes: nobody waits for it.
    """
    for after in (0.5, 30, 100):
        account, slots = Account(1), Slots.learned(start=2)
        async with anyio.create_task_group() as group:
            group.start_soon(work, slots, account, 99.9)
            await anyio.sleep(0.01)
            scope = anyio.CancelScope()

            async def refused(scope=scope, slots=slots, account=account):
                with scope:
                    await work(slots, account, 10)

            group.start_soon(refused)
            await anyio.sleep(0.01)
            group.start_soon(work, slots, account, 10)
            await anyio.sleep(after - 0.02)
            scope.cancel()
        assert (0, 0) == (slots.held, account.running)


@pytest.mark.parametrize("earlier", [0, 1], ids=["the first", "one that is refused"])
async def test_f29_no_slot_is_lost_wherever_a_job_is_cut_off(anyio_backend_name, earlier):
    """
    In line, while it is looked what runs, as its create is refused, while it waits again, as its task runs.
    """

    async def seen():
        await anyio.sleep(0.1)
        return 0

    for cut in cuts(anyio_backend_name):
        account, slots = Account(1), Slots.learned(start=2)
        cut_off = partial(cut.run, partial(work, slots, account, 5, asked=seen))
        other = partial(work, slots, account, 5, asked=seen)
        async with anyio.create_task_group() as group:
            for start in (*[other] * earlier, cut_off, other, other):
                group.start_soon(start)
                await anyio.sleep(0.01)
        assert (0, 0) == (slots.held, account.running), cut
        assert "0 waiting" in repr(slots), cut


async def test_a_create_that_failed_gives_its_slot_back():
    """
    It was neither accepted nor refused, and tells nothing.
    """
    slots = Slots.learned(start=1)
    with pytest.raises(KeyError):
        async with slots.slot():
            raise KeyError
    assert "<Slots 0 of 1, 0 waiting>" == repr(slots)


@pytest.mark.parametrize(("running", "limit"), [(0, 5), (3, 2), (5, 1), (40, 1)])
async def test_what_runs_already_is_a_part_of_the_start(running, limit):
    """
    It is asked for once, by the first, and nobody is let in before it is told.
    """
    slots, asked, held = Slots.learned(start=5), [], []

    async def seen():
        asked.append(slots.held)
        await anyio.sleep(10)
        held.append(slots.held)
        return running

    async def one():
        async with slots.slot(seen):
            held.append(slots.held)
            await anyio.sleep(100)

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(one)
        await anyio.sleep(11)
        assert limit == slots.limit == slots.held
    assert [0] == asked
    assert limit == max(held)


async def test_a_look_that_is_cancelled_lets_the_others_in():
    """
    It is not tried again.
    """
    slots, looks = Slots.learned(start=2), count()

    async def seen():
        next(looks)
        await anyio.sleep_forever()

    with anyio.move_on_after(5):
        async with slots.slot(seen):
            pytest.fail("it was not told yet")
    async with slots.slot(seen):
        assert "<Slots 1 of 2, 0 waiting>" == repr(slots)
    assert 1 == next(looks)


async def test_a_task_of_an_earlier_run_holds_a_slot_without_waiting():
    """
    It shows that there is room for so many; where it was seen as another's, it is ours from now on.
    """
    slots = Slots.learned(start=5)

    async def seen():
        return 4

    with slots.resumed(), slots.resumed():
        async with slots.slot(seen) as slot:
            slot.accepted()
            assert (3, 4) == (slots.held, slots.limit)
        with slots.resumed(), slots.resumed(), slots.resumed():
            assert (5, 5) == (slots.held, slots.limit)
    assert 0 == slots.held


async def test_two_clients_of_one_account_come_to_share_it():
    """
    One that has all of it leaves the other a good part after a while, though neither knows of the other.
    """
    account, random = Account(12, late=3.0), Random(7)
    held, parts = {}, []

    async def client(name, others):
        slots = held[name] = Slots.learned()

        async def seen():
            return others

        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(worker, slots, seen)

    async def worker(slots, seen):
        while True:
            await work(slots, account, random.lognormvariate(4.5, 0.35), asked=seen)

    with anyio.move_on_after(6000):
        async with anyio.create_task_group() as group:
            group.start_soon(client, "first", 0)
            await anyio.sleep(600)
            group.start_soon(client, "second", account.running)
            await anyio.sleep(2000)
            while True:
                await anyio.sleep(10)
                parts.append(held["second"].held / (held["first"].held + held["second"].held))
    assert 0.1 < sum(parts) / len(parts) < 0.9
