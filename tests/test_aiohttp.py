"""
The network for real, on both loops: servers on 127.0.0.1 that answer well, or badly byte by byte.
"""

import asyncio
import gzip
import os
import random
import socket
import ssl
import struct
import threading
import traceback
from contextlib import asynccontextmanager, suppress
from functools import partial
from hashlib import sha256

import aiohappyeyeballs
import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSListener

from kling_async._aiohttp import MIB, AiohttpTransport
from kling_async._download import Limits
from kling_async._flights import Turns
from kling_async._open import stand
from kling_async.errors import (
    ClosedError,
    DecodeError,
    DownloadError,
    InvalidInputError,
    LostReplyError,
    NotSentError,
    TLSError,
)
from kling_async.transport import Request, Saved

pytestmark = pytest.mark.real_clock

SECRET = "sk-" + "verysecret123"
HIDDEN = "hid" + "den"
"""Put together, for tracebacks quote the source."""
KEY = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
MP4 = b"\x00\x00\x00\x18ftypmp42" + bytes(3000)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

PRIVATE_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgAVWAmWpWuXxXNkS6
jTxmY579Gph67QQfcoR8XhG1HnWhRANCAAS63PSTrt+exG3piOrFWYZITLv/Hrvd
X7tWASqABaco7ykU7c0W5FPiRT6g8fsq5SOAfPvmNIkp+FhEy+bBUGKY
-----END PRIVATE KEY-----
"""
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBWTCCAQCgAwIBAgIBATAKBggqhkjOPQQDAjATMREwDwYDVQQDDAhsb29wYmFj
azAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAwMFowEzERMA8GA1UEAwwI
bG9vcGJhY2swWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAS63PSTrt+exG3piOrF
WYZITLv/HrvdX7tWASqABaco7ykU7c0W5FPiRT6g8fsq5SOAfPvmNIkp+FhEy+bB
UGKYo0MwQTAPBgNVHREECDAGhwR/AAABMA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0O
BBYEFAWJT0x3AvqIQ/jrWovF7wRlImsuMAoGCCqGSM49BAMCA0cAMEQCIEe5fiA1
y8Z5+ZZXviwzv0yl88CkJp2BjG/PlkzJNod4AiB1vXfD/NyNLE5vYpuFlkX9VFHj
6c2Dt3gHuazjwEZhYQ==
-----END CERTIFICATE-----
"""


class Peer:
    """
    The server's end of one connection.
    """

    def __init__(self, stream):
        self.stream = stream
        self.buffer = b""

    async def read(self):
        """
        One request as its head and body; None where the client closed.
        """
        try:
            while b"\r\n\r\n" not in self.buffer:
                self.buffer += await self.stream.receive()
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            length = int(fields.get(b"content-length", 0))
            while len(self.buffer) < length:
                self.buffer += await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return None
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return head.decode(), body

    async def send(self, data):
        with suppress(anyio.BrokenResourceError):
            await self.stream.send(data)

    async def reset(self):
        raw = self.stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.stream.aclose()

    async def gone(self):
        """
        Wait until the client has closed, however it did.
        """
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                await self.stream.receive()


def reply(body=b"{}", *fields, status="200 OK", length=None):
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *fields]
    return "\r\n".join([*head, "", ""]).encode() + body


class Server:
    """
    Listens on a port of its own; `talk(peer)` is called for each connection, by default one that answers OK.
    """

    def __init__(self, talk):
        self.talk = talk or self.answer(OK)
        self.requests = []
        self.connections = 0

    def answer(self, *replies):
        """
        A conversation that gives these replies, the last one for ever.
        """
        left = list(replies)

        async def talk(peer):
            while await self.heard(peer):
                await peer.send(left.pop(0) if len(left) > 1 else left[0])

        return talk

    async def heard(self, peer):
        request = await peer.read()
        if request is not None:
            self.requests.append(request)
        return request is not None

    @property
    def heads(self):
        return [head for head, _ in self.requests]

    async def run(self, stream):
        self.connections += 1
        try:
            async with stream:
                await self.talk(Peer(stream))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass


@asynccontextmanager
async def serving(talk=None, *, certificate=None, scheme=None):
    server = Server(talk)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    server.port = listener.extra(SocketAttribute.local_port)
    server.url = f"{scheme or ('https' if certificate else 'http')}://127.0.0.1:{server.port}"
    server.close = listener.aclose
    if certificate:
        listener = TLSListener(listener, certificate, standard_compatible=False)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listen, listener, server)
        try:
            yield server
        finally:
            group.cancel_scope.cancel()


async def listen(listener, server):
    try:
        await listener.serve(server.run)
    except* anyio.ClosedResourceError:
        pass


