"""
A TCP proxy that does harm: what a wire may do between a client and a server on this machine, byte by byte.

It runs in a thread with an event loop of its own, so that it serves tests on either loop, and a client that blocks
does not block it. It knows no more of HTTP/1.1 than where a request begins; anything else, such as TLS, is bytes.
"""

import asyncio
import re
import socket
import struct
from collections import Counter
from contextlib import ExitStack, suppress
from math import inf
from threading import Event, Thread
from urllib.parse import urlsplit

from attrs import define, field, frozen
from attrs.validators import in_

CREATE = b"POST /kling/v1/videos/multi-elements "  # how the head of a paid create begins
ENDS = {"stall", "limit_data", "half_close", "reset"}
DOORS = {"down": None, "deaf": 0}
KINDS = {*ENDS, *DOORS, "latency", "bandwidth", "slicer", "slow_close"}
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
BLANK = b"\r\n\r\n"


@frozen
class Toxic:
    """
    One kind of harm, done to whole connections or, with `match`, to a request and its reply.

    Kinds:
        - `latency`: each piece waits for `seconds`.
        - `bandwidth`: `size` bytes in a second at most, a tenth of them at once.
        - `slicer`: pieces of `size` bytes, each in a packet of its own.
        - `slow_close`: the end of the stream is told `seconds` later.
        - `stall`: `at` bytes pass, then nothing; the connection stays open.
        - `limit_data`: `at` bytes pass, then both sides are told the end of the stream.
        - `half_close`: `at` bytes pass, then the receiver is told the end; the other direction goes on.
        - `reset`: `at` bytes pass, then both sides get an RST.
        - `down`: nothing listens, from the start or `after` so many connections, until `Proxy.rise`.
        - `deaf`: the same, but nobody refuses: the queue of connections is full.

    What ends after `at` bytes does so when the next one is there to be sent: 0 downwards is after the server has
    answered and before the client has heard of it.
    """

    kind: str = field(validator=in_(KINDS))
    direction: str = field(default="down", validator=in_(["up", "down"]))
    """`up` is from the client to the server."""
    at: int = field(default=0, kw_only=True)
    of_body: bool = field(default=False, kw_only=True)
    """Whether these bytes are counted from behind the head."""
    seconds: float = field(default=0.0, kw_only=True)
    size: int = field(default=0, kw_only=True)
    match: bytes | None = field(default=None, kw_only=True)
    """How the head of the request begins; None for whole connections."""
    after: int = field(default=0, kw_only=True)
    """How many pass unharmed before it."""
    times: int | None = field(default=1, kw_only=True)
    """How many it meets then; None for all."""


