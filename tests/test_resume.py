"""
Downloads that break off on real sockets, and what the next try makes of what came: on both loops, byte by byte.
"""

import os
import random
import socket
import subprocess
import sys
import tracemalloc
import zlib
from hashlib import sha256
from pathlib import Path

import aiohappyeyeballs
import anyio
import pytest
from aiohttp.compression_utils import ZLibDecompressor

from kling_async import ApiKey, KlingClient, RetryPolicy
from kling_async._aiohttp import AiohttpTransport
from kling_async._download import Limits
from kling_async._open import stand
from kling_async.errors import ClosedError, DownloadError
from kling_async.events import Downloaded
from kling_async.transport import Saved
from tests.doubles import KEY, client_of
from tests.test_aiohttp import MIB, moved, no_proxies, opened, recording, reply, serving, until  # noqa: F401 (a fixture)

pytestmark = pytest.mark.real_clock

TAG = '"e-1"'


def film(seed, size=300_000):
    """
    What begins and ends as a film does.
    """
    data = random.Random(seed).randbytes(size)
    return b"\0\0\0\x18ftypmp42" + bytes(12) + (len(data) + 8).to_bytes(4) + b"mdat" + data + b"\0\0\0\x08moov"


def about(data):
    """
    Size and digest: half a megabyte is no fine thing to compare where it differs.
    """
    return Saved(len(data), sha256(data).hexdigest())


def on_disk(path):
    return about(path.read_bytes())


FILM = film(1)
OTHER = film(2)
WHOLE = len(FILM)
HALF = WHOLE // 2
SAVED = about(FILM)
KEPT = ["clip.mp4.part", "clip.mp4.part.etag"]


class Host:
    """
    A media host: gives its answers in turn, the last one for ever, and knows what it was asked and what has arrived.
    """

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []
        self.done = 0

    async def __call__(self, peer):
        while (request := await peer.read()) is not None:
            fields = dict(line.lower().split(": ", 1) for line in request[0].split("\r\n")[1:])
            self.asked.append(fields.get("range"))
            self.done = 0
            assert (fields.get("if-range") == TAG) is ("range" in fields)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, bytes):
                await peer.send(answer)
            else:
                await answer(self, peer)
                return

    def progress(self, done, total):
        """
        Given to the client, so that nothing is cut before what was sent has arrived.
        """
        self.done = done


def given(data=FILM, *fields, tag=TAG, start=None, length=None, total=None, status="200 OK"):
    """
    A reply; with a start it is a partial one.
    """
    fields = [*fields] if tag is None else [*fields, f"ETag: {tag}"]
    if start is not None:
        status, total = "206 Partial Content", total or WHOLE
        fields.append(f"Content-Range: bytes {start}-{total - 1}/{total}")
        data = data[start:]
    return reply(data, *fields, status=status, length=length)


def cut(answer, at, *, come=None):
    """
    So much of an answer's body, and then the connection ends, once all of it has arrived.
    """

    async def talk(host, peer):
        head, _, body = answer.partition(b"\r\n\r\n")
        await peer.send(head + b"\r\n\r\n" + body[:at])
        await until(lambda: host.done >= (at if come is None else come))

    return talk


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def clip(tmp_path):
    return tmp_path / "clip.mp4"


@pytest.fixture
async def transport():
    async with opened() as made:
        yield made


async def break_off(transport, host, server, clip):
    """
    The first half, and no more.
    """
    host.answers.insert(0, cut(given(), HALF))
    with pytest.raises(DownloadError, match="broke off"):
        await transport.download(f"{server.url}/?sign=1", clip, progress=host.progress)
    assert KEPT == names_in(clip.parent)


async def fetched(transport, host, server, clip, **named):
    """
    The whole effort of a client, and what it told its observer.
    """
    told = []
    named_so = {"base_url": server.url, "retry": RetryPolicy(base=0.001), "observer": told.append}
    async with KlingClient(ApiKey(KEY), transport=transport, **named_so) as client:
        assert clip == await client.download(f"{server.url}/a.mp4?sign=secret", clip, progress=host.progress, **named)
    return told


