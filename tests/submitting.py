"""
A world in which paid creates go wrong: a simulator that tells the truth, stores that outlive their clients, clients
that pause, are killed and come back, and a judge of whatever is written, sent and returned.

Its event loop stands still between two steps, so that a call may be held in one and go on in another.
"""

import math
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import accumulate, count, repeat, takewhile
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest.mock import patch

import anyio
import anyio.lowlevel
import orjson
from attrs import define, evolve, field, frozen
from hypothesis import register_random
from trio._core import _run as trio_run

from kling_async import (
    ApiKey,
    ClosedError,
    Inbox,
    KeyConflictError,
    KlingClient,
    KlingError,
    LostReplyError,
    MemoryStore,
    Removal,
    RetryPolicy,
    SqliteStore,
    StoreError,
    Task,
    UnknownOutcomeError,
)
from kling_async._auth import fingerprint
from kling_async._hints import Hint
from kling_async._submit import AGE_MOST
from kling_async.models import Reconciled
from kling_async.simulator import Fault, Shape, Simulator
from kling_async.simulator._faults import Script
from kling_async.simulator._shape import EPOCH
from kling_async.stores import Abilities
from tests.conftest import JumpingLoop
from tests.simulating import Caller

register_random(trio_run._r)  # or the order in which trio runs its tasks is another at each replay

EDIT = Removal.of("the stones")
DIRECT, RELAY, COMET = (
    "https://api-singapore.klingai.com",
    "https://relay.example.com",
    "https://api.cometapi.com/kling",
)
LEASE = 300.0
"""Seconds until an owner that shows no sign of life may be followed: SqliteStore's own."""
BLINK = 1e-3
"""Seconds by which two sums of the same times may differ."""
EXCHANGE = 60.0
"""Seconds after which a transport gives up on a reply."""
LIMIT = 20_000.0
"""Seconds after which a call counts as stuck."""
OPERATIONS_MOST = 30_000
"""Operations of one world after which it counts as stuck."""
LOOK_GOOD = 60.0
"""Seconds for which a look before the first send is good: so far apart are two stores used."""

KNOWN = {"accepted", "succeeded", "failed"}
DOUBTFUL = {"sending", "unknown"}
FORWARD = {
    "intent": {"intent", "sending", "accepted"},
    "sending": {"intent", "refused", "unknown", "accepted"},
    "refused": {"refused", "sending", "accepted"},
    "unknown": {"unknown", "absent", "accepted"},
    "absent": {"absent", "sending", "accepted"},
    "accepted": {"accepted", "succeeded", "failed"},
    "succeeded": set(),
    "failed": set(),
}

GIVEN, DRAWN = ("order-0", "order-1"), tuple(f"d{number}" for number in range(40))
"""The external ids of a world, in the order in which they are drawn."""
TAKEN = f"already there: {' '.join(GIVEN + DRAWN)}"

CREATE = {
    "lost": Fault("create", "lost"),
    "cut": Fault("create", "cut"),
    "unsent": Fault("create", "unsent"),
    "hang": Fault("create", "hang"),
    "hang done": Fault("create", "hang", handled=True),
    "5000": Fault("create", "code", code=5000),
    "5000 done": Fault("create", "code", code=5000, handled=True),
    "5002 done": Fault("create", "code", code=5002, handled=True),
    "524 done": Fault("create", "status", status=524, handled=True),
    "408 done": Fault("create", "status", status=408, handled=True),
    "html": Fault("create", "html"),
    "html done": Fault("create", "html", status=503, handled=True),
    "relay done": Fault("create", "gateway", word="do_request_failed", handled=True),
    "{}": Fault("create", "status", status=200, body=b"{}"),
    "{} done": Fault("create", "status", status=200, body=b"{}", handled=True),
    "<html> done": Fault("create", "status", status=200, body=b"<html>", handled=True),
    "307": Fault("create", "redirect"),
    "1101": Fault("create", "code", code=1101),
    "1201": Fault("create", "code", code=1201),
    "1203": Fault("create", "code", code=1203),
    "1301": Fault("create", "code", code=1301),
    "1302": Fault("create", "code", code=1302, times=2),
    "1302 in 2": Fault("create", "code", code=1302, retry_after=2),
    "1303": Fault("create", "code", code=1303),
    "404 relay": Fault("create", "gateway", status=503, word="model_not_found"),
    "failing": Fault("task", "failed"),
    "taken": Fault("create", "code", code=1201, message=TAKEN),
    "taken done": Fault("create", "code", code=1201, message=TAKEN, handled=True),
}
"""What may become of a create; `done` is charged all the same."""
GET = {
    "5000": Fault("get", "code", code=5000),
    "1302": Fault("get", "code", code=1302),
    "1002": Fault("get", "code", code=1002),
    "lost": Fault("get", "lost"),
    "unsent": Fault("get", "unsent"),
    "hang": Fault("get", "hang"),
    "html": Fault("get", "html"),
    "missing": Fault("get", "missing"),
    "wrong": Fault("get", "code", code=1201),
}
"""What may become of a look."""
GLITCHES = {"missing", "wrong"}
"""Looks that do not find what is there: fewer than three of them must prove nothing."""
STORED = (
    "claim", "release", "abilities", "learn", "recent", "get",
    "put intent", "put sending", "put unknown", "put absent", "put refused", "put accepted",
)  # fmt: skip
"""Operations of a store."""
OPERATIONS = (*STORED, "POST", "POST done", "GET", "LIST")
"""Where trouble may meet a call: just before one of these."""


