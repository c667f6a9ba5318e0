"""
One poller for all who wait: pages where they are worth it, single looks else, and nobody waits longer for it.

Times are those of a clock that jumps, so they are exact.
"""

import asyncio
from collections import Counter
from functools import partial
from random import Random
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.lowlevel
import orjson
import pytest
from attrs import define, field

from kling_async import (
    KLING_GLOBAL_URL,
    ApiKey,
    AuthenticationError,
    ClosedError,
    DecodeError,
    Inbox,
    KlingClient,
    LostReplyError,
    NotFoundError,
    PollPolicy,
    RetryPolicy,
    Task,
    TLSError,
)
from kling_async._poller import AT_ONCE, WORTH
from kling_async.simulator import Simulator
from kling_async.webhooks import Hint
from tests.checkpoints import called_off, cuts, natives
from tests.doubles import KEY, envelope, task_reply
from tests.simulating import Caller

INTERVAL = 2.0
STEADY = PollPolicy(first=INTERVAL, factor=1, ceiling=INTERVAL, jitter=0)
SPREAD = PollPolicy(first=INTERVAL, factor=1, ceiling=INTERVAL)
PATIENT = PollPolicy(first=600, ceiling=600, jitter=0)
ONCE = RetryPolicy(attempts=1)
LIST = "list"
NOON = 1_777_385_361_501
MANY = 20


@define(eq=False)
class Service:
    """
    An account whose tasks end at set times, and its log: what was asked, and when.
    """

    ends: dict
    """Seconds by task id, the oldest task first."""
    foreign: int = 0
    """Tasks of others, newer than ours."""
    order: object = staticmethod(lambda rows: rows)
    """The list's own."""
    page: object = None
    """What a page is instead: a reply, an error to raise, or an event to wait for."""
    single: object = None
    """What a look at one task is instead."""
    videos: bool = True
    """Whether pages name the results."""
    seconds: float = 0.0
    """How long a look takes."""
    asked: list = field(factory=list)
    busy: int = 0
    most: int = 0

    async def exchange(self, request):
        parts = urlsplit(request.url)
        last = parts.path.rpartition("/")[2]
        name = LIST if last == "multi-elements" else last
        self.asked.append((anyio.current_time(), name))
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await (anyio.sleep(self.seconds) if self.seconds else anyio.lowlevel.checkpoint())
            return await self.answer(name, parse_qs(parts.query))
        finally:
            self.busy -= 1

    async def answer(self, name, query):
        instead = self.page if name == LIST else self.single
        if isinstance(instead, list):
            instead = instead.pop(0) if instead else None
        if isinstance(instead, anyio.Event):
            await instead.wait()
            instead = None
        if isinstance(instead, BaseException):
            raise instead
        if instead is not None:
            return instead
        if name != LIST:
            return envelope(self.row(name)) if name in self.ends else envelope(code=1203, status=404)
        number, size = int(query["pageNum"][0]), int(query["pageSize"][0])
        names = [*self.ends, *(f"foreign-{each}" for each in range(self.foreign))]
        rows = self.order([self.row(each, listed=True) for each in reversed(names)])
        return envelope(rows[(number - 1) * size : number * size])

    def row(self, name, *, listed=False):
        ended = self.ends.get(name, 0.0) <= anyio.current_time()
        row = orjson.loads(task_reply("succeed" if ended else "processing", task_id=name).body)["data"]
        if listed and not self.videos:
            row["task_result"] = {}
        place = self.foreign + len(self.ends) if name.startswith("foreign") else list(self.ends).index(name)
        return row | {"created_at": NOON + 60_000 * place}

    def count(self, name=None):
        """
        How often the list was asked for, or a task, or all tasks.
        """
        counts = Counter(each for _, each in self.asked)
        return counts.total() - counts[LIST] if name is None else counts[name]


def service_of(number=MANY, *, span=20.0, **named):
    began = anyio.current_time()
    return Service({str(each): began + span * (each * 7 % number) / number for each in range(number)}, **named)