@asynccontextmanager
async def opened(**options):
    transport = await stand(lambda: AiohttpTransport(**options))
    try:
        yield transport
    finally:
        await transport.aclose()


@pytest.fixture
async def transport():
    async with opened() as transport:
        yield transport


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    """
    The environment of the machine says nothing about proxies.
    """
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def get(server, path="/kling/v1/x"):
    return Request("GET", f"{server.url}{path}", KEY)


def post(server, body=b"{}"):
    return Request("POST", f"{server.url}/kling/v1/x", KEY, body)


def chain_of(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def assert_nothing_secret(error, *secrets):
    told = "".join(traceback.format_exception(error))
    told += "".join(f"{one!r} {one} {one.args!r} {vars(one)!r}" for one in chain_of(error))
    for secret in (SECRET, *secrets):
        assert secret not in told


async def test_exchange_is_the_request_and_the_reply(transport):
    """
    Method, URL, headers and body go out as they are; status, lower-case names and body come back whatever the status.
    """
    async with serving() as server:
        server.talk = server.answer(reply(b"teapot", "X-Request-Id: Ab", "RETRY-AFTER: 3", status="418 I'm a teapot"))
        got = await transport.exchange(
            Request("POST", f"{server.url}/a%2Fb?page=1&sig=%2F%2B%20x", {**KEY, "X-Odd": "  "}, b'{"a": 1}')
        )
    assert (418, b"teapot") == (got.status, got.body)
    told = {name.lower(): text for name, text in got.headers.items()}
    assert {"x-request-id": "Ab", "retry-after": "3", "content-length": "6"} == told
    assert "3" == got.headers["retry-after"]
    head, body = server.requests[0]
    assert b'{"a": 1}' == body
    assert head.startswith("POST /a%2Fb?page=1&sig=%2F%2B%20x HTTP/1.1\r\n")
    assert f"Authorization: Bearer {SECRET}" in head


async def test_neither_cookies_nor_netrc(transport, monkeypatch, tmp_path):
    """
    A cookie that a server sets is not sent back, and .netrc adds nothing.
    """
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hidden\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with serving() as server:
        server.talk = server.answer(reply(b"{}", "Set-Cookie: a=b; Path=/"))
        for _ in range(2):
            await transport.exchange(Request("GET", server.url))
    assert 2 == len(server.requests)
    assert not [head for head in server.heads if "Cookie" in head or "Authorization" in head]


async def test_connection_is_reused(transport):
    """
    One exchange after another needs one connection.
    """
    async with serving() as server:
        for _ in range(5):
            await transport.exchange(post(server))
    assert (5, 1) == (len(server.requests), server.connections)


@pytest.mark.parametrize("size", [0, MIB, 3 * MIB])
async def test_body_of_any_size_goes_out(transport, size):
    """
    A body of nothing, and one with pictures in it, arrive whole and without a warning.
    """
    body = random.Random(size).randbytes(size)
    async with serving() as server:
        await transport.exchange(post(server, body))
    assert body == server.requests[0][1]
    assert f"Content-Length: {size}" in server.heads[0]


async def test_compressed_reply_is_decompressed(transport):
    """
    Compression on the way is taken off.
    """
    async with serving() as server:
        server.talk = server.answer(reply(gzip.compress(b"hello" * 100), "Content-Encoding: gzip"))
        assert b"hello" * 100 == (await transport.exchange(get(server))).body


async def test_reply_without_length_and_without_body(transport):
    """
    A body that ends with the connection, a chunked one and none at all are whole replies.
    """
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"

    async def talk(peer):
        await peer.read()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n{}")

    async with serving(talk) as server:
        assert b"{}" == (await transport.exchange(get(server))).body
        server.talk = server.answer(chunked, b"HTTP/1.1 204 No Content\r\n\r\n")
        assert b"{}" == (await transport.exchange(get(server))).body
        assert (204, b"") == ((got := await transport.exchange(get(server))).status, got.body)


async def test_reply_is_limited(transport):
    """
    A reply over 8 MiB is a DecodeError with its status, and the transport goes on.
    """
    async with serving() as server:
        server.talk = server.answer(reply(bytes(8 * MIB + 1), "Connection: close"))
        with pytest.raises(DecodeError, match="larger than 8388608") as caught:
            await transport.exchange(post(server))
        assert 200 == caught.value.status
        server.talk = server.answer(reply(bytes(8 * MIB)))
        assert 8 * MIB == len((await transport.exchange(post(server))).body)


async def test_refused_connection_was_not_sent(transport):
    """
    Where nobody listens nothing was sent, and the message names the host.
    """
    async with serving() as server:
        await server.close()
        with pytest.raises(NotSentError, match=r"127\.0\.0\.1") as caught:
            await transport.exchange(post(server))
    assert not isinstance(caught.value, TLSError)
    assert_nothing_secret(caught.value)


async def test_unknown_name_was_not_sent(transport, monkeypatch):
    """
    A name that does not resolve is NotSentError.
    """

    def fail(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(NotSentError, match=r"nowhere\.example") as caught:
        await transport.exchange(Request("POST", f"https://nowhere.example/x?sig={HIDDEN}", KEY, b"{}"))
    assert_nothing_secret(caught.value, HIDDEN)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "/v1/x", "http://", "http://a:99999/", "http://u:p@127.0.0.1/"])
