"""
The program that crash tests stop, pause and kill: one paid create, one job, a batch of them, or a fork.

`python -m tests.crashing ORDER` takes an Order as JSON, says what happens as lines of JSON, and stands still at the
point that it is told until a line comes in.
"""

import os
import random
import sqlite3
import sys
from pathlib import Path

import anyio
import orjson
from attrs import asdict, field, frozen

from kling_async import (
    ApiKey,
    Edited,
    Job,
    KlingClient,
    KlingError,
    PollPolicy,
    PostgresStore,
    Removal,
    RetryPolicy,
    SqliteStore,
    UnknownOutcomeError,
    edit,
    edit_many,
    open_transport,
)
from kling_async.events import Replayed

NOBODY = 65534
CLIP = "https://example.com/clip.mp4"
EDIT = Removal.of("the bird")
PASSES = 20


def job(key):
    """
    An edit of the clip under this key.
    """
    return Job(CLIP, marks={0: [(0.5, 0.5)]}, edit=EDIT, key=key)


NAMES = {"create": "order-1", "edit": job("order-1").external_task_id}
"""Under which id each flow is charged."""


@frozen(kw_only=True)
class Order:
    """
    What a child is to do.
    """

    flow: str
    """`create`, `edit`, `batch` or `fork`."""
    base_url: str
    store: str
    """Path of the intents, or the URL of their database."""
    backend: str = "asyncio"
    session_id: str = ""
    """For `create`."""
    point: str | None = None
    """Where to stand still, once."""
    full: tuple[str, str] | None = None
    """How the disk is full, and from which point on."""
    lease: float = 300.0
    doubt: float = 0.3
    on_unknown: str = "raise"
    total: float = 30.0
    """Seconds for one exchange."""
    nobody: bool = False
    """Whether root opens the store as nobody, for to root everything is writable."""
    edits: int = 0
    """For `batch`: how many."""
    folder: str = ""
    """For `batch`: where results go."""

    def argument(self):
        """
        As the command line has it.
        """
        return orjson.dumps(asdict(self)).decode()


def say(**what):
    """
    Tell the parent.
    """
    sys.stdout.write(f"{orjson.dumps(what).decode()}\n")
    sys.stdout.flush()


@frozen
class Points:
    """
    Where to stand still, and where the disk is full.
    """

    order: Order
    passed: set = field(factory=set)

    def reach(self, point, store=None):
        """
        Stand here, if this is the point, the first time; the whole process waits.
        """
        if self.order.full is not None and self.order.full[1] == point:
            fill(self.order.full[0], store)
        if self.order.point == point and point not in self.passed:
            self.passed.add(point)
            say(at=point)
            sys.stdin.readline()


def fill(how, store):
    """
    Let the disk take no byte more, or the database no page more.
    """
    if how == "disk":
        import resource  # Windows has none

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return
    connection = store._connection
    connection.execute("PRAGMA max_page_count = 1")
    try:
        while True:
            connection.execute("INSERT INTO intents VALUES (hex(randomblob(8)), '', '{}')")
    except sqlite3.OperationalError:
        pass


class Pointed:
    """
    A store with the points at which something is written.
    """

    def __init__(self, order, points):
        super().__init__(order.store, lease=order.lease)
        self.points = points

    async def claim(self, intent):
        self.points.reach("before intent", self)
        return await super().claim(intent)

    async def put(self, intent):
        if intent.state == "sending":
            self.points.reach("after intent", self)
        if intent.state == "accepted":
            self.points.reach("after reply", self)
        written = await super().put(intent)
        if intent.state == "accepted":
            self.points.reach("after commit", self)
        return written


class Filed(Pointed, SqliteStore):
    """
    In a file.
    """

    async def open(self):
        rights = os.geteuid()
        if self.points.order.nobody and rights == 0:
            os.seteuid(NOBODY)
        try:
            await super().open()
        finally:
            os.seteuid(rights)


class Served(Pointed, PostgresStore):
    """
    In a database.
    """


def store_of(order, points):
    """
    Where the order's intents are.
    """
    kind = Served if order.store.startswith("postgresql:") else Filed
    return kind(order, points)


@frozen
class Carrier:
    """
    A transport with the points before a create has left and after the service has it.
    """

    inner: object
    points: Points

    async def exchange(self, request):
        if not self.points.order.point or request.method != "POST" or not request.url.endswith("/multi-elements"):
            return await self.inner.exchange(request)
        self.points.reach("before send")
        if self.points.order.point != "after send":
            return await self.inner.exchange(request)
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, request)
            return await self.inner.exchange(request)

    async def _watch(self, request):
        """
        Stand still when the service shows the task, whose reply never comes: from here only a kill leads on.
        """
        name = orjson.loads(request.body)["external_task_id"]
        look = type(request)("GET", f"{request.url}/{name}", request.headers)
        while (await self.inner.exchange(look)).status != 200:
            pass
        self.points.reach("after send")

    async def aclose(self):
        await self.inner.aclose()

    async def download(self, url, path, **named):
        return await self.inner.download(url, path, **named)


