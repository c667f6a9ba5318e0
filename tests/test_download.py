"""
A stream of bytes becomes a whole file, or a part to go on with, or none: real files, real threads, made-up pieces.
"""

import asyncio
import errno
import fcntl
import os
import random
import shutil
import threading
from contextlib import suppress
from functools import partial
from hashlib import sha256

import anyio
import pytest

from kling_async import _download
from kling_async._download import Limits, Saving
from kling_async._parts import HEAD, PartFile
from kling_async._writer import BATCH
from kling_async.errors import DownloadError, InvalidInputError
from kling_async.transport import Saved
from tests.checkpoints import cuts, natives

pytestmark = pytest.mark.real_clock

TAG = '"e-1"'
MP4 = b"\x00\x00\x00\x18ftypmp42" + bytes(500)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(50)
JPEG = b"\xff\xd8\xff\xe0" + bytes(50)
FILM = MP4 + random.Random(1).randbytes(2000)
WHOLE = len(FILM)
PAGE = b"\xef\xbb\xbf\n <!DOCTYPE html><title>404</title>"


class Source:
    """
    Gives its pieces, then does what it is told to: end, go on with the last one for ever, or hang.
    """

    def __init__(self, *pieces, then=None):
        self.pieces = list(pieces)
        self.then = then

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.pieces:
            return self.pieces.pop(0)
        if self.then is None:
            raise StopAsyncIteration
        return await self.then()


class Halting(Source):
    """
    Waits a moment for each piece.
    """

    async def __anext__(self):
        await anyio.lowlevel.checkpoint()
        return await super().__anext__()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


KEPT = ["clip.mp4.part", "clip.mp4.part.etag"]


async def save(path, *pieces, overwrite=False, limits=None, progress=None, **fields):
    """
    A reply of status 200, taken; its header fields are named as Python can: `content_length`.
    """
    async with Saving(path, overwrite=overwrite, limits=limits or Limits()) as saving:
        assert await saving.accepts(200, {name.replace("_", "-"): str(value) for name, value in fields.items()})
        return await saving.take(Source(*pieces), progress=progress)


async def break_off(path, *pieces, total=WHOLE, etag=TAG):
    """
    A download that ends before its end.
    """
    with pytest.raises(DownloadError, match="came of the"):
        await save(path, *pieces, etag=etag, content_length=total, overwrite=True)


def rest(start, *, end=WHOLE - 1, total=WHOLE, etag=TAG, **more):
    """
    Header fields of a partial reply.
    """
    return {"content-range": f"bytes {start}-{end}/{total}", "etag": etag, **more}


async def go_on(path, data, start=1000):
    """
    The rest of a file, asked for and taken.
    """
    async with Saving(path, overwrite=True) as saving:
        assert {"Range": f"bytes={start}-", "If-Range": TAG} == saving.asking
        assert await saving.accepts(206, rest(start))
        return await saving.take(Source(data))


@pytest.fixture
def clip(tmp_path):
    return tmp_path / "clip.mp4"


@pytest.mark.parametrize(
    "name, data",
    [("a.mp4", MP4), ("A.MOV", MP4), ("a.m4v", MP4), ("a.png", PNG), ("a.jpg", JPEG), ("a.jpeg", JPEG), ("a", b"{}")],
)
async def test_whole_file_stands_under_its_name(tmp_path, name, data):
    """
    Bytes that fit the suffix are all there under the final name, and nothing else is.
    """
    saved = await save(tmp_path / name, data[:3], data[3:], content_length=len(data))
    assert Saved(len(data), sha256(data).hexdigest()) == saved
    assert data == (tmp_path / name).read_bytes()
    assert [name] == names_in(tmp_path)


