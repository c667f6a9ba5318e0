"""
100 MB to a file: `client.download` against curl and the least that Python can do: `python -m benchmarks.download`.

The least is a thread that receives into one buffer and writes it; it neither hashes nor syncs, as curl does not. Where
the library does, it is held against rivals that do the same work too. Files are in memory where there is a folder for
that, and what a disk adds is told apart. CPU is taken on one core, all threads and children counted; seconds on all
cores. The server is a process of its own and sends from the page cache.
"""

import asyncio
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import quantiles
from threading import Thread
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import anyio
from anyio.to_thread import run_sync
from attrs import frozen

from benchmarks.rounds import in_turns, pin, pinned, ratios, server_core
from benchmarks.table import Line, Row, Skipped, printed, status
from kling_async import ApiKey, KlingClient

SIZE: Final = 100_000_000
MEGABYTES: Final = SIZE / 1e6
ROUNDS: Final = 9
TICK: Final = 0.002
"""Seconds that the task sleeps which notes how late it is woken."""
FTYP: Final = b"\0\0\0\x18ftypmp42" + bytes(12)
IN_MEMORY: Final = Path("/dev/shm")
HEAD: Final = f'HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nETag: "e-1"\r\nContent-Length: {SIZE}\r\n\r\n'.encode()

Way = Callable[[str, Path], Coroutine[None, None, None]]
"""From a URL to a file."""


@frozen
class Cost:
    """
    What one download took.
    """

    cpu: float
    """Seconds, user and system, of this process and of its children."""
    wall: float
    """Seconds."""


def answer(connection: socket.socket, film: int) -> None:
    """
    Send the film as often as it is asked for.
    """
    asked = b""
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while came := connection.recv(1 << 16):
            asked += came
            while b"\r\n\r\n" in asked:
                asked = asked.partition(b"\r\n\r\n")[2]
                connection.sendall(HEAD)
                at = 0
                while at < SIZE:
                    at += os.sendfile(connection.fileno(), film, at, SIZE - at)


def serve() -> None:
    """
    Serve until stdin closes.
    """
    with tempfile.TemporaryFile() as film, socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        film.write(FTYP + (SIZE - len(FTYP)).to_bytes(4) + b"mdat")
        while (left := SIZE - film.tell()) > 0:
            film.write(os.urandom(min(left, 1 << 20)))
        film.flush()
        print(server.getsockname()[1], flush=True)

        def accept() -> None:
            while True:
                Thread(target=answer, args=(server.accept()[0], film.fileno()), daemon=True).start()

        Thread(target=accept, daemon=True).start()
        sys.stdin.read()
        os._exit(0)  # its threads still wait for the next request


@contextmanager
def serving(core: int | None) -> Iterator[str]:
    """
    The film's URL, from a process of its own.
    """
    command = [sys.executable, "-m", "benchmarks.download", "serve"]
    began = partial(pin, core)
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=began,  # noqa: PLW1509 (there are no threads yet)
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/film.mp4"
        finally:
            process.communicate("")


def received(url: str, path: Path, *, work: bool) -> None:
    """
    The least: one buffer, one blocking socket, one file.

    Args:
        url: Of the film.
        path: Where to.
        work: Also hash it, and bring it to the disk.
    """
    parts = urlsplit(url)
    buffer = bytearray(1 << 20)
    view, digest = memoryview(buffer), sha256()
    with socket.create_connection((parts.hostname or "", parts.port or 80)) as connection, path.open("wb", 0) as file:
        connection.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        came = connection.recv_into(buffer)
        start = buffer.index(b"\r\n\r\n") + 4
        left = SIZE
        while True:
            file.write(view[start:came])
            if work:
                digest.update(view[start:came])
            left -= came - start
            if not left:
                break
            start, came = 0, connection.recv_into(buffer)
        if work:
            os.fsync(file.fileno())


