"""
The proxy that does harm: each kind does what it says, to bare sockets and to a client of the simulator.
"""

import gc
import os
import socket
import struct
import threading
from contextlib import aclosing, asynccontextmanager, suppress
from urllib.parse import urlsplit

import anyio
import pytest
from anyio.abc import SocketAttribute
from attrs import define, field

from kling_async import ApiKey, KlingClient, RetryPolicy, open_transport
from kling_async.events import Replayed
from kling_async.simulator import Simulator
from tests.doubles import KEY
from tests.simulating import CLIP
from tests.test_aiohttp import serving
from tests.toxics import KINDS, Proxy, Toxic

pytestmark = pytest.mark.real_clock

INIT = b"POST /kling/v1/videos/multi-elements/init-selection "
END = "end"
RST = "reset"
BYE = b"goodbye"


@pytest.fixture(autouse=True)
def _nothing_is_left():
    """
    No thread of a proxy outlives its block, and no socket is left to the collector.
    """
    yield
    gc.collect()
    assert [] == [thread.name for thread in threading.enumerate() if thread.name == "toxics"]


@define
class Sleeps:
    """
    Notes how long it should have slept, and does not.
    """

    noted: list = field(factory=list)

    async def __call__(self, seconds):
        self.noted.append(seconds)


@define
class Far:
    """
    A server that keeps what it hears, answers all of it, and notes how each connection ended.

    Told BYE, it ends its own side after the answer.
    """

    heard: bytes = b""
    ends: list = field(factory=list)
    changed: anyio.Event = field(factory=anyio.Event)

    async def __call__(self, peer):
        try:
            while True:
                data = await peer.stream.receive()
                self.heard += data
                self.tell()
                await peer.stream.send(data)
                if data.endswith(BYE):
                    await peer.stream.send_eof()
        except anyio.EndOfStream:
            self.ends.append(END)
        except anyio.BrokenResourceError:
            self.ends.append(RST)
        self.tell()

    def tell(self):
        changed, self.changed = self.changed, anyio.Event()
        changed.set()

    async def until(self, heard=b"", *, ends=0):
        with anyio.fail_after(10):
            while not (self.heard.endswith(heard) and len(self.ends) >= ends):
                await self.changed.wait()


@asynccontextmanager
async def between(*toxics, sleep=None):
    """
    A server that echoes, and a proxy before it.
    """
    far = Far()
    async with serving(far) as server:
        with Proxy(server.url, *toxics, sleep=sleep or Sleeps()) as proxy:
            yield far, proxy


async def reached(proxy):
    """
    A connection to it.
    """
    parts = urlsplit(proxy.base_url)
    return await anyio.connect_tcp(parts.hostname, parts.port)


async def all_of(stream):
    """
    What comes, and how it ends.
    """
    got = b""
    with anyio.fail_after(10):
        try:
            while True:
                got += await stream.receive()
        except anyio.EndOfStream:
            return got, END
        except anyio.BrokenResourceError:
            return got, RST


async def some_of(stream, count):
    """
    So many bytes.
    """
    got = b""
    with anyio.fail_after(10):
        while len(got) < count:
            got += await stream.receive()
    return got


async def reset(stream):
    raw = stream.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


async def test_without_toxics_bytes_and_ends_pass():
    """
    What is sent arrives as it is, whatever its size, and each side hears of the other's end.
    """
    data = b"\0" + os.urandom(3 << 20)
    async with between() as (far, proxy), await reached(proxy) as stream, anyio.create_task_group() as group:
        group.start_soon(stream.send, data)
        assert data == await some_of(stream, len(data))
        await stream.send_eof()
        assert (b"", END) == await all_of(stream)
    assert (data, [END], 1) == (far.heard, far.ends, proxy.connections)
    assert [] == proxy.requests_seen


async def test_base_url_keeps_scheme_and_prefix():
    """
    Only host and port are the proxy's own.
    """
    with Proxy("https://127.0.0.1:1/kling") as proxy:
        parts = urlsplit(proxy.base_url)
    assert ("https", "127.0.0.1", "/kling") == (parts.scheme, parts.hostname, parts.path)
    assert 1 != parts.port