async def test_the_rest_is_asked_for_and_put_behind_what_came(transport, clip):
    """
    A client goes on where the connection broke, twice, through a server error; one event tells the digest of it all.
    """
    quarter = HALF + WHOLE // 4
    host = Host(
        cut(given(), HALF),
        reply(b"later", status="503 Busy"),
        given(start=HALF),
    )
    async with serving(host) as server:
        told = await fetched(transport, host, server, clip)
        assert [None, f"bytes={HALF}-", f"bytes={HALF}-"] == host.asked
        host.asked, host.done = [], 0
        host.answers = [cut(given(), HALF), cut(given(start=HALF), WHOLE // 4, come=quarter), given(start=quarter)]
        again = await fetched(transport, host, server, clip, overwrite=True)
    assert [None, f"bytes={HALF}-", f"bytes={quarter}-"] == host.asked
    assert SAVED == on_disk(clip)
    assert [Downloaded(path=clip, size=WHOLE, sha256=SAVED.sha256)] == told == again
    assert "secret" not in repr(told)
    assert ["clip.mp4"] == names_in(clip.parent)


async def test_a_cancelled_download_is_gone_on_with_by_the_next_call(transport, clip):
    """
    A link signed anew goes on with what another call was cancelled at.
    """
    host = Host(cut(given(), HALF, come=WHOLE), given(start=HALF))

    def stop(done, total):
        if done >= HALF:
            scope.cancel()

    async with serving(host) as server:
        with anyio.CancelScope() as scope:
            await transport.download(f"{server.url}/?sign=1", clip, progress=stop)
        assert scope.cancelled_caught
        assert KEPT == names_in(clip.parent)
        assert about(FILM[:HALF]) == on_disk(clip.with_name(KEPT[0]))
        assert SAVED == await transport.download(f"{server.url}/?sign=2", clip)
    assert SAVED == on_disk(clip)
    assert [None, f"bytes={HALF}-"] == host.asked


async def test_what_closing_cut_off_is_gone_on_with(clip):
    """
    A transport that closes keeps the part of a download under way, for the next transport.
    """
    host = Host(cut(given(), HALF, come=WHOLE), given(start=HALF))

    async def first():
        with pytest.raises(ClosedError):
            await closing.download(server.url, clip, progress=host.progress)

    async with serving(host) as server, opened() as later:
        closing = await stand(AiohttpTransport)
        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await until(lambda: host.done >= HALF)
            await closing.aclose()
        assert KEPT == names_in(clip.parent)
        assert SAVED == await later.download(server.url, clip)
    assert [None, f"bytes={HALF}-"] == host.asked


async def test_the_rest_is_asked_for_behind_redirects_too(transport, clip):
    """
    The one who has the file is told from where on it is wanted.
    """
    host = Host(*moved("/b"), given(start=HALF))
    async with serving(host) as server:
        await break_off(transport, host, server, clip)
        assert SAVED == await transport.download(server.url, clip)
    assert [None, f"bytes={HALF}-", f"bytes={HALF}-"] == host.asked


@pytest.mark.parametrize(
    "misfit",
    [
        given(b"", status="416 Range Not Satisfiable"),
        given(start=HALF - 1),
        given(start=HALF + 1),
        given(start=HALF, total=WHOLE + 1),
        given(OTHER, start=HALF, tag='"e-2"'),
        given(OTHER, start=HALF, tag=None),
        given(OTHER[HALF:], status="206 Partial Content"),
        given(FILM, "Content-Encoding: deflate", start=HALF),
    ],
    ids=["416", "earlier", "later", "longer", "other", "untagged", "unnamed", "packed"],
)
async def test_a_rest_that_does_not_fit_is_not_put_behind_what_came(transport, clip, misfit):
    """
    Then the whole is asked for at once, and what stands under the name is of one piece.
    """
    host = Host(misfit, given(OTHER, tag='"e-2"'))
    async with serving(host) as server:
        await break_off(transport, host, server, clip)
        assert len(OTHER) == (await transport.download(server.url, clip)).size
    assert about(OTHER) == on_disk(clip)
    assert [None, f"bytes={HALF}-", None] == host.asked


async def test_another_file_by_now_is_taken_whole(transport, clip):
    """
    Where If-Range does not hold, the new file comes and nothing of the old one stays in it.
    """
    host = Host(given(OTHER, tag='"e-2"'))
    async with serving(host) as server:
        await break_off(transport, host, server, clip)
        await transport.download(server.url, clip)
    assert about(OTHER) == on_disk(clip)
    assert [None, f"bytes={HALF}-"] == host.asked


@pytest.mark.parametrize("tag", [None, f"W/{TAG}"])
async def test_without_a_strong_tag_the_whole_is_asked_for_again(transport, clip, tag):
    """
    Nothing is kept of a file that its server cannot tell from another.
    """
    host = Host(cut(given(tag=tag), HALF), given(tag=tag))
    async with serving(host) as server:
        await fetched(transport, host, server, clip)
    assert SAVED == on_disk(clip)
    assert [None, None] == host.asked


async def test_no_try_of_a_client_is_left_over(transport, clip):
    """
    When the tries are spent the part stays for the next call.
    """
    host = Host(cut(given(), HALF), cut(given(start=HALF), 0), cut(given(start=HALF), 0), given(start=HALF))
    async with serving(host) as server:
        with pytest.raises(DownloadError):
            await fetched(transport, host, server, clip)
        assert KEPT == names_in(clip.parent)
        told = await fetched(transport, host, server, clip)
    assert [SAVED.sha256] == [event.sha256 for event in told]
    assert [None, *[f"bytes={HALF}-"] * 3] == host.asked


async def test_a_transport_that_says_nothing_of_what_it_saved_is_borne(tmp_path):
    """
    One of the user's own may return what it likes; its observer is told of no digest then.
    """
    told = []
    async with client_of(FILM, observer=told.append) as client:
        await client.download("https://cdn.example.com/out.mp4", tmp_path / "clip.mp4")
    assert [] == told


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["10.0.0.8"], ["::1"], ["93.184.216.34", "169.254.169.254"]])
async def test_f43_a_redirect_to_a_name_that_leads_inside_is_not_followed(transport, clip, monkeypatch, addresses):
    """
    One private address among those of a name is enough, and none of them is connected to.
    """
    names, ask = [], socket.getaddrinfo

    def lookup(host, port, *args, **kwargs):
        if host != "rebound.example":
            return ask(host, port, *args, **kwargs)
        names.append(host)
        kinds = {True: (socket.AF_INET6, (port, 0, 0)), False: (socket.AF_INET, (port,))}
        found = [(one, *kinds[":" in one]) for one in addresses]
        return [(kind, socket.SOCK_STREAM, 6, "", (one, *where)) for one, kind, where in found]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    tried = recording(monkeypatch)
    async with serving() as server:
        server.talk = server.answer(*moved(f"http://rebound.example:{server.port}/"))
        with pytest.raises(DownloadError, match="not a public address"):
            await transport.download(server.url, clip)
    assert ["rebound.example"] == names
    assert [("127.0.0.1", server.port)] == tried
    assert [] == names_in(clip.parent)