async def test_url_that_cannot_be_used_is_invalid_input(transport, url):
    """
    What is no whole http URL, or holds a password, is told before anything happens.
    """
    with pytest.raises(InvalidInputError) as caught:
        await transport.exchange(Request("GET", url))
    assert "url" == caught.value.field


@pytest.mark.parametrize("host", ["127.1", f"{'a' * 64}.example"])
async def test_host_that_cannot_be_looked_up_is_invalid_input(transport, host):
    """
    A host that is no host is told as such.
    """
    with pytest.raises(InvalidInputError):
        await transport.exchange(Request("GET", f"http://{host}/"))


async def hang_up(peer):
    await peer.stream.receive(1)


async def say_nothing(peer):
    await peer.gone()


async def test_handshake_that_hangs_ends_with_the_connect_limit():
    """
    A server that never answers the TLS handshake costs `connect` seconds, and nothing was sent.
    """
    async with serving(say_nothing, scheme="https") as server, opened(connect=0.05) as transport:
        with pytest.raises(NotSentError) as caught:
            await transport.exchange(Request("POST", f"{server.url}/?sig={HIDDEN}", KEY, b"{}"))
    assert_nothing_secret(caught.value, HIDDEN)


async def test_total_limit_while_connecting_proves_that_nothing_was_sent():
    """
    Time that runs out before a connection is there leaves the call unsent.
    """
    async with serving(say_nothing, scheme="https") as server, opened(total=0.05) as transport:
        with pytest.raises(NotSentError, match=r"0\.05 s have passed"):
            await transport.exchange(post(server))


async def test_handshake_that_is_cut_was_not_sent(transport):
    """
    A connection cut during the TLS handshake is NotSentError, not a question of certificates.
    """
    async with serving(hang_up, scheme="https") as server:
        with pytest.raises(NotSentError) as caught:
            await transport.exchange(post(server))
    assert not isinstance(caught.value, TLSError)


@pytest.fixture
def certificates(tmp_path):
    def contexts(certificate):
        (tmp_path / "key.pem").write_text(PRIVATE_KEY)
        (tmp_path / "certificate.pem").write_text(certificate)
        there = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        there.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
        return there, ssl.create_default_context(cadata=certificate)

    return contexts


async def test_trusted_authority_is_spoken_to(certificates):
    """
    With a context that trusts the authority, https works.
    """
    there, here = certificates(CERTIFICATE)
    async with serving(certificate=there) as server, opened(ssl_context=here) as transport:
        assert b"{}" == (await transport.exchange(post(server))).body
    assert 1 == len(server.requests)


async def close_at_once(peer):
    await peer.read()


async def reset_at_once(peer):
    await peer.read()
    await peer.reset()


async def reset_in_the_middle(peer):
    await peer.stream.receive(1000)
    await peer.reset()


async def half_head(peer):
    await peer.read()
    await peer.send(OK[:20])


async def half_body(peer):
    await peer.read()
    await peer.send(reply(b"{", length=50))


async def half_chunk(peer):
    await peer.read()
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nabc")


async def bad_status_line(peer):
    await peer.read()
    await peer.send(f"HTTP/1.1 Bearer {SECRET}\r\n\r\n".encode())
    await peer.gone()


async def bad_chunk(peer):
    await peer.read()
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n")
    await peer.gone()


async def bad_compression(peer):
    await peer.read()
    await peer.send(reply(b"no gzip", "Content-Encoding: gzip"))
    await peer.gone()


LOSSES = [
    close_at_once,
    reset_at_once,
    reset_in_the_middle,
    half_head,
    half_body,
    half_chunk,
    bad_status_line,
    bad_chunk,
    bad_compression,
]


@pytest.mark.parametrize("talk", LOSSES)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_reply_that_is_not_whole_is_lost(transport, talk, method):
    """
    Whatever cuts or garbles a reply after the request began to leave is LostReplyError, and shows no key anywhere.
    """
    async with serving(talk) as server:
        with pytest.raises(LostReplyError, match=r"^127\.0\.0\.1: no whole reply: ") as caught:
            await transport.exchange(Request(method, f"{server.url}/?sig={HIDDEN}", KEY, b"x" * 2 * MIB))
        assert (1 if method == "POST" else 2) >= server.connections
        assert caught.value.__cause__ is not None
        server.talk = server.answer(OK)
        assert 200 == (await transport.exchange(get(server))).status
    assert SECRET not in str(caught.value)
    if talk is not bad_status_line:
        assert_nothing_secret(caught.value, HIDDEN)