async def test_pieces_of_every_size_arrive_in_order(clip):
    """
    Pieces smaller and larger than what is written at once make up one file.
    """
    pieces = [MP4, b"a" * BATCH, b"b" * (BATCH // 2), b"c" * (BATCH // 2), b"d" * (3 * BATCH), b"e"]
    saved = await save(clip, *pieces)
    assert b"".join(pieces) == clip.read_bytes()
    assert Saved(sum(map(len, pieces)), sha256(clip.read_bytes()).hexdigest()) == saved


async def test_a_digest_that_nobody_wants_is_not_told(clip):
    """
    The file is the same without.
    """
    assert Saved(len(MP4), "") == await save(clip, MP4, limits=Limits(digest=False))
    assert MP4 == clip.read_bytes()


async def test_progress_tells_each_piece(clip):
    """
    Progress is called after each piece with what came so far and what was announced.
    """
    seen = []
    await save(clip, MP4, b"12", b"3", content_length=len(MP4) + 3, progress=lambda *now: seen.append(now))
    await save(clip, MP4, overwrite=True, progress=lambda *now: seen.append(now))
    whole = len(MP4) + 3
    assert [(len(MP4), whole), (len(MP4) + 2, whole), (whole, whole), (len(MP4), None)] == seen


async def test_part_is_private_and_the_file_has_the_usual_rights(clip):
    """
    Nobody else can read the part; the finished file has what the umask allows.
    """
    before = os.umask(0o027)
    try:
        async with Saving(clip) as saving:
            assert 0o600 == clip.with_name("clip.mp4.part").stat().st_mode & 0o777
            await saving.take(Source(MP4))
    finally:
        os.umask(before)
    assert 0o640 == clip.stat().st_mode & 0o777


@pytest.mark.parametrize(
    "prepare, words",
    [
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.symlink_to(path.with_name("other.mp4")), "is a symbolic link"),
        (lambda path: path.write_bytes(b"old"), "give overwrite=True"),
        (os.mkfifo, "is not a regular file"),
    ],
)
async def test_path_that_is_taken_is_refused(clip, prepare, words):
    """
    What stands under the path already is named, and left as it is.
    """
    prepare(clip)
    with pytest.raises(InvalidInputError, match=words) as caught:
        await save(clip, MP4)
    assert "path" == caught.value.field
    assert ["clip.mp4"] == names_in(clip.parent)


@pytest.mark.parametrize("prepare", [lambda path: path.mkdir(), lambda path: path.symlink_to("other.mp4")])
async def test_overwrite_is_for_files_only(clip, prepare):
    """
    A directory and a symbolic link are not overwritten even if overwriting was asked for.
    """
    prepare(clip)
    with pytest.raises(InvalidInputError):
        await save(clip, MP4, overwrite=True)


async def test_overwriting_replaces_at_the_end_only(clip):
    """
    The old file stays whole until the new one is, and for good if the new one fails.
    """
    clip.write_bytes(b"old")
    with pytest.raises(DownloadError):
        await save(clip, MP4, content_length=9999, overwrite=True)
    assert b"old" == clip.read_bytes()
    await save(clip, MP4, overwrite=True)
    assert MP4 == clip.read_bytes()


@pytest.mark.parametrize(
    "name, words", [("no/where.mp4", "create .*no first"), ("n\0ul.mp4", "null"), ("x" * 252, "too long")]
)
async def test_path_that_cannot_be_is_refused(tmp_path, name, words):
    """
    A missing directory, a byte that no path has and a name too long for its part are told before anything is fetched.
    """
    with pytest.raises(InvalidInputError, match=words):
        await save(tmp_path / name, MP4)
    assert [] == names_in(tmp_path)


@pytest.mark.parametrize(
    "name, data, words",
    [
        ("a.mp4", b"<?xml version='1.0'?>", "no .mp4 file: it begins with b.<.xml"),
        ("a.png", JPEG, "no .png file"),
        ("a.jpg", PNG, "no .jpg file"),
        ("a.mp4", PAGE, "web page"),
        ("a", PAGE, "web page"),
        ("a", b"", "empty"),
    ],
)
async def test_wrong_content_is_refused(tmp_path, name, data, words):
    """
    What is not what the suffix says, is a web page or is nothing never gets the name; the status goes along.
    """
    with pytest.raises(DownloadError, match=words) as caught:
        await save(tmp_path / name, data)
    assert 200 == caught.value.status
    assert [] == names_in(tmp_path)


def box(kind, size, *, claimed=None, wide=False):
    """
    A box of an MP4; it may claim to be longer than it is.
    """
    length = size if claimed is None else claimed
    head = (1).to_bytes(4) + kind + length.to_bytes(8) if wide else length.to_bytes(4) + kind
    return head + b"x" * (size - len(head))


FTYP = box(b"ftyp", 24)


@pytest.mark.parametrize(
    "data",
    [
        FTYP + box(b"moov", 100) + box(b"mdat", 901, claimed=902),
        FTYP + box(b"mdat", 900, claimed=2**63 + 1, wide=True),
        FTYP + box(b"free", 8) + box(b"mdat", 90) + box(b"moov", 8, claimed=9),
        FTYP[:20],
    ],
)
@pytest.mark.parametrize("name", ["clip.mp4", "clip"])
async def test_f45_a_film_that_lacks_its_end_is_not_taken_for_whole(tmp_path, name, data):
    """
    Where too little is announced, or nothing, the film itself says that it is longer; another try may bring it.
    """
    with pytest.raises(DownloadError, match=f"goes on beyond the {len(data)} bytes") as caught:
        await save(tmp_path / name, data, content_length=len(data), etag=TAG)
    assert not caught.value.final
    assert [] == names_in(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        FTYP + box(b"moov", 100) + box(b"mdat", 900),
        FTYP + box(b"moov", 100) + box(b"mdat", 900, wide=True),
        FTYP + box(b"moov", 100) + box(b"mdat", 900, claimed=0),
        FTYP + box(b"moov", 100) + box(b"mdat", 900) + b"\0" * 3,
        FTYP + box(b"moov", 100) + box(b"made", 900, claimed=2**31),
        FTYP + box(b"free", 8) * 10_000 + box(b"free", 8, claimed=999),
        box(b"free", 8, claimed=999),
        b"{}",
    ],
    ids=["plain", "wide", "open", "tail", "unknown", "many", "another", "text"],
)
async def test_a_file_that_is_odd_is_taken_all_the_same(tmp_path, data):
    """
    What cannot be followed to its end is left to whoever plays it.
    """
    assert len(data) == (await save(tmp_path / "clip", data)).size


