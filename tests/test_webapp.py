"""
The web application of tests/webapp.py, run for real: two worker processes, which are killed and restarted, and one
SQLite file. The service pays no heed to repeated ids, so that only the client's own care stands between a customer
and a second charge.
"""

import os
import re
import sqlite3
import sys
from base64 import b64decode
from contextlib import asynccontextmanager, closing
from pathlib import Path
from subprocess import DEVNULL

import aiohttp
import anyio
import orjson
import pytest
from attrs import define

from kling_async import SelectionState, from_dict
from kling_async.simulator import Fault, Shape, Simulator
from tests.commanding import KNOWN

pytestmark = [pytest.mark.real_clock, pytest.mark.timeout(60), pytest.mark.slow]

ROOT = Path(__file__).parents[1]
CLIP = "https://example.com/clip.mp4"
A, B, C = (0.25, 0.5), (0.5, 0.5), (0.75, 0.5)
REMOVAL = {"what": "the bird"}
COMMAND = ["-m", "uvicorn", "tests.webapp:app", "--port", "0", "--no-access-log", "--timeout-graceful-shutdown", "1"]


@pytest.fixture
def anyio_backend():
    """
    The workers run on loops of their own, so one is enough to watch them from.
    """
    return "asyncio", {}


@define
class Worker:
    """
    One server process of the application.
    """

    environment: dict[str, str]
    process: anyio.abc.Process | None = None
    url: str = ""

    async def start(self):
        """
        Return when it serves, on a free port.
        """
        streams = {"stdin": DEVNULL, "stdout": DEVNULL}
        self.process = await anyio.open_process([sys.executable, *COMMAND], cwd=ROOT, env=self.environment, **streams)
        heard = b""
        while not (running := re.search(rb"running on (\S+) ", heard)):
            try:
                heard += await self.process.stderr.receive()
            except anyio.EndOfStream:
                pytest.fail(f"the worker did not start:\n{heard.decode()}")
        self.url = running[1].decode()

    async def end(self, how="kill"):
        """
        Return when it is gone, having heard it out: a server that can say nothing any more ends otherwise.
        """
        if self.process is not None:
            process, self.process = self.process, None
            async with process:
                getattr(process, how)()
                async for _ in process.stderr:
                    pass

    async def ask(self, method, path, **query):
        """
        Status and JSON of one request.
        """
        async with aiohttp.ClientSession() as session, session.request(method, self.url + path, params=query) as reply:
            return reply.status, await reply.json()

    async def click(self, clip, frame, point):
        """
        One more point.
        """
        return await self.ask("POST", f"/clips/{clip}/points", frame=frame, x=point[0], y=point[1])

    async def cut_click(self, *click):
        """
        A click in the middle of which the worker dies.
        """
        with pytest.raises(aiohttp.ClientError):
            await self.click(*click)

    async def order(self, number, clip):
        """
        The button that costs money.
        """
        return await self.ask("POST", f"/orders/{number}", clip=clip, **REMOVAL)


@define
class Shop:
    """
    Two workers, their database, and the service behind them.
    """

    simulator: Simulator
    first: Worker
    second: Worker
    folder: Path

    def state(self, clip):
        """
        What the database has of a clip.
        """
        with closing(sqlite3.connect(self.folder / "clips.sqlite")) as connection:
            found = connection.execute("SELECT selection FROM clips WHERE clip = ?", (clip,)).fetchone()
        return from_dict(SelectionState, orjson.loads(found[0]))

    def stored(self, clip):
        """
        The points that the database has, by frame.
        """
        return {frame: [(point.x, point.y) for point in points] for frame, points in self.state(clip).marks.items()}

    def held(self, clip):
        """
        The points that the service has, by frame.
        """
        desk = self.simulator._desk
        with desk.lock:
            marks = desk.machine.selections.sessions[self.state(clip).session_id].marks
            return {frame: list(spots) for frame, spots in sorted(marks.items())}

    @property
    def calls(self):
        """
        The endpoints that were called, in order.
        """
        return [seen.endpoint for seen in self.simulator.log]

    async def begun(self):
        """
        A new clip with a point on frame 0, from the first worker.
        """
        status, clip = await self.first.ask("POST", "/clips", video_url=CLIP)
        assert 201 == status, clip
        assert 200 == (await self.first.click(clip["clip"], 0, A))[0]
        return clip["clip"]

    async def reached(self, endpoint, times):
        """
        Return when so many calls have reached the service; the other worker's answers set the pace.
        """
        while self.calls.count(endpoint) < times:
            await self.second.ask("GET", "/pid")


