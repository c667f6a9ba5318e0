"""
Cut off at any moment, an operation leaves nothing behind, and done again it pays once.

The simulator's own charges and marks are the judge.
"""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path

import anyio
import anyio.lowlevel
import orjson
import pytest
from attrs import define, evolve, field

from kling_async import (
    ApiKey,
    ClosedError,
    Edited,
    Job,
    KlingClient,
    MemoryStore,
    Point,
    PollPolicy,
    Removal,
    RetryPolicy,
    SelectionDirtyError,
    SelectionSession,
    Slots,
    SqliteStore,
    Task,
    edit,
    edit_many,
)
from kling_async._aiohttp import AiohttpTransport
from kling_async._open import stand
from kling_async._submit import session_digest
from kling_async.simulator import Fault, Shape, Simulator
from kling_async.stores import Intent
from tests.checkpoints import Stepped, called_off, cuts, descriptors, natives
from tests.commanding import CLIP as FILM
from tests.commanding import ROOT, alone, commands, process, serving

CLIP = "https://example.com/clip.mp4"
KLING = "https://api-singapore.klingai.com"
EDIT = Removal.of("the stones")
A, B, C = Point(0.8, 0.53), Point(0.37, 0.6), Point(0.1, 0.2)
PATIENT = RetryPolicy(on_unknown="resend", doubt=3.0)
BRISK = RetryPolicy(on_unknown="resend", doubt=0.02, base=0.001)
SOON = PollPolicy(first=0.01, ceiling=0.02)
REPEATABLE = Shape(external_ids="repeatable")
"""A host that does not refuse an id that it has: only we keep it from charging twice."""


@pytest.fixture
def said(caplog):
    """
    What was logged since the last cut.
    """
    caplog.set_level(logging.WARNING, "kling_async")
    return caplog


@define
class Hearing:
    """
    A transport that knows which creates it has brought an answer of.
    """

    inner: object
    answered: set = field(factory=set)

    async def exchange(self, request):
        reply = await self.inner.exchange(request)
        if request.url.endswith("/multi-elements") and request.method == "POST" and reply.status == 200:
            self.answered.add(orjson.loads(request.body)["external_task_id"])
        return reply

    async def download(self, url, path, **named):
        return await self.inner.download(url, path, **named)


@define
class Till:
    """
    A simulator with a marked selection in it and one create that it knows, and clients of it.
    """

    simulator: Simulator
    base_url: str = KLING
    retry: RetryPolicy = PATIENT
    session: str = field(default="", init=False)
    answered: set = field(factory=set, init=False)
    """External ids of creates whose answer has reached a client, where no socket takes part."""

    @asynccontextmanager
    async def client(self, store=None, *, transport=None, poll=None):
        if transport is None and self.base_url == KLING:
            transport = Hearing(self.simulator.transport(), self.answered)
        named = {"base_url": self.base_url, "retry": self.retry, "poll": poll, "transport": transport}
        async with KlingClient(ApiKey("any"), store=store, **named) as client:
            yield client

    async def opened(self):
        """
        That a create is absent is proven only on a host that was seen to find one: so it has one that it can find.
        """
        async with self.client() as client:
            self.session = (await client.init_selection(video_url=CLIP)).session_id
            await client.add_selection(self.session, 0, [A])
            await self.create(client, "known")
        return self

    def create(self, client, key):
        return client.create_task(self.session, EDIT, external_task_id=key)

    def scripted(self, fault):
        """
        Let one create go wrong.
        """
        if fault is not None:
            self.simulator.script(Fault("create", fault, code=1301 if fault == "code" else None))


def simulator_of(*faults, **named):
    return Simulator(**{"quota": 10**6, "task_seconds": 0, "faults": faults, **named})


async def unowned(store, row):
    """
    Whether somebody else could see to it at once.
    """
    claimed = await store.claim(row)
    if claimed is not None:
        await store.release(claimed)
    return claimed is not None


async def judge(cut, till, client, *, store, row, said):
    """
    What holds once a create was cut off, and once it was done again. Without a row nothing was begun.
    """
    charges, key = till.simulator.charges, None if row is None else row.external_task_id
    assert 0 == cut.left, cut
    if not cut.cancelled:
        assert (key, 1, "accepted") == (cut.result.external_task_id, charges.get(key), row.state), cut
    elif key in charges:
        assert repr(key) in cut.notes, (cut, row)
        assert repr(key) in said.text, (cut, row)
    if row is not None:
        assert key not in till.answered or row.state == "accepted", (cut, row)
        assert await unowned(store, row), (cut, row)
        with anyio.fail_after(60):
            assert isinstance(await till.create(client, key), Task), (cut, row)
        assert 1 == till.simulator.charges[key], (cut, row)
    assert {1} == set(till.simulator.charges.values()), cut