async def test_garbage_does_not_bring_our_headers_into_the_cause(transport):
    """
    The error of aiohttp about a malformed reply carries our headers; it comes out without them and the query.
    """

    async def talk(peer):
        await peer.read()
        await peer.send(b"garbage\r\n\r\n")

    async with serving(talk) as server:
        with pytest.raises(LostReplyError) as caught:
            await transport.exchange(Request("POST", f"{server.url}/?sig={HIDDEN}", KEY, b"{}"))
    assert "ClientResponseError" == type(caught.value.__cause__).__name__
    assert_nothing_secret(caught.value, HIDDEN)


async def test_reply_that_never_comes_is_lost_after_the_total_limit():
    """
    A server that reads and never answers costs `total` seconds; each later call has its own time.
    """
    async with serving(say_nothing) as server, opened(total=0.05) as transport:
        with pytest.raises(LostReplyError, match=r"0\.05 s have passed"):
            await transport.exchange(post(server))
        server.talk = server.answer(reply(b"{}", "Connection: close"))
        assert 200 == (await transport.exchange(post(server))).status
        server.talk = half_then_nothing
        for _ in range(2):
            with pytest.raises(LostReplyError, match=r"0\.05 s have passed"):
                await transport.exchange(post(server))


async def half_then_nothing(peer):
    await peer.read()
    await peer.send(reply(b"{", length=50))
    await peer.gone()


async def test_dead_connection_gets_a_get_again(transport):
    """
    A kept-alive connection that dies under a GET is replaced, and the GET is answered.
    """
    async with serving() as server:

        async def talk(peer):
            await server.heard(peer)
            await peer.send(OK)
            if server.connections > 1:
                await server.heard(peer)
                await peer.send(OK)
                await peer.gone()
            await server.heard(peer)

        server.talk = talk
        for _ in range(2):
            assert 200 == (await transport.exchange(get(server))).status
    assert 2 == server.connections


async def test_get_that_was_read_once_is_not_called_unsent(transport):
    """
    A GET whose first try was read and whose second found nobody is LostReplyError: once is enough to have been read.
    """
    async with serving() as server:

        async def talk(peer):
            await server.heard(peer)
            await server.close()

        server.talk = talk
        with pytest.raises(LostReplyError):
            await transport.exchange(get(server))
    assert 1 == len(server.requests)


async def test_at_most_as_many_at_once_as_connections():
    """
    Two hundred exchanges at once are all answered over the twenty connections that were allowed.
    """
    async with serving() as server, opened(connections=20) as transport:
        busy, most, statuses = 0, 0, []

        async def talk(peer):
            nonlocal busy, most
            while await server.heard(peer):
                busy += 1
                most = max(most, busy)
                await anyio.lowlevel.checkpoint()
                busy -= 1
                await peer.send(OK)

        async def one():
            statuses.append((await transport.exchange(post(server))).status)

        server.talk = talk
        async with anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(one)
    assert [200] * 200 == statuses
    assert 20 >= server.connections
    assert 20 >= most


async def test_turn_that_never_comes_was_not_sent():
    """
    A call that gets no connection within `total` seconds because all are in use was not sent, and says what to do.
    """

    def build():
        transport = AiohttpTransport(connections=1, total=0.05)
        transport._turns = Turns(0)
        return transport

    async with serving() as server:
        transport = await stand(build)
        with pytest.raises(NotSentError, match=r"all 1 connections were in use for .* s; give open_transport more"):
            await transport.exchange(post(server))
        await transport.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_waiting_for_a_turn_does_not_use_up_the_time():
    """
    A call that waited has its whole time when its turn comes, for its deadline starts anew.
    """
    async with serving() as server, opened(connections=1) as transport:
        first, second = anyio.Event(), anyio.Event()
        done, deadlines = [], []

        async def talk(peer):
            await server.heard(peer)
            first.set()
            await second.wait()
            await peer.send(OK)
            await server.heard(peer)
            deadlines.extend(transport._flights.aloft.values())
            await peer.send(OK)
            await peer.gone()

        async def one():
            done.append((await transport.exchange(post(server))).status)

        server.talk = talk
        async with anyio.create_task_group() as group:
            group.start_soon(one)
            await first.wait()
            group.start_soon(one)
            await anyio.wait_all_tasks_blocked()
            deadlines.extend(transport._flights.aloft.values())
            second.set()
    assert [200, 200] == done
    assert 3 == len(deadlines)
    assert max(deadlines[:2]) < deadlines[2]


