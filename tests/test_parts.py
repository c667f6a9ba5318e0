"""
The unfinished file on a real disk: who may write it, and which one that was left is gone on with.
"""

import errno
import fcntl
import os
import sys
from hashlib import sha256
from itertools import accumulate

import pytest

from kling_async import _parts
from kling_async._parts import HEAD, Entity, PartFile, announced, encoding
from kling_async.errors import InvalidInputError
from kling_async.transport import Saved

pytestmark = pytest.mark.real_clock

HELD = bytes(range(256)) * 3
ENTITY = Entity('"e-1"', 1000)
BUSY = "being downloaded already"


@pytest.fixture
def clip(tmp_path):
    return tmp_path / "clip.mp4"


def opened(clip, **more):
    file = PartFile(clip, overwrite=True, **more)
    file.open()
    return file


def leave(clip, *pieces, entity=ENTITY, **more):
    """
    What a download that broke off leaves.
    """
    file = opened(clip, **more)
    starts = accumulate(map(len, pieces), initial=0)
    first, *others = zip(starts, pieces, strict=False)
    file.write(*first)
    file.leave(entity, others)
    return file


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "fields, entity",
    [
        ({"etag": '"e-1"', "content-length": "1000"}, ENTITY),
        ({"etag": '"e-1"'}, None),
        ({"content-length": "1000"}, None),
        ({"etag": 'W/"e-1"', "content-length": "1000"}, None),
        ({"etag": '""', "content-length": "1000"}, None),
        ({"etag": '"e"1"', "content-length": "1000"}, None),
        ({"etag": '"é"', "content-length": "1000"}, None),
        ({"etag": '"e-1"', "content-length": "-1"}, None),
        ({"etag": '"e-1"', "content-length": "\N{ARABIC-INDIC DIGIT ONE}"}, None),
    ],
)
def test_an_entity_has_a_strong_tag_and_a_length(fields, entity):
    """
    Only then can a server be asked for the rest of the very same.
    """
    assert entity == Entity.of(fields)


def test_a_length_and_a_packing_are_read_from_header_fields():
    """
    No length is None, no packing is empty.
    """
    assert [12, None, None] == [announced({"content-length": text}) for text in ("12", "twelve", "")]
    assert ["gzip", "", ""] == [encoding({"content-encoding": text}) for text in ("GZIP", "identity", "")]


def test_what_was_left_is_taken_up(clip):
    """
    Bytes, digest, entity and rights are as they were, and while it is written no record vouches for it.
    """
    before = os.umask(0o027)
    try:
        leave(clip, HELD[:600], HELD[600:700])
    finally:
        os.umask(before)
    assert 0o600 == clip.with_name("clip.mp4.part").stat().st_mode & 0o777
    assert 0o600 == clip.with_name("clip.mp4.part.etag").stat().st_mode & 0o777
    file = opened(clip)
    assert (ENTITY, 700) == (file.entity, file.size)
    assert ["clip.mp4.part"] == names_in(clip.parent)
    file.write(700, HELD[700:])
    file.finish()
    assert HELD == clip.read_bytes()
    assert Saved(len(HELD), sha256(HELD).hexdigest()) == file.saved
    assert 0o640 == clip.stat().st_mode & 0o777


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("after", [True, False])
def test_a_part_has_its_digest_whether_that_was_worked_out_on_the_way_or_not(clip, before, after):
    """
    Nobody asked for it: what is left has one all the same, which whoever goes on with it holds it against.
    """
    leave(clip, HELD[:600], HELD[600:700], digested=before)
    assert sha256(HELD[:700]).hexdigest() in clip.with_name("clip.mp4.part.etag").read_text()
    file = opened(clip, digested=after)
    assert (ENTITY, 700) == (file.entity, file.size)
    file.write(700, HELD[700:])
    assert sha256(HELD if after else HELD[:700]).hexdigest() == file._digest.hexdigest()
    file.finish()
    assert HELD == clip.read_bytes()
    assert Saved(len(HELD), sha256(HELD).hexdigest() if after else "") == file.saved


def test_what_is_there_already_is_not_written_again(clip):
    """
    Nor is what would leave a gap: whoever gives the same bytes twice finds them once, and in order.
    """
    file = opened(clip)
    file.write(0, HELD[:600])
    file.write(0, HELD[:600])
    file.write(601, HELD[601:])
    file.leave(ENTITY, [(0, HELD[:600]), (600, HELD[600:700]), (701, HELD[701:])])
    assert HELD[:700] == file.part.read_bytes()
    assert sha256(HELD[:700]).hexdigest() in file.record.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is asked for")