@frozen(kw_only=True)
class Ways:
    """
    What is fixed in one world.
    """

    backend: str = "asyncio"
    store: str = "memory"
    base_url: str = RELAY
    external_ids: str = "repeatable"
    envelope: str = "raw"
    finds: bool = True
    lag: float = 0.0
    lists: bool = False
    proven: bool = False
    on_unknown: str = "raise"
    doubt: float = 90.0
    attempts: int = 3
    ahead: float = 0.0
    """Seconds by which the clock of one slot is ahead of the other's."""
    two_keys: bool = False
    """Whether each slot has a key of its own, as two accounts would have."""

    @property
    def tells(self):
        """Whether tasks tell their external ids."""
        return self.external_ids != "dropped" and self.envelope not in {"flat", "openai"}

    @property
    def found(self):
        """Whether a task is found by its external id."""
        return self.finds and self.external_ids != "dropped"

    @property
    def listed(self):
        """Whether a task is found in a list that the client reads."""
        return self.lists and self.tells and self.base_url != COMET

    @property
    def unique(self):
        """Whether the host takes an id once."""
        return self.external_ids == "unique"

    @property
    def proves(self):
        """Whether a task that is not found over the whole of the doubt is not there."""
        return self.lag <= self.doubt

    @property
    def once(self):
        """Whether no id may ever be charged twice."""
        return self.on_unknown == "raise" or self.unique or not self.found or self.proves

    @property
    def remembers(self):
        """Whether a create is not repeated by those who have lost their store: the host finds it, or refuses it."""
        return self.unique or self.found or self.listed

    @property
    def may_resend(self):
        """Whether a create may ever be sent again that was in doubt."""
        return self.found and (self.on_unknown == "resend" or (self.unique and self.base_url == DIRECT))

    def allows(self, operation, trouble):
        """
        Whether this trouble is no window that is documented to be open.

        A client that sleeps longer than its lease between writing that it sends and sending pays twice where a
        resend is allowed and ids may be repeated (W9).
        """
        late = operation == "POST" and (trouble.what == "hold" or trouble.seconds >= LEASE)
        return not (late and self.on_unknown == "resend" and not self.unique)


ANY = ""
"""Before an operation of any kind."""


@frozen
class Trouble:
    """
    What meets a call before one of its operations, the first time or a later one.
    """

    at: str
    what: str
    """`pause` for seconds, `hold` until resumed, `cancel`, `kill` the client, `fail` the store, once or from here on
    (`down`); or the store writes, and then fails (`torn`) or the call is cancelled (`cut`)."""
    seconds: float = 0.0
    nth: int = 0


