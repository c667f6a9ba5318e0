"""
The unfinished file beside its target: one writer at a time, and in the end a whole file, a part to go on with, or none.

Decides where may be written, and which bytes may be gone on with: those that a record beside them describes, down to
their digest. Refuses to know loops and servers; every step is for a worker thread.
"""

import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from hashlib import file_digest, sha256
from io import BufferedRandom
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, Self

from attrs import define, field, frozen

from .errors import DownloadError, InvalidInputError
from .transport import Saved

if TYPE_CHECKING:
    from _hashlib import HASH

HEAD: Final = 512
"""Bytes by which a file's type is told; fewer are not kept, for nobody has looked at them yet."""

_STRIDE: Final = 8 << 20
"""Bytes that Linux is asked to bring to the disk at once, lest the end wait for all of them."""

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_LOOK: Final = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

_ETAG: Final = r'"[!#-~]{1,200}"'
_NUMBER: Final = "[0-9]{1,18}"
_STRONG: Final = re.compile(_ETAG)
_LENGTH: Final = re.compile(_NUMBER)
_RANGE: Final = re.compile(f"bytes ({_NUMBER})-({_NUMBER})/({_NUMBER})")
_RECORD: Final = re.compile(f"({_ETAG})\n({_NUMBER})\n({_NUMBER})\n([0-9a-f]{{64}})\n([0-7]{{1,3}})\n")
_RECORD_MOST: Final = 400


@frozen
class Entity:
    """
    One state of a file on its server. Links are no part of it: a signed one is another at every look.
    """

    etag: str
    """What the server calls this state; strong, so that it is another as soon as one byte is."""
    total: int
    """Bytes in all."""

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self | None:
        """
        What a whole reply is a copy of; None where a rest of it could not be asked for.
        """
        etag, total = headers.get("etag", ""), announced(headers)
        return cls(etag, total) if total is not None and _STRONG.fullmatch(etag) else None

    def rest(self, held: int) -> dict[str, str]:
        """
        Header fields that ask for what is missing.
        """
        return {"Range": f"bytes={held}-", "If-Range": self.etag}

    def continued(self, held: int, headers: Mapping[str, str]) -> bool:
        """
        Whether a partial reply is what is missing, all of it and of nothing else.
        """
        given = _RANGE.fullmatch(headers.get("content-range", ""))
        fits = given is not None and tuple(map(int, given.groups())) == (held, self.total - 1, self.total)
        return fits and headers.get("etag") == self.etag and not encoding(headers)


def announced(headers: Mapping[str, str]) -> int | None:
    """
    How long a body is said to be.
    """
    length = headers.get("content-length", "")
    return int(length) if _LENGTH.fullmatch(length) else None


def encoding(headers: Mapping[str, str]) -> str:
    """
    What a body was packed with; empty for nothing.
    """
    return headers.get("content-encoding", "").lower().replace("identity", "")


@frozen
class _Record:
    """
    What a part is, said by who left it. It is there only while nobody writes that part.
    """

    entity: Entity
    size: int
    digest: str
    mode: int

    @property
    def text(self) -> str:
        return f"{self.entity.etag}\n{self.entity.total}\n{self.size}\n{self.digest}\n{self.mode:o}\n"

    @classmethod
    def read(cls, path: Path) -> Self | None:
        try:
            descriptor = os.open(path, _LOOK)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            found = _RECORD.fullmatch(file.read(_RECORD_MOST).decode("latin-1")) if _ours(descriptor) else None
        if found is None:
            return None
        etag, total, size, digest, mode = found.groups()
        return cls(Entity(etag, int(total)), int(size), digest, int(mode, 8))