GIVEN = pytest.mark.parametrize("given", [True, False], ids=["given", "drawn"])


@GIVEN
@pytest.mark.parametrize("fault", [None, "lost", "unsent", "cut"])
@pytest.mark.parametrize("ids", ["unique", "repeatable"])
async def test_f29_a_create_in_memory(anyio_backend_name, said, ids, fault, given):
    """
    Cut off at any moment, a create is named if it was charged, is owned by nobody, and is charged once in the end.
    """
    for cut in cuts(anyio_backend_name):
        till, store = await Till(simulator_of(shape=Shape(external_ids=ids))).opened(), MemoryStore()
        till.scripted(fault)
        said.clear()
        async with till.client(store) as client:
            await cut.run(partial(till.create, client, "order-1" if given else None))
            row, *_ = *await store.recent(), None
            await judge(cut, till, client, store=store, row=row, said=said)


class Unsynced(SqliteStore):
    """
    A file that is not waited for: no sweep pulls the plug.
    """

    def _connect(self):
        connection = super()._connect()
        connection.execute("PRAGMA synchronous = OFF")
        return connection


LONG = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.mark.real_clock
@pytest.mark.parametrize(
    ("fault", "given"),
    [
        (None, False),
        ("lost", True),
        pytest.param(None, True, marks=LONG),
        pytest.param("lost", False, marks=LONG),
        pytest.param("unsent", True, marks=LONG),
        pytest.param("unsent", False, marks=LONG),
        pytest.param("cut", True, marks=LONG),
        pytest.param("cut", False, marks=LONG),
    ],
)
async def test_f29_a_create_on_disk(anyio_backend_name, said, tmp_path, fault, given):
    """
    The same where intents are on disk, which another process may want at once; also where asyncio cancels twice.
    """
    before, other = descriptors(), Unsynced(tmp_path / "intents.sqlite")
    await other.open()
    for cut in chain(cuts(anyio_backend_name), cuts(anyio_backend_name, again=True)):
        till, known = await Till(simulator_of(shape=REPEATABLE), retry=BRISK).opened(), await other.recent(1)
        till.scripted(fault)
        said.clear()
        async with till.client(Unsynced(other.path)) as client:
            await cut.run(partial(till.create, client, f"order-{cut.number}-{cut.again}" if given else None))
            row, *_ = *await other.recent(1), None
            await judge(cut, till, client, store=other, row=None if (row,) == known else row, said=said)
    await other.aclose()
    assert before >= descriptors()


@pytest.mark.real_clock
@pytest.mark.parametrize("fault", [None, "lost"])
async def test_f29_a_create_over_sockets(anyio_backend_name, said, fault):
    """
    The same through aiohttp, and on trio through the bridge to it.
    """
    simulator = simulator_of(shape=REPEATABLE)
    async with simulator.serve() as base_url:
        till = await Till(simulator, base_url, retry=BRISK).opened()
        for cut in cuts(anyio_backend_name):
            till.scripted(fault)
            key, store = f"order-{cut.number}", MemoryStore()
            said.clear()
            async with till.client(store) as client:
                await cut.run(partial(till.create, client, key))
                await judge(cut, till, client, store=store, row=await store.get(key), said=said)


@pytest.mark.real_clock
@pytest.mark.parametrize("anyio_backend", [("trio", {})], ids=["trio"])
async def test_f29_a_create_inside_the_bridges_engine(said):
    """
    The same wherever the engine, in its own thread, is with the request.
    """
    simulator = simulator_of(shape=REPEATABLE)
    async with simulator.serve() as base_url:
        till = await Till(simulator, base_url, retry=BRISK).opened()
        for cut in cuts("trio", engine=True):
            key, store = f"order-{cut.number}", MemoryStore()
            said.clear()
            bridge = await stand(lambda cut=cut: Stepped(AiohttpTransport(), cut))
            async with aclosing(bridge), till.client(store, transport=bridge) as client:
                await cut.run(partial(till.create, client, key))
                await judge(cut, till, client, store=store, row=await store.get(key), said=said)