@asynccontextmanager
async def opened(folder, *faults):
    """
    A shop that is open, and that leaves no process behind.
    """
    simulator = Simulator(task_seconds=0, shape=Shape(external_ids="repeatable"), faults=faults)
    async with simulator.serve() as base_url:
        environment = {name: value for name, value in os.environ.items() if name not in KNOWN}
        environment |= {"COMETAPI_KEY": "any", "KLING_BASE_URL": base_url, "WEBAPP_FOLDER": str(folder)}
        shop = Shop(simulator, Worker(environment), Worker(environment), folder)
        try:
            await shop.first.start()
            await shop.second.start()
            yield shop
        finally:
            with anyio.CancelScope(shield=True):
                await shop.first.end()
                await shop.second.end()


async def test_workers_take_turns_on_one_selection_and_the_order_is_paid_once(tmp_path):
    """
    Points from one worker, preview from the other, a kill between, the order from the first, a double click on both.
    """
    async with opened(tmp_path) as shop:
        clip = await shop.begun()
        killed = (await shop.first.ask("GET", "/pid"))[1]
        status, masks = await shop.first.click(clip, 0, B)
        assert 200 == status, masks
        assert all(b64decode(mask["png"]).startswith(b"\x89PNG") and mask["area"] > 0 for mask in masks)
        status, preview = await shop.second.ask("GET", f"/clips/{clip}/preview")
        assert 200 == status, preview
        assert preview["video_url"].startswith("http")

        await shop.first.end("kill")
        await shop.first.start()
        pids = {(await worker.ask("GET", "/pid"))[1] for worker in (shop.first, shop.second)}
        assert 3 == len({killed, *pids})
        assert {0: [A, B]} == shop.stored(clip) == shop.held(clip)
        assert 200 == (await shop.first.click(clip, 12, C))[0]

        ordered = await shop.first.order(7, clip)
        assert (202, "order-7") == (ordered[0], ordered[1]["external_task_id"])
        assert {0: [A, B], 12: [C]} == shop.stored(clip) == shop.held(clip)
        assert {"order-7": 1} == dict(shop.simulator.charges)
        before = len(shop.calls)
        again = await shop.second.order(7, clip)
        assert (202, ordered[1]["task_id"]) == (again[0], again[1]["task_id"])
        # The route rebuilds before it asks who has ordered what: the session of a running task is emptied for a moment.
        assert ["clear", "add", "add", "get"] == shop.calls[before:]
        status, task = await shop.second.ask("GET", "/orders/7")
        assert (200, ordered[1]["task_id"], "succeed") == (status, task["task_id"], task["status"])
        assert {"order-7": 1} == dict(shop.simulator.charges)


async def test_clicks_and_orders_at_the_same_time_lose_no_point_and_pay_once(tmp_path):
    """
    The row's lock holds across processes: each request goes on from what the one before it left.
    """
    async with opened(tmp_path) as shop:
        clip, tasks = await shop.begun(), set()

        async def order(worker):
            status, task = await worker.order(8, clip)
            assert 202 == status, task
            tasks.add(task["task_id"])

        points = [(number / 10, 0.9) for number in range(8)]
        async with anyio.create_task_group() as group:
            for number, point in enumerate(points):
                group.start_soon((shop.first, shop.second)[number % 2].click, clip, 0, point)
        assert {A, *points} == set(shop.stored(clip)[0])
        assert shop.held(clip) == shop.stored(clip)
        async with anyio.create_task_group() as group:
            for worker in (shop.first, shop.second) * 2:
                group.start_soon(order, worker)
        assert (1, {"order-8": 1}) == (len(tasks), dict(shop.simulator.charges))


