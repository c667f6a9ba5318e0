"""
The transport to a simulator in the same process: no sockets, either event loop, and whatever clock that has.

Decides how outcomes look to a client: cut replies are LostReplyErrors, hanging ones wait until they are cancelled.
Under a clock that jumps, hours of polling take no time; work of the eyes does, so they want a true clock.
"""

from pathlib import Path
from typing import Self
from urllib.parse import urljoin

import anyio
import anyio.lowlevel
from anyio import to_thread
from attrs import define, field

from kling_async._download import Saving
from kling_async.errors import ClosedError, DownloadError, LostReplyError, NotSentError
from kling_async.transport import Progress, Request, Response, Saved

from ._desk import Desk
from ._faults import Broken, Outcome
from ._shelf import ORIGIN

_PIECE = 64 * 1024
_REDIRECTS = 5


@define
class _Pieces:
    """
    A body, bit by bit; left early it leaves nothing behind, unlike a generator.
    """

    body: bytes
    """What is left of it."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        if not self.body:
            raise StopAsyncIteration
        piece, self.body = self.body[:_PIECE], self.body[_PIECE:]
        return piece


@define(eq=False)
class LocalTransport:
    """
    Carries requests to a simulator by calling it.
    """

    _desk: Desk
    _closed: bool = field(init=False, default=False)

    async def exchange(self, request: Request) -> Response:
        """
        Let the simulator answer. Cancelled before its first checkpoint it never saw the request, later it did.

        Raises:
            NotSentError: A fault kept it from leaving.
            LostReplyError: A fault cut the reply.
            ClosedError: The transport was closed.
        """
        outcome = await self._visit(request)
        if isinstance(outcome, Response):
            return outcome
        if outcome.how == "unsent":
            raise NotSentError("the simulator let the connection fail")
        if outcome.how == "hang":
            await anyio.sleep_forever()
        raise LostReplyError("the simulator cut the reply")

    async def _visit(self, request: Request) -> Outcome:
        if self._closed:
            raise ClosedError("this transport was closed")
        await anyio.lowlevel.checkpoint()
        clock = anyio.lowlevel.current_token().native_token
        visit = self._desk.enter(request, origin=ORIGIN, clock=clock, reading=anyio.current_time())
        try:
            while work := visit.work():
                await to_thread.run_sync(work, abandon_on_cancel=True)
        finally:
            visit.close()
        await anyio.lowlevel.checkpoint()
        return visit.outcome

    async def download(
        self, url: str, path: Path, *, overwrite: bool = False, progress: Progress | None = None
    ) -> Saved:
        """
        Fetch one of the simulator's own files.

        Raises:
            DownloadError: The simulator has no such file, or a fault met the download; it has no name then.
            InvalidInputError: The path cannot be written to.
            ClosedError: The transport was closed.
        """
        async with Saving(Path(path), overwrite=overwrite) as saving:
            while True:
                whole, sent = await self._fetch(url, saving.asking)
                headers = {"content-length": str(len(whole.body)), **whole.headers}
                if await saving.accepts(whole.status, headers):
                    return await saving.take(_Pieces(sent), progress=progress)

    async def _fetch(self, url: str, asking: dict[str, str]) -> tuple[Response, bytes]:
        """
        The reply as it should be, and what is sent of its body.
        """
        for _ in range(_REDIRECTS):
            if self._desk.machine.shelf.link(url) is None:
                raise DownloadError(f"this is not the simulator's: {url.partition('?')[0]}", status=404)
            outcome = await self._visit(Request("GET", url, asking))
            reply = outcome.response if isinstance(outcome, Broken) else outcome
            if isinstance(outcome, Broken) and outcome.how == "hang":
                await anyio.sleep_forever()
            if reply is None:
                raise DownloadError("the simulator cut the connection; download again")
            if reply.status in ({200, 206, 416} if asking else {200}):
                return reply, reply.body[: len(reply.body) // 2] if isinstance(outcome, Broken) else reply.body
            if reply.status >= 400 or "location" not in reply.headers:
                advice = "; the link may have expired: get the task again" if reply.status in {403, 404} else ""
                raise DownloadError(f"HTTP {reply.status} for {url.partition('?')[0]}{advice}", status=reply.status)
            url = urljoin(url, reply.headers["location"])
        raise DownloadError(f"more than {_REDIRECTS} redirects; the last leads to {url.partition('?')[0]}")

    async def aclose(self) -> None:
        """
        Refuse further requests.
        """
        self._closed = True
        await anyio.lowlevel.checkpoint()
