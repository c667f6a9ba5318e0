"""
Many edits: slots held from create to the end, failures as values, nothing paid twice.
"""

import gc
from itertools import pairwise
from weakref import ref

import anyio
import pytest

from kling_async import (
    KLING_GLOBAL_URL,
    AccountError,
    ApiKey,
    AuthenticationError,
    DeclinedError,
    Edited,
    Failed,
    Inbox,
    InvalidInputError,
    Job,
    KeyConflictError,
    KlingClient,
    MemoryStore,
    Point,
    PollPolicy,
    Removal,
    SelectionSession,
    Slots,
    TaskFailedError,
    UnknownOutcomeError,
    edit,
    edit_many,
    stores,
)
from kling_async.batch import PREPARED_MOST
from kling_async.simulator import Fault, Shape, Simulator

CLIP = "https://example.com/clip.mp4"
EDIT = Removal.of("the stones")
SOON = PollPolicy(first=1, factor=1, ceiling=1)


def job(number=0, *, key="", **more):
    named = {"marks": {40: [(0.8, 0.53)]}, "edit": EDIT, "key": key or f"job-{number}"} | more
    return Job(f"https://example.com/{number}.mp4", **named)


def client_of(simulator, **named):
    return KlingClient(ApiKey("any"), transport=simulator.transport(), **named)


def seen(simulator, endpoint):
    return [request for request in simulator.log if request.endpoint == endpoint]


async def test_one_job_is_its_final_task():
    """
    Session, points, create, wait; paid once under the id of its key.
    """
    simulator = Simulator(task_seconds=60)
    async with client_of(simulator) as client:
        task = await edit(client, job())
    assert "succeed" == task.status
    assert {job().external_task_id: 1} == dict(simulator.charges)


async def test_a_job_without_a_key_is_a_new_run_each_time():
    """
    Twice the same job without a key is two tasks.
    """
    simulator = Simulator(task_seconds=0)
    plain = Job(CLIP, marks={40: [(0.8, 0.53)]}, edit=EDIT)
    async with client_of(simulator) as client:
        first, second = await edit(client, plain), await edit(client, plain)
    assert first.task_id != second.task_id
    assert 2 == len(simulator.charges)


async def test_a_key_that_has_a_task_goes_on_with_it_and_opens_nothing():
    """
    In this process from the store, in another by asking the service: paid once in all.
    """
    simulator = Simulator(task_seconds=60)
    async with client_of(simulator) as client:
        first = await edit(client, job())
        again = await edit(client, job())
    async with client_of(simulator) as elsewhere:
        found = await edit(elsewhere, job())
    assert first.task_id == again.task_id == found.task_id
    assert 1 == len(seen(simulator, "init"))
    assert {1} == set(simulator.charges.values())


async def test_a_key_stands_for_one_edit():
    """
    The same key with another prompt is refused before anything is opened.
    """
    simulator = Simulator(task_seconds=0)
    async with client_of(simulator) as client:
        await edit(client, job())
        with pytest.raises(KeyConflictError):
            await edit(client, job(edit=Removal.of("the bird")))
    assert 1 == len(seen(simulator, "init"))


async def test_an_edit_that_waits_keeps_no_masks():
    """
    Its selection is gone as soon as the task is created; ten thousand of them would be a gigabyte.
    """
    simulator, selections, left = Simulator(task_seconds=60), [], []

    async def look(_job, selection):
        selections.append(ref(selection))

    async def wait():
        left.append(await edit(client, job(), gate=look))

    async with client_of(simulator) as client, anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.sleep(30)
        gc.collect()
        assert [] == left
        assert selections[0]() is None
    assert "succeed" == left[0].status


async def test_a_gate_that_says_no_costs_nothing():
    """
    It sees the job and its masks; what it returns is the reason.
    """
    simulator, looked = Simulator(), []

    async def gate(asked, selection):
        looked.append((asked, selection.marked[40].masks[0].contains(Point(0.8, 0.53))))
        return "the mask is too small"

    async with client_of(simulator) as client:
        with pytest.raises(DeclinedError, match="too small") as caught:
            await edit(client, job(), gate=gate)
    assert "the mask is too small" == caught.value.reason
    assert [(job(), True)] == looked
    assert {} == dict(simulator.charges)


