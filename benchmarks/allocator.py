"""
What the allocator makes of a read: `python -m benchmarks.allocator`.

asyncio asks for 256 KiB at each `recv`, CPython gets them from malloc and gives back what was not filled. glibc maps a
block of 128 KiB or more anew, cuts it to a page, and unmaps it: three system calls and two page faults for a reply that
fits on a page. It does so until a mapped block of that size was freed whole; from then on they come from the heap. One
that was cut does not count, hence a process that reads nothing but small replies stays as it began.

Each measurement is a fresh process on one core: as it comes, after one block of 1 MiB was freed, after a peer closed a
connection (then the whole block is freed; uvloop has a buffer of its own), and with a limit that never moves. Faults a
request show it without a clock. Where `openssl` is, over TLS too; where uvloop is, on it too.
"""

import asyncio
import json
import os
import resource
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from benchmarks.rounds import AT_ONCE, Call, burst, fresh, pin, ratios, server_core
from benchmarks.server import TASK, Answering
from benchmarks.table import Line, Row, Skipped, printed

CALLS: Final = 3_200
ROUNDS: Final = 7
NATURAL, FREED, CLOSED, MAPPED = "as it comes", "freed", "closed", "mapped"
TUNABLES: Final = {MAPPED: "glibc.malloc.mmap_threshold=131072"}
"""A threshold that is given does not move any more."""
WHO: Final = {"streams": "streams", "aiohttp": "aiohttp GET", "client": "get_task"}
PATH: Final = "/kling/v1/videos/multi-elements/878106242831892487"


@frozen
class Case:
    """
    One kind of process.
    """

    who: str
    """A key of WHO."""
    tls: bool = False
    """Over TLS."""
    loop: str = "asyncio"
    """The module whose loop it runs on."""

    @property
    def title(self) -> str:
        """
        For the table.
        """
        return f"{WHO[self.who]}, {'https' if self.tls else 'http'}, {self.loop}"


CASES: Final = (
    Case("streams"),
    Case("aiohttp"),
    Case("client"),
    Case("aiohttp", tls=True),
    Case("client", tls=True),
    Case("aiohttp", loop="uvloop"),
    Case("aiohttp", tls=True, loop="uvloop"),
)


async def serve(folder: Path) -> None:
    """
    Serve http, and https where there is a certificate, until stdin closes.
    """
    loop = asyncio.get_running_loop()
    ports = []
    contexts: list[ssl.SSLContext | None] = [None]
    if (folder / "key").exists():
        contexts.append(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
        contexts[-1].load_cert_chain(folder / "cert", folder / "key")  # type: ignore[union-attr]
    for context in contexts:
        server = await loop.create_server(Answering, "127.0.0.1", 0, backlog=1024, ssl=context)
        ports.append(server.sockets[0].getsockname()[1])
    print(json.dumps(ports), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def serving(folder: Path) -> Iterator[list[str]]:
    """
    The origins of a server in a process of its own; that with https is missing where there is no certificate.
    """
    if shutil.which("openssl"):
        made = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
        files = ["-keyout", str(folder / "key"), "-out", str(folder / "cert")]
        subprocess.run(["openssl", *made.split(), *files], check=True, capture_output=True)
    command = [sys.executable, "-m", "benchmarks.allocator", "serve", str(folder)]
    began = partial(pin, server_core())
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=began,  # noqa: PLW1509 (there are no threads yet)
    ) as process:
        assert process.stdout is not None
        try:
            ports = json.loads(process.stdout.readline())
            yield [f"{scheme}://127.0.0.1:{port}" for scheme, port in zip(("http", "https"), ports, strict=False)]
        finally:
            process.communicate("")


@asynccontextmanager
async def streams(origin: str, context: ssl.SSLContext | None) -> AsyncIterator[Call]:
    """
    A request and its reply over a pair of streams.
    """
    parts = urlsplit(origin)
    pairs = [await asyncio.open_connection(parts.hostname, parts.port, ssl=context) for _ in range(AT_ONCE)]
    request = f"GET {PATH} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()

    async def call() -> None:
        reader, writer = pairs.pop()
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(TASK))
        pairs.append((reader, writer))

    yield call
    for _, writer in pairs:
        writer.close()