@pytest.mark.parametrize("refused", [False, True])
def test_a_long_file_is_on_its_way_to_the_disk_before_its_end(clip, monkeypatch, refused):
    """
    Stride by stride, each as soon as all of it is written; a system that will not hear of it is left in peace.
    """
    asked = []

    def advise(descriptor, start, length, advice):
        asked.append((start, length, advice))
        if refused:
            raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "posix_fadvise", advise)
    batch = bytes(1 << 20)
    leave(clip, HELD)
    file = opened(clip)
    for number in range(16):
        assert number // 8 == len(asked)
        file.write(len(HELD) + number * len(batch), batch)
    file.finish()
    assert [(start << 20, 8 << 20, os.POSIX_FADV_DONTNEED) for start in (0, 8)] == asked
    assert len(HELD) + 16 * len(batch) == clip.stat().st_size


def test_a_look_sees_the_last_bytes_too(clip):
    """
    They are written first.
    """
    file = opened(clip)
    file.write(0, HELD[:600])
    seen = []
    assert file.shows(lambda about, size: seen.append((size, about.seek(0), about.read())) or True, 600, HELD[600:700])
    assert [(700, 0, HELD[:700])] == seen
    assert not file.shows(lambda *_: False, 600, HELD[600:700])
    file.finish()
    assert HELD[:700] == clip.read_bytes()
    assert not file.shows(lambda *_: True, 700, HELD[700:])


def test_a_part_that_was_torn_is_not_left(clip):
    """
    After a write that failed nobody knows what is in it, also if the disk has room again.
    """

    class Torn:
        def update(self, _):
            raise OSError(errno.EIO, "Input/output error")

    file = opened(clip)
    file.write(0, HELD[:600])
    file._digest = Torn()
    with pytest.raises(OSError, match="Input/output"):
        file.write(600, HELD[600:700])
    file._digest = sha256(HELD[:600])
    file.leave(ENTITY, [(600, HELD[600:700])])
    assert [] == names_in(clip.parent)


def test_what_was_left_can_be_begun_anew(clip):
    """
    The bytes go, the file stays the writer's own.
    """
    leave(clip, HELD)
    file = opened(clip)
    file.restart()
    file.write(0, b"new")
    file.finish()
    assert b"new" == clip.read_bytes()
    assert Saved(3, sha256(b"new").hexdigest()) == file.saved


def test_what_was_taken_up_and_not_begun_is_left_as_it_was(clip):
    """
    A part that is released again is there for the next one; one that was new is not.
    """
    leave(clip, HELD)
    before = [path.read_bytes() for path in sorted(clip.parent.iterdir())]
    opened(clip).release()
    assert before == [path.read_bytes() for path in sorted(clip.parent.iterdir())]
    opened(clip).leave(None)
    opened(clip).release()
    assert [] == names_in(clip.parent)


@pytest.mark.parametrize(
    "pieces, entity",
    [((HELD,), None), ((HELD[: HEAD - 1],), ENTITY), ((HELD, HELD[:232]), ENTITY), ((HELD, HELD), ENTITY)],
    ids=["useless", "tiny", "all", "more"],
)
def test_what_is_of_no_use_is_not_left(clip, pieces, entity):
    """
    Without an entity, with hardly a byte, or with none missing, a part is removed.
    """
    leave(clip, *pieces, entity=entity)
    assert [] == names_in(clip.parent)


def altered(part, record):
    part.write_bytes(HELD[::-1])


def grown(part, record):
    part.write_bytes(HELD + b"!")


def unvouched(part, record):
    record.unlink()


def garbled(part, record):
    record.write_bytes(b"\xff" + record.read_bytes())


def endless(part, record):
    record.write_bytes(record.read_bytes() + b"1\n" * 1000)


def linked(part, record):
    record.rename(record.with_name("record"))
    record.symlink_to("record")


def folder(part, record):
    record.unlink()
    record.mkdir()


def pipe(part, record):
    record.unlink()
    os.mkfifo(record)


@pytest.mark.parametrize("change", [altered, grown, unvouched, garbled, endless, linked, folder, pipe])
def test_a_part_that_is_not_what_its_record_says_is_begun_anew(clip, change):
    """
    Nothing is gone on with that is not, byte for byte, what was left.
    """
    leave(clip, HELD)
    change(clip.with_name("clip.mp4.part"), clip.with_name("clip.mp4.part.etag"))
    file = opened(clip)
    assert (None, 0) == (file.entity, file.size)
    file.write(0, b"new")
    file.finish()
    assert b"new" == clip.read_bytes()