@pytest.mark.parametrize("total", [len(MP4) - 1, len(MP4) + 1])
async def test_length_must_be_the_announced_one(clip, total):
    """
    Fewer or more bytes than announced leave no file.
    """
    with pytest.raises(DownloadError):
        await save(clip, MP4, content_length=total)
    assert [] == names_in(clip.parent)


@pytest.mark.parametrize("fields", [{"content_length": 101}, {}, {"content_length": "many"}])
async def test_size_is_limited(clip, fields):
    """
    More than the limit is refused, announced or not.
    """
    with pytest.raises(DownloadError, match="100"):
        await save(clip, MP4[:50], MP4[:51], limits=Limits(size=100), **fields)
    assert [] == names_in(clip.parent)


async def test_trickle_is_given_up(clip):
    """
    A window that brings less than the pace ends the download; one that brings enough does not.
    """

    async def one():
        await anyio.lowlevel.checkpoint()
        return b"x"

    with pytest.raises(DownloadError, match=r"stalled: \d+ bytes in 0.01 s"):
        async with Saving(clip, limits=Limits(window=0.01, pace=1e9)) as saving:
            await saving.take(Source(MP4, then=one))
    with pytest.raises(DownloadError, match="more came than the 700 bytes"):
        async with Saving(clip, limits=Limits(window=1e-9, pace=1, size=700)) as saving:
            await saving.take(Source(MP4, then=one))