def client_of(service, *, poll=STEADY, **named):
    named = {"base_url": KLING_GLOBAL_URL, "retry": ONCE, **named}
    return KlingClient(ApiKey(KEY), transport=service, poll=poll, **named)


def running(name):
    return Task(task_id=name, status="processing")


@define(eq=False)
class Crowd:
    """
    Those who wait: when each task's end was noticed, or what its wait has raised.
    """

    client: object
    noticed: dict = field(factory=dict)
    raised: dict = field(factory=dict)

    async def wait(self, name, task=None):
        try:
            await self.client.wait(task or running(name))
            self.noticed[name] = anyio.current_time()
        except Exception as error:  # noqa: BLE001 (whatever it is)
            self.raised[name] = error

    async def all(self, names):
        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(self.wait, name)

    def late(self, ends):
        """
        Seconds from the ends of all tasks to their being noticed, the most.
        """
        assert {} == self.raised
        assert set(ends) == set(self.noticed)
        assert all(self.noticed[name] >= end for name, end in ends.items())
        return max(self.noticed[name] - end for name, end in ends.items())


async def waited(service, **named):
    """
    All tasks of a service, waited for at once.
    """
    async with client_of(service, **named) as client:
        crowd = Crowd(client)
        await crowd.all(service.ends)
        assert nothing_left(client)
    return crowd


def nothing_left(client):
    """
    Whether the poller has forgotten all who waited.
    """
    poller = client._poller
    return not poller._seats and not poller._by_id and poller._leader is None


@pytest.mark.parametrize("poll", [STEADY, SPREAD], ids=["steady", "jitter"])
async def test_a_thousand_who_wait_cost_a_hundredth_of_a_look_each(poll):
    """
    On a simulator with a list each end is noticed within an interval, for 100 times fewer requests than a GET each.
    """
    simulator = Simulator(quota=1000, task_seconds=60)
    caller, tasks, ends = Caller(simulator.transport()), [], {}
    session_id = await caller.marked()
    for number in range(1000):
        data = (await caller.create(session_id)).data
        tasks.append(Task(task_id=data["task_id"], status="submitted"))
        ends[data["task_id"]] = anyio.current_time() + 60
        if number % 50 == 49:
            await anyio.sleep(1)
    began, before = anyio.current_time(), len(simulator.log)
    async with client_of(simulator.transport(), poll=poll) as client:
        crowd = Crowd(client)
        async with anyio.create_task_group() as group:
            for task in tasks:
                group.start_soon(crowd.wait, task.task_id, task)
    assert INTERVAL * 1.1 >= crowd.late(ends)
    looks = sum((end - began) / INTERVAL for end in ends.values())
    assert looks / 100 >= len(simulator.log) - before


async def test_every_end_is_noticed_within_an_interval_though_ends_are_in_no_order():
    """
    Three pages for 1,200 tasks, by the same looks for all, and no single look while many wait.
    """
    service = service_of(1200)
    crowd = await waited(service)
    assert INTERVAL >= crowd.late(service.ends)
    assert 11 * 3 >= service.count(LIST)
    assert WORTH >= service.count()


@pytest.mark.parametrize("number", [1, 2, WORTH])
async def test_few_are_looked_at_singly(number):
    """
    A page of five hundred tasks for so few would be a waste.
    """
    service = service_of(number)
    crowd = await waited(service)
    assert INTERVAL >= crowd.late(service.ends)
    assert 0 == service.count(LIST)


async def test_who_waits_by_ids_alone_is_served_by_pages_too():
    """
    Nothing is known of bare ids: all are looked at at once, by one page.
    """
    service = service_of(100, span=0)
    async with client_of(service) as client, anyio.create_task_group() as group:
        for name in service.ends:
            group.start_soon(client.wait, name)
    assert [LIST] == [name for _, name in service.asked]


async def test_a_host_without_a_list_is_asked_singly_and_by_few_at_once():
    """
    A thousand looks of half a second each: 32 are underway at once, and no page is asked for.
    """
    service = service_of(1000, span=0, seconds=0.5)
    crowd = await waited(service, base_url=None)
    assert {} == crowd.raised
    assert (0, 1000, AT_ONCE) == (service.count(LIST), service.count(), service.most)


