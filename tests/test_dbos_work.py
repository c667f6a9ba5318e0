"""
The four steps of a job: each may be done twice, nothing is paid twice, and no error is lost.
"""

import logging
from decimal import Decimal

import anyio
import orjson
import pytest

from kling_async import (
    ClosedError,
    DeclinedError,
    DownloadError,
    InvalidInputError,
    Job,
    NotFoundError,
    Removal,
    ServerError,
    SqliteStore,
    StoreError,
    Task,
    TaskFailedError,
    TLSError,
    from_dict,
)
from kling_async._parts import PartFile
from kling_async.dbos import _account, _work
from kling_async.dbos._entries import Wish
from kling_async.dbos._results import beside
from kling_async.dbos._work import LINKS, worst
from kling_async.models import SelectionInfo, SelectionState
from kling_async.simulator import Fault, Shape, Simulator
from kling_async.stores import MemoryStore
from tests.batching import KEY, SPOT, hurry, in_bench, job, until, wish

pytestmark = pytest.mark.real_clock

ID = job().external_task_id
EXPIRED = Fault("media", "status", status=403)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    hurry(monkeypatch)


def simulating(*faults, **settings):
    return Simulator(**{"task_seconds": 0, "faults": faults, **settings})


def raising(error):
    """
    A gate that raises, once.
    """
    errors = [error]

    async def gate(_job, _selection):
        await anyio.lowlevel.checkpoint()
        if errors:
            raise errors.pop()

    return gate


async def test_a_job_comes_to_its_result(tmp_path):
    """
    Which lies in the folder with its record, was paid once, and costs what it did cost.
    """
    async with in_bench(tmp_path, wish("a", duration=5), budget=Decimal(3)) as bench:
        outcome = await bench.done()
        path = tmp_path / "out" / "a.mp4"
        told = orjson.loads(beside(path).read_bytes())
        assert ("done", ID, "3", path.stat().st_size) == tuple(
            outcome[name] for name in ("state", "external_task_id", "units", "bytes")
        )
        assert ({ID: 1}, Decimal(3)) == (bench.charges, await bench.kept.spent())
        assert told["sha256"] == outcome["sha256"]
        assert told["session_id"]
        assert [[True]] == [[area > 0 for area in areas] for areas in told["mask_area"].values()]
        assert {path, beside(path)} == set(path.parent.iterdir())


async def test_a_clip_of_the_account_is_named_by_its_id(tmp_path):
    """
    An earlier result is edited like any other clip.
    """
    named = Job(video_id="v-1", marks=SPOT, edit=Removal.of("the bird"), key="a")
    async with in_bench(tmp_path, Wish(job=named, output="a.mp4")) as bench:
        assert "done" == (await bench.done())["state"]
        assert "v-1" == orjson.loads((tmp_path / "out" / "a.mp4.json").read_bytes())["source"]


async def test_steps_tell_plain_json_without_credentials(tmp_path):
    """
    For the engine writes it down.
    """
    async with in_bench(tmp_path) as bench:
        entry = await bench.entry()
        prepared = await bench.worker.prepare(entry)
        steps = [prepared, await bench.worker.reserve(entry, prepared)]
        steps.append(submitted := await bench.worker.submit(entry, prepared))
        steps.append(await bench.worker.finish(entry, prepared, submitted))
        assert [{}, {"state": "done"}] == steps[1::2]
        assert steps == orjson.loads(orjson.dumps(steps))
        assert KEY not in str(steps)