@define(eq=False, repr=False)
class PartFile:
    """
    The unfinished file, for worker threads: every step holds one lock.

    A native asyncio cancellation leaves a worker thread running, so a step may begin after the end: it does nothing.
    The part is locked while its writer lives. One that nobody holds was left: with a record that fits it is gone on
    with, without one it is what a crash left, and is taken away.
    """

    path: Path
    """Where it shall stand in the end."""
    overwrite: bool
    """Whether a file that is there may be replaced."""
    digested: bool = True
    """Whether it is hashed as it is written; a part that is left always is, if only then."""
    entity: Entity | None = field(default=None, init=False)
    """What the bytes belong to that were there when it was opened."""
    size: int = field(default=0, init=False)
    """Bytes that it holds."""
    _digest: "HASH" = field(factory=sha256, init=False)
    _lock: Lock = field(factory=Lock, init=False)
    _file: BufferedRandom | None = field(default=None, init=False)
    _mode: int = field(default=0, init=False)
    _torn: bool = field(default=False, init=False)
    """A write began that did not succeed."""
    _ended: bool = field(default=False, init=False)

    @property
    def part(self) -> Path:
        """
        Where the bytes are until they are whole.
        """
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def record(self) -> Path:
        """
        Where it is said what a part belongs to that was left.
        """
        return self.path.with_name(f"{self.path.name}.part.etag")

    @property
    def saved(self) -> Saved:
        """
        What was written; without a digest where none was wanted.
        """
        return Saved(self.size, self._digest.hexdigest() if self.digested else "")

    def open(self) -> None:
        """
        Take up the part that was left, or create one.

        Raises:
            InvalidInputError: The path cannot be written to.
        """
        with self._lock:
            if self._ended:
                return
            try:
                reason = _objection(self.path, overwrite=self.overwrite) or self._claim()
            except (OSError, ValueError) as error:
                raise InvalidInputError("path", f"{self.path} cannot be written to: {error}") from error
            if reason:
                raise InvalidInputError("path", f"{self.path} {reason}")

    def _claim(self) -> str | None:
        busy = "is being downloaded already: wait for that, or give another path"
        try:
            descriptor = os.open(self.part, _CREATE, 0o666)
        except FileExistsError:
            descriptor = os.open(self.part, _LOOK)
            try:
                if not _held(self.part, descriptor):
                    return busy
                if self._taken_up(descriptor):
                    return None
                self.part.unlink()
            finally:
                os.close(descriptor)
            descriptor = os.open(self.part, _CREATE, 0o666)
        # Created with the rights that it will end with, so that the umask need not be read (which is not safe in
        # threads), and closed to others before its first byte.
        self._mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if not _held(self.part, descriptor):
            os.close(descriptor)
            return busy
        self._file = os.fdopen(descriptor, "r+b")
        self.part.chmod(0o600)
        _remove(self.record)
        return None

    def _taken_up(self, descriptor: int) -> bool:
        record = _Record.read(self.record)
        # Gone before the first byte is added: whatever ends this writer, no record describes a part that has grown.
        _remove(self.record)
        if record is None or not _ours(descriptor) or os.fstat(descriptor).st_size != record.size:
            return False
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            digest = file_digest(file, sha256)
        if digest.hexdigest() != record.digest:
            return False
        self.entity, self.size, self._mode, self._digest = record.entity, record.size, record.mode, digest
        # A second descriptor of the same open file: lock and position are one.
        self._file = os.fdopen(os.dup(descriptor), "r+b")
        return True

    def restart(self) -> None:
        """
        Begin anew with no bytes.
        """
        with self._lock:
            if self._file is not None:
                self._file.seek(0)
                self._file.truncate()
                self.size, self._digest = 0, sha256()

    def write(self, start: int, data: bytes | memoryview) -> None:
        """
        Put data behind the first `start` bytes. Where they are not what is there, it does nothing: the same may be
        given by two threads, and is written once and in order.
        """
        with self._lock:
            if self._file is not None:
                self._append(self._file, start, data)

    def _append(self, file: BufferedRandom, start: int, data: bytes | memoryview) -> None:
        if start == self.size:
            self._torn = True
            file.write(data)
            if self.digested:
                self._digest.update(data)
            self.size += len(data)
            self._torn = False
            stride = start // _STRIDE * _STRIDE
            if sys.platform == "linux" and self.size - stride >= _STRIDE:
                # What was just written is not dropped for that, but on its way to the disk from now on.
                with suppress(OSError):
                    os.posix_fadvise(file.fileno(), stride, _STRIDE, os.POSIX_FADV_DONTNEED)

    def shows(self, look: Callable[[BufferedRandom, int], bool], start: int, data: bytes | memoryview) -> bool:
        """
        What a look at the whole shows, once its last data is written as with `write`; after the end, no.
        """
        with self._lock:
            if self._file is None:
                return False
            self._append(self._file, start, data)
            return look(self._file, self.size)

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

    def leave(self, entity: Entity | None, unwritten: Iterable[tuple[int, bytes | memoryview]] = ()) -> None:
        """
        End without a file: keep the part where it can be gone on with, else leave nothing; after the end do nothing.

        What the disk refuses here must not hide why it is called.

        Args:
            entity: What the bytes belong to; None where they are of no use.
            unwritten: The last of them, as for `write`; those that are there already among them.
        """
        with self._lock, suppress(OSError):
            self._ended = True
            file, self._file = self._file, None
            if file is not None:
                with file:
                    kept = entity is not None and self._kept(file, entity, unwritten)
                    if not kept and _is_at(self.part, file.fileno()):
                        self.part.unlink()

    def release(self) -> None:
        """
        End without having begun: what was taken up is left as it was found.
        """
        with self._lock:
            entity = self.entity
        self.leave(entity)

    def _kept(self, file: BufferedRandom, entity: Entity, unwritten: Iterable[tuple[int, bytes | memoryview]]) -> bool:
        if self._torn:
            return False
        try:
            for start, data in unwritten:
                self._append(file, start, data)
            file.flush()
            if not HEAD <= self.size < entity.total or not _is_at(self.part, file.fileno()):
                return False
            if not self.digested:
                file.seek(0)
                self._digest = file_digest(file, sha256)
            record = _Record(entity, self.size, self._digest.hexdigest(), self._mode)
            with os.fdopen(os.open(self.record, _CREATE, 0o600), "wb") as beside:
                beside.write(record.text.encode())
        except OSError:
            _remove(self.record)
            return False
        return True


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


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _ours(descriptor: int) -> bool:
    """
    Whether we wrote it: in a directory that all may write to, another may have put it there.
    """
    about = os.fstat(descriptor)
    return stat.S_ISREG(about.st_mode) and (sys.platform == "win32" or about.st_uid == os.geteuid())


def _is_at(part: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(part.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _held(part: Path, descriptor: int) -> bool:
    """
    Whether a part is this writer's alone; a writer's lock ends with its process, however that ended.
    """
    return _locked(descriptor) and _is_at(part, descriptor)


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