async def test_waits_that_begin_at_any_time_come_into_step():
    """
    500 who began at 500 moments share their looks, and none looks less often for it.
    """
    service = service_of(500, span=60)
    service.ends = {name: end + 2 * INTERVAL for name, end in service.ends.items()}
    async with client_of(service) as client:
        crowd = Crowd(client)
        async with anyio.create_task_group() as group:
            for name in service.ends:
                group.start_soon(crowd.wait, name)
                await anyio.sleep(INTERVAL / 250)
    assert INTERVAL >= crowd.late(service.ends)
    assert 40 >= service.count(LIST)


@pytest.mark.parametrize(
    ("status", "videos", "noticed"),
    [("succeed", True, INTERVAL), ("succeed", False, 1.5 + INTERVAL), ("submitted", True, 1.5 + INTERVAL)],
)
async def test_a_page_before_half_of_a_pause_is_over_tells_of_an_end_alone(status, videos, noticed):
    """
    Who came later keeps its own rhythm, but is told of its end by a page for the others.
    """
    service = service_of(MANY, span=0)

    def shown(rows):
        result = rows[0]["task_result"] if videos else {}
        return [{**row, "task_status": status, "task_result": result} for row in rows]

    service.order = shown
    async with client_of(service) as client:
        crowd, began = Crowd(client), anyio.current_time()
        async with anyio.create_task_group() as group:
            for name in list(service.ends)[1:]:
                group.start_soon(crowd.wait, name)
            await anyio.sleep(1.5)
            group.start_soon(crowd.wait, "0")
            await anyio.sleep(1)
            service.order = list
    assert began + noticed == pytest.approx(crowd.noticed["0"])


async def test_tasks_that_the_list_does_not_show_are_looked_at_singly():
    """
    Hidden behind thousands of others they are missing, not gone; the list rests, and their ends are noticed in time.
    """
    service = service_of(foreign=3000)
    crowd = await waited(service)
    assert INTERVAL >= crowd.late(service.ends)
    assert 8 >= service.count(LIST)


async def test_the_few_that_a_list_never_shows_cost_no_page():
    """
    Most are listed: those that are not are looked at singly, ever longer without being searched for.
    """
    service = service_of(200, span=60)
    hidden = set(list(service.ends)[::20])
    service.order = lambda rows: [row for row in rows if row["task_id"] not in hidden]
    crowd = await waited(service)
    assert INTERVAL >= crowd.late(service.ends)
    assert 60 / INTERVAL >= service.count(LIST)
    assert hidden <= {name for _, name in service.asked}


async def test_a_list_whose_order_moves_misleads_nobody():
    """
    At each page it is another: tasks are shown twice or not at all, and each end is noticed in time all the same.
    """
    random = Random(7)
    service = service_of(1200, order=lambda rows: random.sample(rows, len(rows)))
    crowd = await waited(service)
    assert INTERVAL >= crowd.late(service.ends)


async def test_pages_are_read_no_further_back_than_the_oldest_that_is_waited_for():
    """
    Of five pages the first shows all; where it misses some that are newer than the second, that is the last.
    """
    service = service_of(2500, span=100)
    names = list(service.ends)[-100:]
    hidden = set(names[:WORTH])
    service.order = lambda rows: [row for row in rows if row["task_id"] not in hidden]
    async with client_of(service) as client:
        with anyio.move_on_after(INTERVAL + 0.5):
            async with anyio.create_task_group() as group:
                for name in names:
                    group.start_soon(client.wait, (await client.get_task(name)))
    assert 2 == service.count(LIST)