async def test_steps_that_are_taken_twice_pay_once(tmp_path):
    """
    As when a worker dies before the engine has heard of a step; the result is not fetched twice either.
    """
    async with in_bench(tmp_path, budget=Decimal(3)) as bench:
        entry = await bench.entry()
        _, prepared = [await bench.worker.prepare(entry) for _ in range(2)]
        assert [{}, {}] == [await bench.worker.reserve(entry, prepared) for _ in range(2)]
        submitted = [await bench.worker.submit(entry, prepared) for _ in range(2)]
        assert submitted[0] == submitted[1]
        for _ in range(2):
            assert {"state": "done"} == await bench.worker.finish(entry, prepared, submitted[0])
        assert ({ID: 1}, Decimal(3), 1) == (bench.charges, await bench.kept.spent(), bench.calls.count("media"))


async def test_a_result_that_was_changed_is_fetched_again(tmp_path):
    """
    For its record no longer tells of it.
    """
    async with in_bench(tmp_path) as bench:
        entry = await bench.entry()
        prepared = await bench.worker.prepare(entry)
        submitted = await bench.worker.submit(entry, prepared)
        await bench.worker.finish(entry, prepared, submitted)
        path = tmp_path / "out" / "a.mp4"
        whole = path.read_bytes()
        path.write_bytes(b"half")
        await bench.worker.finish(entry, prepared, submitted)
        assert (whole, 2) == (path.read_bytes(), bench.calls.count("media"))


async def test_a_task_that_is_there_is_gone_on_with(tmp_path):
    """
    Without a selection, without a create, and without asking the budget.
    """
    simulator = simulating()
    store = tmp_path / "intents.sqlite"
    async with in_bench(tmp_path, simulator=simulator, store=SqliteStore(store)) as bench:
        await bench.worker.submit(await bench.entry(), await bench.prepared())
    seen = len(simulator.log)
    async with in_bench(tmp_path, simulator=simulator, store=SqliteStore(store), budget=Decimal(0)) as bench:
        assert {"task_id", "worst"} == (await bench.prepared()).keys()
        assert "done" == (await bench.done())["state"]
        assert {"get", "media"} == set(bench.calls[seen:])
        assert {ID: 1} == bench.charges


async def test_a_gate_may_decline(tmp_path):
    """
    Just before anything is paid, with the job and its selection before it.
    """
    seen = []

    async def gate(asked, selection):
        await anyio.lowlevel.checkpoint()
        seen.append((asked, [len(marked.masks) for marked in selection.marked.values()]))
        return "it is too dark"

    async with in_bench(tmp_path, gate=gate) as bench:
        outcome = await bench.done()
        assert [(job(), [1])] == seen
        assert ("declined", "DeclinedError") == (outcome["state"], outcome["error"])
        assert "it is too dark" in outcome["message"]
        assert ({}, Decimal(0), 0) == (bench.charges, await bench.kept.spent(), bench.calls.count("create"))


async def test_a_gate_may_agree(tmp_path):
    """
    By saying nothing.
    """
    async with in_bench(tmp_path, gate=raising(DeclinedError("once"))) as bench:
        assert "declined" == (await bench.done())["state"]
        assert await bench.kept.again()
        assert "done" == (await bench.done())["state"]


@pytest.mark.parametrize(
    "error, state",
    [
        (InvalidInputError("prompt", "is odd"), "failed"),
        (NotFoundError("no such clip", code=1203), "failed"),
        (TLSError("the certificate fails"), "failed"),
        (TaskFailedError(Task(task_id="t-1", status="failed", units=Decimal(0))), "failed"),
    ],
)
async def test_an_error_ends_its_job_and_is_told_by_its_class(tmp_path, error, state):
    """
    With its words, and its code where the service gave one; nothing was paid.
    """
    async with in_bench(tmp_path, gate=raising(error)) as bench:
        outcome = await bench.done()
        assert (state, type(error).__name__, str(error)) == (outcome["state"], outcome["error"], outcome["message"])
        assert getattr(error, "code", None) == outcome.get("code")
        assert ({}, Decimal(0)) == (bench.charges, await bench.kept.spent())