@define(eq=False, kw_only=True)
class Call:
    """
    One call of a client.
    """

    what: str = "create"
    slot: int = 0
    key: str | None = None
    other: bool = False
    """Whether it pays for something else."""
    starts: float = 0.0
    patience: float = math.inf
    troubles: tuple = ()
    session: str = field(default="", init=False, repr=False)
    process: object = field(default=None, init=False, repr=False)
    posts: int = field(default=0, init=False, repr=False)
    limit: anyio.CancelScope | None = field(default=None, init=False, repr=False)
    scope: anyio.CancelScope | None = field(default=None, init=False, repr=False)
    held: anyio.Event | None = field(default=None, init=False, repr=False)
    down: bool = field(default=False, init=False, repr=False)
    ended: bool = field(default=False, init=False, repr=False)
    outcome: object = field(default=None, init=False, repr=False)
    _met: Counter = field(factory=Counter, init=False, repr=False)

    @property
    def payload(self):
        return ("b" if self.other else "a") * 64

    def meets(self, operation):
        """What happens to it here."""
        here = {(operation, self._met[operation]), (ANY, self._met.total())}
        self._met[operation] += 1
        return next((one for one in self.troubles if (one.at, one.nth) in here), None)


CALL = ContextVar("CALL", default=None)


class Stage:
    """
    An event loop with a clock that jumps, in a thread of its own; it stands still between two pieces of work.
    """

    def __init__(self, backend):
        self._work, self._done = SimpleQueue(), SimpleQueue()
        self._pool = ThreadPoolExecutor(1)
        future = self._pool.submit(anyio.run, self._main, backend=backend, backend_options=clock(backend))
        future.add_done_callback(self._done.put)
        self.failed = False

    async def _main(self):
        async with anyio.create_task_group() as group:
            while (work := self._work.get()) is not None:
                self._done.put(await work(group))
            group.cancel_scope.cancel()

    def run(self, work):
        """Do a piece of work, a coroutine function that is given a task group, and return what it returns."""
        self._work.put(work)
        done = self._done.get()
        if isinstance(done, Future):
            self.failed = True
            raise innermost(done.exception())
        return done

    def close(self):
        """End the loop."""
        self._work.put(None)
        self._pool.shutdown()


class Enduring(JumpingLoop):
    """
    A JumpingLoop in which months may pass: after three, a nanosecond more is the same number.
    """

    def __init__(self):
        super().__init__()
        self._clock_resolution = 1e-6


def clock(backend):
    """The options with which a backend's clock jumps."""
    if backend == "asyncio":
        return {"loop_factory": Enduring}
    from trio.testing import MockClock

    return {"clock": MockClock(autojump_threshold=0)}