@pytest.mark.real_clock
async def test_f29_a_create_that_is_never_answered(anyio_backend_name, said):
    """
    The host has made its task and does not say so: cut off there, it is named, and found when it is done again.
    """
    simulator = simulator_of(shape=REPEATABLE)
    async with simulator.serve() as base_url:
        till, store = await Till(simulator, base_url, retry=BRISK).opened(), MemoryStore()
        for native in natives(anyio_backend_name):
            charged, key = anyio.Event(), f"order-{native}"
            simulator.script(Fault("create", "hang", handled=True))

            async def looking(charged=charged, key=key):
                while key not in simulator.charges:
                    await anyio.lowlevel.checkpoint()
                charged.set()

            async with till.client(store) as client, anyio.create_task_group() as group:
                group.start_soon(looking)
                _, end = await called_off(partial(till.create, client, key), native=native, once=charged)
                assert isinstance(end, anyio.get_cancelled_exc_class())
                assert repr(key) in end.__notes__[0]
                assert repr(key) in said.text
                assert "sending" == (await store.get(key)).state
                assert "accepted" == (await till.create(client, key) and await store.get(key)).state
            assert 1 == simulator.charges[key]


CHANGES = {
    "add": lambda selection: selection.add_points(41, [B]),
    "add more": lambda selection: selection.add_points(40, [B]),
    "delete": lambda selection: selection.delete_points(40, [A]),
    "clear": lambda selection: selection.clear(),
    "rebuild": lambda selection: selection.rebuild(),
    "rebuild anew": lambda selection: selection.rebuild(),
}


def held(simulator, session_id):
    """
    What the simulator holds of a selection: points by frame index; None where it has ended.
    """
    session = simulator._desk.machine.selections.sessions.get(session_id)
    return None if session is None else {frame: set(spots) for frame, spots in session.marks.items()}


def believed(selection):
    """
    The same by our own record.
    """
    return {frame: {(point.x, point.y) for point in points} for frame, points in selection.marks.items()}


@pytest.mark.parametrize("change", CHANGES)
async def test_f29_a_change_of_a_selection(anyio_backend_name, change):
    """
    Cut off at any moment, a change is known not to be made, or its frame is in doubt and nobody pays until a rebuild.
    """
    for cut in cuts(anyio_backend_name):
        simulator = simulator_of()
        async with Till(simulator).client() as client, SelectionSession(client, video_url=CLIP) as selection:
            await selection.add_points(40, [A])
            await selection.add_points(7, [C])
            if change == "rebuild anew":
                simulator.expire(selection.session_id)
            await cut.run(partial(CHANGES[change], selection))
            assert 0 == cut.left, cut
            assert cut.cancelled or not selection.state.uncertain, cut
            if selection.state.uncertain:
                with pytest.raises(SelectionDirtyError):
                    await selection.create_task(EDIT)
                assert {} == simulator.charges, cut
            else:
                assert held(simulator, selection.session_id) in (believed(selection), None), cut
            await selection.rebuild()
            assert believed(selection) == held(simulator, selection.session_id), cut
            if selection.marks:
                await selection.create_task(EDIT, external_task_id="order-1")
                assert {"order-1": 1} == simulator.charges, cut


async def test_f29_a_wait(anyio_backend_name, said):
    """
    Cut off at any moment, a wait names its task in the log, and waiting again sees its end.
    """
    for cut in cuts(anyio_backend_name):
        till = await Till(simulator_of(task_seconds=3)).opened()
        async with till.client() as client:
            task = await till.create(client, "order-1")
            said.clear()
            await cut.run(partial(client.wait, task))
            assert 0 == cut.left, cut
            assert not cut.cancelled or task.task_id in said.text, cut
            assert "succeed" == (await client.wait(task.task_id)).status, cut


@pytest.mark.real_clock
async def test_f29_a_wait_with_intents_on_disk(anyio_backend_name, said, tmp_path):
    """
    The same where the end of a task is written down.
    """
    for cut in cuts(anyio_backend_name):
        till = await Till(simulator_of(task_seconds=0.01), retry=BRISK).opened()
        async with till.client(Unsynced(tmp_path / f"{cut.number}.sqlite"), poll=SOON) as client:
            task = await till.create(client, "order-1")
            said.clear()
            await cut.run(partial(client.wait, task))
            assert 0 == cut.left, cut
            assert not cut.cancelled or task.task_id in said.text, cut
            assert "succeed" == (await client.wait(task.task_id)).status, cut


def job(number=0, **more):
    named = {"marks": {40: [A]}, "edit": EDIT, "key": f"job-{number}"} | more
    return Job(f"https://example.com/{number}.mp4", **named)