@asynccontextmanager
async def bare(origin: str, context: ssl.SSLContext | None) -> AsyncIterator[Call]:
    """
    A GET of aiohttp.
    """
    import aiohttp

    async with aiohttp.ClientSession() as session:

        async def call() -> None:
            async with session.get(f"{origin}{PATH}", ssl=context or True) as reply:
                await reply.read()

        yield call


@asynccontextmanager
async def client(origin: str, context: ssl.SSLContext | None) -> AsyncIterator[Call]:
    """
    A look at a task through the library.
    """
    from kling_async import ApiKey, KlingClient, open_transport

    transport = await open_transport(ssl_context=context)
    try:
        async with KlingClient(ApiKey("sk-made-up"), base_url=f"{origin}/kling", transport=transport) as opened:
            yield partial(opened.get_task, PATH.rpartition("/")[2])
    finally:
        await transport.aclose()


async def lose_one() -> None:
    """
    Be told by a peer that a connection has ended.
    """

    def leave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(leave, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await reader.read()
        writer.close()


def prepare(layout: str) -> Callable[[], Awaitable[None]] | None:
    """
    Bring the process into a layout, now or on the loop.
    """
    if layout == FREED:
        del [bytes(1 << 20)][:]
    return lose_one if layout == CLOSED else None


async def measured(who: str, origin: str, certificate: str, layout: str) -> list[float]:
    """
    Microseconds of CPU and page faults for a request.
    """
    context = ssl.create_default_context(cafile=certificate) if origin.startswith("https") else None
    makers = {"streams": streams, "aiohttp": bare, "client": client}
    async with makers[who](origin, context) as call:
        await burst(call, AT_ONCE, AT_ONCE * 4)
        if (later := prepare(layout)) is not None:
            await later()
        costs = []
        for _ in range(3):
            cpu, faults = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            await burst(call, AT_ONCE, CALLS)
            after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            costs.append((1e6 * (time.process_time() - cpu) / CALLS, (after - faults) / CALLS))
    return [median(each) for each in zip(*costs, strict=True)]


def child(who: str, origin: str, certificate: str, loop: str, layout: str) -> None:
    """
    One measurement, printed.
    """
    factory = None
    if loop == "uvloop":
        from uvloop import new_event_loop as factory  # type: ignore[no-redef]
    with asyncio.Runner(loop_factory=factory) as runner:
        print(json.dumps(runner.run(measured(who, origin, certificate, layout))))


def run(case: Case, origins: list[str], certificate: Path, layout: str) -> list[float]:
    """
    One fresh process.
    """
    with suppress(KeyError):
        os.environ["GLIBC_TUNABLES"] = TUNABLES[layout]
    try:
        return fresh("benchmarks.allocator", "run", case.who, origins[case.tls], certificate, case.loop, layout)
    finally:
        os.environ.pop("GLIBC_TUNABLES", None)


def lines(case: Case, found: dict[str, list[list[float]]]) -> Iterator[Row]:
    """
    What the layouts of one case cost, against a process in which a large block was freed.
    """
    base = [cpu for cpu, _ in found[FREED]]
    yield Row.of(f"{case.title}: CPU, {FREED}", base, unit=" us")
    for layout, costs in found.items():
        if layout != FREED:
            yield Row.of(f"{case.title}: CPU, {layout} / {FREED}", ratios([cpu for cpu, _ in costs], base))
    for layout, costs in found.items():
        yield Row.of(f"{case.title}: page faults a request, {layout}", [faults for _, faults in costs])


def rows(rounds: int = ROUNDS) -> Iterator[Line]:
    """
    The table, line by line.
    """
    with tempfile.TemporaryDirectory() as made, serving(Path(made)) as origins:
        for case in CASES:
            if (case.tls and len(origins) == 1) or find_spec(case.loop) is None:
                yield Skipped(case.title, f"no {'openssl' if find_spec(case.loop) else case.loop}")
                continue
            found: dict[str, list[list[float]]] = {layout: [] for layout in (FREED, NATURAL, CLOSED, MAPPED)}
            for _ in range(rounds):
                for layout, costs in found.items():
                    costs.append(run(case, origins, Path(made) / "cert", layout))
            yield from lines(case, found)


def main() -> None:
    """
    Print it.
    """
    match sys.argv[1:]:
        case ["serve", folder]:
            asyncio.run(serve(Path(folder)))
        case ["run", who, origin, certificate, loop, layout]:
            child(who, origin, certificate, loop, layout)
        case _:
            printed(rows())


if __name__ == "__main__":
    main()
