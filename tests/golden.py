"""
Makes the database of a batch that was begun and not finished, as one is kept among the samples.

`python -m tests.golden FOLDER` is run once with each release that changes what is kept; later releases finish what it
has begun (tests/test_dbos_golden.py). Its worker is killed when each of its jobs stands where its key says.
"""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio
import orjson
from attrs import frozen

from kling_async import COMETAPI_URL, Addition, ApiKey, Image, Job, KlingClient, PollPolicy, Removal, RetryPolicy, Swap
from kling_async.simulator import Fault, Shape, Simulator
from tests.commanding import picture

NAME = "batch-1.sqlite"
"""Of the batch; its intents are beside it."""
SAMPLES = Path(__file__).parent / "samples"
CLIP = "https://example.com/clip.mp4"
LARGE = Image.from_bytes(picture(2000))
"""Kept once for all that show it."""
EDITS = {
    "cancelled": Removal.of("the bird"),
    "declined": Removal.of("the bird"),
    "failed": Removal.of("the bird"),
    "done": Swap.of("the hat", "a cap", LARGE),
    "prepared": Removal.of("the bird", negative_prompt="blur", duration=5),
    "reserved": Addition.of("a ball", LARGE),
    "sending": Removal.of("the bird"),
    "sent": Swap.of("the hat", "a cap", LARGE),
    "submitted": Removal.of("the bird", mode="pro"),
    "waiting": Removal.of("the bird"),
    "waiting too": Swap.of("the hat", "a cap", LARGE),
}
"""Where each job stands, and what it does."""
HELD = ("prepared", "reserved", "sending", "sent", "submitted")
"""Those that their worker had as it was killed."""
BEFORE = {"prepared": "reserve", "reserved": "submit", "submitted": "finish"}
"""Which step comes next."""
BUDGET = 1000


def job(key):
    """
    One of them.
    """
    return Job(CLIP, marks={0: [(0.25, 0.75)], 3: [(0.5, 0.5)]}, edit=EDITS[key], key=key)


def client(simulator, store, transport=None):
    """
    A client as then and now.
    """
    policies = {"retry": RetryPolicy(base=0.01, doubt=0.1, attempts=1), "poll": PollPolicy(first=0.05, ceiling=0.1)}
    transport = transport or simulator.transport()
    return KlingClient(ApiKey("any"), base_url=COMETAPI_URL, transport=transport, store=store, **policies)


@frozen
class Held:
    """
    Jobs that come no further, and a transport on which a create does not.
    """

    inner: object
    reached: set

    async def stay(self, key):
        """
        Stand here for ever.
        """
        self.reached.add(key)
        await anyio.sleep_forever()

    async def exchange(self, request):
        if not request.url.endswith("/multi-elements"):
            return await self.inner.exchange(request)
        name = orjson.loads(request.body)["external_task_id"]
        if name == job("sending").external_task_id:
            await self.stay("sending")
        reply = await self.inner.exchange(request)
        if name == job("sent").external_task_id:
            await self.stay("sent")
        return reply

    async def aclose(self):
        await self.inner.aclose()

    async def download(self, url, path, **named):
        return await self.inner.download(url, path, **named)

    def around(self, step, work):
        """
        A step before which one job stays.
        """

        async def passed(worker, entry, *others):
            if BEFORE.get(entry.key) == step:
                await self.stay(entry.key)
            return await work(worker, entry, *others)

        return passed


async def declines(job, _selection):
    """
    A gate for one of them.
    """
    return "no bird is seen" if job.key == "declined" else None


async def begin(folder):
    """
    Bring each job to where it belongs, and end in the midst of it.
    """
    from kling_async.dbos import DbosRunner
    from kling_async.dbos._work import Worker

    simulator = Simulator(task_seconds=0, shape=Shape(external_ids="repeatable"), faults=[Fault("task", "failed")])
    held = Held(simulator.transport(), set())
    for step in ("reserve", "submit", "finish"):
        setattr(Worker, step, held.around(step, getattr(Worker, step)))
    known = {"client": partial(client, simulator, transport=held), "gate": declines, "out": folder / "out"}
    async with DbosRunner(f"sqlite:///{folder / NAME}", slots=len(HELD), polling=0.1, **known) as runner:
        await runner.set_budget(BUDGET)
        await runner.submit(job("cancelled"))
        await runner.cancel()
        async with runner.working():
            for key in ("declined", "failed", "done"):
                await runner.submit(job(key), output=f"{key}.mp4")
                assert key == (await runner.result(key)).state
            for key in (*HELD, "waiting", "waiting too"):
                await runner.submit(job(key), output=f"{key}.mp4")
            while held.reached != set(HELD):  # noqa: ASYNC110 - they are reached elsewhere
                await anyio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)


def tidied(path):
    """
    A database as one small file, without a word of the machine on which it was made.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "owners" in tables:
            connection.execute("UPDATE owners SET owner = 'elsewhere 1 1', until = 0")
        for statement in ("PRAGMA journal_mode = DELETE", "PRAGMA page_size = 1024", "VACUUM"):
            connection.execute(statement)
    path.chmod(0o644)


def current(path):
    """
    As if intents had been written just now: the service forgets its tasks after 30 days, and so rows count for 29.
    """
    now = datetime.now(UTC).isoformat()
    with closing(sqlite3.connect(path)) as connection, connection:
        for key, body in connection.execute("SELECT external_task_id, body FROM intents").fetchall():
            fresh = re.sub(r'(_at":)"[^"]*"', rf'\1"{now}"', body)
            connection.execute(
                "UPDATE intents SET body = ?, created_at = ? WHERE external_task_id = ?", [fresh, now, key]
            )


def main():
    """
    Make it, in a process that is killed.
    """
    folder = Path(sys.argv[1])
    if sys.argv[2:] == ["begin"]:
        anyio.run(begin, folder)
        return
    shutil.rmtree(folder, ignore_errors=True)
    done = subprocess.run([sys.executable, "-m", "tests.golden", folder, "begin"], check=False)
    assert -signal.SIGKILL == done.returncode
    for name in (NAME, f"{NAME}.intents"):
        tidied(folder / name)
    for path in folder.iterdir():
        sys.stdout.write(f"{path} {path.stat().st_size}\n")


if __name__ == "__main__":
    main()