async def test_body_that_fails_leaves_nothing(clip):
    """
    An error of the source or of the caller's progress comes out as itself, and the part is gone.
    """

    def fail(done, total):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await save(clip, MP4, progress=fail)
    assert [] == names_in(clip.parent)


@pytest.mark.parametrize("step, after", [("write", 0), ("write", 1), ("restart", 0), ("fsync", 0)])
async def test_f48_a_full_disk_leaves_neither_part_nor_name(clip, monkeypatch, step, after):
    """
    What the disk refuses, sooner or later, is told with its reason and not tried again; the part goes, tag or no tag.
    """
    film = MP4 + bytes(3 * BATCH)
    await break_off(clip, film[:1000], total=len(film))
    place = os if step == "fsync" else PartFile
    does = getattr(place, step)
    left = [does] * after

    def full(*given):
        if left:
            return left.pop()(*given)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(place, step, full)
    with pytest.raises(DownloadError, match="No space left") as caught:
        await save(clip, film[:BATCH], film[BATCH:], etag=TAG, content_length=len(film))
    assert caught.value.final
    assert [] == names_in(clip.parent)


async def test_f48_a_disk_that_fills_up_while_a_part_is_kept_keeps_none(clip, monkeypatch):
    """
    The last bytes of what broke off may not fit any more: the error stays the first one, and the part goes.
    """

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PartFile, "_append", full)
    await break_off(clip, FILM[:1000])
    assert [] == names_in(clip.parent)


async def test_part_of_a_crash_is_taken_over(clip):
    """
    A part whose writer is dead does not block the name, whoever may read it.
    """
    part = clip.with_name("clip.mp4.part")
    part.write_bytes(b"half")
    await save(clip, MP4)
    assert MP4 == clip.read_bytes()
    assert not part.exists()


async def trickling():
    await anyio.lowlevel.checkpoint()
    return b""


async def cutting():
    raise DownloadError("cut")


@pytest.mark.parametrize("how", ["short", "cut", "stall", "progress", "cancel"])
async def test_what_broke_off_is_gone_on_with(clip, how):
    """
    However it broke off, the part stays; the rest is asked for by its tag, and the digest is that of the whole.
    """
    steps = []

    def progress(done, total):
        if how == "progress":
            raise ZeroDivisionError
        if how == "cancel":
            scope.cancel()

    then = {"cut": cutting, "stall": trickling, "cancel": anyio.sleep_forever}.get(how)
    limits = Limits(window=0.01, pace=1e9) if how == "stall" else Limits()
    with anyio.CancelScope() as scope, suppress(DownloadError, ZeroDivisionError):
        async with Saving(clip, limits=limits) as saving:
            assert {} == saving.asking
            assert await saving.accepts(200, {"etag": TAG, "content-length": str(WHOLE)})
            await saving.take(Source(FILM[:600], FILM[600:1000], then=then), progress=progress)
    held = 600 if how == "progress" else 1000
    assert KEPT == names_in(clip.parent)
    assert FILM[:held] == clip.with_name(KEPT[0]).read_bytes()
    async with Saving(clip) as saving:
        assert {"Range": f"bytes={held}-", "If-Range": TAG} == saving.asking
        assert await saving.accepts(206, rest(held))
        saved = await saving.take(Source(FILM[held:]), progress=lambda *now: steps.append(now))
    assert [(WHOLE, WHOLE)] == steps
    assert Saved(WHOLE, sha256(FILM).hexdigest()) == saved
    assert FILM == clip.read_bytes()
    assert ["clip.mp4"] == names_in(clip.parent)


