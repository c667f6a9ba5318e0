"""
A stream of bytes becomes a file that is whole, or no file at all.

Decides where may be written, what a media file begins with, how large it may be and how slow it may come. Refuses to
know who fetches: the pieces come from any async iterable, on either loop.
"""

import os
import stat
import sys
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import BinaryIO, Final, Self

import anyio
from anyio.to_thread import run_sync
from attrs import define, field, frozen

from ._refusals import excerpt
from .errors import DownloadError, InvalidInputError
from .transport import Progress

PIECE: Final = 1 << 20
"""Bytes written by one trip to a thread; a smaller piece makes the trip dearer than the bytes."""

GRACE: Final = 5.0
"""Seconds that removing an unfinished file may hold up a cancellation."""

_MAGIC: Final = {
    ".mp4": (4, b"ftyp"),
    ".m4v": (4, b"ftyp"),
    ".mov": (4, b"ftyp"),
    ".png": (0, b"\x89PNG\r\n\x1a\n"),
    ".jpg": (0, b"\xff\xd8\xff"),
    ".jpeg": (0, b"\xff\xd8\xff"),
}
_PAGE: Final = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<!--")
_HEAD: Final = 512

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_LOOK: Final = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


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


@define(eq=False)
class PartFile:
    """
    The unfinished file beside its target, for worker threads: every step holds one lock.

    A native asyncio cancellation leaves a worker thread running, so a step may begin after the end: it does nothing.
    The part is locked while its writer lives. One that nobody holds was left by a crash and is taken away.
    """

    path: Path
    """Where it shall stand in the end."""
    overwrite: bool
    """Whether a file that is there may be replaced."""
    _lock: Lock = field(factory=Lock, init=False)
    _file: BinaryIO | None = field(default=None, init=False)
    _mode: int = field(default=0, init=False)
    _ended: bool = field(default=False, init=False)

    @property
    def part(self) -> Path:
        """
        Where the bytes are until they are whole.
        """
        return self.path.with_name(f"{self.path.name}.part")

    def open(self) -> None:
        """
        Create the part.

        Raises:
            InvalidInputError: The path cannot be written to.
        """
        with self._lock:
            if self._ended:
                return
            try:
                reason = _objection(self.path, overwrite=self.overwrite) or self._create()
            except (OSError, ValueError) as error:
                raise InvalidInputError("path", f"{self.path} cannot be written to: {error}") from error
            if reason:
                raise InvalidInputError("path", f"{self.path} {reason}")

    def _create(self) -> str | None:
        busy = "is being downloaded already: wait for that, or give another path"
        try:
            descriptor = os.open(self.part, _CREATE, 0o666)
        except FileExistsError:
            if not _forsaken(self.part):
                return busy
            descriptor = os.open(self.part, _CREATE, 0o666)
        # Created with the rights that it will end with, so that the umask need not be read (which is not safe in
        # threads), and closed to others before its first byte.
        self._mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if not _locked(descriptor) or not _is_at(self.part, descriptor):
            os.close(descriptor)
            return busy
        self._file = os.fdopen(descriptor, "wb")
        self.part.chmod(0o600)
        return None

    def write(self, pieces: list[bytes]) -> None:
        """
        Append; nothing is kept in memory that the caller has to think of.
        """
        with self._lock:
            if self._file is not None:
                self._file.writelines(pieces)

    def finish(self) -> None:
        """
        Bring the bytes to the disk and the file to its name.

        Raises:
            DownloadError: Someone else took the part away, or the name has been taken meanwhile.
        """
        with self._lock:
            if self._file is None:
                return
            self._file.flush()
            os.fsync(self._file.fileno())
            if not _is_at(self.part, self._file.fileno()):
                raise DownloadError(f"{self.part} was taken away while it was written; download again")
            if reason := _objection(self.path, overwrite=self.overwrite):
                raise DownloadError(f"{self.path} {reason}", final=True)
            self.part.chmod(self._mode)
            self.part.replace(self.path)
            self._ended = True
            self._file.close()
            self._file = None

    def discard(self) -> None:
        """
        Leave nothing behind; after the end it does nothing. What the disk refuses here must not hide why it is called.
        """
        with self._lock, suppress(OSError):
            self._ended = True
            file, self._file = self._file, None
            if file is not None:
                with file:
                    if _is_at(self.part, file.fileno()):
                        self.part.unlink()