@pytest.mark.parametrize("which", ["part", "record"])
def test_a_part_that_another_put_there_is_not_gone_on_with(clip, monkeypatch, which):
    """
    Where all may write, another user's part and record vouch for nothing.
    """
    leave(clip, HELD)
    stranger = clip.with_name("clip.mp4.part" if which == "part" else "clip.mp4.part.etag").stat().st_ino
    look = os.fstat

    class About:
        def __init__(self, about):
            self.st_mode, self.st_uid, self.st_size = about.st_mode, about.st_uid + 1, about.st_size
            self.st_ino, self.st_dev = about.st_ino, about.st_dev

    def fstat(descriptor):
        about = look(descriptor)
        return About(about) if about.st_ino == stranger else about

    monkeypatch.setattr(_parts.os, "fstat", fstat)
    file = PartFile(clip, overwrite=False)
    file.open()
    assert file.entity is None
    file.leave(None)


def test_a_record_that_is_alone_is_removed(clip):
    """
    Whoever took the part away leaves nothing that could vouch for the next one.
    """
    leave(clip, HELD)
    clip.with_name("clip.mp4.part").unlink()
    file = opened(clip)
    assert file.entity is None
    assert ["clip.mp4.part"] == names_in(clip.parent)
    file.leave(None)


@pytest.mark.parametrize("how", ["planted", "too long"])
def test_a_part_whose_record_cannot_be_written_is_not_left(tmp_path, how):
    """
    A record that is in the way is not followed, and a name that is too long for one costs the part alone.
    """
    clip = tmp_path / ("x" * 246 + ".mp4" if how == "too long" else "clip.mp4")
    file = opened(clip)
    if how == "planted":
        file.record.symlink_to("victim")
    file.write(0, HELD)
    file.leave(ENTITY)
    assert [] == names_in(tmp_path)


def test_a_part_that_is_a_link_is_not_followed(clip):
    """
    A symbolic link planted under the part's name is neither followed nor removed.
    """
    victim = clip.with_name("victim")
    victim.write_bytes(b"precious")
    clip.with_name("clip.mp4.part").symlink_to(victim)
    with pytest.raises(InvalidInputError):
        opened(clip)
    assert b"precious" == victim.read_bytes()


def test_a_part_that_is_written_is_busy(clip):
    """
    Its writer's lock keeps others out until it ends, and a part that was left is free.
    """
    file = opened(clip)
    with pytest.raises(InvalidInputError, match=BUSY):
        opened(clip)
    file.write(0, HELD)
    file.leave(ENTITY)
    again = opened(clip)
    with pytest.raises(InvalidInputError, match=BUSY):
        opened(clip)
    again.leave(None)
    assert [] == names_in(clip.parent)


def test_a_part_taken_between_creation_and_lock_is_left(clip, monkeypatch):
    """
    A part that another took for forsaken, in the moment before it was locked, is not written.
    """
    monkeypatch.setattr(fcntl, "flock", lambda *_: clip.with_name("clip.mp4.part").unlink())
    with pytest.raises(InvalidInputError, match=BUSY):
        opened(clip)


def test_windows_needs_neither_locks_nor_owners(clip, monkeypatch):
    """
    Where an open file cannot be removed no lock is asked for, and where users have no numbers nobody's is.
    """
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(fcntl, "flock", None)
    monkeypatch.setattr(os, "geteuid", None)
    leave(clip, HELD)
    file = opened(clip)
    assert ENTITY == file.entity
    file.finish()
    assert HELD == clip.read_bytes()


def test_steps_after_the_end_do_nothing(clip):
    """
    A thread that comes late to a file that has ended neither writes nor creates nor finishes it.
    """
    file = PartFile(clip, overwrite=False)
    file.leave(None)
    file.open()
    file.restart()
    file.write(0, HELD)
    file.finish()
    file.leave(ENTITY)
    assert [] == names_in(clip.parent)


@pytest.mark.parametrize("entity", [ENTITY, None])
def test_a_part_that_was_removed_is_not_missed(clip, entity):
    """
    Ending a part that someone else removed raises nothing and vouches for nothing.
    """
    file = opened(clip)
    file.write(0, HELD)
    file.part.unlink()
    file.leave(entity)
    assert [] == names_in(clip.parent)