async def test_a_large_part_is_kept_whole(clip):
    """
    What was written and what was still in memory are both there, also if it breaks off more than once.
    """
    film = MP4 + random.Random(2).randbytes(3 * BATCH)
    cuts = [BATCH + 700, 2 * BATCH + 9]
    await break_off(clip, film[:BATCH], film[BATCH : cuts[0]], total=len(film))
    with pytest.raises(DownloadError, match="came of the"):
        async with Saving(clip) as saving:
            assert await saving.accepts(206, rest(cuts[0], end=len(film) - 1, total=len(film)))
            await saving.take(Source(film[cuts[0] : cuts[1]]))
    async with Saving(clip) as saving:
        assert await saving.accepts(206, rest(cuts[1], end=len(film) - 1, total=len(film)))
        saved = await saving.take(Source(film[cuts[1] :]))
    assert film == clip.read_bytes()
    assert sha256(film).hexdigest() == saved.sha256


@pytest.mark.parametrize(
    "data, fields",
    [
        (FILM[:1000], {"content_length": WHOLE}),
        (FILM[:1000], {"content_length": WHOLE, "etag": f"W/{TAG}"}),
        (FILM[:1000], {"content_length": WHOLE, "etag": "e-1"}),
        (FILM[:1000], {"content_length": WHOLE, "etag": '"e\n1"'}),
        (FILM[:1000], {"content_length": WHOLE, "etag": f'"{"e" * 300}"'}),
        (FILM[:1000], {"content_length": "1" * 19, "etag": TAG}),
        (FILM[:1000], {"etag": TAG}),
        (FILM[: HEAD - 1], {"content_length": WHOLE, "etag": TAG}),
        (PAGE + bytes(HEAD), {"content_length": WHOLE, "etag": TAG}),
        (b"", {"content_length": WHOLE, "etag": TAG}),
        (FILM, {"content_length": WHOLE, "etag": TAG}),
    ],
    ids=["untagged", "weak", "unquoted", "line", "long", "endless", "unmeasured", "tiny", "page", "empty", "all"],
)
async def test_what_cannot_be_gone_on_with_is_removed(clip, data, fields):
    """
    A part needs a strong tag, a length, bytes that were looked at, and bytes that are missing.
    """

    async def cut():
        async with Saving(clip) as saving:
            await saving.accepts(200, {name.replace("_", "-"): str(value) for name, value in fields.items()})
            await saving.take(Source(data, then=cutting))

    with pytest.raises(DownloadError):
        await cut()
    assert [] == names_in(clip.parent)


@pytest.mark.parametrize(
    "status, fields",
    [
        (416, {"content-range": f"bytes */{WHOLE}"}),
        (206, {}),
        (206, {"etag": TAG}),
        (206, {"content-range": "bytes 1000-2511/*", "etag": TAG}),
        (206, rest(999)),
        (206, rest(1001)),
        (206, rest(1000, end=WHOLE)),
        (206, rest(1000, end=1500)),
        (206, rest(1000, total=WHOLE + 1)),
        (206, rest(1000, etag='"e-2"')),
        (206, rest(1000, etag="")),
        (206, rest(1000, **{"content-encoding": "gzip"})),
    ],
)
async def test_a_rest_that_does_not_fit_is_not_taken(clip, status, fields):
    """
    Another range, length or tag, or none: what is held is dropped, and the whole is asked for.
    """
    await break_off(clip, FILM[:1000])
    other = MP4 + b"other" * 500
    async with Saving(clip) as saving:
        assert not await saving.accepts(status, fields)
        assert {} == saving.asking
        assert await saving.accepts(200, {"etag": '"e-2"', "content-length": str(len(other))})
        saved = await saving.take(Source(other))
    assert other == clip.read_bytes()
    assert Saved(len(other), sha256(other).hexdigest()) == saved


async def test_a_whole_in_place_of_the_rest_replaces_what_is_held(clip):
    """
    A server that ignores ranges, or has another file by now, sends the whole: it is taken from its start.
    """
    await break_off(clip, FILM[:1000])
    saved = await save(clip, MP4, content_length=len(MP4), etag='"e-2"')
    assert MP4 == clip.read_bytes()
    assert Saved(len(MP4), sha256(MP4).hexdigest()) == saved
    await break_off(clip, FILM[:1000])
    with pytest.raises(DownloadError, match="web page"):
        await save(clip, PAGE, overwrite=True)
    assert ["clip.mp4"] == names_in(clip.parent)