@define(eq=False)
class Acting:
    """
    A toxic at work, and how far its stream has got.
    """

    toxic: Toxic
    passed: int = 0
    head: bytes = b""

    @property
    def in_head(self):
        return self.toxic.of_body and not self.head.endswith(BLANK)

    def room(self, data):
        """
        How many of these bytes may pass at once; 0 where it strikes.
        """
        if self.in_head:
            end = (self.head + data).find(BLANK)
            return len(data) if end < 0 else end + len(BLANK) - len(self.head)
        rooms = {"slicer": self.toxic.size, "bandwidth": max(1, self.toxic.size // 10)}
        rooms |= dict.fromkeys(ENDS, self.toxic.at - self.passed)
        return min(len(data), rooms.get(self.toxic.kind, len(data)))

    def note(self, piece):
        if self.in_head:
            self.head += piece
        else:
            self.passed += len(piece)

    def pause(self, size):
        return {"latency": self.toxic.seconds, "bandwidth": size / (self.toxic.size or 1)}.get(self.toxic.kind, 0.0)


@define
class Heads:
    """
    Where requests begin in what a client sends; a body must have a Content-Length.

    A head that is not whole yet is held back, and of a body so many bytes are left.
    """

    held: bytes = b""
    left: int = 0

    def split(self, data):
        """
        Pieces, and of each whether a request begins with it.
        """
        data, self.held = self.held + data, b""
        while data:
            if begins := not self.left and data[:1].isupper():
                size = data.find(BLANK) + len(BLANK)
                if size < len(BLANK):
                    self.held = data
                    return
                length = LENGTH.search(data[:size])
                self.left = int(length[1]) if length else 0
            else:
                self.left = self.left or inf  # no HTTP: one body without end
                size = min(self.left, len(data))
                self.left -= size
            yield begins, data[:size]
            data = data[size:]


@define(eq=False)
class Link:
    """
    One connection: the client, the server, and a pump each way.
    """

    proxy: "Proxy"
    client: socket.socket
    server: socket.socket
    acting: list[Acting]
    mute: set[str] = field(factory=set)  # directions in which nothing passes any more
    heads: Heads = field(factory=Heads)

    async def run(self):
        try:
            await self.proxy.loop.sock_connect(self.server, self.proxy.upstream)
            async with asyncio.TaskGroup() as group:
                group.create_task(self.pump("up", self.client, self.server))
                group.create_task(self.pump("down", self.server, self.client))
        except* ConnectionError:
            # A side broke off, or a toxic did: with this option, closing tells both by an RST instead of a FIN.
            for end in (self.client, self.server):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            self.client.close()
            self.server.close()

    async def pump(self, direction, source, sink):
        while data := await self.proxy.loop.sock_recv(source, 65536):
            for begins, piece in self.heads.split(data) if direction == "up" else [(False, data)]:
                if begins:
                    self.begin(piece)
                await self.carry(direction, sink, piece)
        if direction == "up":
            await self.carry(direction, sink, self.heads.held)
        for one in self.at_work(direction):
            if one.toxic.kind == "slow_close":
                await self.proxy.sleep(one.toxic.seconds)
        if direction not in self.mute:
            finish(sink)

    def at_work(self, direction):
        return [one for one in self.acting if one.toxic.direction == direction]

    def begin(self, head):
        self.proxy.requests_seen.append(head.partition(b"\r\n")[0].decode("latin-1").removesuffix(" HTTP/1.1"))
        self.acting = [one for one in self.acting if one.toxic.match is None] + self.proxy.take(head)

    async def carry(self, direction, sink, data):
        while data and direction not in self.mute:
            acting = self.at_work(direction)
            size = min((one.room(data) for one in acting), default=len(data))
            if size == 0:
                self.strike(next(one.toxic for one in acting if one.room(data) == 0), sink)
                continue
            piece, data = data[:size], data[size:]
            if seconds := sum(one.pause(size) for one in acting):
                await self.proxy.sleep(seconds)
            await self.proxy.loop.sock_sendall(sink, piece)
            for one in acting:
                one.note(piece)

    def strike(self, toxic, sink):
        self.mute |= {toxic.direction} if toxic.kind in {"stall", "half_close"} else {"up", "down"}
        if toxic.kind == "reset":
            raise ConnectionResetError
        for end in {"stall": (), "half_close": (sink,), "limit_data": (self.client, self.server)}[toxic.kind]:
            finish(end)


def finish(sink):
    with suppress(OSError):  # it may be gone
        sink.shutdown(socket.SHUT_WR)


class Proxy:
    """
    Stands before a server while a `with` block lasts; no thread, task or socket of it outlives that.

    Args:
        upstream_base_url: The server.
        toxics: What goes wrong; several may act at once.
        sleep: What waits for `latency`, `bandwidth` and `slow_close`, so that a test need not.
    """

    def __init__(self, upstream_base_url, *toxics, sleep=asyncio.sleep):
        self._url = urlsplit(upstream_base_url)
        self.upstream = self._url.hostname, self._url.port
        self.toxics, self.sleep, self.requests_seen, self.connections = toxics, sleep, [], 0
        self._met, self._ready, self._name = Counter(), Event(), ("127.0.0.1", 0)

    def __enter__(self):
        self._thread = Thread(target=lambda: asyncio.run(self._serve()), name="toxics")
        self._thread.start()
        self._ready.wait()
        self.base_url = self._url._replace(netloc="{}:{}".format(*self._name)).geturl()
        return self

    def __exit__(self, *_error):
        self.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def rise(self):
        """
        Listen again.
        """
        asyncio.run_coroutine_threadsafe(self._rise(), self.loop).result()

    def take(self, head=None):
        """
        What a connection, or the request with this head, is to meet.
        """
        found = []
        for toxic in self.toxics:
            fits = toxic.match is None if head is None else toxic.match is not None and head.startswith(toxic.match)
            if fits and toxic.kind not in DOORS:
                self._met[id(toxic)] += 1
                if toxic.after < self._met[id(toxic)] <= toxic.after + (toxic.times or inf):
                    found.append(Acting(toxic))
        return found

    async def _serve(self):
        self.loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        with ExitStack() as self._sockets:
            async with asyncio.TaskGroup() as self._links:
                self._door = self._sockets.enter_context(socket.socket())
                self._open()
                self._shut()
                self._ready.set()
                await self._stopping.wait()
                self.loop.remove_reader(self._door)
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()

    def _open(self, queue=128):
        self.loop.remove_reader(self._door)
        self._door.close()
        self._door = self._sockets.enter_context(socket.socket())
        self._door.setblocking(False)
        self._door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._door.bind(self._name)
        self._name = self._door.getsockname()
        if queue is None:  # bound but not listening it refuses, and nobody else gets the port
            return
        self._door.listen(queue)
        if queue:
            self.loop.add_reader(self._door, self._admit)
        else:
            self._sockets.enter_context(socket.create_connection(self._name))  # the queue is full of this one

    def _shut(self):
        for toxic in self.toxics:
            if toxic.kind in DOORS and toxic.after == self.connections:
                self._open(DOORS[toxic.kind])

    def _admit(self):
        client, server = self._door.accept()[0], socket.socket()
        for end in (client, server):
            self._sockets.enter_context(end).setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        self._shut()
        self._links.create_task(Link(self, client, server, self.take()).run())

    async def _rise(self):
        self._open()
