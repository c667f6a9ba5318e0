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
from kling_async.transport import Progress, Request, Response

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

    async def download(self, url: str, path: Path, *, overwrite: bool = False, progress: Progress | None = None) -> int:
        """
        Fetch one of the simulator's own files, and return its length.

        Raises:
            DownloadError: The simulator has no such file, or a fault met the download; nothing was written.
            InvalidInputError: The path cannot be written to.
            ClosedError: The transport was closed.
        """
        async with Saving(Path(path), overwrite=overwrite) as saving:
            whole, sent, status = await self._fetch(url)
            return await saving.take(_Pieces(sent), total=len(whole), status=status, progress=progress)

    async def _fetch(self, url: str) -> tuple[bytes, bytes, int]:
        """
        The whole body, what of it is sent, and the status that comes with it.
        """
        for _ in range(_REDIRECTS):
            if self._desk.machine.shelf.link(url) is None:
                raise DownloadError(f"this is not the simulator's: {url.partition('?')[0]}", status=404)
            outcome = await self._visit(Request("GET", url))
            if isinstance(outcome, Broken):
                if outcome.how == "hang":
                    await anyio.sleep_forever()
                if outcome.response is None:
                    raise DownloadError("the simulator cut the connection; download again")
                body, status = outcome.response.body, outcome.response.status
                return body, body[: len(body) // 2], status
            if outcome.status >= 400:
                advice = "; the link may have expired: get the task again" if outcome.status in {403, 404} else ""
                text = f"HTTP {outcome.status} for {url.partition('?')[0]}{advice}"
                raise DownloadError(text, status=outcome.status)
            if "location" not in outcome.headers:
                return outcome.body, outcome.body, outcome.status
            url = urljoin(url, outcome.headers["location"])
        raise DownloadError(f"more than {_REDIRECTS} redirects; the last leads to {url.partition('?')[0]}")

    async def aclose(self) -> None:
        """
        Refuse further requests.
        """
        self._closed = True
        await anyio.lowlevel.checkpoint()