@pytest.mark.parametrize("error", [ClosedError("the client closes"), ZeroDivisionError("a mistake of the gate's")])
async def test_what_is_not_the_jobs_fault_leaves_its_step(tmp_path, error):
    """
    A worker that ends, and a mistake of the user's own code.
    """
    async with in_bench(tmp_path, gate=raising(error)) as bench:
        with pytest.raises(type(error)):
            await bench.prepared()
        assert "waiting" == await bench.kept.state()


@pytest.mark.parametrize(
    "error", [StoreError("the disk is slow"), ServerError("later", code=5001), NotFoundError("no", code=1203)]
)
async def test_what_comes_and_goes_is_waited_out(tmp_path, error):
    """
    And what stays ends the job.
    """
    passing = not isinstance(error, NotFoundError)
    async with in_bench(tmp_path, gate=raising(error)) as bench:
        assert ("done" if passing else "failed") == (await bench.done())["state"]
        assert passing == bool(bench.charges)


async def test_faults_of_the_service_are_waited_out(tmp_path):
    """
    Wherever they come; the job is paid once.
    """
    faults = [
        Fault("init", "code", code=5001, times=2),
        Fault("add", "unsent"),
        Fault("create", "code", code=1302, times=3),
        Fault("get", "code", code=5000),
    ]
    async with in_bench(tmp_path, simulator=simulating(*faults)) as bench:
        assert "done" == (await bench.done())["state"]
        assert {ID: 1} == bench.charges


async def test_patience_ends(tmp_path):
    """
    A service that stays away ends a job, which is begun again later.
    """
    async with in_bench(tmp_path, simulator=simulating(Fault("init", "code", code=5001)), patience=0) as bench:
        outcome = await bench.done()
        assert ("failed", "prepare", "ServerError", 5001) == tuple(
            outcome[name] for name in ("state", "stage", "error", "code")
        )
        assert await bench.kept.again()
        assert "done" == (await bench.done())["state"]


async def test_a_selection_that_is_over_is_opened_anew(tmp_path):
    """
    A day may pass between two steps.
    """
    async with in_bench(tmp_path) as bench:
        entry, prepared = await bench.entry(), await bench.prepared()
        bench.simulator.expire(prepared["session_id"])
        submitted = await bench.worker.submit(entry, prepared)
        await bench.worker.finish(entry, prepared, submitted)
        assert ("done", {ID: 1}, 2) == (await bench.kept.state(), bench.charges, bench.calls.count("init"))


async def test_a_selection_of_which_a_frame_is_uncertain_is_marked_anew(tmp_path):
    """
    Rather than to pay for marks that may not be there.
    """
    async with in_bench(tmp_path) as bench:
        entry, prepared = await bench.entry(), await bench.prepared()
        state = {**prepared["state"], "uncertain": [0]}
        assert {0} == set(from_dict(SelectionState, state).uncertain)
        await bench.worker.submit(entry, {**prepared, "state": state})
        assert ({ID: 1}, 1, 2) == (bench.charges, bench.calls.count("clear"), bench.calls.count("add"))


async def test_a_full_quota_is_waited_for_and_teaches(tmp_path, monkeypatch):
    """
    Learned slots shrink with refusals and grow with ends, and the engine is told.
    """
    monkeypatch.setattr(_account, "CALM", 0.0)
    full = Fault("create", "code", code=1303, times=2)
    async with in_bench(tmp_path, simulator=simulating(full), slots="learned") as bench:
        assert "done" == (await bench.done())["state"]
        assert ([4, 3], {ID: 1}) == (bench.resized, bench.charges)
        monkeypatch.setattr(_account, "SHRINK", 2.0)
        await bench.worker._learn(refused=True)
        assert [4, 3, 7] == bench.resized


async def test_a_full_quota_changes_nothing_where_slots_were_said(tmp_path):
    """
    It is waited for all the same.
    """
    full = Fault("create", "code", code=1303, times=2, retry_after=0)
    async with in_bench(tmp_path, simulator=simulating(full), slots=3) as bench:
        assert "done" == (await bench.done())["state"]
        assert ([], {ID: 1}) == (bench.resized, bench.charges)


