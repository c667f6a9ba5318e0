"""
The machine behind aiohttp.web: real sockets, in a thread with an asyncio loop of its own.

Decides how outcomes look on the wire: cut connections, halves of files, silence. What is answered is the machine's.
This is the only module of the simulator that knows asyncio and aiohttp.
"""

import asyncio
from threading import Event, Thread

from aiohttp import web
from attrs import define, field

from kling_async.errors import InvalidInputError
from kling_async.transport import Request, Response

from ._desk import Desk
from ._faults import Broken

BODY_MOST = 64 * 1024 * 1024
"""Bytes of a request; the documents set no limit, and ten pictures of 10 MB are never sent."""
BACKLOG = 512
_MOMENT = 0.05
"""Seconds that answers under way have left when the server closes."""


@define(eq=False)
class Server:
    """
    One server; it starts once and stops once. Both block, so call them from a worker thread.
    """

    _desk: Desk
    _host: str
    _port: int
    origin: str = field(init=False, default="")
    """Scheme, host and port, once it has started."""
    _ready: Event = field(init=False, factory=Event)
    _trouble: OSError | None = field(init=False, default=None)
    _thread: Thread | None = field(init=False, default=None)
    _loop: asyncio.AbstractEventLoop | None = field(init=False, default=None)
    _stopping: asyncio.Event | None = field(init=False, default=None)

    def start(self) -> None:
        """
        Listen.

        Raises:
            InvalidInputError: The address cannot be listened on.
        """
        self._thread = Thread(target=lambda: asyncio.run(self._serve()), name="kling-simulator", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._trouble is not None:
            reason = f"{self._host}:{self._port} cannot be listened on: {self._trouble.strerror or self._trouble}"
            raise InvalidInputError("host and port", reason) from self._trouble

    def stop(self) -> None:
        """
        Close every socket and end the thread; without a start, or twice, it does nothing.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join()

    async def _serve(self) -> None:
        application = web.Application(client_max_size=BODY_MOST)
        application.router.add_route("*", r"/{path:[\s\S]*}", self._answer)  # a quoted id may hold line breaks
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=_MOMENT)
        await runner.setup()
        stopping = asyncio.Event()
        try:
            try:
                await web.TCPSite(runner, self._host, self._port, backlog=BACKLOG).start()
            except OSError as error:
                self._trouble = error
                return
            self.origin = _origin(runner)
            self._loop, self._stopping = asyncio.get_running_loop(), stopping
            self._ready.set()
            await stopping.wait()
        finally:
            await runner.cleanup()
            self._ready.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        received = Request(
            request.method, f"http://{request.host}{request.raw_path}", request.headers, await request.read()
        )
        outcome = await self._visit(received, f"http://{request.host}")
        if isinstance(outcome, Response):
            return web.Response(status=outcome.status, headers=outcome.headers, body=outcome.body)
        if outcome.how == "hang":
            await asyncio.Event().wait()
        return await _broken(request, outcome)

    async def _visit(self, request: Request, origin: str) -> Response | Broken:
        loop = asyncio.get_running_loop()
        visit = self._desk.enter(request, origin=origin, clock="monotonic", reading=loop.time())
        try:
            while work := visit.work():
                await loop.run_in_executor(None, work)
        finally:
            visit.close()
        return visit.outcome


def _origin(runner: web.AppRunner) -> str:
    listening, port = runner.addresses[0][:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(listening), str(listening))  # noqa: S104 - never listened on
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _broken(request: web.Request, outcome: Broken) -> web.StreamResponse:
    """
    Send half of what there is, if anything, and cut the connection.
    """
    response = web.StreamResponse(headers={"connection": "close"})
    if outcome.response is not None:
        body = outcome.response.body
        response.set_status(outcome.response.status)
        response.headers.update(outcome.response.headers)
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
    request.protocol.force_close()
    return response