async def test_a_gate_that_says_nothing_lets_through():
    """
    None is consent.
    """
    simulator = Simulator(task_seconds=0)

    async def gate(asked, selection):
        return None

    async with client_of(simulator) as client:
        assert (await edit(client, job(), gate=gate)).done


async def test_a_full_quota_is_waited_for():
    """
    1303 proves that nothing was created: the same id again, at least a second later, until there is room.
    """
    simulator = Simulator(quota=1, task_seconds=30)
    async with client_of(simulator) as client, anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(edit, client, job(number))
    assert 3 == len(simulator.charges)
    assert {1} == set(simulator.charges.values())
    assert 1 == simulator.most_running
    assert any(request.status == 429 for request in seen(simulator, "create"))


@pytest.mark.parametrize(
    "slots",
    [3, Slots(3), lambda: anyio.Semaphore(3), lambda: anyio.CapacityLimiter(3)],
    ids=["int", "Slots", "Semaphore", "CapacityLimiter"],
)
async def test_no_more_run_than_there_are_slots(slots):
    """
    Whatever the slots are; the simulator's own count is the judge.
    """
    simulator = Simulator(quota=10, task_seconds=20)
    given = slots() if callable(slots) else slots
    async with client_of(simulator) as client, edit_many(client, map(job, range(12)), slots=given) as outcomes:
        done = [outcome async for outcome in outcomes]
    assert 12 == len(done)
    assert all(isinstance(outcome, Edited) for outcome in done)
    assert 3 == simulator.most_running
    assert {1} == set(simulator.charges.values())


async def test_selections_are_opened_only_a_few_ahead():
    """
    With every slot held, two jobs stand ready and no third is read.
    """
    simulator, read = Simulator(task_seconds=3600), []

    def jobs():
        for number in range(100):
            read.append(number)
            yield job(number)

    async with client_of(simulator) as client, edit_many(client, jobs(), slots=2):
        await anyio.sleep(600)
    assert 4 == len(seen(simulator, "init"))
    assert 4 == len(read)


class Slow:
    """
    A transport whose every call takes a second.
    """

    def __init__(self, inner):
        self.inner, self.now, self.most = inner, 0, 0

    async def exchange(self, request):
        self.now += 1
        self.most = max(self.most, self.now)
        await anyio.sleep(1)
        self.now -= 1
        return await self.inner.exchange(request)

    async def aclose(self):
        await self.inner.aclose()


async def test_as_many_jobs_are_prepared_as_slots_are_free():
    """
    However long it takes to prepare one, all slots are soon held; those that come free together, again.
    """
    simulator = Simulator(task_seconds=60, quota=12)
    slow, jobs = Slow(simulator.transport()), map(job, range(30))
    async with KlingClient(ApiKey("any"), transport=slow, poll=SOON) as client, edit_many(client, jobs, slots=12):
        await anyio.sleep(10)
        assert 12 == simulator.most_running == sum(simulator.charges.values())
        await anyio.sleep(75)
        assert 24 == sum(simulator.charges.values())


async def test_no_more_jobs_are_prepared_at_once_than_leave_room_for_what_costs_money():
    """
    With a hundred free slots.
    """
    slow = Slow(Simulator(task_seconds=60).transport())
    async with KlingClient(ApiKey("any"), transport=slow) as client, edit_many(client, map(job, range(100)), slots=100):
        await anyio.sleep(0.5)
        assert PREPARED_MOST == slow.most