async def least(url: str, path: Path) -> None:
    """
    Received into one buffer and written.
    """
    await run_sync(partial(received, url, path, work=False))


async def least_with_the_same_work(url: str, path: Path) -> None:
    """
    Received into one buffer, written, hashed and synced.
    """
    await run_sync(partial(received, url, path, work=True))


async def curl(url: str, path: Path) -> None:
    """
    curl, as a child.
    """
    await run_sync(partial(subprocess.run, ["curl", "-s", "--noproxy", "*", "-o", str(path), url], check=True))


async def curl_with_the_same_work(url: str, path: Path) -> None:
    """
    curl, then the tools that hash a file and bring it to the disk.
    """
    await curl(url, path)
    for tool in ("sha256sum", "sync"):
        await run_sync(partial(subprocess.run, [tool, str(path)], check=True, stdout=subprocess.DEVNULL))


@asynccontextmanager
async def ways(url: str) -> AsyncIterator[dict[str, Way]]:
    """
    Those that are compared; the library and aiohttp with a client that is open already.
    """
    base_url = url.rpartition("/")[0]
    async with KlingClient(ApiKey("sk-made-up"), base_url=base_url) as client, aiohttp.ClientSession() as session:

        async def ours(url: str, path: Path) -> None:
            await client.download(url, path)

        async def script(url: str, path: Path) -> None:
            async with session.get(url) as reply:
                with path.open("wb") as file:
                    async for chunk in reply.content.iter_chunked(64 * 1024):
                        file.write(chunk)

        found: dict[str, Way] = {"ours": ours, "script": script, "least": least, "worked": least_with_the_same_work}
        if shutil.which("curl"):
            found["curl"] = curl
            if shutil.which("sha256sum") and shutil.which("sync"):
                found["curled"] = curl_with_the_same_work
        yield found


def spent() -> float:
    """
    CPU seconds of this process and of its children so far.
    """
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


async def once(way: Way, url: str, folder: Path) -> Cost:
    """
    What one download takes; its file is removed again, uncounted.
    """
    path = folder / "film.mp4"
    cpu, wall = spent(), time.perf_counter()
    await way(url, path)
    cost = Cost(spent() - cpu, time.perf_counter() - wall)
    assert path.stat().st_size == SIZE
    path.unlink()
    return cost


async def lateness(way: Way, url: str, folder: Path, at_once: int) -> float:
    """
    Milliseconds by which 99 of 100 wakings of another task were late at most, while so many downloads ran.
    """
    late: list[float] = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + TICK
            await anyio.sleep(TICK)
            late.append(1000 * (time.perf_counter() - due))

    async with anyio.create_task_group() as around:
        around.start_soon(tick)
        async with anyio.create_task_group() as group:
            for number in range(at_once):
                group.start_soon(way, url, folder / f"{number}.mp4")
        around.cancel_scope.cancel()
    for number in range(at_once):
        (folder / f"{number}.mp4").unlink()
    return quantiles(late, n=100)[98]


async def compared(url: str, folder: Path, names: tuple[str, ...], rounds: int) -> dict[str, list[Cost]]:
    """
    The costs of those named that are there, round by round.
    """
    async with ways(url) as found:
        calls = {name: partial(once, found[name], url, folder) for name in names if name in found}
        return await in_turns(calls, rounds)


def cpu_rows(costs: Mapping[str, list[Cost]]) -> Iterator[Row]:
    """
    CPU, against the least.
    """
    cpu = {name: [each.cpu for each in found] for name, found in costs.items()}
    yield Row.of("download, CPU a MB / recv_into", ratios(cpu["ours"], cpu["least"]), 2.5, 1.8)
    yield Row.of("download, CPU a MB / recv_into, sha256, fsync", ratios(cpu["ours"], cpu["worked"]))
    yield Row.of("recv_into, sha256, fsync / recv_into", ratios(cpu["worked"], cpu["least"]))
    yield Row.of("an aiohttp script / recv_into", ratios(cpu["script"], cpu["least"]))
    if "curl" in cpu:
        yield Row.of("curl -o / recv_into", ratios(cpu["curl"], cpu["least"]))
    yield Row.of("recv_into, CPU a MB", [1000 * each / MEGABYTES for each in cpu["least"]], unit=" ms")


