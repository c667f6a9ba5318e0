"""
A transport that listens: it keeps the last reply that came through it, and when.

Decides what a reply's date says of this machine's clock. Knows no endpoints.
"""

import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path

from attrs import define, field, frozen

from kling_async.transport import Progress, Request, Response, Saved, Transport


@frozen
class Heard:
    """
    A reply, and when.
    """

    reply: Response
    """It."""
    sent: float
    """When it was asked for, as this machine's clock has it."""
    came: float
    """When it was there."""

    @property
    def took(self) -> float:
        """
        Seconds between the two.
        """
        return self.came - self.sent

    @property
    def ahead(self) -> float | None:
        """
        Seconds that this machine's clock is ahead for certain, negative if it is behind; None without a date.
        """
        try:
            told = parsedate_to_datetime(self.reply.headers.get("date", ""))
        except (OverflowError, TypeError, ValueError):
            return None
        date = told.replace(tzinfo=told.tzinfo or UTC).timestamp()
        # It was cut down to a whole second, somewhere between asking and hearing.
        least, most = self.sent - (date + 1), self.came - date
        return max(least, 0.0) + min(most, 0.0)


@define
class Listening:
    """
    Carries requests as the transport beneath does, which it closes.
    """

    inner: Transport
    """What carries the requests."""
    heard: Heard | None = field(default=None, init=False)
    """The last reply."""

    async def exchange(self, request: Request) -> Response:
        """
        Send one request, and note the times.
        """
        sent = time.time()
        reply = await self.inner.exchange(request)
        self.heard = Heard(reply, sent, time.time())
        return reply

    async def download(
        self, url: str, path: Path, *, overwrite: bool = False, progress: Progress | None = None
    ) -> Saved:
        """
        Fetch a media URL; nothing is noted of it.
        """
        return await self.inner.download(url, path, overwrite=overwrite, progress=progress)

    async def aclose(self) -> None:
        """
        Close what is beneath.
        """
        await self.inner.aclose()