async def test_outcomes_come_in_the_order_of_their_ends_and_failures_are_values():
    """
    A refused job, a failed task, a declined one and a good one.
    """
    faults = [Fault("init", "code", code=1301), Fault("task", "failed")]
    simulator = Simulator(task_seconds=10, faults=faults)

    async def gate(asked, selection):
        return "no" if asked.key == "job-2" else None

    jobs = map(job, range(4))
    async with client_of(simulator) as client, edit_many(client, jobs, slots=1, gate=gate) as outcomes:
        ends = {outcome.job.key: outcome async for outcome in outcomes}
    kinds = [type(getattr(ends[f"job-{number}"], "error", None)).__name__ for number in range(4)]
    assert ["ContentRejectedError", "TaskFailedError", "DeclinedError", "NoneType"] == kinds
    assert isinstance(ends["job-1"], Failed)
    assert isinstance(ends["job-1"].error, TaskFailedError)
    assert isinstance(ends["job-3"], Edited)


async def test_jobs_may_come_asynchronously():
    """
    Read one by one from an asynchronous iterable.
    """
    simulator = Simulator(task_seconds=1)

    async def jobs():
        for number in range(3):
            await anyio.sleep(5)
            yield job(number)

    async with client_of(simulator) as client, edit_many(client, jobs(), slots=2) as outcomes:
        assert ["job-0", "job-1", "job-2"] == [outcome.job.key async for outcome in outcomes]


@pytest.mark.parametrize(("code", "kind"), [(1101, AccountError), (1002, AuthenticationError)])
async def test_an_empty_account_or_a_dead_key_ends_the_rest(code, kind):
    """
    No further create is sent; the rest are Failed with the very error, and what runs is waited for.
    """
    simulator = Simulator(task_seconds=30, faults=[Fault("create", "code", code=code, after=2, times=100)])
    async with client_of(simulator) as client, edit_many(client, map(job, range(20)), slots=5) as outcomes:
        done = [outcome async for outcome in outcomes]
    assert 20 == len(done)
    assert 2 == sum(isinstance(outcome, Edited) for outcome in done)
    assert {kind} == {type(outcome.error) for outcome in done if isinstance(outcome, Failed)}
    assert len(seen(simulator, "create")) <= 5
    assert 2 == sum(simulator.charges.values())


async def test_the_same_key_twice_is_an_error_of_the_second():
    """
    One key is one paid run; a key left out is a run of its own.
    """
    simulator = Simulator(task_seconds=0)
    plain = Job(CLIP, marks={40: [(0.8, 0.53)]}, edit=EDIT)
    jobs = [job(1, key="a"), job(2, key="a"), plain, plain]
    async with client_of(simulator) as client, edit_many(client, jobs, slots=1) as outcomes:
        done = [outcome async for outcome in outcomes]
    [failed] = [outcome for outcome in done if isinstance(outcome, Failed)]
    assert jobs[1] is failed.job
    assert isinstance(failed.error, InvalidInputError)
    assert 3 == len(simulator.charges)


async def test_leaving_the_block_cancels_what_runs_here():
    """
    The tasks go on at the service; nothing further is created.
    """
    simulator = Simulator(task_seconds=3600)
    async with client_of(simulator) as client:
        async with edit_many(client, map(job, range(100)), slots=2):
            await anyio.sleep(60)
        before = len(simulator.log)
        await anyio.sleep(600)
        assert before == len(simulator.log)
    assert 2 == len(simulator.charges)


async def test_what_the_body_raises_comes_out_as_itself():
    """
    Never wrapped into a group, and what runs is cancelled.
    """
    simulator = Simulator(task_seconds=3600)
    async with client_of(simulator) as client:
        with pytest.raises(KeyError):
            async with edit_many(client, map(job, range(5)), slots=2):
                await anyio.sleep(10)
                raise KeyError


async def test_what_a_gate_raises_ends_the_block_as_itself():
    """
    Only a KlingError is an outcome; a bug is raised.
    """

    async def gate(asked, selection):
        raise ZeroDivisionError

    simulator = Simulator()
    async with client_of(simulator) as client:
        with pytest.raises(ZeroDivisionError):
            async with edit_many(client, map(job, range(5)), slots=2, gate=gate) as outcomes:
                async for _ in outcomes:
                    pytest.fail("there is no outcome")
    assert {} == dict(simulator.charges)