@pytest.mark.parametrize("fault", [LostReplyError("cut"), envelope(code=5000, status=500), envelope(code=1302)])
async def test_a_page_that_fails_in_passing_costs_a_look(fault):
    """
    Nobody looks singly for it; the next page shows all.
    """
    service = service_of(100, span=0, page=[fault])
    service.ends = dict.fromkeys(service.ends, anyio.current_time() + INTERVAL)
    crowd = await waited(service)
    assert INTERVAL == crowd.late(service.ends)
    assert (2, 0) == (service.count(LIST), service.count())


async def test_pages_that_go_on_failing_are_done_without():
    """
    The third fault in a row ends it: all look singly, and the list is tried again later.
    """
    service = service_of(100, span=0, page=[LostReplyError("cut")] * 3)
    service.ends = dict.fromkeys(service.ends, anyio.current_time() + 20)
    crowd = await waited(service)
    assert INTERVAL >= crowd.late(service.ends)
    assert (3 + 5, 300) == (service.count(LIST), service.count())


@pytest.mark.parametrize(
    "page",
    [
        envelope(code=1203, status=404),
        envelope(code=1201, status=400),
        envelope(code=1103, status=403),
        envelope({"task_id": "1", "task_status": "succeed"}),
        envelope(code=1002, status=401),
        TLSError("expired"),
    ],
)
async def test_a_host_that_has_no_list_after_all_costs_nobody_a_look(page):
    """
    Whatever it says instead, those that are due are looked at singly at that moment, and their waits go on.
    """
    service = service_of(100, page=page)
    crowd = await waited(service)
    assert INTERVAL >= crowd.late(service.ends)
    assert 3 >= service.count(LIST)


async def test_a_page_that_never_comes_delays_looks_once():
    """
    After ten seconds it is given up.
    """
    service = service_of(100, span=5, page=[anyio.Event()])
    crowd = await waited(service)
    assert 10 + INTERVAL >= crowd.late(service.ends)
    assert INTERVAL + 10 == service.asked[1][0] - service.asked[0][0] + INTERVAL
    assert 1 == service.count(LIST)


@pytest.mark.parametrize(
    ("refusal", "kind"), [(envelope(code=1002, status=401), AuthenticationError), (TLSError("expired"), TLSError)]
)
async def test_a_key_that_is_refused_is_told_to_all_who_wait(refusal, kind):
    """
    For a page and for one task: a hundred waits end, each with an error of its own.
    """
    service = service_of(100, page=refusal, single=refusal)
    crowd = await waited(service)
    assert {kind} == {type(error) for error in crowd.raised.values()}
    assert 100 == len({id(error) for error in crowd.raised.values()})
    assert 2 == len(service.asked)


async def test_a_fault_of_the_look_that_tries_the_key_proves_nothing():
    """
    The list refuses the key, and the look that would tell why is cut off: all look singly.
    """
    service = service_of(100, span=0, page=envelope(code=1002, status=401), single=[LostReplyError("cut")])
    crowd = await waited(service)
    assert {} == crowd.raised


async def test_a_task_that_is_gone_ends_its_own_wait_alone():
    """
    After three looks that forgive it, while the others wait on.
    """
    service = service_of(100)
    async with client_of(service) as client:
        crowd = Crowd(client)
        await crowd.all([*service.ends, "gone"])
    assert NotFoundError is type(crowd.raised.pop("gone"))
    assert 4 == service.count("gone")
    assert INTERVAL >= crowd.late(service.ends)


async def test_a_success_that_a_page_shows_without_its_video_is_looked_at_singly():
    """
    The page may leave it out.
    """
    service = service_of(100, videos=False)
    crowd = await waited(service)
    assert INTERVAL >= crowd.late(service.ends)
    assert 100 == service.count()


async def test_a_success_without_its_video_is_looked_at_three_more_times_beside_pages():
    """
    One at a time in the rhythm of the policy; then it is an error that names the task.
    """
    service = service_of(100, span=60, videos=False)
    service.ends["0"] = anyio.current_time()
    empty = envelope({"task_id": "0", "task_status": "succeed"})
    service.single = [empty] * 4
    async with client_of(service) as client:
        crowd = Crowd(client)
        with anyio.move_on_after(4 * INTERVAL + 0.1):
            await crowd.all(["0", *[name for name, end in service.ends.items() if end > 20 + anyio.current_time()]])
    assert DecodeError is type(crowd.raised["0"])
    assert 4 == service.count("0")