@pytest.mark.parametrize("code", [1000, 1004, 1100, 1101, 1102, 1103, 1304])
async def test_trouble_of_the_account_pauses_a_job(tmp_path, code, caplog):
    """
    It does not fail; it goes on when the pause is over, and is paid once.
    """
    refusal = Fault("create", "code", code=code)
    async with in_bench(tmp_path, simulator=simulating(refusal)) as bench:
        with caplog.at_level(logging.WARNING):
            async with anyio.create_task_group() as group:
                group.start_soon(bench.done)
                await until(bench.kept.account.paused)
                said = await bench.kept.account.paused()
                assert said.startswith(f"{'AuthenticationError' if code < 1100 else 'AccountError'}: {code}: ")
                assert KEY not in said
                assert ("running", 1) == (await bench.kept.state(), bench.calls.count("create"))
                assert await bench.kept.account.pause(None)
        assert ("done", {ID: 1}) == (await bench.kept.state(), bench.charges)
        assert 1 == sum("the batch is paused" in line.message for line in caplog.records)


async def test_all_jobs_wait_for_the_end_of_a_pause(tmp_path):
    """
    However often it comes: none fails for it, and each is paid once.
    """
    keys = "abcde"
    empty = Fault("create", "code", code=1101, times=7)
    async with in_bench(tmp_path, *map(wish, keys), simulator=simulating(empty)) as bench:

        async def resumed():
            if await bench.kept.account.paused() is not None:
                await bench.kept.account.pause(None)
            return set((await bench.kept.records.counts()).states) == {"done"}

        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(bench.done, key)
            await until(resumed)
        assert ([1] * 5, 12) == (list(bench.charges.values()), bench.calls.count("create"))


async def test_who_comes_into_a_pause_waits_with_the_others(tmp_path):
    """
    Before anything is sent; a worker that begins looks whether there is one.
    """
    async with in_bench(tmp_path, wish("a"), wish("b")) as bench:
        await bench.kept.account.pause("an empty balance")

        async def both_wait():
            await anyio.lowlevel.checkpoint()
            return bench.worker._turn.statistics().tasks_waiting

        async with anyio.create_task_group() as group:
            group.start_soon(bench.done, "a")
            group.start_soon(bench.done, "b")
            await until(both_wait)
            assert [] == bench.calls
            await bench.kept.account.pause(None)
        assert ("done", "done") == (await bench.kept.state("a"), await bench.kept.state("b"))


class Clock:
    """
    What `_work` takes for anyio, with a clock that can be put forward.
    """

    def __init__(self):
        self.ahead = 0.0

    def __getattr__(self, name):
        return getattr(anyio, name)

    def current_time(self):
        return anyio.current_time() + self.ahead


async def test_a_pause_does_not_use_up_the_patience(tmp_path, monkeypatch):
    """
    However long it was, what comes and goes is waited out after it.
    """
    monkeypatch.setattr(_work, "anyio", clock := Clock())
    faults = [Fault("init", "code", code=1102), Fault("init", "code", code=5001)]
    async with in_bench(tmp_path, simulator=simulating(*faults), patience=1_000) as bench:
        async with anyio.create_task_group() as group:
            group.start_soon(bench.done)
            await until(bench.kept.account.paused)
            clock.ahead = 100_000.0
            await bench.kept.account.pause(None)
        assert "done" == await bench.kept.state()


async def test_a_budget_refuses_before_the_paid_call(tmp_path):
    """
    With a higher one the job is begun again and paid once.
    """
    async with in_bench(tmp_path, wish("a", mode="pro"), budget=Decimal(4)) as bench:
        outcome = await bench.done()
        assert ("refused", "it may cost 5 units, and 4 of the budget are left") == (
            outcome["state"],
            outcome["message"],
        )
        assert 0 == bench.calls.count("create")
        await bench.kept.money.set_budget("default", Decimal(5))
        assert await bench.kept.again()
        assert ("done", {ID: 1}) == ((await bench.done())["state"], bench.charges)


