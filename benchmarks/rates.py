"""
Calls a second and core: one look at a task through this library, against that of others at their own kind of task.

Each round runs each library once, for a moment, in a fresh process on one core: `python -m benchmarks.rates NAME URL
SECONDS` prints how many calls, CPU seconds and wall seconds these were. What counts is the best of the others.
"""

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from statistics import median
from typing import TypeAlias

import anyio
from attrs import frozen

from benchmarks.calls import TASK_ID
from benchmarks.peers import KEY
from benchmarks.rounds import AT_ONCE, Call, burst, fresh, lasting, ratios, settle_allocator, told
from benchmarks.server import serving
from benchmarks.table import Line, Row, Skipped
from kling_async import ApiKey, KlingClient

ROUNDS = 7
SECONDS = 0.4
"""Of calls in each process, after some that are not counted."""
WARM = 4 * AT_ONCE
OURS, OURS_ON_TRIO = "kling", "kling-trio"

Opened: TypeAlias = AbstractAsyncContextManager[Call]


@asynccontextmanager
async def kling(url: str) -> AsyncIterator[Call]:
    """`get_task`."""
    async with KlingClient(ApiKey(KEY), base_url=f"{url}/kling") as client:
        yield partial(client.get_task, TASK_ID)


@asynccontextmanager
async def runwayml(url: str, *, aiohttp: bool) -> AsyncIterator[Call]:
    """`tasks.retrieve`."""
    from runwayml import AsyncRunwayML, DefaultAioHttpClient

    carrier = DefaultAioHttpClient() if aiohttp else None
    async with AsyncRunwayML(api_key=KEY, base_url=f"{url}/runwayml", http_client=carrier) as client:
        yield partial(client.tasks.retrieve, "17f20503-6c24-4c16-946b-35dbbce2af2f")


@asynccontextmanager
async def openai(url: str, *, aiohttp: bool) -> AsyncIterator[Call]:
    """`batches.retrieve`: its video calls were shut down in September 2026."""
    from openai import AsyncOpenAI, DefaultAioHttpClient

    carrier = DefaultAioHttpClient() if aiohttp else None
    async with AsyncOpenAI(api_key=KEY, base_url=f"{url}/openai/v1", http_client=carrier) as client:
        yield partial(client.batches.retrieve, "batch_6745a1b0c8d08190a1b2c3d4e5f60718")


@asynccontextmanager
async def fal(url: str) -> AsyncIterator[Call]:
    """`status` of a handle; no option names a host, so a constant of the module is set."""
    import fal_client

    fal_client.client.QUEUE_URL_FORMAT = f"{url}/fal/"
    client = fal_client.AsyncClient(key=KEY)
    handle = await client.get_handle("fal-ai/kling-video", "764cabcf-b745-4b3e-ae38-1200304cf45b")
    yield handle.status


@asynccontextmanager
async def replicate(url: str) -> AsyncIterator[Call]:
    """`predictions.async_get`."""
    from replicate.client import Client

    client = Client(api_token=KEY, base_url=f"{url}/replicate")
    yield partial(client.predictions.async_get, "gm3qorzdhgbfurvjtvhg6dckhu")


@asynccontextmanager
async def genai(url: str, *, aiohttp: bool) -> AsyncIterator[Call]:
    """`operations.get`; it takes aiohttp wherever that is installed."""
    from google.genai import Client
    from google.genai.types import GenerateVideosOperation, HttpOptions
    from httpx2 import AsyncHTTPTransport

    carried = None if aiohttp else {"transport": AsyncHTTPTransport()}
    options = HttpOptions(base_url=f"{url}/genai", async_client_args=carried)
    operation = GenerateVideosOperation()
    operation.name = "models/veo-3.1-generate-preview/operations/iepog0vmnfbs"
    async with Client(api_key=KEY, http_options=options).aio as client:
        yield partial(client.operations.get, operation)


@asynccontextmanager
async def httpx(url: str, module: str) -> AsyncIterator[Call]:
    """A bare GET of ours, and its JSON."""
    from importlib import import_module

    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    target = f"{url}/kling/v1/videos/multi-elements/{TASK_ID}"
    async with import_module(module).AsyncClient(headers=headers) as client:

        async def call() -> object:
            response = await client.get(target)
            response.raise_for_status()
            return response.json()

        yield call


@frozen
class Way:
    """
    One library and what carries its calls.
    """

    distribution: str
    """What pip calls it."""
    needs: tuple[str, ...]
    """The modules that must be there."""
    opened: Callable[[str], Opened]
    """Its call, to the server at a URL."""
    kind: str = ""
    """What carries it."""
    backend: str = "asyncio"
    """On what it runs."""

    @property
    def missing(self) -> tuple[str, ...]:
        """
        What it needs and is not installed.
        """
        return tuple(name for name in self.needs if not (find_spec(name.partition(".")[0]) and find_spec(name)))

    @property
    def title(self) -> str:
        """
        Name, version and what carries it.
        """
        try:
            number = version(self.distribution)
        except PackageNotFoundError:
            number = ""
        return " ".join(filter(None, (self.distribution, number, self.kind and f"({self.kind})")))