ODD = [None, 5, {}, {"task_id": 7}, {"task_id": {}}, {"task_id": "1"}, {"task_id": "1", "task_status": ["succeed"]}]


async def test_odd_rows_of_a_page_are_passed_over():
    """
    What is no task, or not plainly one of ours, is looked at singly.
    """
    service = service_of(100, order=lambda rows: [*ODD, *[row for row in rows if row["task_id"] != "1"]])
    crowd = await waited(service)
    assert INTERVAL >= crowd.late(service.ends)


async def test_the_tasks_of_pages_are_as_single_looks_show_them():
    """
    With the reply of their own alone: a task that is kept does not keep its page.
    """
    service = service_of(span=0)
    async with client_of(service) as client, anyio.create_task_group() as group:
        found = []

        async def one(name):
            found.append(await client.wait(running(name)))

        for name in service.ends:
            group.start_soon(one, name)
    async with client_of(service) as client:
        for task in found:
            assert task.raw == (await client.get_task(task.task_id)).raw
            assert task == await client.get_task(task.task_id)
    assert 1 == service.count(LIST)


async def test_watching_by_pages_tells_each_change_once_and_no_step_back():
    """
    As single looks do, whatever order pages show.
    """
    service, told = service_of(MANY, span=0), {}
    shown = iter(["submitted", "submitted", "processing", "submitted", "pondering", "failed"])

    def one_state(rows):
        status = next(shown)
        return [{**row, "task_status": status, "task_result": {}} for row in rows]

    service.order = one_state
    async with client_of(service) as client, anyio.create_task_group() as group:

        async def watch(name):
            told[name] = [task.status async for task in client.watch(name)]

        for name in service.ends:
            group.start_soon(watch, name)
    assert [["submitted", "processing", "pondering", "failed"]] * MANY == list(told.values())
    assert 0 == service.count()


async def test_what_a_page_showed_to_one_who_was_cut_off_is_shown_again():
    """
    A watch whose step is cancelled in the very moment in which its page arrives misses no change when it goes on.
    """
    service, pages = service_of(MANY, span=0), []
    scope = anyio.CancelScope()

    def later(rows):
        pages.append(len(rows))
        if len(pages) == 2:
            scope.cancel()
        return [{**row, "task_status": "submitted" if len(pages) == 1 else "processing"} for row in rows]

    service.order = later
    async with client_of(service) as client, anyio.create_task_group() as group:
        watches = [client.watch(name) for name in service.ends]
        told = Counter()

        async def follow(watch, scope):
            with scope:
                for _ in range(2):
                    told[(await anext(watch)).status] += 1

        for number, watch in enumerate(watches):
            group.start_soon(follow, watch, scope if number == 5 else anyio.CancelScope())
        await anyio.sleep(INTERVAL + 1)
        assert {"submitted": MANY, "processing": MANY - 1} == told
        for _ in range(WORTH):
            group.start_soon(client.wait, running("7"))
        assert "succeed" == (await anext(watches[5])).status
    assert nothing_left(client)


@pytest.mark.parametrize("seconds", [0.0, 0.25])
async def test_the_leader_cut_off_anywhere_costs_the_others_nothing(anyio_backend_name, seconds):
    """
    However and wherever it is cancelled, another takes its place at once: no end is noticed late, none is missed.
    """
    for cut in cuts(anyio_backend_name):
        service = service_of(MANY, span=3 * INTERVAL, seconds=seconds)
        async with client_of(service) as client:
            crowd = Crowd(client)

            service.ends["0"] = anyio.current_time() + 3 * INTERVAL
            async with anyio.create_task_group() as group:
                group.start_soon(cut.run, partial(client.wait, running("0")))
                await anyio.sleep(0.125)
                for name in list(service.ends)[1:]:
                    group.start_soon(crowd.wait, name)
            del service.ends["0"]
            assert INTERVAL + 3 * seconds >= crowd.late(service.ends), cut
            assert nothing_left(client)