async def test_what_the_body_raises_goes_before_what_a_gate_raises():
    """
    One error comes out, and it is the caller's own.
    """

    async def gate(asked, selection):
        raise ZeroDivisionError

    async with client_of(Simulator()) as client:
        with pytest.raises(KeyError):
            async with edit_many(client, [job()], slots=1, gate=gate):
                try:
                    await anyio.sleep_forever()
                finally:
                    raise KeyError


async def test_what_the_jobs_raise_ends_the_block_as_itself():
    """
    A faulty row of a user's file is the user's own error.
    """

    def jobs():
        yield job()
        raise KeyError

    async with client_of(Simulator(task_seconds=1)) as client:
        with pytest.raises(KeyError):
            async with edit_many(client, jobs(), slots=2) as outcomes:
                async for _ in outcomes:
                    pass


async def test_a_deadline_around_the_block_ends_it():
    """
    The caller's scope cuts, and nothing is left running.
    """
    simulator = Simulator(task_seconds=3600)
    async with client_of(simulator) as client:
        with anyio.move_on_after(60) as scope:
            async with edit_many(client, map(job, range(9)), slots=2) as outcomes:
                async for _ in outcomes:
                    pytest.fail("there is no outcome")
        assert scope.cancelled_caught


async def test_iterating_without_the_block_says_how():
    """
    A TypeError at once, not a hang.
    """
    async with client_of(Simulator()) as client:
        with pytest.raises(TypeError, match="async with edit_many"):
            async for _ in edit_many(client, [], slots=1):
                pass


async def test_no_jobs_are_no_outcomes():
    """
    An empty list ends at once.
    """
    async with client_of(Simulator()) as client, edit_many(client, [], slots=1) as outcomes:
        assert [] == [outcome async for outcome in outcomes]


async def test_f52_unread_outcomes_hold_further_jobs_back():
    """
    A reader that sleeps finds a bounded number of outcomes, and then all of them.
    """
    simulator, read = Simulator(quota=200, task_seconds=0), []

    def jobs():
        for number in range(150):
            read.append(number)
            yield job(number)

    async with client_of(simulator) as client, edit_many(client, jobs(), slots=10) as outcomes:
        await anyio.sleep(3600)
        assert len(read) < 80
        assert 150 == len([outcome async for outcome in outcomes])


@pytest.mark.timeout(120)
async def test_f52_a_thousand_waiting_edits_leave_nothing_behind(monkeypatch):
    """
    No call, turn, waiter or row more than are kept on purpose, once they have ended.
    """
    monkeypatch.setattr(stores, "KEPT", 100)
    simulator, inbox, store = Simulator(quota=1000, task_seconds=60), Inbox(), MemoryStore()
    async with client_of(simulator, inbox=inbox, store=store) as client:
        async with edit_many(client, map(job, range(1000)), slots=1000) as outcomes:
            assert 1000 == len([outcome async for outcome in outcomes if isinstance(outcome, Edited)])
        assert 0 == len(client._owner.leases)
        assert 0 == len(client.creates._turns)
        assert "0 waiting" in repr(inbox)
        assert "MemoryStore(100 intents)" == repr(store)
        assert 0 == len(store._owned)
    assert {1} == set(simulator.charges.values())


async def test_a_lost_reply_is_an_outcome_that_names_its_id():
    """
    It may be charged, cannot be found there, and is never sent again.
    """
    hidden = Shape(finds_external_ids=False, lists=False)
    simulator = Simulator(faults=[Fault("create", "lost")], shape=hidden)
    async with client_of(simulator) as client, edit_many(client, [job()], slots=1) as outcomes:
        [outcome] = [outcome async for outcome in outcomes]
    assert isinstance(outcome.error, UnknownOutcomeError)
    assert job().external_task_id == outcome.error.external_task_id
    assert {job().external_task_id: 1} == dict(simulator.charges)


async def outcomes_of(client, jobs, slots):
    """
    How they came out.
    """
    async with edit_many(client, jobs, slots=slots) as outcomes:
        return [outcome async for outcome in outcomes]