@pytest.mark.parametrize("how", ["kill", "terminate"])
async def test_a_click_cut_short_by_the_end_of_its_worker_is_not_paid_for(tmp_path, how):
    """
    The row knows nothing of the point that the service has, and the order makes it so.
    """
    async with opened(tmp_path, Fault("add", "hang", after=1, handled=True)) as shop:
        clip = await shop.begun()
        async with anyio.create_task_group() as group:
            group.start_soon(shop.first.cut_click, clip, 0, B)
            await shop.reached("add", 2)
            await shop.first.end(how)
        await shop.first.start()
        assert ({0: [A]}, {0: [A, B]}) == (shop.stored(clip), shop.held(clip))
        # A killed worker stores no doubt of the frame. One that is told to end is cancelled at last, but uvicorn does
        # not wait for what it cancels, so that the doubt may be stored or not.
        assert shop.state(clip).uncertain <= {"kill": set(), "terminate": {0}}[how]
        # Until it is rebuilt, the point is in the preview, and cannot be marked again.
        assert 200 == (await shop.first.ask("GET", f"/clips/{clip}/preview"))[0]
        assert (409, "InvalidRequestError") == named(await shop.first.click(clip, 0, B))

        assert 202 == (await shop.first.order(9, clip))[0]
        assert ({0: [A]}, set()) == (shop.stored(clip), shop.state(clip).uncertain)
        assert {0: [A]} == shop.held(clip)
        assert {"order-9": 1} == dict(shop.simulator.charges)


async def test_a_lost_click_stays_in_doubt_over_a_kill_until_the_order_settles_it(tmp_path):
    """
    The worker saw that the reply was lost and stored so before it died.
    """
    async with opened(tmp_path, Fault("add", "lost", after=1)) as shop:
        clip = await shop.begun()
        assert (409, "LostReplyError") == named(await shop.first.click(clip, 0, B))
        await shop.first.end("kill")
        await shop.first.start()
        assert ({0: [A]}, {0}) == (shop.stored(clip), shop.state(clip).uncertain)
        assert {0: [A, B]} == shop.held(clip)
        assert 202 == (await shop.first.order(10, clip))[0]
        assert ({0: [A]}, set()) == (shop.stored(clip), shop.state(clip).uncertain)
        assert {0: [A]} == shop.held(clip)
        assert {"order-10": 1} == dict(shop.simulator.charges)


async def test_an_order_whose_worker_was_killed_midway_is_not_sent_again(tmp_path):
    """
    The intent outlives its worker: ordering again finds the task by its id, on either worker, and pays nothing.
    """
    async with opened(tmp_path, Fault("create", "hang", handled=True)) as shop:
        clip = await shop.begun()
        async with anyio.create_task_group() as group:
            group.start_soon(cut_order, shop.first, clip)
            await shop.reached("create", 1)
            await shop.first.end("kill")
        await shop.first.start()
        again = [await worker.order(11, clip) for worker in (shop.second, shop.first)]
        assert [202, 202] == [status for status, _ in again]
        assert 1 == len({task["task_id"] for _, task in again})
        status, task = await shop.first.ask("GET", "/orders/11")
        assert (200, "order-11", "succeed") == (status, task["external_task_id"], task["status"])
        assert (1, {"order-11": 1}) == (shop.calls.count("create"), dict(shop.simulator.charges))


async def test_an_order_stands_for_its_points_in_whichever_session(tmp_path):
    """
    Ordered again after the session is over, it is the same task; with another point, it is refused.
    """
    async with opened(tmp_path) as shop:
        clip = await shop.begun()
        ordered = await shop.first.order(12, clip)
        assert 202 == ordered[0], ordered
        over = shop.state(clip).session_id
        shop.simulator.expire(over)
        again = await shop.second.order(12, clip)
        assert (202, ordered[1]["task_id"]) == (again[0], again[1].get("task_id"))
        assert over != shop.state(clip).session_id
        assert {0: [A]} == shop.stored(clip) == shop.held(clip)

        assert 200 == (await shop.first.click(clip, 0, B))[0]
        assert (409, "KeyConflictError") == named(await shop.first.order(12, clip))
        assert ordered[1]["task_id"] == (await shop.second.ask("GET", "/orders/12"))[1]["task_id"]
        assert (1, {"order-12": 1}) == (shop.calls.count("create"), dict(shop.simulator.charges))


def named(answer):
    """
    The status of an answer, and the error that it names.
    """
    status, said = answer
    return status, said.get("error", said) if isinstance(said, dict) else said


async def cut_order(worker, clip):
    """
    An order in the middle of which the worker dies.
    """
    with pytest.raises(aiohttp.ClientError):
        await worker.order(11, clip)