async def test_all_who_lead_are_cut_off_one_after_the_other_within_a_page():
    """
    The page is asked for again by the next, and the last one gets it.
    """
    service = service_of(MANY, span=0, page=[anyio.Event() for _ in range(MANY - WORTH - 1)])
    async with client_of(service) as client:
        crowd, scopes = Crowd(client), {}

        async def one(name):
            with anyio.CancelScope() as scopes[name]:
                await crowd.wait(name)

        async with anyio.create_task_group() as group:
            for name in service.ends:
                group.start_soon(one, name)
            await anyio.sleep(INTERVAL + 0.5)
            for asked in range(1, MANY - WORTH):
                assert asked == service.count(LIST)
                leader = client._poller._leader
                scopes[leader.task_id].cancel()
                await anyio.wait_all_tasks_blocked()
    assert WORTH + 1 == len(crowd.noticed)
    assert {service.asked[-1][0]} == set(crowd.noticed.values())


async def test_one_who_is_to_lead_and_is_cut_off_at_that_moment_names_another():
    """
    Two are cancelled together, the leader and the one that it names: the third goes on.
    """
    service = service_of(3)
    async with client_of(service) as client:
        crowd = Crowd(client)
        async with anyio.create_task_group() as stay, anyio.create_task_group() as leave:
            leave.start_soon(client.wait, running("0"))
            leave.start_soon(client.wait, running("1"))
            await anyio.wait_all_tasks_blocked()
            stay.start_soon(crowd.wait, "2")
            await anyio.sleep(0.5)
            leave.cancel_scope.cancel()
    assert INTERVAL >= crowd.noticed["2"] - service.ends["2"]
    assert nothing_left(client)


async def test_who_waits_is_called_off_at_once(anyio_backend_name):
    """
    The leader, in no time.
    """
    for native in natives(anyio_backend_name):
        service = service_of(1, span=0, single=anyio.Event())
        async with client_of(service, poll=PATIENT) as client:
            seconds, end = await called_off(partial(client.wait, running("0")), native=native)
            assert 0 == seconds
            assert isinstance(end, asyncio.CancelledError if native else anyio.get_cancelled_exc_class())


async def test_closing_the_client_ends_all_waits():
    """
    Each with ClosedError, the leader's in the middle of its page as well.
    """
    service = service_of(100, page=anyio.Event())
    async with anyio.create_task_group() as group, client_of(service) as client:
        crowd = Crowd(client)
        for name in service.ends:
            group.start_soon(crowd.wait, name)
        await anyio.sleep(INTERVAL + 1)
    assert [ClosedError] * 100 == [type(error) for error in crowd.raised.values()]
    assert nothing_left(client)


async def test_what_an_observer_raises_at_a_page_is_raised_where_it_waits():
    """
    A bug in it is not hidden, and others are not held up.
    """

    def broken(event):
        if getattr(event, "path", "").endswith("multi-elements"):
            raise ZeroDivisionError

    service = service_of(100)
    crowd = Crowd(client_of(service, observer=broken))
    async with crowd.client:
        await crowd.all(service.ends)
    assert {ZeroDivisionError} == {type(error) for error in crowd.raised.values()}
    assert 100 - WORTH == len(crowd.raised)


async def test_a_hint_wakes_its_own_task_alone():
    """
    A hundred wait for minutes: the one that is named is looked at, singly and at once.
    """
    inbox, service = Inbox(), service_of(100, span=0)
    async with client_of(service, poll=PATIENT, inbox=inbox) as client:
        crowd = Crowd(client)
        with anyio.move_on_after(20):
            async with anyio.create_task_group() as group:
                for name in service.ends:
                    group.start_soon(crowd.wait, name)
                await anyio.sleep(5)
                began = anyio.current_time()
                inbox.put(Hint("17", None, "succeed"))
        assert {"17": began} == crowd.noticed
        assert [(began, "17")] == service.asked
    assert {} == inbox._waiting


