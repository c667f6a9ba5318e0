"""
The least that a client can do: requests built before, answers counted by their length. It shows the server's ceiling.
"""

import asyncio
import time
from functools import partial
from urllib.parse import urlsplit

from attrs import define, field

from benchmarks.answers import TASK, framed

ANSWER = len(framed(TASK))


@define(eq=False)
class Asking(asyncio.BufferedProtocol):
    """
    One connection, which asks again as soon as it was answered.
    """

    request: bytes
    """What it sends, each time."""
    left: int
    """How often it still asks."""
    done: asyncio.Future[None]
    """Set after the last answer."""
    came: int = 0
    """Bytes of the present answer."""
    buffer: memoryview = field(factory=lambda: memoryview(bytearray(1 << 16)))
    transport: asyncio.WriteTransport = field(factory=asyncio.WriteTransport)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where to read into."""
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Ask again after a whole answer."""
        self.came += nbytes
        if self.came < ANSWER:
            return
        self.came = 0
        self.left -= 1
        if self.left:
            self.transport.write(self.request)
        else:
            self.done.set_result(None)


def returned(asking: Asking) -> Asking:
    """
    What asyncio calls to have a protocol.
    """
    return asking


async def ceiling(base_url: str, at_once: int, calls: int) -> tuple[float, float]:
    """
    Requests a second, and requests a CPU second of this process.
    """
    loop, parts = asyncio.get_running_loop(), urlsplit(base_url)
    head = f"GET {parts.path}/v1/videos/multi-elements/878106242831892487 HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    request = f"{head}Authorization: Bearer sk-made-up\r\nAccept: */*\r\n\r\n".encode()
    protocols: list[Asking] = []
    for _ in range(at_once):
        asking = Asking(request, calls // at_once, loop.create_future())
        await loop.create_connection(partial(returned, asking), parts.hostname or "", parts.port or 0)
        protocols.append(asking)
    cpu, wall = time.process_time(), time.perf_counter()
    for asking in protocols:
        asking.transport.write(request)
    await asyncio.gather(*(asking.done for asking in protocols))
    made = calls // at_once * at_once
    found = made / (time.perf_counter() - wall), made / (time.process_time() - cpu)
    for asking in protocols:
        asking.transport.close()
    return found