async def test_an_unknown_kind_is_refused():
    """
    A misspelt kind or direction would do no harm, and a test would prove nothing.
    """
    with pytest.raises(ValueError, match="kind"):
        Toxic("rest")
    with pytest.raises(ValueError, match="direction"):
        Toxic("reset", "left")


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_latency_is_before_each_piece(direction):
    """
    Each piece waits, and none has arrived before its wait is over.
    """
    waits = []

    async def sleep(seconds):
        waits.append((seconds, far.heard))

    slow = Toxic("latency", direction, seconds=9)
    async with between(slow, sleep=sleep) as (far, proxy), await reached(proxy) as stream:
        for piece in (b"ab", b"cd"):
            await stream.send(piece)
            assert piece == await some_of(stream, 2)
    early = direction == "up"
    assert [(9, b"" if early else b"ab"), (9, b"ab" if early else b"abcd")] == waits


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_bandwidth_is_bytes_in_a_second(direction):
    """
    A tenth of a second's bytes at once, each waiting as long as it takes.
    """
    sleeps = Sleeps()
    slow = Toxic("bandwidth", direction, size=100)
    async with between(slow, sleep=sleeps) as (_, proxy), await reached(proxy) as stream:
        await stream.send(b"x" * 25)
        assert b"x" * 25 == await some_of(stream, 25)
    assert [0.1, 0.1, 0.05] == sleeps.noted


async def test_slicer_cuts_pieces():
    """
    Pieces are as small as it says, and other toxics meet each of them.
    """
    sleeps = Sleeps()
    slow = Toxic("slicer", "up", size=2), Toxic("latency", "up", seconds=1)
    async with between(*slow, sleep=sleeps) as (far, proxy), await reached(proxy) as stream:
        await stream.send(b"abcde")
        assert b"abcde" == await some_of(stream, 5)
    assert ([1, 1, 1], b"abcde") == (sleeps.noted, far.heard)


async def test_stall_downwards_lets_the_connection_live():
    """
    So many bytes arrive, then nothing, not even the server's end; what the client sends still gets there.
    """
    async with between(Toxic("stall", at=2)) as (far, proxy), await reached(proxy) as stream:
        await stream.send(b"abcd")
        assert b"ab" == await some_of(stream, 2)
        await stream.send(BYE)
        await far.until(BYE)
        with anyio.move_on_after(0.1) as scope:
            await stream.receive()
        assert scope.cancelled_caught
        await stream.send_eof()
        await far.until(ends=1)
    assert [END] == far.ends


async def test_stall_upwards_keeps_the_rest_from_the_server():
    """
    The server hears the beginning and waits; the client is answered for that much.
    """
    async with between(Toxic("stall", "up", at=2)) as (far, proxy), await reached(proxy) as stream:
        await stream.send(b"abcd")
        assert b"ab" == await some_of(stream, 2)
        await stream.send(b"ef")
        with anyio.move_on_after(0.1) as scope:
            await stream.receive()
        assert scope.cancelled_caught
        assert (b"ab", []) == (far.heard, far.ends)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_limit_data_ends_both_sides(direction):
    """
    After so many bytes both hear the end, and no reset.
    """
    async with between(Toxic("limit_data", direction, at=2)) as (far, proxy), await reached(proxy) as stream:
        await stream.send(b"abcd")
        got, ended = await all_of(stream)
        await far.until(ends=1)
    assert (END, [END]) == (ended, far.ends)
    assert (b"ab" if direction == "up" else b"abcd") == far.heard
    assert b"ab".startswith(got) if direction == "up" else b"ab" == got


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_reset_is_an_rst_to_both(direction, at):
    """
    After so many bytes both get an RST; downwards the server has heard everything by then.
    """
    async with between(Toxic("reset", direction, at=at)) as (far, proxy), await reached(proxy) as stream:
        await stream.send(b"abcd")
        got, ended = await all_of(stream)
        await far.until(ends=1)
    assert (RST, [RST]) == (ended, far.ends)
    assert (b"abcd"[:at] if direction == "up" else b"abcd") == far.heard
    assert (b"" if direction == "up" else b"abcd"[:at]) == got


async def test_half_close_downwards():
    """
    The client hears the end early, and is heard on.
    """
    async with between(Toxic("half_close", at=2)) as (far, proxy), await reached(proxy) as stream:
        await stream.send(b"abcd")
        assert (b"ab", END) == await all_of(stream)
        await stream.send(b"ef")
        await far.until(b"abcdef")
        assert [] == far.ends


async def test_half_close_upwards():
    """
    The server hears the end early, and its answer still arrives.
    """
    async with between(Toxic("half_close", "up", at=2)) as (far, proxy), await reached(proxy) as stream:
        await stream.send(b"abcd")
        assert (b"ab", END) == await all_of(stream)
    assert (b"ab", [END]) == (far.heard, far.ends)


async def test_slow_close_tells_the_end_later():
    """
    The end waits, and the bytes before it do not.
    """
    sleeps = Sleeps()
    async with between(Toxic("slow_close", seconds=7), sleep=sleeps) as (_, proxy), await reached(proxy) as stream:
        await stream.send(BYE)
        assert (BYE, END) == await all_of(stream)
    assert [7] == sleeps.noted