async def run(order):
    """
    Do it and say how it ended.
    """
    try:
        task = await one(order)
    except UnknownOutcomeError as error:
        say(end="UnknownOutcomeError", absent=error.absent)
    except KlingError as error:
        say(end=type(error).__name__, said=str(error))
    else:
        say(end=task.status, task_id=task.task_id)


async def one(order):
    """
    The paid create and the wait for its task.
    """
    points = Points(order)
    carrier = Carrier(await open_transport(total=order.total), points)
    retry = RetryPolicy(doubt=order.doubt, on_unknown=order.on_unknown, base=0.01)
    settings = {"base_url": order.base_url, "retry": retry, "poll": PollPolicy(first=0.05)}
    try:
        async with KlingClient(ApiKey("any"), transport=carrier, store=store_of(order, points), **settings) as client:
            points.reach("start")
            if order.flow == "edit":
                return await edit(client, job("order-1"))
            return await client.wait(await client.create_task(order.session_id, EDIT, external_task_id="order-1"))
    finally:
        with anyio.CancelScope(shield=True):
            await carrier.aclose()


async def batch(order):
    """
    Every job to its end: what failed, again; in the end what is proven not to be there, with leave to send it again.
    """
    random.seed(0)  # which waits are drawn with
    left, on_unknown = {str(number): job(str(number)) for number in range(order.edits)}, "raise"
    for _ in range(PASSES):
        failed = await passed(order, left, on_unknown)
        left = {key: left[key] for key in failed}
        if not left:
            break
        if all(failed.values()):
            on_unknown = "resend"
    say(end="batch", left=sorted(left))


async def passed(order, jobs, on_unknown):
    """
    Settle what an earlier run left, and run the jobs; the keys that failed, and whether no task of theirs exists.
    """
    carrier = await open_transport(total=order.total)
    retry = RetryPolicy(doubt=order.doubt, on_unknown=on_unknown, base=0.05)
    poll = PollPolicy(first=0.1, ceiling=0.5)
    settings = {"base_url": order.base_url, "retry": retry, "poll": poll, "observer": tell}
    failed = {}
    try:
        async with KlingClient(ApiKey("any"), transport=carrier, store=SqliteStore(order.store), **settings) as client:
            settled = await client.reconcile()
            adopted = [task.external_task_id for task in settled.adopted]
            say(begun=len(jobs), policy=on_unknown, adopted=adopted, absent=settled.absent, unknown=settled.unknown)
            async with edit_many(client, jobs.values(), slots=50) as outcomes:
                async for outcome in outcomes:
                    error = await fetched(client, outcome, order.folder)
                    if error is not None:
                        failed[outcome.job.key] = isinstance(error, UnknownOutcomeError) and error.absent
    finally:
        with anyio.CancelScope(shield=True):
            await carrier.aclose()
    return failed


async def fetched(client, outcome, folder):
    """
    Fetch a result once and say how its job came out; its error, if there is one.
    """
    key, path = outcome.job.key, Path(folder) / f"{outcome.job.key}.mp4"
    if not isinstance(outcome, Edited):
        say(failed=key, error=type(outcome.error).__name__)
        return outcome.error
    try:
        if not path.exists():
            await client.download(outcome.task.video, path)
    except KlingError as error:
        say(failed=key, error=type(error).__name__)
        return error
    say(edited=key, task_id=outcome.task.task_id)
    return None


def tell(event):
    """
    Count what was sent again.
    """
    if isinstance(event, Replayed):
        say(replayed=event.path, error=event.error)


async def fork(order):
    """
    Use a client in the child of a fork and on another loop, and then where it belongs.
    """
    async with KlingClient(ApiKey("any"), base_url=order.base_url) as client:
        say(process=os.getpid())
        forked(client)
        for backend in ("asyncio", "trio"):
            await anyio.to_thread.run_sync(elsewhere, client, backend)
        try:
            await client.get_task("1")
        except KlingError as error:
            say(end=type(error).__name__)


def forked(client):
    """
    The call needs no loop to be refused; it must not wait for one that is the parent's.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        client.get_task("1").send(None)
    except RuntimeError as error:
        say(process=os.getpid(), refused=str(error))
    finally:
        os._exit(0)


def elsewhere(client, backend):
    """
    The same from another loop.
    """
    try:
        anyio.run(client.get_task, "1", backend=backend)
    except RuntimeError as error:
        say(backend=backend, refused=str(error))


def main():
    """
    Read the order and do it.
    """
    order = Order(**orjson.loads(sys.argv[1]))
    flows = {"batch": batch, "fork": fork}
    anyio.run(flows.get(order.flow, run), order, backend=order.backend)


if __name__ == "__main__":
    main()