async def test_a_budget_refuses_what_has_no_price(tmp_path):
    """
    A model whose prices are published nowhere.
    """
    async with in_bench(tmp_path, wish("a", extra={"model_name": "kling-v9"}), budget=Decimal(100)) as bench:
        outcome = await bench.done()
        assert ("refused", {}) == (outcome["state"], bench.charges)
        assert "nobody knows beforehand" in outcome["message"]


async def test_what_was_cancelled_is_not_paid(tmp_path):
    """
    Even where the engine had handed it out, and its selection was open.
    """
    async with in_bench(tmp_path) as bench:
        entry, prepared = await bench.entry(), await bench.prepared()
        await bench.kept.records.cancel([entry])
        reserved = await bench.worker.reserve(entry, prepared)
        assert {"state": "cancelled"} == await bench.worker.finish(entry, {**prepared, **reserved}, {})
        assert ("cancelled", {}) == (await bench.kept.state(), bench.charges)


async def test_an_outcome_that_nobody_knows_costs_its_worst_case_until_it_is_known(tmp_path):
    """
    It is looked for again, under the same id, and found in the end.
    """
    lost, hidden = Fault("create", "lost"), Shape(lag_seconds=0.5)
    async with in_bench(tmp_path, simulator=simulating(lost, shape=hidden), budget=Decimal(3)) as bench:
        outcome = await bench.done()
        assert ("unknown", "submit", "UnknownOutcomeError") == tuple(
            outcome[name] for name in ("state", "stage", "error")
        )
        assert Decimal(3) == await bench.kept.spent()

        async def found():
            assert await bench.kept.again()
            return (await bench.done())["state"] == "done"

        await until(found)
        assert ({ID: 1}, Decimal(3)) == (bench.charges, await bench.kept.spent())


async def test_a_failed_task_costs_what_it_is_said_to_cost(tmp_path):
    """
    Nothing, that is; begun again it is another paid run.
    """
    async with in_bench(tmp_path, simulator=simulating(Fault("task", "failed", message="too risky"))) as bench:
        outcome = await bench.done()
        assert ("failed", "finish", "TaskFailedError", True, "0") == tuple(
            outcome[name] for name in ("state", "stage", "error", "task_failed", "units")
        )
        assert "too risky" in outcome["message"]
        assert Decimal(0) == await bench.kept.spent()
        assert await bench.kept.again()
        outcome = await bench.done()
        second = job("a~2").external_task_id
        assert ("done", second, {ID: 0, second: 1}) == (outcome["state"], outcome["external_task_id"], bench.charges)
        assert "a" == orjson.loads((tmp_path / "out" / "a.mp4.json").read_bytes())["key"]


async def test_a_failed_task_of_unknown_cost_stays_at_its_worst_case(tmp_path, monkeypatch):
    """
    Where the host does not tell.
    """
    async with in_bench(tmp_path) as bench:

        async def wait(_task):
            await anyio.lowlevel.checkpoint()
            raise TaskFailedError(Task(task_id="t-1", status="failed"))

        monkeypatch.setattr(bench.worker.client, "wait", wait)
        assert "units" not in await bench.done()
        assert Decimal(3) == await bench.kept.spent()


async def test_links_that_have_expired_are_asked_for_afresh(tmp_path):
    """
    Each time the task is looked at again; what is paid for is not paid for again.
    """
    async with in_bench(tmp_path, simulator=simulating(EXPIRED, EXPIRED)) as bench:
        assert "done" == (await bench.done())["state"]
        assert ["get", "media", "get", "media", "get", "media"] == bench.calls[-6:]
        assert {ID: 1} == bench.charges