async def test_down_refuses_until_it_rises():
    """
    Nothing listens, from the start or after a connection, which lives on; risen, it is as before.
    """
    async with between(Toxic("down"), Toxic("down", after=1)) as (far, proxy):
        with pytest.raises(OSError, match="attempts failed"):
            await reached(proxy)
        proxy.rise()
        async with await reached(proxy) as first:
            await first.send(b"a")
            assert b"a" == await some_of(first, 1)
            with pytest.raises(OSError, match="attempts failed"):
                await reached(proxy)
            await first.send(b"b")
            assert b"b" == await some_of(first, 1)
            proxy.rise()
            async with await reached(proxy) as second:
                await second.send(b"c")
                assert b"c" == await some_of(second, 1)
    assert (b"abc", 2) == (far.heard, proxy.connections)


async def test_deaf_answers_nobody_until_it_rises():
    """
    A connection is neither refused nor made.
    """
    async with between(Toxic("deaf")) as (_, proxy):
        with anyio.move_on_after(0.1) as scope:
            await reached(proxy)
        assert scope.cancelled_caught
        proxy.rise()
        async with await reached(proxy) as stream:
            await stream.send(b"a")
            assert b"a" == await some_of(stream, 1)
    assert 1 == proxy.connections


async def test_times_and_after_count_connections():
    """
    One passes, two are harmed, the rest passes.
    """
    came = []
    async with between(Toxic("reset", after=1, times=2)) as (_, proxy):
        for _ in range(5):
            async with await reached(proxy) as stream:
                await stream.send(b"a")
                try:
                    came.append(await some_of(stream, 1))
                except anyio.BrokenResourceError:
                    came.append(RST)
    assert [b"a", RST, RST, b"a", b"a"] == came


async def test_times_without_end():
    """
    With None every connection is harmed.
    """
    async with between(Toxic("reset", times=None)) as (_, proxy):
        for _ in range(3):
            async with await reached(proxy) as stream:
                await stream.send(b"a")
                assert RST == (await all_of(stream))[1]


POST = b"POST /pay HTTP/1.1\r\nContent-Length: 4\r\n\r\n"
GET = b"GET /look HTTP/1.1\r\n\r\n"


async def test_match_begins_with_its_request():
    """
    On a kept-alive connection only the request that fits is met, and the next one is not.
    """
    sleeps = Sleeps()
    slow = Toxic("latency", "up", seconds=1, match=b"POST /pay ", after=1)
    async with between(slow, sleep=sleeps) as (_, proxy), await reached(proxy) as stream:
        for number, request in enumerate([GET, POST + b"1234", GET, POST + b"GET ", GET, POST + b"POST"]):
            await stream.send(request)
            assert request == await some_of(stream, len(request))
            # The second POST, in its head and its body.
            assert ([] if number < 3 else [1, 1]) == sleeps.noted
    assert ["GET /look", "POST /pay"] * 3 == proxy.requests_seen


async def test_a_head_in_pieces_is_one_request():
    """
    A head that comes byte by byte is matched all the same, and what looks like a head inside of a body is none.
    """
    async with between(Toxic("reset", match=b"GET /look ")) as (far, proxy), await reached(proxy) as stream:
        body = GET + b"POST /pay HTTP/1.1\r\n\r\n"
        request = b"PUT /x HTTP/1.1\r\nX: y\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        for start in range(len(request)):
            await stream.send(request[start : start + 1])
        assert request == await some_of(stream, len(request))
        assert ["PUT /x"] == proxy.requests_seen
        await stream.send(GET)
        assert (b"", RST) == await all_of(stream)
    assert request + GET == far.heard
    assert ["PUT /x", "GET /look"] == proxy.requests_seen


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_bytes_of_a_body_are_counted_from_behind_the_head(direction):
    """
    The head passes, and of the body so much as was allowed, in whatever pieces they come.
    """
    cut = Toxic("limit_data", direction, at=3, of_body=True, match=b"POST ")
    sliced = Toxic("slicer", direction, size=2)
    async with between(cut, sliced) as (far, proxy), await reached(proxy) as stream:
        await stream.send(POST + b"1234")
        got, _ = await all_of(stream)
        await far.until(ends=1)
    assert POST + b"123" == (far.heard if direction == "up" else got)


async def test_a_head_that_never_ends_is_passed_on_at_the_end():
    """
    What was held back to be recognised is not lost.
    """
    async with between() as (far, proxy), await reached(proxy) as stream:
        await stream.send(b"GET /lo")
        await stream.send_eof()
        assert (b"GET /lo", END) == await all_of(stream)
    assert [] == proxy.requests_seen
    assert b"GET /lo" == far.heard