AIOHTTP, DEFAULT = "aiohttp", "default"

WAYS: Mapping[str, Way] = {
    OURS: Way("kling-async", ("kling_async",), kling),
    "runwayml": Way("runwayml", ("runwayml",), partial(runwayml, aiohttp=False), DEFAULT),
    "runwayml-aiohttp": Way("runwayml", ("runwayml", "httpx_aiohttp"), partial(runwayml, aiohttp=True), AIOHTTP),
    "openai": Way("openai", ("openai",), partial(openai, aiohttp=False), DEFAULT),
    "openai-aiohttp": Way("openai", ("openai",), partial(openai, aiohttp=True), AIOHTTP),
    "fal": Way("fal-client", ("fal_client",), fal, DEFAULT),
    "replicate": Way("replicate", ("replicate",), replicate, DEFAULT),
    "genai": Way("google-genai", ("google.genai", "httpx2"), partial(genai, aiohttp=False), DEFAULT),
    "genai-aiohttp": Way("google-genai", ("google.genai",), partial(genai, aiohttp=True), AIOHTTP),
}
ON_TRIO: Mapping[str, Way] = {
    OURS_ON_TRIO: Way("kling-async", ("trio",), kling, "trio", "trio"),
    "httpx": Way("httpx", ("trio", "httpx"), partial(httpx, module="httpx"), "trio", "trio"),
    "httpx2": Way("httpx2", ("trio", "httpx2"), partial(httpx, module="httpx2"), "trio", "trio"),
}


async def spent(way: Way, url: str, seconds: float) -> tuple[int, float, float]:
    """
    Calls, CPU seconds and wall seconds of the library in this process.
    """
    settle_allocator()
    async with way.opened(url) as call:
        await burst(call, AT_ONCE, WARM)
        return await lasting(call, AT_ONCE, seconds)


def measured(ways: Mapping[str, Way]) -> dict[str, list[tuple[float, float, float]]]:
    """
    What each that is installed spends, round by round, after a round that is not counted.
    """
    there = [name for name, way in ways.items() if not way.missing]
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in there}
    with serving() as base_url:
        url = base_url.removesuffix("/kling")
        for number in range(ROUNDS + 1):
            told(f"rates: round {number} of {ROUNDS}: {', '.join(there)}")
            for name in there:
                calls, cpu, wall = fresh("benchmarks.rates", name, url, SECONDS if number else SECONDS / 4)
                found[name].append((calls, cpu, wall))
    return {name: each[1:] for name, each in found.items()}


def best(rates: Mapping[str, list[float]], kind: str) -> str | None:
    """
    The fastest of the others that are carried so.
    """
    names = [name for name in rates if name != OURS and WAYS[name].kind == kind]
    return max(names, key=lambda name: median(rates[name]), default=None)


def peers() -> Iterable[Line]:
    """
    Calls a CPU second against the best of the other libraries, as they come and with their aiohttp.
    """
    rates = {name: [calls / cpu for calls, cpu, _ in each] for name, each in measured(WAYS).items()}
    for kind, gate, goal in ((AIOHTTP, 4.0, 4.8), (DEFAULT, 8.0, 10.0)):
        rival = best(rates, kind)
        what = "calls a second and core / best:"
        if rival is None:
            yield Skipped(f"{what} a peer ({kind})", "none is installed")
        else:
            name = f"{what} {WAYS[rival].title}"
            yield Row.of(name, ratios(rates[OURS], rates[rival]), gate, goal, more=True, unit="x")
    for name, each in rates.items():
        yield Row.of(f"... of {WAYS[name].title}", each, unit="/s")
    yield from absent(WAYS)


def trio() -> Iterable[Line]:
    """
    Calls a second on trio against httpx on trio, and against its successor.
    """
    found = measured(ON_TRIO)
    for rival, gate, goal in (("httpx", 6.0, 10.0), ("httpx2", None, None)):
        if {OURS_ON_TRIO, rival} <= found.keys():
            title = f"{rival} {version(rival)}"
            walls, cpus = (
                [[each[0] / each[kind] for each in found[who]] for who in (OURS_ON_TRIO, rival)] for kind in (2, 1)
            )
            yield Row.of(f"calls a second on trio / {title}", ratios(*walls), gate, goal, more=True, unit="x")
            yield Row.of("... a CPU second", ratios(*cpus), more=True, unit="x")
    yield from absent(ON_TRIO)


def absent(ways: Mapping[str, Way]) -> Iterable[Line]:
    """
    Those that could not be measured here.
    """
    for way in ways.values():
        if way.missing:
            yield Skipped(f"... of {way.title}", f"needs {', '.join(way.missing)}")


def main() -> None:
    """
    Run one, in this process.
    """
    name, url, seconds = sys.argv[1:]
    way = {**WAYS, **ON_TRIO}[name]
    print(json.dumps(anyio.run(spent, way, url, float(seconds), backend=way.backend)))


if __name__ == "__main__":
    main()
