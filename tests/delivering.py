"""
Deliveries by hand: payloads as the service posts them, and a server that is a function call.
"""

from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import orjson
from attrs import define, field, frozen

from kling_async import ApiKey, Inbox, KlingClient, PollPolicy, Removal, RetryPolicy, SelectionSession, Task
from kling_async.simulator import Simulator
from kling_async.webhooks import webhook_app
from tests.doubles import KEY

HOOK = "https://me.example/kling"
KLING = "https://api-singapore.klingai.com"
CLIP = "https://example.com/clip.mp4"
JSON = {"content-type": "application/json; charset=utf-8"}
PATIENT = PollPolicy(first=3600, ceiling=3600, jitter=0)
"""Looks only where something wakes it."""


def payload(task_id="8781", status="succeed", *, key=None, **more):
    """
    What the service posts about a task of multi-elements.
    """
    info = {} if key is None else {"external_task_id": key}
    return orjson.dumps({"task_id": task_id, "task_status": status, "task_info": info, "task_result": {}, **more})


@frozen
class Reply:
    """
    What the sender hears.
    """

    status: int
    text: str
    headers: dict[str, str]


async def post(app, path, body=b"", *, headers=JSON, method="POST", root="", chunk=65536):
    """
    One request to an ASGI application.
    """
    pieces = [body[start : start + chunk] for start in range(0, len(body), chunk)] or [b""]
    incoming = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    incoming[-1]["more_body"] = False
    sent = []

    async def receive():
        return incoming.pop(0)

    async def send(message):
        sent.append(message)

    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await app({"type": "http", "method": method, "path": path, "root_path": root, "headers": raw}, receive, send)
    start, end = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return Reply(start["status"], end["body"].decode(), headers)


@define
class Shop:
    """
    A client with an inbox, the application that receives, and what `on_task` was given.
    """

    simulator: Simulator
    client: KlingClient
    inbox: Inbox
    app: object = None
    told: list[Task] = field(factory=list)
    trouble: list[Exception] = field(factory=list)

    async def finish(self, task):
        """
        Take a task, unless there is trouble.
        """
        if self.trouble:
            raise self.trouble.pop()
        self.told.append(task)

    @property
    def statuses(self):
        return [task.status for task in self.told]

    @property
    def looks(self):
        """
        How often the service was asked for a task since the last create.
        """
        calls = [seen.endpoint for seen in self.simulator.log]
        return calls[::-1][: calls[::-1].index("create")].count("get")

    @property
    def path(self):
        """
        The path that the last create told the service.
        """
        created = [seen.json for seen in self.simulator.log if seen.endpoint == "create"]
        return urlsplit(created[-1]["callback_url"]).path

    async def order(self, key=None):
        """
        The paid call.
        """
        async with SelectionSession(self.client, video_url=CLIP) as selection:
            await selection.add_points(0, [(0.5, 0.5)])
            return await selection.create_task(Removal.of("x"), external_task_id=key)

    async def deliver(self, task, status="succeed", *, path=None, **more):
        """
        A delivery as the service makes it.
        """
        body = payload(task.task_id, status, key=task.external_task_id, **more)
        return await post(self.app, path or self.path, body, root="/kling")


@asynccontextmanager
async def shop(*, secret=None, on_task=True, transport=None, base_url=None, simulator=None, **settings):
    """
    An open client of a simulator in this process, and the application for its deliveries.
    """
    simulator = simulator or Simulator(**settings)
    inbox = Inbox()
    client = KlingClient(
        ApiKey(KEY),
        base_url=base_url,
        transport=transport or simulator.transport(),
        callback_url=HOOK,
        inbox=inbox,
        poll=PATIENT,
        retry=RetryPolicy(attempts=1),
    )
    made = Shop(simulator, client, inbox)
    made.app = webhook_app(inbox, secret=secret, on_task=made.finish if on_task else None)
    async with client:
        yield made