async def test_a_result_that_cannot_be_fetched_is_fetched_later(tmp_path):
    """
    Its job has failed for now, at its worst case; begun again it costs nothing more.
    """
    gone = Fault("media", "status", status=403, times=LINKS)
    async with in_bench(tmp_path, simulator=simulating(gone), budget=Decimal(3)) as bench:
        outcome = await bench.done()
        assert ("failed", "finish", "DownloadError") == tuple(outcome[name] for name in ("state", "stage", "error"))
        assert (LINKS, Decimal(3)) == (bench.calls.count("media"), await bench.kept.spent())
        assert await bench.kept.again()
        assert "done" == (await bench.done())["state"]
        assert ({ID: 1}, Decimal(3)) == (bench.charges, await bench.kept.spent())


async def test_an_unfinished_file_that_another_holds_is_passed_by(tmp_path):
    """
    As a worker does that is stopped in the midst of it, for who knows how long.
    """
    async with in_bench(tmp_path, wish("a")) as bench:
        path = tmp_path / "out" / "a.mp4"
        path.parent.mkdir()
        other = PartFile(path, overwrite=True)
        other.open()
        assert "done" == (await bench.done())["state"]
        assert {path, beside(path), other.part} == set(path.parent.iterdir())
        other.release()
        assert {path, beside(path)} == set(path.parent.iterdir())


async def test_a_folder_that_cannot_be_written_is_not_the_links_fault(tmp_path):
    """
    The job fails at once, and is finished when that is mended.
    """
    (tmp_path / "out").write_text("in the way")
    async with in_bench(tmp_path) as bench:
        outcome = await bench.done()
        assert ("failed", "finish", "DownloadError") == tuple(outcome[name] for name in ("state", "stage", "error"))
        assert "could not be filed" in outcome["message"]
        (tmp_path / "out").unlink()
        assert await bench.kept.again()
        assert ("done", {ID: 1}) == ((await bench.done())["state"], bench.charges)


async def test_a_disk_that_fills_up_while_a_result_comes_is_no_reason_to_fetch_it_again(tmp_path, monkeypatch):
    """
    Another link would not help.
    """
    async with in_bench(tmp_path) as bench:
        tried = []

        async def download(*_given, **_named):
            await anyio.lowlevel.checkpoint()
            tried.append(True)
            raise DownloadError("no space left", final=True)

        monkeypatch.setattr(bench.worker.client, "download", download)
        assert ("failed", [True]) == ((await bench.done())["state"], tried)


class Failing(MemoryStore):
    """
    A store that cannot be written the first times.
    """

    left = 2

    async def claim(self, intent):
        if self.left:
            self.left -= 1
            raise StoreError("the disk is full")
        return await super().claim(intent)


async def test_intents_that_cannot_be_written_are_waited_for(tmp_path):
    """
    Nothing is sent before.
    """
    async with in_bench(tmp_path, store=Failing()) as bench:
        assert "done" == (await bench.done())["state"]
        assert {ID: 1} == bench.charges


@pytest.mark.parametrize(
    "seconds, edit, cost",
    [
        (5.0, {}, "3"),
        (8.0, {}, "6"),
        (8.0, {"duration": 5}, "3"),
        (None, {}, "6"),
        (0.0, {}, "6"),
        (None, {"mode": "pro", "duration": 5}, "5"),
        (5.0, {"extra": {"model_name": "kling-v9"}}, None),
    ],
)
async def test_the_worst_case_is_what_it_might_cost_at_most(tmp_path, seconds, edit, cost):
    """
    A clip whose length nobody knows may be one of ten seconds; a price that is not published is not known.
    """
    info = None if seconds is None else SelectionInfo(session_id="1", duration=seconds)
    async with in_bench(tmp_path, wish("a", **edit)) as bench:
        assert (None if cost is None else Decimal(cost)) == worst(await bench.entry(), info)