def orders(simulator):
    """
    The external ids of all creates that were seen, and the ids of the tasks that they made.
    """
    asked = [seen.json["external_task_id"] for seen in simulator.log if seen.endpoint == "create"]
    return asked, [run.task_id for run in simulator._desk.machine.tasks._all.values()]


@GIVEN
@pytest.mark.parametrize("fault", [None, "lost", "unsent"])
async def test_f29_an_edit(anyio_backend_name, said, fault, given):
    """
    Cut off at any moment, an edit holds no slot, is named if it was charged, and is charged once in the end.
    """
    for cut in cuts(anyio_backend_name):
        till, slots = await Till(simulator_of(task_seconds=3)).opened(), Slots(1)
        till.scripted(fault)
        asked = job() if given else job(key=None)
        said.clear()
        async with till.client() as client:
            await cut.run(partial(edit, client, asked, slots=slots))
            assert (0, 0) == (cut.left, slots.held), cut
            if cut.cancelled and len(till.simulator.charges) > 1:
                names, tasks = orders(till.simulator)
                assert names[-1] in said.text or tasks[-1] in said.text, cut
            if given:
                with anyio.fail_after(60):
                    assert "succeed" == (await edit(client, asked, slots=slots)).status, cut
                assert {"known": 1, asked.external_task_id: 1} == till.simulator.charges, cut
        assert {1} == set(till.simulator.charges.values()), cut


async def batch(client, number):
    async with edit_many(client, map(job, range(number)), slots=2) as outcomes:
        return [type(outcome) async for outcome in outcomes]


async def test_f29_many_edits(anyio_backend_name):
    """
    The same of several at once, wherever one of them is.
    """
    for cut in cuts(anyio_backend_name, deep=True):
        till = await Till(simulator_of(task_seconds=1)).opened()
        async with till.client() as client:
            await cut.run(partial(batch, client, 2))
            assert 0 == cut.left, cut
            with anyio.fail_after(60):
                assert [Edited, Edited] == await batch(client, 2), cut
        assert {"known": 1, job(0).external_task_id: 1, job(1).external_task_id: 1} == till.simulator.charges, cut


async def doubtful(till, store, *keys):
    """
    Leave these creates as a crash leaves them that have just been sent.
    """
    now = datetime.now(UTC)
    for key in keys:
        digest = session_digest(till.session, EDIT)
        meant = Intent(external_task_id=key, payload=digest, base_url=KLING, session_id=till.session, created_at=now)
        row = await store.claim(meant)
        await store.put(evolve(row, state="sending", attempts=1, first_sent_at=now))
        await store.release(row)


async def test_f29_a_reconciliation(anyio_backend_name):
    """
    Cut off at any moment, it leaves every row to the next, which settles them, and charges nothing.
    """
    for cut in cuts(anyio_backend_name, deep=True):
        till, store = await Till(simulator_of()).opened(), MemoryStore()
        async with till.client() as client:
            await till.create(client, "there-1")
            await till.create(client, "there-2")
        async with till.client(store) as client:
            await doubtful(till, store, "there-1", "there-2", "absent-1")
            await cut.run(client.reconcile)
            assert 0 == cut.left, cut
            for row in await store.recent():
                assert await unowned(store, row), (cut, row)
            await client.reconcile()
            states = {row.external_task_id: row.state for row in await store.recent()}
        assert {"there-1": "accepted", "there-2": "accepted", "absent-1": "absent"} == states, cut
        assert {"known": 1, "there-1": 1, "there-2": 1} == till.simulator.charges, cut


@pytest.mark.real_clock
@pytest.mark.parametrize("wire", ["memory", "sockets"])
async def test_f29_a_download(anyio_backend_name, tmp_path, wire):
    """
    Cut off at any moment, no file stands under the name or the whole one, and the next download brings it.
    """
    simulator = simulator_of()
    film, near = FILM.read_bytes(), simulator.publish(FILM, name="clip.mp4")
    async with simulator.serve() as base_url:
        till = Till(simulator, base_url if wire == "sockets" else KLING, retry=BRISK)
        link = simulator.url("clip.mp4") if wire == "sockets" else near
        async with till.client() as client:
            for cut in cuts(anyio_backend_name):
                path = tmp_path / f"{cut.number}.mp4"
                await cut.run(partial(client.download, link, path))
                assert 0 == cut.left, cut
                assert cut.cancelled or path.exists(), cut
                assert not path.exists() or film == path.read_bytes(), cut
                await client.download(link, path, overwrite=True)
                assert film == path.read_bytes(), cut