@pytest.mark.parametrize("start", [1, 3, 20])
async def test_learned_slots_find_the_quota_with_a_few_refusals(start):
    """
    Whether they are too few at first or too many; each job is done and paid once.
    """
    simulator, slots = Simulator(quota=6, task_seconds=60), Slots.learned(start)
    async with client_of(simulator, poll=SOON) as client:
        done = await outcomes_of(client, map(job, range(60)), slots)
    assert [Edited] * 60 == [type(outcome) for outcome in done]
    assert 6 == simulator.most_running
    assert len(seen(simulator, "create")) - 60 <= 6 + max(0, start - 6)
    assert {1} == set(simulator.charges.values())


async def test_learned_slots_follow_a_quota_that_changes():
    """
    As many run as it allows, soon after it fell and after it rose.
    """
    simulator, slots, ends = Simulator(quota=10, task_seconds=60), Slots.learned(), 0
    async with (
        listing_client_of(simulator, poll=SOON) as client,
        edit_many(client, map(job, range(200)), slots=slots) as outcomes,
    ):
        async for _ in outcomes:
            ends += 1
            simulator.quota = 10 if ends < 60 else 3 if ends < 120 else 12
    began = [create.time for create in seen(simulator, "create") if create.status == 200]
    ran = [sum(at - 60 < other <= at for other in began) for at in began]
    assert [10, 3, 12] == [max(ran[:60]), max(ran[90:120]), max(ran[160:])]
    assert len(seen(simulator, "create")) - 200 <= 40
    assert {1} == set(simulator.charges.values())


@pytest.mark.parametrize("slots", [Slots.learned, lambda: Slots(2)], ids=["learned", "plain"])
async def test_f13_a_service_that_asks_for_an_hour_is_asked_again_after_a_minute(slots):
    """
    It proves that nothing was created, and others may have left long before.
    """
    simulator = Simulator(task_seconds=1, faults=[Fault("create", "code", code=1303, retry_after=3600)])
    async with client_of(simulator) as client:
        await outcomes_of(client, [job()], slots())
    first, second = seen(simulator, "create")
    assert 60 == pytest.approx(second.time - first.time)


async def test_f13_nor_does_it_wait_an_hour_for_room_that_comes_sooner():
    """
    Where tasks of ours run, it goes on with an end of theirs, or after a second minute without one.
    """
    faults = [Fault("create", "code", code=1303, retry_after=3600, after=1)]
    simulator = Simulator(task_seconds=1000, faults=faults)
    async with client_of(simulator) as client:
        await outcomes_of(client, map(job, range(2)), Slots.learned())
    assert [0, 120] == pytest.approx([create.time for create in seen(simulator, "create")][1:], abs=1)


async def test_a_refused_job_goes_on_as_soon_as_a_task_of_ours_is_seen_to_end():
    """
    And before those that came later; nobody asks in between.
    """
    simulator, slots = Simulator(quota=1, task_seconds=45), Slots.learned(start=2)
    async with client_of(simulator) as client:
        done = await outcomes_of(client, map(job, range(4)), slots)
    assert [f"job-{number}" for number in range(4)] == [outcome.job.key for outcome in done]
    creates = seen(simulator, "create")
    began = [create.time for create in creates if create.status == 200]
    assert all(later - earlier < 45 + 10 for earlier, later in pairwise(began))
    assert len(creates) <= 4 + 4


async def others_run(simulator, number):
    """
    Tasks in the account that somebody else has created.
    """
    async with listing_client_of(simulator) as client, SelectionSession(client, video_url=CLIP) as selection:
        await selection.add_points(40, [(0.8, 0.53)])
        for _ in range(number):
            await selection.create_task(EDIT)


def listing_client_of(simulator, **named):
    return KlingClient(ApiKey("any"), base_url=KLING_GLOBAL_URL, transport=simulator.transport(), **named)


def looked(simulator):
    """
    How often it was looked for what runs; pages that are searched for an id are larger.
    """
    return sum(request.query["pageSize"] == "100" for request in seen(simulator, "list"))


