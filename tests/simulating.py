"""
Calls to a simulator, by hand: raw requests through its transport, replies as plain JSON.
"""

from base64 import b64encode
from io import BytesIO

import orjson
from attrs import frozen
from PIL import Image as Picture

from kling_async.simulator import Simulator
from kling_async.transport import Request, Response

CLIP = "https://example.com/clip.mp4"
HOST = "https://api.cometapi.com/kling"
FAMILY = "/v1/videos/multi-elements"
KEY = "sk-canary-4711"
PATHS = {
    "init": "/init-selection",
    "add": "/add-selection",
    "delete": "/delete-selection",
    "clear": "/clear-selection",
    "preview": "/preview-selection",
    "create": "",
}


def spots(*pairs):
    """
    Points as the wire has them.
    """
    return [{"x": x, "y": y} for x, y in pairs]


def png(width=300, height=300):
    """
    A picture in base64.
    """
    file = BytesIO()
    Picture.new("RGB", (width, height), "teal").save(file, "PNG")
    return b64encode(file.getvalue()).decode()


@frozen
class Reply:
    """
    A reply, read.
    """

    response: Response

    @property
    def status(self):
        return self.response.status

    @property
    def json(self):
        return orjson.loads(self.response.body)

    @property
    def data(self):
        assert 200 == self.status, self.json
        return self.json["data"]

    @property
    def refusal(self):
        """
        Status, code and message.
        """
        return self.status, self.json["code"], self.json["message"]


@frozen
class Caller:
    """
    A client of raw requests.
    """

    transport: object
    base: str = HOST
    key: str | None = KEY

    async def send(self, method, path, body=b""):
        headers = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        return Reply(await self.transport.exchange(Request(method, f"{self.base}{path}", headers, body)))

    async def post(self, name, body=None, **fields):
        given = fields if body is None else body
        return await self.send("POST", f"{FAMILY}{PATHS[name]}", orjson.dumps(given))

    async def get(self, task_id):
        return await self.send("GET", f"{FAMILY}/{task_id}")

    async def list(self, query=""):
        return await self.send("GET", f"{FAMILY}{query}")

    async def opened(self, **source):
        """
        The id of a new session.
        """
        return (await self.post("init", source or {"video_url": CLIP})).data["session_id"]

    async def marked(self, **source):
        """
        The id of a new session with a point.
        """
        session_id = await self.opened(**source)
        (await self.post("add", session_id=session_id, frame_index=0, points=spots((0.5, 0.5)))).data  # noqa: B018
        return session_id

    async def create(self, session_id=None, **fields):
        """
        A removal from a marked session.
        """
        session_id = session_id or await self.marked()
        return await self.post("create", {"edit_mode": "removal", "prompt": "x", "session_id": session_id, **fields})


def calling(**settings):
    """
    A simulator and a caller of it.
    """
    simulator = Simulator(**settings)
    return simulator, Caller(simulator.transport())