def engines():
    """
    The bridges' threads; others are both loops' own, which they keep for the next file.
    """
    return [each for each in threading.enumerate() if each.name == "kling_async engine"]


async def life(till, path):
    """
    A client with a call under way that it does not wait for; the errors that this ended with.
    """
    ends = []

    async def hanging(client):
        try:
            await client.get_task("8781")
        except ClosedError as error:
            ends.append(error)

    async with anyio.create_task_group() as group, till.client(Unsynced(path)) as client:
        group.start_soon(hanging, client)
        await client.init_selection(video_url=CLIP)
    return ends


@pytest.mark.real_clock
async def test_f29_a_clients_whole_life(anyio_backend_name, tmp_path):
    """
    Cut off at any moment, also while it is left with a call under way, a client leaves nothing open.
    """
    simulator = simulator_of(Fault("get", "hang", times=None))
    async with simulator.serve() as base_url:
        till = Till(simulator, base_url, retry=BRISK)
        before = descriptors()
        for cut in chain(cuts(anyio_backend_name), cuts(anyio_backend_name, again=True)):
            await cut.run(partial(life, till, tmp_path / f"{cut.number}-{cut.again}.sqlite"))
            assert 0 == cut.left, cut
            assert cut.reached or 1 == len(cut.result), cut
            assert [] == engines(), cut
            # The server's own sockets are among them, and close a moment later.
            with anyio.move_on_after(5):
                while descriptors() > before:
                    await anyio.lowlevel.checkpoint()
            assert before >= descriptors(), cut


class Hanging(MemoryStore):
    """
    A store that hangs once it shall write one of these states, or release.
    """

    def __init__(self, *calls):
        super().__init__()
        self.calls = calls

    async def put(self, intent):
        if intent.state in self.calls:
            await anyio.sleep_forever()
        return await super().put(intent)

    async def release(self, intent):
        if "release" in self.calls:
            await anyio.sleep_forever()
        await super().release(intent)


@pytest.mark.parametrize(
    ("hangs", "fault"),
    [
        ("accepted", None),
        ("unknown", "lost"),
        ("intent", "unsent"),
        ("refused", "code"),
        ("sending", None),
        ("release", "hang"),
    ],
)
async def test_f30_a_store_that_hangs(anyio_backend_name, said, hangs, fault):
    """
    Whatever of a create hangs as it is written down, and its release too, a cancellation comes out in five seconds.
    """
    for native in natives(anyio_backend_name):
        till = await Till(simulator_of()).opened()
        till.scripted(fault)
        said.clear()
        async with till.client(Hanging(hangs, "release")) as client:
            seconds, end = await called_off(partial(till.create, client, "order-1"), native=native)
        assert 5 >= seconds
        assert isinstance(end, anyio.get_cancelled_exc_class())
        if "order-1" in till.simulator.charges:
            assert "'order-1'" in end.__notes__[0]
            assert "'order-1'" in said.text


@define
class Seizing:
    """
    A transport after whose first answer another process keeps the file of intents to itself.
    """

    inner: object
    path: Path
    seized: anyio.Event = field(factory=anyio.Event)
    connection: sqlite3.Connection | None = None

    async def exchange(self, request):
        reply = await self.inner.exchange(request)
        if self.connection is None:
            self.connection = sqlite3.connect(self.path, isolation_level=None)
            self.connection.execute("BEGIN IMMEDIATE")
            self.seized.set()
        return reply

    async def aclose(self):
        await self.inner.aclose()


@pytest.mark.real_clock
async def test_f30_a_file_that_another_process_keeps(anyio_backend_name, said, tmp_path, monkeypatch):
    """
    A cancellation does not wait for it; the thread that does writes down what came of the create.
    """
    monkeypatch.setattr("kling_async._shelter.GRACE", 0.05)
    for native in natives(anyio_backend_name):
        till, path = await Till(simulator_of(shape=REPEATABLE), retry=BRISK).opened(), tmp_path / f"{native}.sqlite"
        wire, store = Seizing(till.simulator.transport(), path), Unsynced(path)
        async with till.client(store, transport=wire) as client:
            _, end = await called_off(partial(till.create, client, None), native=native, once=wire.seized)
            assert isinstance(end, anyio.get_cancelled_exc_class())
            wire.connection.close()
            [row] = await store.recent()
            assert repr(row.external_task_id) in end.__notes__[0]
            assert "accepted" == row.state
            assert isinstance(await till.create(client, row.external_task_id), Task)
        assert {"known": 1, row.external_task_id: 1} == till.simulator.charges


