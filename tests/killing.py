"""
A worker of a batch that kill tests run as a process of its own, and what they do to it.

`python -m tests.killing ORDER` takes an Order as JSON and works until it is killed. At the point that it is told it
kills itself, or stands still until it was stopped and woken; the library knows nothing of points, they are wound
around it here.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import anyio
import orjson
from attrs import asdict, define, evolve, field, frozen

from kling_async import ApiKey, KlingClient, PollPolicy, RetryPolicy, open_transport
from tests.commanding import KNOWN

ROOT = Path(__file__).parents[1]
STEPS = ("prepare", "reserve", "submit", "finish")
BOUNDARIES = [f"{side} {step}" for step in STEPS for side in ("before", "after")]
SENDING = ["before send", "after send"]
"""Before the bytes of the paid create have left, when its row says already that they may have; and after its reply."""
BEAT, LEASE = 0.3, 2.0
"""Seconds between two signs of life, and without any; those of the library are made for days."""
LOOKS = 0.1


@frozen(kw_only=True)
class Order:
    """
    What a worker is to do.
    """

    name: str
    """By which the tests know it."""
    database: str
    base_url: str
    out: str
    point: str | None = None
    """Where to end, or to stand still: `before` or `after` a step, `before send`, `after send`, `inside reserve`."""
    nth: int = 1
    """At which passing of it."""
    stops: bool = False
    """Whether it only stands still there."""
    on_unknown: str = "raise"

    def argument(self):
        """
        As the command line has it.
        """
        return orjson.dumps(asdict(self)).decode()

    @property
    def files(self):
        """
        Those of SQLite, in which one process at a time may write.
        """
        scheme, _, path = self.database.partition(":///")
        return [path, f"{path}.intents"] if scheme == "sqlite" else []


@define
class Points:
    """
    Where a worker ends, or stands still.
    """

    order: Order
    _passed: count = field(factory=partial(count, 1))

    def say(self, **what):
        """
        Tell the tests, in one write, for all workers share a pipe.
        """
        os.write(1, orjson.dumps({"who": self.order.name, **what}) + b"\n")

    def reach(self, point):
        """
        End or stand still, if this is the point and it was passed often enough; whether it has stood still.
        """
        if point != self.order.point or next(self._passed) != self.order.nth:
            return False
        self.say(at=point)
        if not self.order.stops:
            os.kill(os.getpid(), signal.SIGKILL)
        # Until it was stopped and woken.
        sys.stdin.readline()
        return True

    def around(self, step, work):
        """
        A step of the worker between its two points.
        """

        async def passed(worker, *arguments):
            stood = self.reach(f"before {step}")
            done = await work(worker, *arguments)
            self.say(did=step)
            if self.reach(f"after {step}") or stood:
                self.say(left=self.order.point)
            return done

        return passed

    def inside(self, work):
        """
        A change of the batch's money, with the point in the midst of its transaction.
        """

        def passed(money, *arguments):
            work(money, *arguments)
            if self.reach("inside reserve"):
                self.say(left=self.order.point)

        return passed


@frozen
class Carrier:
    """
    A transport with the points before a create has left and after its reply is there.
    """

    inner: object
    points: Points

    async def exchange(self, request):
        if request.method != "POST" or not request.url.endswith("/multi-elements"):
            return await self.inner.exchange(request)
        stood = self.points.reach("before send")
        reply = await self.inner.exchange(request)
        if self.points.reach("after send") or stood:
            self.points.say(left=self.points.order.point)
        return reply

    async def aclose(self):
        await self.inner.aclose()

    async def download(self, url, path, **named):
        return await self.inner.download(url, path, **named)


async def work(order):
    """
    Work until killed.
    """
    from kling_async.dbos import DbosRunner, _database, _fleet, _money, _runner, _work

    points = Points(order)

    def fleet(place, *others):
        points.say(works=place.name)
        return _fleet.Fleet(place, *others, beat=BEAT)

    for step in STEPS:
        setattr(_work.Worker, step, points.around(step, getattr(_work.Worker, step)))
    _money.Money._change = points.inside(_money.Money._change)
    _runner.Fleet = fleet
    _work.AGAIN_FIRST = LOOKS
    _database.IDLE = LEASE
    retry = RetryPolicy(doubt=0.3, on_unknown=order.on_unknown, base=0.05)
    settings = {"base_url": order.base_url, "retry": retry, "poll": PollPolicy(first=0.1, ceiling=0.5)}
    carrier = Carrier(await open_transport(), points)

    def client(store):
        return KlingClient(ApiKey("any"), transport=carrier, store=evolve(store, lease=LEASE), **settings)

    async with (
        DbosRunner(order.database, out=order.out, client=client, lease=LEASE, polling=LOOKS) as runner,
        runner.working(),
    ):
        await anyio.sleep_forever()


@contextmanager
def alone(path):
    """
    Nobody else is in the midst of a write to a file.
    """
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@define
class Crew:
    """
    Workers, and what they say, in the order in which they say it.
    """

    order: Order
    """What they have in common."""
    processes: dict = field(factory=dict)
    """By their names."""
    places: dict = field(factory=dict)
    """What the library calls each of them."""
    ends: dict = field(factory=dict)
    """When each has ended, by the clock on the wall."""
    parts: Counter = field(factory=Counter)
    """How many steps each has done."""
    _pipe: tuple = field(factory=os.pipe)
    _said: Queue = field(factory=Queue)
    _listener: Thread = field()

    @_listener.default
    def _begun(self):
        listener = Thread(target=self._listen)
        listener.start()
        return listener

    def start(self, name, **more):
        """
        Let a worker begin; it may take its time.
        """
        order = evolve(self.order, name=name, **more)
        environment = {name: value for name, value in os.environ.items() if name not in KNOWN}
        command = [sys.executable, "-m", "tests.killing", order.argument()]
        streams = {"stdin": subprocess.PIPE, "stdout": self._pipe[1]}
        self.processes[name] = subprocess.Popen(command, cwd=ROOT, env=environment, **streams)

    def hear(self):
        """
        What is said next.
        """
        while True:
            with suppress(Empty):
                return self._said.get(timeout=1)
            ended = {name: process.poll() for name, process in self.processes.items()}
            assert {None, -signal.SIGKILL} >= set(ended.values()), ended

    def _listen(self):
        with os.fdopen(self._pipe[0]) as lines:
            for line in lines:
                said = orjson.loads(line)
                if "works" in said:
                    self.places[said["who"]] = said["works"]
                self.parts[said["who"]] += "did" in said
                self._said.put(said)

    def until(self, times=1, **what):
        """
        Return when those who live have said this so often; what was said last.
        """
        while True:
            said = self.hear()
            lives = self.processes[said["who"]].returncode is None
            times -= lives and said.items() >= what.items()
            if not times:
                return said

    def works(self, *names):
        """
        Return when these work.
        """
        while not self.places.keys() >= set(names):
            self.hear()

    def kill(self, name):
        """
        Return when it is gone.
        """
        self.processes[name].kill()
        self.gone(name)

    def gone(self, name):
        """
        Return when it has killed itself.
        """
        assert -signal.SIGKILL == self.processes[name].wait()
        self.ends[name] = time.time()

    def stop(self, name):
        """
        Return when it runs no more, for now.

        No thread of it is in the midst of a write to a file then: nobody could free that but itself.
        """
        process = self.processes[name]
        with ExitStack() as stack:
            for path in self.order.files:
                stack.enter_context(alone(path))
            process.send_signal(signal.SIGSTOP)
            assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        self.ends[name] = time.time()

    def wake(self, name):
        """
        Let it run again.
        """
        process = self.processes[name]
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.send_signal(signal.SIGCONT)

    def close(self):
        """
        None of them outlives this.
        """
        for process in self.processes.values():
            process.kill()
            process.communicate()
        os.close(self._pipe[1])
        self._listener.join()


def main():
    """
    Read the order and do it.
    """
    anyio.run(work, Order(**orjson.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