async def test_hints_for_many_at_once_are_one_page():
    """
    They come together, so they are looked at together; those that nobody named wait on.
    """
    inbox, service = Inbox(), service_of(100, span=0)
    service.ends |= dict.fromkeys(list(service.ends)[50:], 9e9)
    async with client_of(service, poll=PATIENT, inbox=inbox) as client:
        crowd = Crowd(client)
        with anyio.move_on_after(20):
            async with anyio.create_task_group() as group:
                for name in service.ends:
                    group.start_soon(crowd.wait, name)
                await anyio.sleep(5)
                for name in list(service.ends)[:50]:
                    inbox.put(Hint(name, None, "succeed"))
    assert set(list(service.ends)[:50]) == set(crowd.noticed)
    assert [LIST] == [name for _, name in service.asked]


async def test_hints_that_come_fast_cause_a_page_every_two_seconds():
    """
    A hundred tasks that run on, each named ten times a second for ten seconds.
    """
    inbox, service = Inbox(), service_of(100, span=0)
    service.ends = dict.fromkeys(service.ends, 9e9)
    async with client_of(service, poll=PATIENT, inbox=inbox) as client:
        with anyio.move_on_after(11):
            async with anyio.create_task_group() as group:
                for name in service.ends:
                    group.start_soon(client.wait, running(name))
                for _ in range(100):
                    await anyio.sleep(0.1)
                    for name in service.ends:
                        inbox.put(Hint(name, None, "processing"))
        assert 5 <= len(service.asked) <= 6


async def test_a_hint_that_comes_during_a_page_causes_another_look():
    """
    The page may have been made up before it.
    """
    inbox, service = Inbox(), service_of(100, span=0, seconds=0.5)
    service.ends = dict.fromkeys(service.ends, anyio.current_time() + INTERVAL + 0.75)
    poll = PollPolicy(first=INTERVAL, factor=100, ceiling=600, jitter=0)
    async with client_of(service, poll=poll, inbox=inbox) as client:
        crowd = Crowd(client)
        began = anyio.current_time()
        with anyio.move_on_after(20):
            async with anyio.create_task_group() as group:
                for name in service.ends:
                    group.start_soon(crowd.wait, name)
                await anyio.sleep(INTERVAL + 0.25)
                inbox.put(Hint("17", None, "succeed"))
        assert {"17": 2 * INTERVAL + 0.5} == {name: at - began for name, at in crowd.noticed.items()}


async def test_a_page_that_fails_has_used_up_its_hints():
    """
    As a single look that fails: the next one comes in the rhythm of the policy.
    """
    inbox, service = Inbox(), service_of(100, span=0, page=[LostReplyError("cut")])
    async with client_of(service, inbox=inbox) as client:
        for name in service.ends:
            inbox.put(Hint(name, None, "succeed"))
        crowd = Crowd(client)
        await crowd.all(service.ends)
    assert [0.0, INTERVAL] == [at - service.asked[0][0] for at, _ in service.asked]


async def test_a_task_that_has_ended_needs_no_request():
    """
    Waited for again, its end is known.
    """
    service = service_of(1, span=0)
    async with client_of(service) as client:
        task = await client.wait(running("0"))
        before = len(service.asked)
        assert task is await client.wait(task)
        assert before == len(service.asked)


async def test_timers_do_not_pile_up():
    """
    An hour of looks, hints and waits that are given up leaves a timer for each who waits.
    """
    inbox, service = Inbox(), service_of(100, span=0)
    service.ends = dict.fromkeys(service.ends, 9e9)
    async with client_of(service, inbox=inbox) as client, anyio.create_task_group() as group:
        for name in service.ends:
            group.start_soon(client.wait, running(name))
        for minute in range(60):
            with anyio.move_on_after(60):
                inbox.put(Hint(str(minute), None, "processing"))
                await client.wait(running("1"))
        assert 2 * 100 >= sum(len(timers) for timers in client._poller._timers.values())
        group.cancel_scope.cancel()
    assert nothing_left(client)