@pytest.mark.real_clock
async def test_a_thread_that_is_left_begins_nothing(anyio_backend_name, tmp_path):
    """
    What a cancelled caller wanted is not done later, when nobody reckons with it.
    """
    store = Unsynced(tmp_path / "intents.sqlite")
    await store.open()
    now = datetime.now(UTC)
    row = Intent(external_task_id="order-1", payload="", base_url=KLING, session_id="8475", created_at=now)
    for native in natives(anyio_backend_name):
        with store._threads._slots:
            _, end = await called_off(partial(store.put, row), native=native)
        assert isinstance(end, anyio.get_cancelled_exc_class())
        assert await store.get("order-1") is None
    await store.aclose()


# Ctrl-C twice, in processes of their own


@pytest.fixture
def home(tmp_path, monkeypatch):
    """
    A folder of one's own, and an environment with a made-up key.
    """
    return alone(monkeypatch, tmp_path)


def reached(child, name):
    """
    Read a command's lines until it tells of this.
    """
    assert any(orjson.loads(line)["event"] == name for line in child.stdout), child.stderr.read()


@pytest.mark.parametrize(
    ("stage", "fault", "named"),
    [
        ("session", Fault("add", "hang"), "Nothing was created and nothing is paid."),
        ("create", Fault("create", "hang", handled=True), "The paid create order-7 was on its way"),
    ],
)
def test_f29_ctrl_c_twice_at_the_command_line(home, capsys, stage, fault, named):
    """
    It ends with 130 and says what may be paid; its intents can be read, and the same command is charged once in all.
    """
    with serving(faults=[fault]) as served:
        words = ("edit", served.clip, "--point", "40:0.80,0.53", "--remove", "the stones", "--yes", "--key", "order-7")
        words += ("--json", "--base-url", served.base_url, "--state", home / "state")
        with process(*words, folder=home) as child:
            reached(child, stage)
            while stage == "create" and not served.simulator.charges:
                os.sched_yield()
            child.send_signal(signal.SIGINT)
            child.send_signal(signal.SIGINT)
            _, err = child.communicate(timeout=15)
        assert (130, True, False) == (child.returncode, named in err, "Traceback" in err)
        assert 0 == commands(capsys)(*words).code
        assert {"order-7": 1} == served.simulator.charges


PROGRAM = """
import logging
import signal
import sys

import anyio

from kling_async import ApiKey, Job, KlingClient, Removal, SqliteStore, edit

backend, url, clip, path = sys.argv[1:]
job = Job(clip, marks={40: [(0.80, 0.53)]}, edit=Removal.of("the stones"), key="order-7")


class Again(logging.StreamHandler):
    def emit(self, record):
        super().emit(record)
        self.soon(signal.raise_signal, signal.SIGINT)


async def main():
    again = Again()
    if backend == "asyncio":
        import asyncio

        again.soon = asyncio.get_running_loop().call_soon
    else:
        import trio

        again.soon = trio.lowlevel.current_trio_token().run_sync_soon
    logging.getLogger("kling_async").addHandler(again)
    async with KlingClient(ApiKey("any"), base_url=url, store=SqliteStore(path)) as client:
        print((await edit(client, job)).status)


anyio.run(main, backend=backend)
"""
"""An edit that is interrupted once more as soon as it has said that a paid task may exist."""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_f29_ctrl_c_twice_in_a_program(home, backend):
    """
    Of a create that the host has charged and not answered it names the id; run again it is not charged again.
    """
    with serving(faults=[Fault("create", "hang", handled=True)]) as served:
        words = [sys.executable, "-c", PROGRAM, backend, served.base_url, served.clip, str(home / "intents.sqlite")]
        named = {"cwd": home, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "text": True, "stdout": subprocess.PIPE}
        with subprocess.Popen(words, stderr=subprocess.PIPE, **named) as child:
            while not served.simulator.charges:
                os.sched_yield()
            [name] = served.simulator.charges
            child.send_signal(signal.SIGINT)
            _, err = child.communicate(timeout=15)
        assert (True, True) == (bool(child.returncode), "KeyboardInterrupt" in err)
        assert f"create {name!r} was cut off on its way: a paid task may exist" in err
        again = subprocess.run(words, stderr=subprocess.PIPE, check=False, timeout=15, **named)
        assert ("succeed\n", "") == (again.stdout, again.stderr)
        assert {name: 1} == served.simulator.charges
