"""
A transport that answers from a script, for what the simulator has no reason to do.
"""

import anyio
import anyio.lowlevel
import orjson
from attrs import define, field

from kling_async import ApiKey, DownloadError, KlingClient, Removal
from kling_async.transport import Response

KEY = "sk-canary-4711"
ORDER = Removal.of("the stones")


def envelope(data=None, *, code=0, message="SUCCEED", status=200, headers=None):
    """
    A reply in Kling's own shape.
    """
    body = {"code": code, "message": message, "request_id": "r-1"}
    return Response(status, headers or {}, orjson.dumps(body if data is None else {**body, "data": data}))


def task_reply(status="submitted", *, task_id="8781", **more):
    """
    A reply that holds a task; a success has its video.
    """
    videos = [{"id": "v-1", "url": "https://cdn.example.com/out.mp4", "duration": "5.04"}]
    result = {"videos": videos} if status == "succeed" else {}
    return envelope({"task_id": task_id, "task_status": status, "task_info": {}, "task_result": result, **more})


@define
class Script:
    """
    Answers requests in the order of its steps: a Response, an error to raise, or an Event to wait for; then `rest`.
    """

    steps: list = field(factory=list)
    rest: Response | None = field(default=None, kw_only=True)
    requests: list = field(factory=list)
    downloads: list = field(factory=list)
    started: anyio.Event = field(factory=anyio.Event)
    closed: int = 0

    async def exchange(self, request):
        self.requests.append(request)
        self.started.set()
        await anyio.lowlevel.checkpoint()
        step = self.steps.pop(0) if self.steps or self.rest is None else self.rest
        if isinstance(step, anyio.Event):
            await step.wait()
            step = self.steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step

    async def download(self, url, path, *, overwrite=False, progress=None):
        self.downloads.append((url, path))
        step = self.steps.pop(0)
        if isinstance(step, DownloadError):
            raise step
        path.write_bytes(step)
        return len(step)

    async def aclose(self):
        self.closed += 1

    @property
    def bodies(self):
        """
        What was sent, read back.
        """
        return [orjson.loads(request.body) if request.body else None for request in self.requests]

    @property
    def posts(self):
        """
        How many of them were posted.
        """
        return sum(request.method == "POST" for request in self.requests)

    @property
    def paths(self):
        """
        Method and path of what was sent.
        """
        return [f"{request.method} {request.url.partition('/v1/')[2]}" for request in self.requests]


def client_of(*steps, credentials=None, base_url=None, **named):
    return KlingClient(credentials or ApiKey(KEY), transport=Script(list(steps)), base_url=base_url, **named)


def script_of(client):
    return client._borrowed


class Account:
    """
    A client's user, who orders one edit by its key, in a new selection each time.
    """

    def __init__(self, client):
        self.client = client

    async def order(self, key="order-1", edit=ORDER):
        info = await self.client.init_selection(video_url="https://example.com/clip.mp4")
        await self.client.add_selection(info.session_id, 0, [(0.5, 0.5)])
        return await self.client.creates.create(
            info.session_id, edit, payload=edit.prompt, external_task_id=key, callback_url=None
        )