async def test_closed_transport_refuses_everything(transport, tmp_path):
    """
    After closing, twice if need be, calls are ClosedError.
    """
    async with serving() as server:
        await transport.exchange(post(server))
        await transport.aclose()
        await transport.aclose()
        with pytest.raises(ClosedError):
            await transport.exchange(post(server))
        with pytest.raises(ClosedError):
            await transport.download(server.url, tmp_path / "a.mp4")
    assert 1 == len(server.requests)


async def until(condition):
    while not condition():
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("state", ["reply", "handshake", "turn", "download"])
async def test_closing_ends_calls_under_way(tmp_path, state):
    """
    Closing ends a call that waits for its turn, a handshake or a reply, and a download, with ClosedError.
    """
    seen = []
    scheme = "https" if state == "handshake" else "http"
    async with serving(half_video if state == "download" else say_nothing, scheme=scheme) as server:
        transport = await stand(partial(AiohttpTransport, connections=1))

        async def one():
            try:
                if state == "download":
                    await transport.download(server.url, tmp_path / "a.mp4")
                else:
                    await transport.exchange(post(server))
            except ClosedError as error:
                seen.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(2 if state == "turn" else 1):
                group.start_soon(one)
            with anyio.fail_after(5):
                await until(lambda: 1 == server.connections)
                if state == "download":
                    await until((tmp_path / "a.mp4.part").exists)
            await transport.aclose()
    assert (2 if state == "turn" else 1) == len(seen)
    assert [] == list(tmp_path.iterdir())


async def test_cancelling_closes_the_connection(transport):
    """
    A cancelled exchange closes its connection, and the transport goes on.
    """
    async with serving() as server:
        heard, closed = anyio.Event(), anyio.Event()

        async def talk(peer):
            await peer.read()
            heard.set()
            await peer.gone()
            closed.set()

        server.talk = talk
        async with anyio.create_task_group() as group:
            group.start_soon(transport.exchange, post(server))
            await heard.wait()
            group.cancel_scope.cancel()
        with anyio.fail_after(5):
            await closed.wait()
        server.talk = server.answer(OK)
        assert 200 == (await transport.exchange(post(server))).status


async def test_cancelled_upload_stops(transport):
    """
    What a cancelled call had not yet sent never arrives at a server that reads at last.
    """
    async with serving() as server:
        began, cancelled, closed, arrived = anyio.Event(), anyio.Event(), anyio.Event(), []

        async def talk(peer):
            await peer.stream.receive(1)
            began.set()
            await cancelled.wait()
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while data := await peer.stream.receive():
                    arrived.append(len(data))
            closed.set()

        server.talk = talk
        async with anyio.create_task_group() as group:
            group.start_soon(transport.exchange, post(server, bytes(32 * MIB)))
            await began.wait()
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        cancelled.set()
        with anyio.fail_after(5):
            await closed.wait()
    assert 16 * MIB > sum(arrived)


async def test_cancellation_storm(transport):
    """
    300 calls, nine in ten with tiny deadlines, end as results or cancellations; the transport is as good as before.
    """
    random_source = random.Random(7)
    outcomes = []

    async def talk(peer):
        while request := await peer.read():
            await anyio.sleep(random_source.random() * 0.02)
            await peer.send(reply(request[1]))

    async def one(number):
        body = str(number).encode()
        with anyio.move_on_after(random_source.random() * 0.2 if number % 10 else 10) as scope:
            got = await transport.exchange(Request("POST", server.url, KEY, body))
            outcomes.append(got.body == body)
        if scope.cancelled_caught:
            outcomes.append(None)

    async with serving(talk) as server:
        async with anyio.create_task_group() as group:
            for number in range(300):
                group.start_soon(one, number)
        assert 300 <= len(outcomes)
        assert False not in outcomes
        assert True in outcomes
        for number in range(150):
            assert b"%d" % number == (await transport.exchange(post(server, b"%d" % number))).body