async def test_what_runs_already_counts_as_a_part_of_what_is_begun_with():
    """
    One look at the list, before the first create; what others have is left to them, and nothing is refused.
    """
    simulator, slots = Simulator(quota=5, task_seconds=100), Slots.learned(start=5)
    await others_run(simulator, 3)
    async with listing_client_of(simulator) as client:
        await outcomes_of(client, map(job, range(2)), slots)
        assert 2 == len([create for create in seen(simulator, "create")[3:] if create.status == 200])
        assert 1 == looked(simulator)
        await outcomes_of(client, map(job, range(2, 4)), slots)
    assert 1 == looked(simulator)
    assert all(create.status == 200 for create in seen(simulator, "create"))


@pytest.mark.parametrize(
    ("slots", "client_of"),
    [(Slots.learned, client_of), (lambda: 5, listing_client_of), (lambda: Slots(5), listing_client_of)],
    ids=["a host without a list", "a number", "plain slots"],
)
async def test_nobody_looks_for_what_runs_where_that_is_of_no_use(slots, client_of):
    """
    A host that documents no list is not asked for one, and plain slots do not learn.
    """
    simulator = Simulator(task_seconds=0)
    async with client_of(simulator) as client:
        await outcomes_of(client, map(job, range(2)), slots())
    assert 0 == looked(simulator)


@pytest.mark.parametrize("fault", [Fault("list", "code", code=1201), Fault("list", "hang")], ids=["refused", "hangs"])
async def test_a_list_that_cannot_be_read_is_done_without(fault, caplog):
    """
    It is said, and the jobs are begun as if nothing ran.
    """
    caplog.set_level("INFO", "kling_async")
    simulator, slots = Simulator(task_seconds=5, faults=[fault]), Slots.learned(start=5)
    plain = Job(CLIP, marks={40: [(0.8, 0.53)]}, edit=EDIT)
    async with listing_client_of(simulator) as client:
        done = await outcomes_of(client, [plain] * 5, slots)
    assert [Edited] * 5 == [type(outcome) for outcome in done]
    assert "how many tasks run already cannot be seen" in caplog.text


async def test_tasks_of_an_earlier_run_hold_learned_slots():
    """
    A batch that is started again goes on with what runs, and creates no more beside it than there is room for.
    """
    simulator, store = Simulator(quota=4, task_seconds=100), MemoryStore()
    async with client_of(simulator, store=store) as client:
        with anyio.move_on_after(30):
            await outcomes_of(client, map(job, range(4)), 4)
    before = len(seen(simulator, "create"))
    async with client_of(simulator, store=store) as client:
        done = await outcomes_of(client, map(job, range(8)), Slots.learned(start=4))
        again = await outcomes_of(client, map(job, range(4)), Slots.learned(start=4))
    assert [Edited] * 12 == [type(outcome) for outcome in done + again]
    assert len(seen(simulator, "create")) - before <= 4 + 2
    assert {1} == set(simulator.charges.values())


async def test_an_empty_account_ends_those_that_wait_for_the_quota():
    """
    They are Failed with the very error once their turn comes, and nothing further is created.
    """
    faults = [Fault("create", "code", code=1303, after=2, times=2), Fault("create", "code", code=1101, times=100)]
    simulator, slots = Simulator(task_seconds=30, faults=faults), Slots.learned(start=4)
    async with client_of(simulator) as client:
        done = await outcomes_of(client, map(job, range(10)), slots)
    assert {AccountError} == {type(outcome.error) for outcome in done if isinstance(outcome, Failed)}
    assert 2 == sum(simulator.charges.values())


async def test_a_batch_started_again_pays_nothing_twice():
    """
    Stopped midway and run again from the same list with the same store: one charge for each.
    """
    simulator, store = Simulator(quota=10, task_seconds=30), MemoryStore()
    for deadline in (45, 3600):
        async with client_of(simulator, store=store) as client:
            with anyio.move_on_after(deadline):
                async with edit_many(client, map(job, range(10)), slots=3) as outcomes:
                    done = [outcome async for outcome in outcomes]
    assert 10 == len(done)
    assert all(isinstance(outcome, Edited) for outcome in done)
    assert {1} == set(simulator.charges.values())
    assert 10 == len(simulator.charges)
