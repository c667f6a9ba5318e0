"""
A stream of bytes becomes a file that is whole, or no file at all; what came of one that broke off is gone on with.

Decides what a media file begins with, how large it may be, how slow it may come, and which reply goes on where another
broke off. Refuses to know who fetches: the pieces come from any async iterable, on either loop.
"""

from collections.abc import AsyncIterable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, TypeVar

import anyio
from anyio.to_thread import run_sync
from attrs import define, field, frozen

from ._parts import HEAD, Entity, PartFile, announced
from ._refusals import excerpt
from ._shelter import GRACE, parting
from ._writer import Writer
from .errors import DownloadError
from .transport import Progress, Saved

T = TypeVar("T")

_MAGIC: Final = {
    ".mp4": (4, b"ftyp"),
    ".m4v": (4, b"ftyp"),
    ".mov": (4, b"ftyp"),
    ".png": (0, b"\x89PNG\r\n\x1a\n"),
    ".jpg": (0, b"\xff\xd8\xff"),
    ".jpeg": (0, b"\xff\xd8\xff"),
}
_BOXES: Final = frozenset(b"ftyp moov mdat moof mfra sidx styp free skip wide uuid meta udta".split())
_BOXES_MOST: Final = 10_000
_PAGE: Final = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<!--")


@frozen
class Limits:
    """
    What one file may cost.
    """

    size: int = 1 << 30
    """Bytes at most."""
    window: float = 30.0
    """Seconds over which the pace is taken; also the longest silence of a server."""
    pace: float = 1024.0
    """Bytes per second at least, over one window."""
    total: float = 3600.0
    """Seconds at most, from a download's turn to its last byte."""
    digest: bool = True
    """Whether it is hashed as it is written, which costs more than all else: `Saved.sha256` is empty without."""


@define(eq=False, repr=False)
class Saving:
    """
    One download as a context: a part file exists inside, and outside the whole file, or a part that can be gone on
    with, or nothing.

    Ask with `asking` for what is missing, show each reply to `accepts`, and give the body to `take`. Nothing but local
    file work is shielded from cancellation, and that for five seconds at most.
    """

    path: Path
    """Where the file shall stand in the end."""
    overwrite: bool = field(default=False, kw_only=True)
    """Whether a file that is there may be replaced."""
    limits: Limits = field(factory=Limits, kw_only=True)
    """What it may cost."""
    _part: PartFile = field(init=False)
    _threads: anyio.CapacityLimiter = field(init=False)
    _entity: Entity | None = field(default=None, init=False)
    """What the bytes belong to; None as long as they are not worth keeping."""
    _total: int | None = field(default=None, init=False)
    _status: int | None = field(default=None, init=False)
    _known: bool = field(default=False, init=False)
    """The file's head was looked at."""
    _writer: Writer | None = field(default=None, init=False)
    """Has what came and is not in the part; None before there is anything to take."""

    async def __aenter__(self) -> Self:
        self._part = PartFile(self.path, self.overwrite, self.limits.digest)
        # Its own limiter: the common one may be full of threads that wait for this very download.
        self._threads = anyio.CapacityLimiter(1)
        try:
            await run_sync(self._part.open, limiter=self._threads)
        except BaseException:
            await self._end(self._part.release)
            raise
        self._entity, self._known = self._part.entity, self._part.entity is not None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.end()
        if error is not None:
            await self._leave()
            return
        try:
            await self._local(self._part.finish)
        except BaseException:
            self._entity = None
            await self._leave()
            raise

    @property
    def asking(self) -> dict[str, str]:
        """
        Header fields to ask with: for the rest of what is held, none where that is nothing.
        """
        return {} if self._entity is None else self._entity.rest(self._part.size)

    async def accepts(self, status: int, headers: Mapping[str, str]) -> bool:
        """
        Whether a reply brings the rest, or the whole; if neither, all that is held is dropped, so ask once more.

        Args:
            status: Of the reply; 200 is always accepted.
            headers: Its fields, found by their names in lower case.
        """
        held, self._status = self._entity, None
        if held is not None and status == 206 and held.continued(self._part.size, headers):
            self._total = held.total
            return True
        self._entity, self._known = None, False
        if held is not None:
            await self._local(self._part.restart)
        if status != 200:
            return False
        self._entity, self._total, self._status = Entity.of(headers), announced(headers), status
        return True

    async def take(self, pieces: AsyncIterable[bytes], *, progress: Progress | None = None) -> Saved:
        """
        Write every piece, and say what the file is then.

        Args:
            pieces: The bytes, in pieces of any size.
            progress: Called after each piece.

        Raises:
            DownloadError: They are too many, too few, too slow, or not what the path's suffix says.
        """
        limit = self.limits.size if self._total is None else self._total
        if limit > self.limits.size:
            raise self._refusal(f"{limit} bytes are announced; the limit is {self.limits.size}")
        done = self._part.size
        pace = _Pace(self.limits, done)
        writer = self._writer = Writer(self._part.write, done)
        async for piece in pieces:
            done += len(piece)
            if done > limit:
                raise self._refusal(f"more came than the {limit} bytes that may come")
            await self._gather(writer, piece)
            pace.check(done)
            if progress is not None:
                progress(done, self._total)
        if self._total is not None and done < self._total:
            raise DownloadError(f"{done} bytes came of the {self._total} that were announced; download again")
        self._look()
        with self._disk():
            await writer.settled()
        if await self._local(self._part.shows, _cut_short, *writer.gathered):
            self._entity = None
            raise DownloadError(f"the file goes on beyond the {done} bytes that came; download again")
        return self._part.saved

    def _refusal(self, reason: str) -> DownloadError:
        """
        The error for bytes of which nothing is to be kept; its status tells them from a connection that broke.
        """
        self._entity = None
        return DownloadError(reason, status=self._status)

    def _mismatch(self) -> str | None:
        if self._known:
            return None
        head = b"" if self._writer is None else bytes(self._writer.gathered[1][:HEAD])
        return _mismatch(self.path.suffix.lower(), head)

    def _look(self) -> None:
        if reason := self._mismatch():
            raise self._refusal(reason)
        self._known = True

    async def _gather(self, writer: Writer, piece: bytes) -> None:
        with self._disk():
            rest = writer.gather(memoryview(piece))
            while writer.full:
                self._look()
                await writer.turn()
                rest = writer.gather(rest)

    async def _local(self, step: Callable[..., T], *args: object) -> T:
        with self._disk():
            return await run_sync(step, *args, limiter=self._threads)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._entity = None
            raise DownloadError(f"{self._part.part} could not be written: {error.strerror}", final=True) from error

    async def _leave(self) -> None:
        entity = self._entity if self._mismatch() is None else None
        unwritten = () if self._writer is None else self._writer.unwritten
        await self._end(partial(self._part.leave, entity, unwritten))

    async def _end(self, step: Callable[[], None]) -> None:
        async def work() -> None:
            # A disk that hangs holds up no error either.
            with anyio.move_on_after(GRACE):
                await run_sync(step, abandon_on_cancel=True, limiter=self._threads)

        await parting(work)