async def test_nothing_stays_behind():
    """
    After closing there are as many threads and open files as before.
    """
    async with serving() as server:

        async def round_trip():
            async with opened() as transport, anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(transport.exchange, post(server))
            with anyio.fail_after(5):
                await until(lambda: server.open == 0)

        async def talk(peer):
            server.open += 1
            await server.answer(OK)(peer)
            server.open -= 1

        server.open, server.talk = 0, talk
        await round_trip()
        before = threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (counting is all)
        await round_trip()
        assert before == (threading.active_count(), len(os.listdir("/proc/self/fd")))  # noqa: PTH208


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_callers_own_cancellation_goes_before_the_closing():
    """
    A task cancelled by its owner at the moment of closing ends cancelled; closing does not hide it.
    """
    async with serving(say_nothing) as server:
        transport = AiohttpTransport()
        task = asyncio.create_task(transport.exchange(post(server)))
        await until(lambda: 1 == server.connections)
        closing = asyncio.create_task(transport.aclose())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await closing


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_closing_that_is_cancelled_closes_all_the_same():
    """
    Cancelled while it waits, closing still closes the pool.
    """
    async with serving() as server:
        transport = AiohttpTransport()
        await transport.exchange(post(server))
        closing = asyncio.create_task(transport.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with suppress(asyncio.CancelledError):
            await closing
        assert transport._session.closed
        assert transport._media.closed


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_closing_does_not_wait_for_ever(monkeypatch):
    """
    A call that does not end although it was cut off holds closing up for the grace only; the pool is closed.
    """
    monkeypatch.setattr("kling_async._aiohttp.GRACE", 0.01)
    monkeypatch.setattr("kling_async._flights.Flights.close", lambda _: anyio.sleep_forever())
    transport = AiohttpTransport()
    await transport.aclose()
    assert transport._session.closed


class Tunnel:
    """
    A proxy that answers CONNECT and passes bytes on to where it is told.
    """

    def __init__(self, port, answer=b"HTTP/1.1 200 Connection established\r\n\r\n"):
        self.port = port
        self.answer = answer
        self.heads = []

    async def __call__(self, peer):
        head, _ = await peer.read()
        self.heads.append(head)
        await peer.send(self.answer)
        if b" 200 " not in self.answer:
            return
        async with await anyio.connect_tcp("127.0.0.1", self.port) as onward, anyio.create_task_group() as group:
            group.start_soon(self.pump, peer.stream, onward)
            await self.pump(onward, peer.stream)
            group.cancel_scope.cancel()

    async def pump(self, source, target):
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                await target.send(await source.receive())
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await target.send_eof()


@pytest.mark.parametrize("how", ["environment", "given"])
async def test_https_goes_through_the_proxy(certificates, monkeypatch, tmp_path, how):
    """
    Requests by https are tunnelled, with the proxy's password and without our key in the open, and the tunnel is kept.
    """
    there, here = certificates(CERTIFICATE)
    async with serving(certificate=there) as server:
        tunnel = Tunnel(server.port)
        async with serving(tunnel) as proxy:
            address = f"http://me:{HIDDEN}@127.0.0.1:{proxy.port}"
            monkeypatch.setenv("HTTPS_PROXY", address)
            given = address if how == "given" else None
            if given:
                monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            async with opened(ssl_context=here, proxy=given) as transport:
                for _ in range(2):
                    assert 200 == (await transport.exchange(post(server))).status
                server.talk = server.answer(reply(MP4))
                assert saved(MP4) == await transport.download(f"{server.url}/a", tmp_path / "a.mp4")
    assert 2 == len(tunnel.heads)
    assert f"CONNECT 127.0.0.1:{server.port} HTTP/1.1" == tunnel.heads[0].split("\r\n")[0]
    assert "Proxy-Authorization: Basic bWU6aGlkZGVu" in tunnel.heads[0]
    assert SECRET not in "".join(tunnel.heads)


async def test_no_proxy_is_heeded_and_http_goes_straight(certificates, monkeypatch):
    """
    Hosts of NO_PROXY, and plain http, are connected to without the proxy.
    """
    there, here = certificates(CERTIFICATE)
    async with serving(close_at_once) as proxy, serving() as plain, serving(certificate=there) as server:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with opened(ssl_context=here) as transport:
            assert 200 == (await transport.exchange(post(plain))).status
            with pytest.raises(NotSentError):
                await transport.exchange(post(server))
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            assert 200 == (await transport.exchange(post(server))).status
    assert 1 == proxy.connections


async def test_proxy_that_refuses_proves_that_nothing_was_sent(certificates):
    """
    A proxy that answers CONNECT with a refusal is NotSentError, and its password shows nowhere.
    """
    there, here = certificates(CERTIFICATE)
    async with serving(certificate=there) as server:
        refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
        async with serving(Tunnel(server.port, refusal)) as proxy:
            address = f"http://me:{HIDDEN}@127.0.0.1:{proxy.port}"
            async with opened(ssl_context=here, proxy=address) as transport:
                with pytest.raises(NotSentError, match="407 Proxy Authentication Required") as caught:
                    await transport.exchange(post(server))
    assert [] == server.requests
    assert_nothing_secret(caught.value, HIDDEN, "bWU6aGlkZ" + "GVu")


async def half_video(peer):
    await peer.read()
    await peer.send(reply(MP4, length=9999))
    await peer.gone()


@pytest.fixture
def clip(tmp_path):
    return tmp_path / "clip.mp4"


async def test_download_brings_the_file_and_no_key(transport, clip):
    """
    A media URL is fetched as it is, uncompressed, without key and cookies, and progress is told in the caller's thread.
    """
    seen = []

    def progress(done, total):
        seen.append((done, total, threading.get_ident()))

    async with serving() as server:
        server.talk = server.answer(reply(MP4, "Set-Cookie: a=b"))
        for _ in range(2):
            got = await transport.download(f"{server.url}/v?sig=%2F%2Bx", clip, overwrite=True, progress=progress)
            assert saved(MP4) == got
    assert MP4 == clip.read_bytes()
    assert (len(MP4), len(MP4), threading.get_ident()) == seen[-1]
    assert server.heads[0].startswith("GET /v?sig=%2F%2Bx HTTP/1.1\r\n")
    assert "Accept-Encoding: identity" in server.heads[0]
    assert not [head for head in server.heads if "Authorization" in head or "Cookie" in head]


async def test_large_download_arrives_whole(transport, clip):
    """
    A file of many pieces is the same at the end.
    """
    data = MP4 + random.Random(1).randbytes(5 * MIB)
    async with serving() as server:
        server.talk = server.answer(reply(data))
        assert saved(data) == await transport.download(server.url, clip)
    assert data == clip.read_bytes()


def saved(data):
    return Saved(len(data), sha256(data).hexdigest())


def recording(monkeypatch):
    """
    Where connections are begun to from now on.
    """
    places = []

    async def start_connection(addr_infos, **kwargs):
        places.extend(info[-1][:2] for info in addr_infos)
        return await begin(addr_infos, **kwargs)

    begin = aiohappyeyeballs.start_connection
    monkeypatch.setattr(aiohappyeyeballs, "start_connection", start_connection)
    return places


def moved(*to):
    return [reply(b"", f"Location: {one}", "Connection: close", status="302 Found") for one in to]


async def test_download_follows_three_redirects(transport, clip):
    """
    Three redirects on the way are followed, relative ones and ones in need of quoting too; four are not.
    """
    async with serving() as server:
        server.talk = server.answer(*moved("/b", "c d", f"{server.url}/e"), reply(MP4, "Connection: close"))
        assert saved(MP4) == await transport.download(f"{server.url}/a", clip)
        assert ["/a", "/b", "/c%20d", "/e"] == [head.split()[1] for head in server.heads]
        server.talk = server.answer(*moved("/b"))
        with pytest.raises(DownloadError, match="more than 3 redirects"):
            await transport.download(f"{server.url}/a", clip, overwrite=True)


@pytest.mark.parametrize(
    "to",
    [
        "http://169.254.169.254/latest",
        "http://[::1]:1/",
        "http://10.0.0.1/",
        "http://localhost:1/",
        "http://2130706433/",
        "file:///etc/passwd",
        "http://me:pass@127.0.0.1/",
        "http://127.0.0.1:99999/",
    ],
)
async def test_f43_a_redirect_to_a_private_place_is_not_followed(transport, clip, monkeypatch, to):
    """
    A redirect to a private address, in whatever disguise, to another scheme or with a password: none is connected to.
    """
    tried = recording(monkeypatch)
    async with serving() as server:
        server.talk = server.answer(*moved(to))
        with pytest.raises(DownloadError):
            await transport.download(server.url, clip)
    assert 1 == len(server.requests)
    assert [("127.0.0.1", server.port)] == tried
    assert [] == list(clip.parent.iterdir())


async def test_download_does_not_leave_https(certificates, clip):
    """
    A redirect from https to http ends the download.
    """
    there, here = certificates(CERTIFICATE)
    async with serving(certificate=there) as server, opened(ssl_context=here) as transport:
        server.talk = server.answer(*moved(f"http://127.0.0.1:{server.port}/"))
        with pytest.raises(DownloadError, match="from https to http"):
            await transport.download(server.url, clip)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "93.184.216.34"])