async def test_a_reset_of_either_side_is_handed_on():
    """
    A client that breaks off is an RST for the server, as it would be without a proxy.
    """
    async with between() as (far, proxy):
        stream = await reached(proxy)
        await stream.send(b"a")
        await some_of(stream, 1)
        await reset(stream)
        await far.until(ends=1)
    assert [RST] == far.ends


async def test_a_server_that_is_not_there_is_a_reset():
    """
    The proxy lets in, finds nobody, and breaks off.
    """
    with Proxy("http://127.0.0.1:1") as proxy:
        with suppress(OSError):  # so early that it may not even have heard of its connection
            async with await reached(proxy) as stream:
                assert (b"", RST) == await all_of(stream)
        assert 1 == proxy.connections


async def test_closing_ends_what_is_open():
    """
    Connections that are stalled, idle or not yet let in end with the block, and no file stays open.
    """
    async with serving(Far()) as server:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (counting is all)
        for toxic in (Toxic("stall"), Toxic("latency", seconds=1), Toxic("deaf"), Toxic("down")):
            with Proxy(server.url, toxic, sleep=lambda _: anyio.sleep_forever()) as proxy:
                if toxic.kind in {"stall", "latency"}:
                    stream = await reached(proxy)
                    await stream.send(b"a")
            if toxic.kind in {"stall", "latency"}:
                assert b"" == (await all_of(stream))[0]
                await stream.aclose()
        with anyio.fail_after(10):
            while before != len(os.listdir("/proc/self/fd")):  # noqa: PTH208
                await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def client_behind(*toxics, sleep=None, total=10.0):
    """
    A client of a simulator with a proxy between them, and what its observer was told of replays.
    """
    simulator, replays = Simulator(), []
    async with simulator.serve() as base_url:
        with Proxy(base_url, *toxics, sleep=sleep or Sleeps()) as proxy:
            async with (
                aclosing(await open_transport(total=total)) as transport,
                KlingClient(
                    ApiKey(KEY),
                    base_url=proxy.base_url,
                    transport=transport,
                    retry=RetryPolicy(base=0.001),
                    observer=lambda event: replays.append(event.error) if isinstance(event, Replayed) else None,
                ) as client,
            ):
                yield client, simulator, proxy, replays


@pytest.mark.parametrize("kind", ["latency", "bandwidth", "slicer", "slow_close"])
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_what_only_slows_does_a_client_no_harm(kind, direction):
    """
    One request, one session, and a client that noticed nothing.
    """
    slow = Toxic(kind, direction, seconds=1, size=30, match=INIT)
    async with client_behind(slow) as (client, simulator, proxy, replays):
        assert (await client.init_selection(video_url=CLIP)).session_id
        assert ["init"] == [seen.endpoint for seen in simulator.log]
    assert ([INIT.decode().strip()], []) == (proxy.requests_seen, replays)


@pytest.mark.parametrize("at", [0, 100])
@pytest.mark.parametrize("kind", ["limit_data", "half_close", "reset", "stall"])
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_what_ends_a_reply_is_a_lost_reply_for_a_client(kind, direction, at):
    """
    The call is sent again as its licence allows; cut upwards the simulator never saw the first, cut downwards it did.
    """
    end = Toxic(kind, direction, at=at, match=INIT)
    async with client_behind(end, total=0.5 if kind == "stall" else 10.0) as (client, simulator, proxy, replays):
        assert (await client.init_selection(video_url=CLIP)).session_id
        assert (["init"] if direction == "up" else ["init", "init"]) == [seen.endpoint for seen in simulator.log]
    assert (2, ["LostReplyError"]) == (len(proxy.requests_seen), replays)
    assert 2 == proxy.connections


@pytest.mark.parametrize("kind", ["down", "deaf"])
async def test_what_lets_nobody_in_is_not_sent_for_a_client(kind):
    """
    Refused or unanswered, the request did not leave.
    """
    simulator, replays = Simulator(), []
    async with simulator.serve() as base_url:
        with Proxy(base_url, Toxic(kind)) as proxy:

            def told(event):
                if isinstance(event, Replayed):
                    replays.append(event.error)
                    proxy.rise()

            async with (
                aclosing(await open_transport(connect=0.5)) as transport,
                KlingClient(
                    ApiKey(KEY),
                    base_url=proxy.base_url,
                    transport=transport,
                    retry=RetryPolicy(base=0.001),
                    observer=told,
                ) as client,
            ):
                assert (await client.init_selection(video_url=CLIP)).session_id
        assert (["NotSentError"], 1) == (replays, len(simulator.log))


def test_every_kind_is_tried():
    """
    The kinds of this file are all there are.
    """
    tried = {"latency", "bandwidth", "slicer", "slow_close", "limit_data", "half_close", "reset", "stall"}
    assert KINDS == tried | {"down", "deaf"}