async def test_a_try_that_brings_no_reply_keeps_the_part(clip):
    """
    A server that is away, or says 503, has not said that the file is another.
    """
    await break_off(clip, FILM[:1000])

    async def turned_away():
        async with Saving(clip):
            raise DownloadError("HTTP 503", status=503)

    with pytest.raises(DownloadError):
        await turned_away()
    assert KEPT == names_in(clip.parent)
    assert WHOLE == (await go_on(clip, FILM[1000:])).size


async def test_a_cancellation_while_the_part_is_taken_up_keeps_it(clip):
    """
    Whoever gives up before anything was asked for has said nothing about the part.
    """
    await break_off(clip, FILM[:1000])
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with Saving(clip):
            pass
    assert scope.cancelled_caught
    assert KEPT == names_in(clip.parent)
    assert WHOLE == (await go_on(clip, FILM[1000:])).size


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_while_the_part_is_taken_up_keeps_it(clip, held):
    """
    The thread that reads what is held goes on; who ends the download waits for it, and leaves what it found.
    """
    await break_off(clip, FILM[:1000])
    entered, go = held("_taken_up")
    task = asyncio.create_task(save(clip, FILM))
    await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert KEPT == names_in(clip.parent)


async def test_a_rest_that_is_too_long_starts_over(clip):
    """
    More than is missing is the fault of what was put together: nothing is kept, and another try makes sense.
    """
    await break_off(clip, FILM[:1000])
    with pytest.raises(DownloadError, match="more came than") as caught:
        await go_on(clip, FILM[1000:] + b"!")
    assert not caught.value.final
    assert [] == names_in(clip.parent)


async def test_second_writer_is_refused(clip):
    """
    While one download writes a part, another of the same path is refused and the first one ends well.
    """
    async with Saving(clip) as first:
        with pytest.raises(InvalidInputError, match="being downloaded already"):
            await save(clip, MP4)
        await first.take(Source(MP4))
    assert MP4 == clip.read_bytes()


async def test_file_system_without_locks_still_keeps_writers_apart(clip, monkeypatch):
    """
    Where files cannot be locked, a writer whose part was taken away finds out before it gives it a name.
    """

    def unsupported(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)

    async def overtaken():
        async with Saving(clip) as first:
            await first.take(Source(MP4))
            await save(clip, MP4 + b"second")

    with pytest.raises(DownloadError, match="taken away"):
        await overtaken()
    assert MP4 + b"second" == clip.read_bytes()
    assert ["clip.mp4"] == names_in(clip.parent)


async def test_name_taken_meanwhile_is_kept(clip):
    """
    A file that appeared during the download is not replaced unless that was asked for.
    """

    async def forestalled():
        async with Saving(clip) as saving:
            await saving.take(Source(MP4))
            clip.write_bytes(b"someone else's")

    with pytest.raises(DownloadError, match="overwrite=True"):
        await forestalled()
    assert b"someone else's" == clip.read_bytes()
    assert ["clip.mp4"] == names_in(clip.parent)


async def test_cancelling_cleans_up_in_a_thread(clip, monkeypatch):
    """
    A cancelled download of unknown origin leaves nothing; its thread sees to that, and the cancellation comes out.
    """
    threads = []
    leave = PartFile.leave
    monkeypatch.setattr(PartFile, "leave", lambda *given: threads.append(threading.get_ident()) or leave(*given))
    with anyio.CancelScope() as scope:
        async with Saving(clip) as saving:
            await saving.take(Source(MP4, then=anyio.sleep_forever), progress=lambda *_: scope.cancel())
    assert scope.cancelled_caught
    assert [] == names_in(clip.parent)
    assert 1 == len(threads)
    assert threading.get_ident() not in threads