async def test_f43_a_name_of_a_private_address_is_not_connected_to(transport, clip, monkeypatch, address):
    """
    A public name that resolves to a private address is refused before a connection; one that is public is tried.
    """
    tried = []

    def lookup(host, port, *args, **kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    async def start_connection(addr_infos, **kwargs):
        tried.append(addr_infos[0][-1][0])
        raise ConnectionRefusedError(111, "refused by the test")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr("aiohappyeyeballs.start_connection", start_connection)
    with pytest.raises(DownloadError, match="refused by the test" if address[0] == "9" else "not a public address"):
        await transport.download("https://cdn.example/a.mp4", clip)
    assert (["93.184.216.34"] if address[0] == "9" else []) == tried


async def test_loopback_name_is_for_those_who_named_it(transport, clip):
    """
    Whoever asks for localhost gets it.
    """
    async with serving() as server:
        server.talk = server.answer(reply(MP4))
        assert saved(MP4) == await transport.download(f"http://localhost:{server.port}/", clip)


async def test_private_proxy_may_be_named(certificates, monkeypatch, clip):
    """
    The proxy's own name may resolve to a private address; only media hosts may not.
    """
    there, here = certificates(CERTIFICATE)
    async with serving(certificate=there) as server, serving(Tunnel(server.port)) as proxy:
        server.talk = server.answer(reply(MP4))
        async with opened(ssl_context=here, proxy=f"http://localhost:{proxy.port}") as transport:
            monkeypatch.setattr("kling_async._aiohttp.check_address", None)
            assert saved(MP4) == await transport.download(server.url, clip)


@pytest.mark.parametrize("status", ["403 Forbidden", "404 Not Found", "500 Oops", "206 Partial Content", "302 Found"])
async def test_download_tells_the_status(transport, clip, status):
    """
    Anything but 200 is a DownloadError with the status.
    """
    async with serving() as server:
        server.talk = server.answer(reply(MP4, status=status))
        with pytest.raises(DownloadError, match=f"HTTP {status[:3]}") as caught:
            await transport.download(server.url, clip)
    assert int(status[:3]) == caught.value.status


@pytest.mark.parametrize(
    "body, field, words",
    [
        (b"<!doctype html><p>gone", "X: y", "web page"),
        (b"RIFF....AVI ", "X: y", "no .mp4 file"),
        (gzip.compress(MP4), "Content-Encoding: gzip", "sent gzip"),
    ],
)
async def test_download_of_something_else_is_refused(transport, clip, body, field, words):
    """
    A page, another type and a compressed body leave no file, and the status says that the reply itself came.
    """
    async with serving() as server:
        server.talk = server.answer(reply(body, field))
        with pytest.raises(DownloadError, match=words) as caught:
            await transport.download(server.url, clip)
    assert 200 == caught.value.status
    assert [] == list(clip.parent.iterdir())


async def short_video(peer):
    await peer.read()
    await peer.send(reply(MP4, length=9999))


async def torn_video(peer):
    await peer.read()
    await peer.send(reply(MP4, length=9999))
    await peer.reset()


@pytest.mark.parametrize("talk", [short_video, torn_video, close_at_once, reset_at_once, bad_status_line, half_video])
async def test_download_that_breaks_off_leaves_nothing(clip, talk):
    """
    A media host that cuts, resets, garbles or stalls is a DownloadError without status, and leaves no file.
    """
    async with serving(talk) as server, opened(limits=Limits(window=0.1)) as transport:
        with pytest.raises(DownloadError, match=r"^127\.0\.0\.1: ") as caught:
            await transport.download(f"{server.url}/?sig={HIDDEN}", clip)
    assert caught.value.status is None
    assert caught.value.__cause__ is not None
    assert HIDDEN not in "".join(f"{one!r}{one}" for one in chain_of(caught.value))
    assert [] == list(clip.parent.iterdir())


async def test_download_of_too_much_is_refused(clip):
    """
    More bytes than the limit are refused as soon as they are announced.
    """
    async with serving() as server, opened(limits=Limits(size=1000)) as transport:
        server.talk = server.answer(reply(MP4))
        with pytest.raises(DownloadError, match="the limit is 1000"):
            await transport.download(server.url, clip)


@pytest.mark.parametrize("link", ["", "nothing", "ftp://cdn.example/a", "http://[/"])
async def test_link_that_is_none_is_a_download_error(transport, clip, link):
    """
    What the service gave as a link and is none is its fault, not the caller's.
    """
    with pytest.raises(DownloadError):
        await transport.download(link, clip)


async def test_path_is_checked_before_anything_is_asked(transport, tmp_path):
    """
    A path that cannot be written costs no request.
    """
    async with serving() as server:
        with pytest.raises(InvalidInputError):
            await transport.download(server.url, tmp_path)
    assert 0 == server.connections


async def test_cancelled_download_leaves_nothing(transport, clip):
    """
    A download cancelled half way is gone, with its part and its connection.
    """
    async with serving() as server:
        closed = anyio.Event()

        async def talk(peer):
            await half_video(peer)
            closed.set()

        server.talk = talk
        with anyio.CancelScope() as scope:
            await transport.download(server.url, clip, progress=lambda *_: scope.cancel())
        assert scope.cancelled_caught
        with anyio.fail_after(5):
            await closed.wait()
    assert [] == list(clip.parent.iterdir())


async def test_progress_that_raises_ends_the_download(transport, clip):
    """
    What the caller's progress raises comes out as itself, and nothing stays.
    """

    def fail(done, total):
        raise ValueError(done)

    async with serving(half_video) as server:
        with pytest.raises(ValueError, match=str(len(MP4))) as caught:
            await transport.download(server.url, clip, progress=fail)
    assert ValueError is type(caught.value)
    assert [] == list(clip.parent.iterdir())