def innermost(error):
    """The first error in a group."""
    return innermost(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


class Leased(MemoryStore):
    """
    A MemoryStore that outlives its clients, with the leases of a SqliteStore.
    """

    def __init__(self, now):
        super().__init__()
        self.now, self.until = now, {}

    def peek(self, key):
        return self._intents.get(key)

    def rows(self):
        return list(self._intents.values())

    async def claim(self, intent):
        key = intent.external_task_id
        if self.until.get(key, math.inf) <= self.now():
            self._owned.discard(key)
        claimed = await super().claim(intent)
        if claimed is not None:
            self.until[key] = self.now() + LEASE
        return claimed

    async def put(self, intent):
        written = await super().put(intent)
        if written:
            self.until[intent.external_task_id] = self.now() + LEASE
        return written

    def abandon(self, keys):
        self._owned -= keys


class Filed(SqliteStore):
    """
    A SqliteStore that works in the event loop's own thread, for a clock that jumps, and does not wait for the disk.
    """

    def peek(self, key):
        return self._kept(key)

    def rows(self):
        return list(self._recent(1000, None))

    async def _run(self, work):
        return work()

    def _connect(self):
        connection = super()._connect()
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    def abandon(self, keys):
        machine, _, token = self._owner.split(" ")
        for key in keys:
            statement = "UPDATE owners SET owner = ? WHERE external_task_id = ? AND owner = ?"
            self._rows(statement, f"{machine} {2**22 + 1} {token}", key, self._owner)


@define(eq=False)
class Owner:
    """
    Whom the judge takes for the owner of a row.
    """

    view: "View"
    call: Call
    fence: int
    until: float
    leaving: bool = False


@define(eq=False)
class Place:
    """
    A machine with its store.
    """

    folder: Path | None
    memory: Leased | None
    owners: dict = field(factory=dict)
    attempts: dict = field(factory=dict)
    """How often each id was sent from here."""

    def connect(self):
        """What a new client uses."""
        return self.memory or Filed(self.folder / "intents.sqlite", lease=LEASE)


@define(eq=False)
class View:
    """
    One client's store and transport, where trouble meets it and the judge looks on.
    """

    world: "World"
    place: Place
    store: object
    transport: object
    account: str
    dead: bool = False

    async def _meet(self, operation):
        world, call = self.world, CALL.get()
        world.tick(operation)
        await anyio.lowlevel.checkpoint()
        trouble = call.meets(operation) if call is not None else None
        if trouble is not None and not world.ways.allows(operation, trouble):
            trouble = None
        what = trouble.what if trouble else None
        stored = operation in STORED
        if what == "pause":
            await anyio.sleep(trouble.seconds)
        elif what == "hold":
            await world.hold(call)
        elif what == "cancel":
            call.scope.cancel()
            await anyio.lowlevel.checkpoint()
        elif what == "kill":
            world.kill(call.process, at_once=trouble.seconds == 0)
            await anyio.lowlevel.checkpoint()
        elif what == "down":
            call.down = True
        if stored and not self.dead and (what == "fail" or (call is not None and call.down)):
            raise StoreError("the disk is full")
        return what if stored else None

    async def open(self):
        await self.store.open()

    async def aclose(self):
        if not self.dead and self.store is not self.place.memory:
            await self.store.aclose()

    async def claim(self, intent):
        call, key = CALL.get(), intent.external_task_id
        if call.key is None:
            call.key = key
            self.world.drawn.append(key)
        what = await self._meet("claim")
        if self.dead:
            return None
        before = self.store.peek(key)
        claimed = await self.store.claim(intent)
        self.world.claimed(self, key, before, claimed)
        if what in {"torn", "cut"} and key in self.place.owners:
            self.place.owners[key].leaving = True  # it does not know that it owns it
        return await _after(what, claimed)

    async def put(self, intent):
        try:
            what = await self._meet(f"put {intent.state}")
        except StoreError:
            if intent.state in KNOWN and intent.external_task_id in self.place.owners:
                self.place.owners[intent.external_task_id].leaving = True  # its lease has to run out
            raise
        if self.dead:
            return False
        before = self.store.peek(intent.external_task_id)
        written = await self.store.put(intent)
        self.world.written(self, before, intent, written=written)
        return await _after(what, written)

    async def release(self, intent):
        owner = self.place.owners.get(intent.external_task_id)
        if owner is not None and owner.view is self:
            owner.leaving = True
        what = await self._meet("release")
        if self.dead:
            return
        await self.store.release(intent)
        owner = self.place.owners.get(intent.external_task_id)
        if owner is not None and owner.view is self and owner.fence == intent.fence:
            del self.place.owners[intent.external_task_id]
        await _after(what, None)

    async def get(self, external_task_id):
        await self._meet("get")
        return await self.store.get(external_task_id)

    async def recent(self, most=100, *, states=None):
        await self._meet("recent")
        return await self.store.recent(most, states=states)

    async def abilities(self, base_url):
        await self._meet("abilities")
        return await self.store.abilities(base_url)

    async def learn(self, base_url, abilities):
        what = await self._meet("learn")
        if not self.dead:
            await self.store.learn(base_url, abilities)
        await _after(what, None)

    async def exchange(self, request):
        posted = request.method == "POST"
        key = orjson.loads(request.body)["external_task_id"] if posted else None
        fence = self.world.leaving(self, key) if posted else 0
        await self._meet("POST" if posted else "LIST" if "?" in request.url else "GET")
        if self.dead:
            raise ClosedError("killed")
        if posted:
            self.world.sent(self, key, fence)
        response = None
        try:
            with anyio.move_on_after(EXCHANGE):
                response = await self.transport.exchange(request)
        finally:
            if posted:
                self.world.check_charges(key)
        if response is None:
            raise LostReplyError("no reply came in time")
        if posted:
            await self._meet("POST done")
        return response


async def _after(what, result):
    """
    What a caller hears of what was written.
    """
    if what == "torn":
        raise StoreError("written, but the disk did not say so")
    if what == "cut":
        CALL.get().scope.cancel()
        await anyio.lowlevel.checkpoint()
    return result


@define(eq=False)
class Process:
    """
    A process and its client.
    """

    view: View
    client: KlingClient


class World:
    """
    Everything; made for one example and closed after it.
    """

    _numbers = count(1)

    def __init__(self, ways):
        self.ways = ways
        self.key = f"sk-{next(self._numbers)}"
        self.simulator = Simulator(
            quota=1000,
            task_seconds=10,
            session_seconds=10**9,
            shape=Shape(
                external_ids=ways.external_ids,
                envelope=ways.envelope,
                finds_external_ids=ways.finds,
                lag_seconds=ways.lag,
                lists=ways.lists,
            ),
        )
        self.machine = self.simulator._desk.machine
        self.now, self.operations, self.moving = 0.0, 0, 0
        self.calls, self.drawn, self.stores = [], [], []
        self.slots, self.processes = [None, None], []
        self.moved = False
        self.late = set()
        """Ids that were sent when another had taken over already (W9): a look just before that does not see them."""
        self._exit = ExitStack()
        self._exit.enter_context(patch("kling_async._sqlite.time", self._time()))
        self._exit.enter_context(patch("kling_async._create.drawn_id", iter(DRAWN).__next__))
        self.places = [self._place(), self._place()]
        self.place = self.places[0]
        self.stage = Stage(ways.backend)
        self.stage.run(self._begin)

    def _time(self):
        return SimpleNamespace(time=self.clock, monotonic=time.monotonic, sleep=time.sleep)

    def _place(self):
        if self.ways.store == "memory":
            return Place(None, Leased(self.clock))
        return Place(Path(self._exit.enter_context(TemporaryDirectory(ignore_cleanup_errors=True))), None)

    def clock(self):
        """Unix time; what it shows where no loop runs is the last that was seen."""
        return EPOCH + self.now

    def wall(self, ahead=0.0):
        """The wall clock that a client goes by; two of them may differ."""
        self.now = anyio.current_time()
        return datetime.fromtimestamp(self.clock() + ahead, UTC)

    def tick(self, operation):
        """See the time, and count: what goes on for ever is stuck."""
        self.now = anyio.current_time()
        self.operations += 1
        assert self.operations < OPERATIONS_MOST, f"stuck at {operation}"

    # What happens.

    async def _begin(self, _group):
        self.changed = anyio.Event()
        caller = Caller(self.simulator.transport(), base=self.ways.base_url)
        await caller.marked()
        self.session = next(iter(self.machine.selections.sessions.values()))
        if self.ways.proven:
            enforces = True if self.ways.unique else None
            able = Abilities(finds=True if self.ways.found else None, enforces=enforces, echoes=self.ways.tells or None)
            for place in self.places:
                store = place.connect()
                await store.open()
                await store.learn(self.ways.base_url, able)
                await store.aclose()

    async def _opened(self, number):
        """The process in this slot; a new one where a call of the old one is held."""
        process = self.slots[number]
        if process is not None and all(call.process is not process for call in self.held):
            return process
        ways, store = self.ways, self.place.connect()
        self.stores.append(store)
        credentials = ApiKey(f"{self.key}-{number}" if ways.two_keys else self.key)
        view = View(self, self.place, store, self.simulator.transport(), fingerprint(credentials))
        client = KlingClient(
            credentials,
            base_url=ways.base_url,
            transport=view,
            store=view,
            inbox=Inbox(),
            retry=RetryPolicy(attempts=ways.attempts, doubt=ways.doubt, on_unknown=ways.on_unknown),
        )
        await client.__aenter__()
        client.creates.doubts.search.now = partial(self.wall, ways.ahead if number else 0.0)
        self.slots[number] = process = Process(view, client)
        self.processes.append(process)
        return process

    def step(self, *calls, create=(), get=()):
        """
        Make calls, at once, and let time go on until each has ended or is held.

        Args:
            calls: What is called.
            create: What becomes of the creates, one after another: names, or None for nothing.
            get: What becomes of the looks.
        """
        self._script([*faults(CREATE, create), *faults(GET, self._bearable(get))])
        # One that is held keeps others of its process waiting that are at the same id.
        holds = len({call.slot for call in calls}) == len(calls)
        for number, call in enumerate(calls, len(self.calls)):
            call.troubles = tuple(one for one in call.troubles if holds or one.what != "hold")
            if call.key == "drawn":
                call.key = self.drawn[-1] if self.drawn else None
            call.session = f"s-{number}"
            self.machine.selections.sessions[call.session] = evolve(self.session, session_id=call.session)

        self.calls += calls

        async def work(group):
            for call in calls:
                call.process = await self._opened(call.slot)
            self.moving += len(calls)
            for call in calls:
                group.start_soon(self._act, call)
            await self._still()

        self.stage.run(work)
        return [call.outcome for call in calls]

    def _bearable(self, names):
        """At most two looks that are wrong, and none where one may go on in a later step or decides alone."""
        left = 0 if self.moved or self.held else 2
        for name in names:
            if name not in GLITCHES:
                yield name
            elif left:
                left -= 1
                yield name

    def blindness(self, wrong):
        """Looks that all fail, but the last ones, which do not find what is there."""
        doubt, every, first = self.ways.doubt, 8.0, (0.5, 1.0, 2.0, 4.0)
        times = [time for time in first if time < doubt]
        times += takewhile(lambda time: time < doubt, accumulate(repeat(every), initial=times[-1] + every))
        return ["5000"] * ((len(times) + 1 - wrong) * self.ways.attempts) + ["missing"] * wrong

    def _script(self, given):
        # That an id is taken is said by hosts that know it, or by relays; a host of its own that repeats ids would lie.
        lies = self.ways.base_url == DIRECT and not self.ways.unique
        self.machine.script = Script(tuple(fault for fault in given if not (lies and fault.message == TAKEN)))

    async def _still(self):
        while self.moving:
            self.changed = anyio.Event()
            await self.changed.wait()
        self.now = anyio.current_time()

    @property
    def held(self):
        """The calls that are held."""
        return [call for call in self.calls if call.held is not None]

    async def hold(self, call):
        """Hold a call until it is resumed."""
        if call.held is not None:  # by another of its tasks
            await call.held.wait()
            return
        call.held = event = anyio.Event()
        limits = [(scope, scope.deadline - self.now) for scope in (call.limit, call.scope)]
        call.limit.deadline = call.scope.deadline = math.inf
        self._moves(-1)
        try:
            await event.wait()
        finally:
            self._freed(call)
            for scope, left in limits:
                scope.deadline = anyio.current_time() + left

    def _freed(self, call):
        if call.held is not None:
            call.held.set()
            call.held = None
            self.moving += 1

    def _moves(self, number):
        self.moving += number
        self.changed.set()

    def resume(self, index, *, create=(), get=()):
        """Let a call that is held go on."""
        call = self.held[index % len(self.held)]
        self._script([*faults(CREATE, create), *faults(GET, [name for name in get if name not in GLITCHES])])

        async def work(_group):
            self._freed(call)
            await self._still()

        self.stage.run(work)
        return call.outcome

    def pass_time(self, seconds):
        """Let time go by."""

        async def work(_group):
            await anyio.sleep(seconds)
            await self._still()

        self.stage.run(work)

    def kill(self, process, *, at_once):
        """
        Kill a process; what it owns is free at once, or when its leases have run out.
        """
        view = process.view
        if process not in self.processes:
            return
        self._forget(process)
        if at_once:
            keys = {key for key, owner in view.place.owners.items() if owner.view is view}
            view.store.abandon(keys)
            for key in keys:
                del view.place.owners[key]
        view.dead = True
        for call in self.calls:
            if call.process is process and call.scope is not None:
                self._freed(call)
                call.scope.cancel()

    def _forget(self, process):
        self.processes.remove(process)
        self.slots = [None if one is process else one for one in self.slots]

    def restart(self, number, how):
        """
        Another client in this slot: after a close, or after a kill that was noticed or not.
        """
        process = self.slots[number]

        async def work(_group):
            if how == "close":
                self._forget(process)
                await process.client.__aexit__(None, None, None)
            else:
                self.kill(process, at_once=how == "kill")
            await self._still()

        if process is not None:
            self.stage.run(work)

    def kill_all(self):
        """
        Kill every process.
        """

        async def work(_group):
            for process in tuple(self.processes):
                self.kill(process, at_once=True)
            await self._still()

        self.stage.run(work)

    def elsewhere(self, *, lose):
        """
        Go on at another machine with a store of its own, or lose the store; not at the very same moment (W10).
        """
        if not self.ways.remembers:
            return
        self.kill_all()
        self.moved = True
        self.pass_time(max(self.ways.lag, LOOK_GOOD + abs(self.ways.ahead)) + 1)
        if lose:
            self.places[self.places.index(self.place)] = self.place = self._place()
        else:
            self.place = next(place for place in self.places if place is not self.place)

    # What is judged.

    def runs(self, key):
        """The tasks that were accepted under this id."""
        return self.machine.tasks._external.get(key, [])

    def paid_by(self, call):
        """How many tasks were accepted from this call."""
        return sum(run.creation.session_id == call.session for run in self.machine.tasks._all.values())

    def check_charges(self, key):
        """The promise of all promises."""
        if self.ways.once:
            assert len(self.runs(key)) <= 1, f"{key} was charged twice"

    def claimed(self, view, key, before, claimed):
        """A claim must leave a live owner alone, wait for no claim of its own, and give a number that nobody had."""
        if claimed is None:
            owner = view.place.owners.get(key)
            if owner is not None and not owner.leaving and not owner.view.dead:
                assert owner.call is not CALL.get(), "it waits for itself"
                assert not owner.call.ended, "it waits for one who has gone without a word"
            return
        if before is not None:
            assert evolve(claimed, fence=0) == evolve(before, fence=0), "a claim changed a row"
        if claimed.state in KNOWN:
            return
        owner = view.place.owners.get(key)
        assert owner is None or owner.until <= self.now + BLINK, f"{key} was taken from its owner"
        assert claimed.fence > (before.fence if before is not None else 0), "a fencing number came twice"
        view.place.owners[key] = Owner(view, CALL.get(), claimed.fence, self.now + LEASE)

    def written(self, view, before, intent, *, written):
        """Rows move forward, and are written by their owner unless the task is known."""
        key, owner = intent.external_task_id, view.place.owners.get(intent.external_task_id)
        after = view.store.peek(key)
        if not written:
            assert before == after, "a row changed though it was not written"
            return
        assert after == intent
        if before is not None:
            assert intent.state in FORWARD[before.state], f"{before.state} became {intent.state}"
            assert before.task_id in {None, intent.task_id}, "a known task was replaced"
        if intent.state in KNOWN:
            view.place.owners.pop(key, None)
            run = self.machine.tasks._all.get(intent.task_id)
            assert run is not None, "a task is known that is none"
            assert key == run.creation.external_task_id, "another's task was adopted"
            return
        assert intent.task_id is None
        if intent.state == "absent":
            assert self.ways.may_resend, "called absent without leave to send it again, or without proof"
            assert view.account == intent.account, "called absent by another account"
        assert owner is not None, f"{intent.state} was written by nobody's owner"
        assert owner.view is view, f"{intent.state} was written by an earlier owner"
        assert owner.fence == intent.fence, f"{intent.state} was written with another's number"
        owner.until = self.now + LEASE

    def leaving(self, view, key):
        """Nothing leaves that is not written down, owned and without a task."""
        row = view.store.peek(key)
        assert row is not None, "sent without an intent"
        assert ("sending", None) == (row.state, row.task_id), f"sent while its row is {row.state}"
        assert row.attempts > view.place.attempts.get(key, 0), "sent without being written down anew"
        assert row.first_sent_at is not None
        assert view.account == row.account
        view.place.attempts[key] = row.attempts
        owner = view.place.owners.get(key)
        assert owner is not None, "sent by nobody"
        assert owner.view is view, "sent by an earlier owner"
        return row.fence

    def sent(self, view, key, fence):
        """Count it, and note if it left so late that another had taken over (W9)."""
        CALL.get().posts += 1
        row = view.store.peek(key)
        if row.fence != fence or row.state != "sending":
            self.late.add(key)
            assert self.ways.on_unknown == "raise" or self.ways.unique

    async def _act(self, call):
        # What fails here ends the loop, and with it the step, which goes on waiting for this call.
        CALL.set(call)
        with anyio.move_on_after(LIMIT) as call.limit, anyio.move_on_after(call.patience) as call.scope:
            await anyio.sleep(call.starts)
            try:
                call.outcome = await self._called(call, call.process.client)
            except KlingError as error:
                call.outcome = error
        assert not call.limit.cancelled_caught, "a call is stuck"
        call.scope, call.ended = None, True
        self._judge(call, call.outcome)
        self._moves(-1)

    async def _called(self, call, client):
        if call.what == "reconcile":
            return await client.reconcile()
        if call.key is None and call.what != "create":
            return None
        runs = self.runs(call.key)
        match call.what:
            case "hint":
                hint = Hint(runs[-1].task_id if runs else "404", call.key, "succeed")
                client._inbox.put(hint)
                return await client._inbox.reader.look(hint)
            case "wait":
                task_id = runs[-1].task_id if runs else "404"
                return await client.wait(Task(task_id=task_id, external_task_id=call.key, status="submitted"))
            case "known":
                found = await client.creates.known(call.key, call.payload)
                if found is not None:
                    return found
        return await client.creates.create(
            call.session, EDIT, payload=call.payload, external_task_id=call.key, callback_url=None
        )

    def _judge(self, call, outcome):
        key = call.key
        if isinstance(outcome, Reconciled):
            self._judge_reconciled(outcome)
        elif isinstance(outcome, Task):
            run = self.machine.tasks._all.get(outcome.task_id)
            assert run is not None, "a task was returned that is none"
            told = outcome.external_task_id if call.what != "wait" else outcome.external_task_id or key
            assert key == run.creation.external_task_id == told, "another's task was returned"
            assert self.runs(key)
        elif isinstance(outcome, UnknownOutcomeError):
            assert key == outcome.external_task_id
            self._judge_absent(key, absent=outcome.absent)
        elif isinstance(outcome, KlingError) and not isinstance(outcome, ClosedError):
            assert 0 == self.paid_by(call) or not self.ways.proves, f"paid, and told {outcome!r}"
            if call.what in {"create", "known"}:
                assert key == outcome.external_task_id
        if call.what in {"create", "known"} and key is not None:
            self._judge_payload(call, outcome)
            self.check_charges(key)

    def _judge_payload(self, call, outcome):
        row = call.process.view.store.peek(call.key)
        if isinstance(outcome, KeyConflictError):
            assert row.payload != call.payload
            assert (0, 0) == (call.posts, self.paid_by(call)), "sent what conflicts"
        elif isinstance(outcome, Task | UnknownOutcomeError):
            assert row is None or row.payload == call.payload, "another payload passed for the same"

    def _judge_absent(self, key, *, absent):
        if absent and self.ways.proves and not (key in self.late and self.ways.lag):
            assert [] == self.runs(key), f"{key} was called absent and is there"

    def _judge_reconciled(self, found):
        for task in found.adopted:
            run = self.machine.tasks._all[task.task_id]
            assert task.external_task_id == run.creation.external_task_id
        for key in found.absent:
            self._judge_absent(key, absent=True)

    def finish(self):
        """
        In the end, when all works again: what was paid is found, and what is known is not paid again.
        """
        while self.held:
            self.resume(0)
        self.kill_all()
        self.pass_time(3600)
        found = self.step(Call(what="reconcile"))[0]
        assert isinstance(found, Reconciled), found
        rows = self.slots[0].view.store.rows()
        for row in rows:
            key, before = row.external_task_id, len(self.runs(row.external_task_id))
            young = self._age(row) < AGE_MOST
            findable = self.ways.tells and (self.ways.found or self.ways.listed)
            if row.state in DOUBTFUL and young and findable:
                assert 0 == before, f"{key} was paid and not found"
            call = Call(key=key, other=row.payload[0] == "b")
            outcome = self.step(call)[0]
            if row.state in KNOWN and young:
                assert isinstance(outcome, Task), outcome
            if before and self.ways.once:
                assert (0, before) == (self.paid_by(call), len(self.runs(key)))

    def _age(self, row):
        return timedelta(seconds=self.clock() - row.created_at.timestamp())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Leave nothing open."""
        self.stage.close()
        for store in self.stores:
            if isinstance(store, Filed) and store._connection is not None:
                store._connection.close()
        self._exit.close()
        self.simulator.close()


def faults(known, names):
    """
    Faults in this order; None lets one pass.
    """
    passed = Counter()
    for name in names:
        if name is None:
            passed.update(["create", "get"])
            continue
        fault = known[name]
        yield evolve(fault, after=passed[fault.endpoint])
        passed[fault.endpoint] = 0