def _objection(path: Path, *, overwrite: bool) -> str | None:
    """
    Why a path is not to be written to, and what to do instead.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None if path.parent.is_dir() else f"has no directory: create {path.parent} first"
    if stat.S_ISLNK(mode):
        return "is a symbolic link: give the path that it leads to"
    if stat.S_ISDIR(mode):
        return "is a directory: give a file name in it"
    if not stat.S_ISREG(mode):
        return "is not a regular file: give another path"
    return None if overwrite else "exists: give overwrite=True to replace it, or another path"


def _is_at(part: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(part.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _forsaken(part: Path) -> bool:
    """
    Remove a part that nobody is writing any more; the lock of a writer ends with its process, however that ended.
    """
    descriptor = os.open(part, _LOOK)
    try:
        gone = _locked(descriptor) and _is_at(part, descriptor)
        if gone:
            part.unlink()
    finally:
        os.close(descriptor)
    return gone


def _locked(descriptor: int) -> bool:
    if sys.platform == "win32":  # where an open file cannot be removed by another
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks. Two writers are still told apart, by the part's identity before it is renamed.
        return True
    return True


@define(eq=False)
class Saving:
    """
    One download as a context: the part file exists inside, and outside either the whole file or nothing.

    Nothing but local file work is shielded from cancellation, and that for five seconds at most.
    """

    path: Path
    """Where the file shall stand in the end."""
    overwrite: bool = field(default=False, kw_only=True)
    """Whether a file that is there may be replaced."""
    limits: Limits = field(factory=Limits, kw_only=True)
    """What it may cost."""
    _part: PartFile = field(init=False)
    _threads: anyio.CapacityLimiter = field(init=False)

    async def __aenter__(self) -> Self:
        self._part = PartFile(self.path, self.overwrite)
        # Its own limiter: the common one may be full of threads that wait for this very download.
        self._threads = anyio.CapacityLimiter(1)
        try:
            await run_sync(self._part.open, limiter=self._threads)
        except BaseException:
            await self._discard()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                await self._local(self._part.finish)
            except BaseException:
                await self._discard()
                raise
        else:
            await self._discard()

    async def take(
        self,
        pieces: AsyncIterable[bytes],
        *,
        total: int | None = None,
        status: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        """
        Write every piece and return how many bytes there were.

        Args:
            pieces: The bytes, in pieces of any size.
            total: What was announced, if anything was.
            status: Goes into errors about what the bytes are, so that those are told from a connection that broke.
            progress: Called after each piece.

        Raises:
            DownloadError: They are too many, too few, too slow, or not what the path's suffix says.
        """
        limit = self.limits.size if total is None else total
        if limit > self.limits.size:
            raise DownloadError(f"{limit} bytes are announced; the limit is {self.limits.size}", status=status)
        pace = _Pace(self.limits)
        done, written, held = 0, 0, list[bytes]()
        async for piece in pieces:
            done += len(piece)
            if done > limit:
                raise DownloadError(f"more came than the {limit} bytes that may come", status=status)
            pace.check(done)
            held.append(piece)
            if done - written >= PIECE:
                await self._write(held, first=not written, status=status)
                held, written = [], done
            if progress is not None:
                progress(done, total)
        if total is not None and done < total:
            raise DownloadError(f"{done} bytes came of the {total} that were announced; download again")
        await self._write(held, first=not written, status=status)
        return done

    async def _write(self, pieces: list[bytes], *, first: bool, status: int | None) -> None:
        if first and (reason := _mismatch(self.path.suffix.lower(), b"".join(pieces)[:_HEAD])):
            raise DownloadError(reason, status=status)
        await self._local(self._part.write, pieces)

    async def _local(self, step: Callable[..., None], *args: object) -> None:
        try:
            await run_sync(step, *args, limiter=self._threads)
        except OSError as error:
            raise DownloadError(f"{self._part.part} could not be written: {error.strerror}", final=True) from error

    async def _discard(self) -> None:
        try:
            with anyio.move_on_after(GRACE, shield=True):
                await run_sync(self._part.discard, abandon_on_cancel=True, limiter=self._threads)
        except BaseException:
            # A second native cancellation may have come before the thread had begun.
            self._part.discard()
            raise


@define(eq=False)
class _Pace:
    """
    Whether the bytes still come fast enough, window by window.
    """

    _limits: Limits
    _since: float = field(factory=anyio.current_time, init=False)
    _then: int = field(default=0, init=False)

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
