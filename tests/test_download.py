"""
A stream of bytes becomes a whole file or none: real files, real threads, pieces made in the test.
"""

import asyncio
import errno
import fcntl
import os
import sys
import threading

import anyio
import pytest

from kling_async import _download
from kling_async._download import PIECE, Limits, PartFile, Saving
from kling_async.errors import DownloadError, InvalidInputError

pytestmark = pytest.mark.real_clock

MP4 = b"\x00\x00\x00\x18ftypmp42" + bytes(500)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(50)
JPEG = b"\xff\xd8\xff\xe0" + bytes(50)
PAGE = b"\xef\xbb\xbf\n <!DOCTYPE html><title>404</title>"


class Source:
    """
    Gives its pieces, then does what it is told to: end, go on with the last one for ever, or hang.
    """

    def __init__(self, *pieces, then=StopAsyncIteration):
        self.pieces = list(pieces)
        self.then = then

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.pieces:
            return self.pieces.pop(0)
        if self.then is StopAsyncIteration:
            raise StopAsyncIteration
        return await self.then()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


async def save(path, *pieces, overwrite=False, limits=None, **about):
    async with Saving(path, overwrite=overwrite, limits=limits or Limits()) as saving:
        return await saving.take(Source(*pieces), **about)


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
    assert len(data) == await save(tmp_path / name, data[:3], data[3:], total=len(data))
    assert data == (tmp_path / name).read_bytes()
    assert [name] == names_in(tmp_path)


async def test_pieces_of_every_size_arrive_in_order(clip):
    """
    Pieces smaller and larger than what is written at once make up one file.
    """
    pieces = [MP4, b"a" * PIECE, b"b" * (PIECE // 2), b"c" * (PIECE // 2), b"d" * (3 * PIECE), b"e"]
    assert sum(map(len, pieces)) == await save(clip, *pieces)
    assert b"".join(pieces) == clip.read_bytes()


async def test_progress_tells_each_piece(clip):
    """
    Progress is called after each piece with what came so far and what was announced.
    """
    seen = []
    await save(clip, MP4, b"12", b"3", total=len(MP4) + 3, progress=lambda *now: seen.append(now))
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
        await save(clip, MP4, total=9999, overwrite=True)
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
        await save(tmp_path / name, data, status=200)
    assert 200 == caught.value.status
    assert [] == names_in(tmp_path)


@pytest.mark.parametrize("total", [len(MP4) - 1, len(MP4) + 1])
async def test_length_must_be_the_announced_one(clip, total):
    """
    Fewer or more bytes than announced leave no file.
    """
    with pytest.raises(DownloadError):
        await save(clip, MP4, total=total)
    assert [] == names_in(clip.parent)


@pytest.mark.parametrize("total", [101, None])
async def test_size_is_limited(clip, total):
    """
    More than the limit is refused, announced or not.
    """
    with pytest.raises(DownloadError, match="100"):
        await save(clip, MP4[:50], MP4[:51], total=total, limits=Limits(size=100))
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


async def test_full_disk_is_a_download_error(clip, monkeypatch):
    """
    What the disk refuses while writing or finishing is told with its reason, and the part is gone.
    """

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_download.os, "fsync", full)
    with pytest.raises(DownloadError, match="No space left"):
        await save(clip, MP4)
    monkeypatch.setattr(PartFile, "write", full)
    with pytest.raises(DownloadError, match="No space left"):
        await save(clip, MP4)
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


async def test_second_writer_is_refused(clip):
    """
    While one download writes a part, another of the same path is refused and the first one ends well.
    """
    async with Saving(clip) as first:
        with pytest.raises(InvalidInputError, match="being downloaded already"):
            await save(clip, MP4)
        await first.take(Source(MP4))
    assert MP4 == clip.read_bytes()


async def test_part_that_is_a_link_is_not_followed(clip):
    """
    A symbolic link planted under the part's name is neither followed nor removed.
    """
    victim = clip.with_name("victim")
    victim.write_bytes(b"precious")
    clip.with_name("clip.mp4.part").symlink_to(victim)
    with pytest.raises(InvalidInputError):
        await save(clip, MP4)
    assert b"precious" == victim.read_bytes()


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


async def test_windows_needs_no_lock(clip, monkeypatch):
    """
    Where an open file cannot be removed, no lock is asked for.
    """
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(fcntl, "flock", None)
    async with Saving(clip) as saving:
        await saving.take(Source(MP4))
    assert MP4 == clip.read_bytes()


async def test_part_taken_between_creation_and_lock_is_left(clip, monkeypatch):
    """
    A part that another took for forsaken, in the moment before it was locked, is not written.
    """

    def slow(descriptor, how):
        clip.with_name("clip.mp4.part").unlink()

    monkeypatch.setattr(fcntl, "flock", slow)
    with pytest.raises(InvalidInputError, match="being downloaded already"):
        await save(clip, MP4)


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


async def test_cancelling_removes_the_part(clip, monkeypatch):
    """
    A cancelled download leaves nothing, its thread cleans up rather than the loop, and the cancellation comes out.
    """
    threads = []
    discard = PartFile.discard
    monkeypatch.setattr(PartFile, "discard", lambda part: threads.append(threading.get_ident()) or discard(part))
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
    Makes one step of the part file wait, in its thread, until the test lets it go on.
    """

    def hold(name):
        entered, go = threading.Event(), threading.Event()
        step = getattr(PartFile, name)

        def slow(self, *args):
            entered.set()
            go.wait(10)
            return step(self, *args)

        monkeypatch.setattr(PartFile, name, slow)
        return entered, go

    return hold


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("step", ["open", "write"])
async def test_native_cancellation_waits_for_no_thread_and_leaves_nothing(clip, held, step):
    """
    An asyncio task cancelled while a thread opens or writes leaves no part, though the thread goes on.
    """
    entered, go = held(step)
    task = asyncio.create_task(save(clip, MP4))
    await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
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
    entered, go = held("discard")
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
    entered, go = held("discard")
    try:
        with pytest.raises(ZeroDivisionError):
            async with Saving(clip):
                raise ZeroDivisionError
        assert entered.is_set()
    finally:
        go.set()


def test_steps_after_the_end_do_nothing(clip):
    """
    A thread that comes late to a file that has ended neither writes nor creates nor finishes it.
    """
    file = PartFile(clip, overwrite=False)
    file.discard()
    file.open()
    file.write([MP4])
    file.finish()
    file.discard()
    assert [] == names_in(clip.parent)


def test_part_that_was_removed_is_not_missed(clip):
    """
    Discarding a part that someone else removed raises nothing.
    """
    file = PartFile(clip, overwrite=False)
    file.open()
    file.part.unlink()
    file.discard()
    assert [] == names_in(clip.parent)