@define(eq=False, repr=False)
class _Pace:
    """
    Whether the bytes still come fast enough, window by window.
    """

    _limits: Limits
    _then: int
    _since: float = field(factory=anyio.current_time, init=False)

    def check(self, done: int) -> None:
        """
        Raises:
            DownloadError: The last window brought too little.
        """
        now = anyio.current_time()
        if now - self._since >= self._limits.window:
            if done - self._then < self._limits.window * self._limits.pace:
                raise DownloadError(f"stalled: {done - self._then} bytes in {self._limits.window:g} s; download again")
            self._since, self._then = now, done


def _mismatch(suffix: str, head: bytes) -> str | None:
    """
    What is wrong with how a file begins.
    """
    if not head:
        return "the file is empty"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGE):
        return "a web page came instead of the file: the link may have expired; get the task again for a fresh one"
    offset, magic = _MAGIC.get(suffix, (0, b""))
    if not head.startswith(magic, offset):
        return f"what came is no {suffix} file: it begins with {excerpt(head[:16])}"
    return None


def _cut_short(file: BinaryIO, size: int) -> bool:
    """
    Whether an MP4 or MOV lacks its end, by its own word: no length tells where a host or a proxy announced too little.

    Boxes follow each other, `ftyp` first, each with its length in front. What is no known box ends the search, and so
    do ten thousand of them: a file that is merely odd is not refused.
    Source: ISO/IEC 14496-12, section 4.2.
    """
    start, known = 0, frozenset({b"ftyp"})
    for _ in range(_BOXES_MOST):
        if start >= size:
            break
        file.seek(start)
        head = file.read(16)
        length = int.from_bytes(head[:4])
        if length == 1:
            length = int.from_bytes(head[8:])
        if head[4:8] not in known or length < 8:
            break
        start, known = start + length, _BOXES
    return start > size