@pytest.fixture
def held(monkeypatch):
    """
    Makes one step of the part file wait, in its thread, until the test lets it go on, or fail.
    """

    def hold(name, error=None):
        entered, go = threading.Event(), threading.Event()
        step = getattr(PartFile, name)

        def slow(self, *args):
            entered.set()
            go.wait(10)
            if error is not None:
                raise error
            return step(self, *args)

        monkeypatch.setattr(PartFile, name, slow)
        return entered, go

    return hold


LONG = MP4 + random.Random(2).randbytes(3 * BATCH)


async def take_long(path, *pieces, then=None, source=None, digest=None):
    async with Saving(path) as saving:
        assert await saving.accepts(200, {"etag": TAG, "content-length": str(len(LONG))})
        if digest is not None:
            saving._part._digest = digest
        await saving.take(source or Source(*pieces, then=then))


async def go_on_long(path, start):
    """
    The rest of the long film is asked for, and put behind so much of it.
    """
    assert KEPT == names_in(path.parent)
    assert sha256(LONG[:start]).digest() == sha256(path.with_name(KEPT[0]).read_bytes()).digest()
    async with Saving(path) as saving:
        assert {"Range": f"bytes={start}-", "If-Range": TAG} == saving.asking
        assert await saving.accepts(206, rest(start, end=len(LONG) - 1, total=len(LONG)))
        saved = await saving.take(Source(LONG[start:]))
    assert Saved(len(LONG), sha256(LONG).hexdigest()) == saved
    assert saved.sha256 == sha256(path.read_bytes()).hexdigest()
    assert ["clip.mp4"] == names_in(path.parent)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("step, film", [("open", MP4), ("write", MP4 + bytes(3 * BATCH)), ("shows", MP4)])
async def test_native_cancellation_waits_for_no_thread_and_leaves_nothing(clip, held, step, film):
    """
    An asyncio task cancelled while a thread opens, writes or ends leaves no part, though the thread goes on.
    """
    entered, go = held(step)
    task = asyncio.create_task(save(clip, film))
    await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    assert [] == names_in(clip.parent)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_native_cancellation_while_a_batch_is_written_keeps_all_that_came(clip, held):
    """
    The part gets that batch and what came behind it, though the thread has not begun; late as it is, it adds nothing.
    """
    came = asyncio.Event()

    async def hang():
        came.set()
        await anyio.sleep_forever()

    entered, go = held("write")
    task = asyncio.create_task(take_long(clip, LONG[:BATCH], LONG[BATCH : BATCH + 700], then=hang))
    await came.wait()
    await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    await go_on_long(clip, BATCH + 700)


@pytest.mark.parametrize("how", ["cancel", "cut"])
async def test_who_leaves_while_a_batch_is_written_keeps_all_that_came(clip, held, monkeypatch, how):
    """
    What the thread is at is finished, and what came meanwhile is put behind it.
    """
    entered, go = held("_append")
    leave = PartFile.leave
    monkeypatch.setattr(PartFile, "leave", lambda *given: go.set() or leave(*given))

    async def away():
        await anyio.to_thread.run_sync(entered.wait, 10)
        if how == "cancel":
            scope.cancel()
            await anyio.sleep_forever()
        await cutting()

    with anyio.CancelScope() as scope, suppress(DownloadError):
        await take_long(clip, LONG[:BATCH], LONG[BATCH : BATCH + 700], then=away)
    assert scope.cancelled_caught is (how == "cancel")
    await go_on_long(clip, BATCH + 700)


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
async def test_f29_a_long_download(anyio_backend_name, tmp_path, again):
    """
    Cut off at any moment, also while a batch is written, it leaves the whole, or what can be gone on with, or nothing.
    """
    starts, kept = range(0, len(LONG), 700_000), set()
    for cut in cuts(anyio_backend_name, again=again):
        path = tmp_path / str(cut.number) / "clip.mp4"
        path.parent.mkdir()
        await cut.run(partial(take_long, path, source=Halting(*(LONG[at : at + 700_000] for at in starts))))
        assert 0 == cut.left, cut
        assert names_in(path.parent) in ([], KEPT, ["clip.mp4"]), cut
        assert cut.cancelled or path.exists(), cut
        if names_in(path.parent) == KEPT:
            size = path.with_name(KEPT[0]).stat().st_size
            kept.add(size)
            await go_on_long(path, size)
        assert not path.exists() or LONG == path.read_bytes(), cut
        shutil.rmtree(path.parent)
    assert kept >= {*starts[1:]} or (again and not natives(anyio_backend_name)[1:])