def speed_rows(costs: Mapping[str, list[Cost]]) -> Iterator[Line]:
    """
    Megabytes a second, against curl.
    """
    speed = {name: [MEGABYTES / each.wall for each in found] for name, found in costs.items()}
    yield Row.of("download, MB/s", speed["ours"], more=True)
    for name, key, aims in (("curl -o", "curl", (1.0, 1.5)), ("curl -o, sha256sum, sync", "curled", (None, None))):
        title = f"download, MB/s / {name}"
        if key in speed:
            yield Row.of(title, ratios(speed["ours"], speed[key]), *aims, more=True)
        else:
            yield Skipped(title, f"no {name}")


def piecemeal(folder: Path, rounds: int) -> Iterator[Row]:
    """
    What the library does besides, each by itself.
    """
    piece = os.urandom(1 << 20)
    hashed, synced, waited = [], [], []
    for number in range(rounds):
        digest, began = sha256(), time.process_time()
        for _ in range(SIZE >> 20):
            digest.update(piece)
        hashed.append(1000 * (time.process_time() - began))
        with (folder / str(number)).open("wb", 0) as file:
            for _ in range(SIZE >> 20):
                file.write(piece)
            cpu, wall = time.process_time(), time.perf_counter()
            os.fsync(file.fileno())
            synced.append(1000 * (time.process_time() - cpu))
            waited.append(1000 * (time.perf_counter() - wall))
        (folder / str(number)).unlink()
    yield Row.of("sha256 of 100 MB, CPU", hashed, unit=" ms")
    yield Row.of("fsync of 100 MB on the disk, CPU", synced, unit=" ms")
    yield Row.of("fsync of 100 MB on the disk, waited for", waited, unit=" ms")


async def lag_rows(url: str, folder: Path, rounds: int) -> list[Row]:
    """
    How late the event loop is meanwhile.
    """
    rows = []
    async with ways(url) as found:
        for at_once in (1, 4):
            calls = {name: partial(lateness, found[name], url, folder, at_once) for name in ("ours", "script")}
            late = await in_turns(calls, rounds)
            for name, what in (("ours", "download"), ("script", "an aiohttp script")):
                rows.append(Row.of(f"{what}, {at_once} at once: p99 of the loop's lag", late[name], unit=" ms"))
    return rows


def rows(rounds: int = ROUNDS, folder: Path | None = None) -> Iterator[Line]:
    """
    The table, line by line.

    Args:
        rounds: How often each is measured.
        folder: Where files are written instead of in memory.
    """
    if folder is None and IN_MEMORY.is_dir():
        folder = IN_MEMORY
    with (
        tempfile.TemporaryDirectory(dir=folder) as made,
        tempfile.TemporaryDirectory() as on_disk,
        serving(server_core()) as url,
    ):
        place = Path(made)
        with pinned():
            named = ("least", "worked", "script", "ours", "curl")
            yield from cpu_rows(asyncio.run(compared(url, place, named, rounds)))
            yield from piecemeal(Path(on_disk), rounds)
        yield from speed_rows(asyncio.run(compared(url, place, ("ours", "curl", "curled"), rounds)))
        yield from asyncio.run(lag_rows(url, place, rounds))


def main() -> int:
    """
    Print it; a folder may be named, such as one on a disk.
    """
    if sys.argv[1:] == ["serve"]:
        serve()
        return 0
    return status(printed(rows(folder=Path(sys.argv[1]) if sys.argv[1:] else None)))


if __name__ == "__main__":
    sys.exit(main())