async def test_f43_a_name_that_is_rebound_is_connected_to_where_it_was_checked(transport, clip, monkeypatch):
    """
    A name is looked up once: the address that was checked is the one that is connected to.
    """
    answers, places = ["93.184.216.34", "127.0.0.1"], []

    def lookup(host, port, *args, **kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0), port))]

    async def start_connection(addr_infos, **kwargs):
        places.extend(info[-1][0] for info in addr_infos)
        raise ConnectionRefusedError(111, "refused by the test")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(aiohappyeyeballs, "start_connection", start_connection)
    with pytest.raises(DownloadError, match="refused by the test"):
        await transport.download("https://rebound.example/a.mp4", clip)
    assert ["93.184.216.34"] == places
    assert ["127.0.0.1"] == answers


def bomb():
    """
    The pieces of ten gigabytes of nothing, packed.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    yield packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(10 * 1024):
        yield block


@pytest.mark.parametrize("packing", ["gzip", "br", "zstd", "deflate", "x-odd"])
async def test_f44_a_packed_bomb_in_place_of_a_film_costs_neither_memory_nor_disk(
    transport, tmp_path, monkeypatch, packing
):
    """
    What was not asked for is refused by its head: nothing is unpacked, nothing is written, and it is not tried again.
    """
    unpacked = []
    monkeypatch.setattr(ZLibDecompressor, "decompress_sync", lambda *_: unpacked.append("a piece") or b"")

    async def talk(peer):
        head, _ = await peer.read()
        assert "accept-encoding: identity" in head.lower()
        fields = ["HTTP/1.1 200 OK", f"ETag: {TAG}", f"Content-Encoding: {packing}", "Content-Length: 10000000000"]
        await peer.send("\r\n".join([*fields, "", ""]).encode())
        for piece in bomb():
            await peer.stream.send(piece)

    async with serving(talk) as server:
        tracemalloc.start()
        try:
            with pytest.raises(DownloadError, match=f"sent {packing}, which was not asked for") as caught:
                await transport.download(server.url, tmp_path / "film")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert caught.value.final
    assert [] == unpacked
    assert 32 * MIB > peak
    assert [] == names_in(tmp_path)


@pytest.mark.parametrize(
    "tag, answers, asked",
    [
        (TAG, [given(b"", status="416 Range Not Satisfiable"), given()], [f"bytes={WHOLE}-", None]),
        (TAG, [given()], [f"bytes={WHOLE}-"]),
        (None, [given(tag=None)], [None]),
    ],
    ids=["refused", "replaced", "untagged"],
)
async def test_f45_more_announced_than_comes_is_no_whole_file(transport, clip, tag, answers, asked):
    """
    A Content-Length that is too large: the next try asks for the rest, finds that there is none, and begins anew.
    """
    host = Host(cut(given(tag=tag, length=WHOLE + 100), WHOLE), *answers)
    async with serving(host) as server:
        await fetched(transport, host, server, clip)
    assert SAVED == on_disk(clip)
    assert [None, *asked] == host.asked


async def test_f45_less_announced_than_comes_is_no_whole_file(transport, clip):
    """
    A Content-Length that is too small: the film itself says that it is longer, and another try brings all of it.
    """
    host = Host(given(length=WHOLE - 100), given())
    async with serving(host) as server:
        told = await fetched(transport, host, server, clip)
    assert SAVED == on_disk(clip)
    assert [WHOLE] == [event.size for event in told]
    assert [None, None] == host.asked


@pytest.mark.parametrize("off", [-100, 100])
async def test_f45_a_rest_of_another_length_than_its_range_is_never_taken_for_whole(transport, clip, off):
    """
    Where Content-Range and Content-Length differ the file still ends where its first reply said.
    """
    second = given(FILM + bytes(100) if off > 0 else FILM, start=HALF, length=WHOLE - HALF + off)
    host = Host(cut(given(), HALF), second, given(start=WHOLE - 100) if off < 0 else given())
    async with serving(host) as server:
        await fetched(transport, host, server, clip)
    assert SAVED == on_disk(clip)
    assert [None, f"bytes={HALF}-", f"bytes={WHOLE - 100}-" if off < 0 else None] == host.asked


async def garbage(host, peer):
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await peer.send(b"%x\r\n%s\r\n" % (HALF, FILM[:HALF]))
    await until(lambda: host.done >= HALF)
    await peer.send(b"no chunk at all\r\n")


async def early_end(host, peer):
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await peer.send(b"%x\r\n%s\r\n0\r\n\r\n" % (HALF, FILM[:HALF]))
    await until(lambda: host.done >= HALF)


@pytest.mark.parametrize("first", [garbage, early_end])
async def test_f45_chunks_that_end_in_garbage_or_early_are_no_whole_file(clip, first):
    """
    Chunks without a length leave nothing to go on with, so the next try begins anew.
    """
    host = Host(first, given())
    async with serving(host) as server, opened(limits=Limits(window=0.2)) as brief:
        await fetched(brief, host, server, clip)
    assert SAVED == on_disk(clip)
    assert [None, None] == host.asked


@pytest.mark.parametrize("tag", [TAG, None])
async def test_f46_a_download_cut_twice_at_half_is_whole_where_ranges_are_ignored(transport, clip, tag):
    """
    A server that answers each Range with the whole is taken from its start each time: the digest is right.
    """
    host = Host(cut(given(tag=tag), HALF), cut(given(tag=tag), HALF), given(tag=tag))
    async with serving(host) as server:
        told = await fetched(transport, host, server, clip)
    assert SAVED == on_disk(clip)
    assert [Downloaded(path=clip, size=WHOLE, sha256=SAVED.sha256)] == told
    assert [None, *[f"bytes={HALF}-" if tag else None] * 2] == host.asked
    assert ["clip.mp4"] == names_in(clip.parent)


def drip(*, times):
    """
    Half of a film at once, and then a byte at a time.
    """

    async def talk(host, peer):
        await peer.send(given()[:HALF])
        for _ in range(times):
            await peer.stream.send(b"x")
        if not times:
            await peer.gone()

    return talk


@pytest.mark.parametrize("times", [50_000, 0])
async def test_f47_a_body_of_a_byte_at_a_time_is_given_up_and_gone_on_with(clip, times):
    """
    What comes too slowly, or not at all, is a stalled download after one window; the next call asks for the rest.
    """
    host = Host(drip(times=times), given())
    async with serving(host) as server, opened(limits=Limits(window=0.1, pace=1e9)) as brief:
        words = r"stalled: \d+ bytes in 0\.1 s" if times else r"stalled: nothing for 0\.1 s"
        with pytest.raises(DownloadError, match=words) as caught:
            await brief.download(server.url, clip)
        assert not caught.value.final
        assert KEPT == names_in(clip.parent)
        held = clip.with_name(KEPT[0]).stat().st_size
        assert SAVED == await brief.download(server.url, clip)
    assert [None, f"bytes={held}-"] == host.asked


async def test_f47_a_host_that_takes_a_request_and_says_nothing_is_given_up(clip):
    """
    Silence before the first byte of an answer lasts one window at most, too.
    """

    async def silence(host, peer):
        await peer.gone()

    async with serving(Host(silence)) as server, opened(limits=Limits(window=0.1, total=3)) as brief:
        with pytest.raises(DownloadError, match="Timeout on reading data"):
            await brief.download(server.url, clip)
    assert [] == names_in(clip.parent)


def test_f47_the_window_is_thirty_seconds_and_the_pace_a_kibibyte():
    """
    What holds where nobody says otherwise, for a gibibyte and an hour at most.
    """
    limits = AiohttpTransport.__attrs_attrs__.limits.default.factory()
    assert (30.0, 1024.0, 1 << 30, 3600.0) == (limits.window, limits.pace, limits.size, limits.total)


async def test_a_download_has_so_many_seconds_in_all(clip):
    """
    One that is fast enough and yet does not end is ended, and can be gone on with.
    """
    host = Host(drip(times=50_000), given())
    async with serving(host) as server, opened(limits=Limits(total=0.2, pace=0)) as brief:
        with pytest.raises(DownloadError, match=r"not whole after 0\.2 s") as caught:
            await brief.download(server.url, clip)
        assert not caught.value.final
        assert KEPT == names_in(clip.parent)


async def test_waiting_for_a_turn_is_no_part_of_the_seconds(clip):
    """
    A download that waited begins its seconds with its turn; one that never gets it is told so.
    """
    host = Host(drip(times=0))
    async with serving(host) as server, opened(connections=1, limits=Limits(total=0.2)) as brief:
        ends = []

        async def one(path):
            with pytest.raises(DownloadError, match="not whole after"):
                await brief.download(server.url, path)
            ends.append(path.name)

        async with anyio.create_task_group() as group:
            for name in ("a.mp4", "b.mp4"):
                group.start_soon(one, clip.with_name(name))
    assert ["a.mp4", "b.mp4"] == sorted(ends)


async def test_a_timeout_of_the_callers_own_comes_out_as_itself(transport, clip):
    """
    Only the download's own limit is a DownloadError.
    """

    def fail(done, total):
        raise TimeoutError("mine")

    async with serving(Host(given())) as server:
        with pytest.raises(TimeoutError, match="mine"):
            await transport.download(server.url, clip, progress=fail)


FULL = """
import resource, signal, sys
from pathlib import Path

import anyio

from kling_async import DownloadError
from kling_async.simulator import Simulator

async def main():
    simulator = Simulator()
    url = simulator.publish(b"\\0\\0\\0\\x18ftypmp42" + bytes(3 << 20), name="a.mp4")
    try:
        await simulator.transport().download(url, Path(sys.argv[2]))
    except DownloadError as error:
        print(error.final, error)

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
anyio.run(main, backend=sys.argv[1])
"""


async def test_f48_a_disk_that_is_really_full_leaves_neither_part_nor_name(clip, anyio_backend_name):
    """
    A process whose files may not grow any further ends with an error that is final, and its folder is empty.
    """
    command = [sys.executable, "-c", FULL, anyio_backend_name, str(clip)]
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    ended = await anyio.run_process(command, stderr=subprocess.STDOUT, env=path)
    assert ended.stdout.decode().startswith(f"True {clip}.part could not be written: File too large")
    assert [] == names_in(clip.parent)