@pytest.mark.parametrize("last", [[], [LONG[BATCH + 700 :]]], ids=["end", "more"])
async def test_f48_a_write_that_fails_while_more_comes_ends_the_download(clip, held, last):
    """
    It is told with its reason, be the rest there by then or yet to come, and nothing is kept.
    """
    entered, go = held("write", OSError(errno.ENOSPC, "No space left on device"))
    pieces = [LONG[:BATCH], LONG[BATCH : BATCH + 700], *last]
    seen = []

    def progress(done, total):
        seen.append(done)
        if len(seen) == 2:
            entered.wait(10)
            go.set()

    with pytest.raises(DownloadError, match="No space left") as caught:
        await save(clip, *pieces, etag=TAG, content_length=sum(map(len, pieces)), progress=progress)
    assert caught.value.final
    assert [BATCH, BATCH + 700] == seen[:2]
    assert [] == names_in(clip.parent)


@pytest.mark.parametrize("how", ["cancel", "cut"])
async def test_f48_who_leaves_while_a_write_fails_keeps_nothing(clip, monkeypatch, how):
    """
    Nobody can say how much of that batch is in the part, also if the disk takes it the next moment.
    """
    entered, go = threading.Event(), threading.Event()

    class Torn:
        def __init__(self):
            self.whole = sha256()

        def update(self, data):
            if not entered.is_set():
                entered.set()
                go.wait(10)
                raise OSError(errno.EIO, "Input/output error")
            self.whole.update(data)

        def hexdigest(self):
            return self.whole.hexdigest()

    leave = PartFile.leave
    monkeypatch.setattr(PartFile, "leave", lambda *given: go.set() or leave(*given))

    async def away():
        await anyio.to_thread.run_sync(entered.wait, 10)
        if how == "cancel":
            scope.cancel()
            await anyio.sleep_forever()
        await cutting()

    with anyio.CancelScope() as scope, suppress(DownloadError):
        await take_long(clip, LONG[:BATCH], LONG[BATCH : BATCH + 700], then=away, digest=Torn())
    assert scope.cancelled_caught is (how == "cancel")
    assert [] == names_in(clip.parent)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_second_native_cancellation_cleans_up_all_the_same(clip, held):
    """
    Cancelled again while it cleans up, a download removes its part itself.
    """

    async def run():
        async with Saving(clip) as saving:
            await saving.take(Source(MP4, then=anyio.sleep_forever), progress=lambda *_: started.set())

    started = asyncio.Event()
    task = asyncio.create_task(run())
    await started.wait()
    entered, go = held("leave")
    task.cancel()
    await asyncio.to_thread(entered.wait, 10)
    go.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [] == names_in(clip.parent)


async def test_hung_disk_holds_up_a_cancellation_for_the_grace_only(clip, held, monkeypatch):
    """
    Removing the part on a disk that hangs delays the end by the grace, not for ever.
    """
    monkeypatch.setattr(_download, "GRACE", 0.05)
    entered, go = held("leave")
    try:
        with pytest.raises(ZeroDivisionError):
            async with Saving(clip):
                raise ZeroDivisionError
        assert entered.is_set()
    finally:
        go.set()
