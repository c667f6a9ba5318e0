"""
One call: through the library against a bare aiohttp call, and from trio against asyncio.

Rounds alternate in one process on one core; ratios are taken within a round. Whether a process is lucky with its
allocator is worth as much as all that the library does (`rounds.settle_allocator`): so CPU is measured as found, and
again once that is settled.
"""

import asyncio
import cProfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import anyio
import orjson

from benchmarks.raw import ceiling
from benchmarks.rounds import AT_ONCE, ROUNDS, Call, burst, in_turns, pinned, ratios, settle_allocator, told
from benchmarks.server import serving
from benchmarks.table import Row
from kling_async import ApiKey, KlingClient, Removal

CALLS = 1_600
"""Of each in a round."""
EDIT = Removal.of("the stones")
TASK_ID = "878106242831892487"
HEADERS = {"Authorization": "Bearer sk-made-up", "Content-Type": "application/json"}
BODY = {"session_id": "8475", "edit_mode": "removal", "prompt": "Delete the stones from <<<video_1>>>"}

OURS, BARE, SCRIPT = "the library's", "bare aiohttp", "a script's"


@asynccontextmanager
async def kinds(base_url: str) -> AsyncIterator[dict[str, dict[str, Call]]]:
    """
    The calls that are compared: through the library, bare, and as a script that uses what came would make them.
    """
    import aiohttp

    url, body = f"{base_url}/v1/videos/multi-elements", orjson.dumps(BODY)
    async with aiohttp.ClientSession() as session, KlingClient(ApiKey("sk-made-up"), base_url=base_url) as client:

        async def bare_get() -> None:
            async with session.get(f"{url}/{TASK_ID}", headers=HEADERS) as response:
                await response.read()

        async def bare_post() -> None:
            async with session.post(url, data=body, headers=HEADERS) as response:
                await response.read()

        async def script_get() -> dict[str, object]:
            async with session.get(f"{url}/{TASK_ID}", headers=HEADERS) as response:
                response.raise_for_status()
                return used(orjson.loads(await response.read()))

        async def script_post() -> dict[str, object]:
            async with session.post(url, data=orjson.dumps(BODY), headers=HEADERS) as response:
                response.raise_for_status()
                return used(orjson.loads(await response.read()))

        yield {
            "get_task": {OURS: partial(client.get_task, TASK_ID), BARE: bare_get, SCRIPT: script_get},
            "create_task": {OURS: partial(client.create_task, "8475", EDIT), BARE: bare_post, SCRIPT: script_post},
        }


def used(reply: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """
    What a script takes from a reply.
    """
    data = reply["data"]
    kept = {name: data[name] for name in ("task_id", "task_status", "created_at", "updated_at")}
    result = data.get("task_result")
    return kept | {"videos": result["videos"] if isinstance(result, dict) else None}


async def cpu(base_url: str) -> dict[str, dict[str, list[float]]]:
    """
    CPU seconds of so many calls of each kind, round by round.
    """
    async with kinds(base_url) as pairs:

        async def spent(call: Call) -> float:
            return (await burst(call, AT_ONCE, CALLS))[0]

        return {
            name: await in_turns({who: partial(spent, call) for who, call in each.items()})
            for name, each in pairs.items()
        }


async def functions(base_url: str) -> dict[str, dict[str, float]]:
    """
    Function calls of one request of each kind, Python's and C's, as a profiler counts them.
    """
    found: dict[str, dict[str, float]] = {}
    async with kinds(base_url) as pairs:
        for name, each in pairs.items():
            for who, call in each.items():
                await burst(call, AT_ONCE, CALLS)
                profile = cProfile.Profile()
                profile.enable()
                await burst(call, AT_ONCE, CALLS)
                profile.disable()
                found.setdefault(name, {})[who] = sum(entry.callcount for entry in profile.getstats()) / CALLS
    return found


def rows() -> Iterable[Row]:
    """
    One call against a bare one: CPU, function calls, and how much faster the server is.
    """
    with pinned(), serving() as base_url:
        told("calls: as found")
        lots = asyncio.run(cpu(base_url))
        settle_allocator()
        told("calls: allocator settled")
        settled = asyncio.run(cpu(base_url))
        counted = asyncio.run(functions(base_url))
        for name, found in settled.items():
            yield Row.of(f"CPU of {name} / bare aiohttp", ratios(found[OURS], found[BARE]), 1.25, 1.10)
        for name, found in settled.items():
            yield Row.of(f"... of {name} / a script's", ratios(found[OURS], found[SCRIPT]))
        for name, found in lots.items():
            yield Row.of(f"... of {name} / bare, allocator as found", ratios(found[OURS], found[BARE]))
        for name, found in settled.items():
            yield Row.of(f"... of {name}", (1e6 * each / CALLS for each in found[OURS]), unit=" us")
        for name, each in counted.items():
            yield Row(f"function calls of {name} above bare aiohttp's", each[OURS] - each[BARE], 60, 25)
        for name, each in counted.items():
            yield Row(f"function calls of {name} by bare aiohttp", each[BARE])
        raw = [asyncio.run(ceiling(base_url, AT_ONCE, 16_000)) for _ in range(ROUNDS)]
        yield Row.of("the server's ceiling, by a raw client", (wall for wall, _ in raw), unit="/s")
        yield Row.of("... by what that client does in a CPU second", (own for _, own in raw), unit="/s")
        ours = (asyncio.run(rate(base_url, AT_ONCE))[0] for _ in range(ROUNDS))
        yield Row.of("get_task beside it", ours, unit="/s")


async def rate(base_url: str, at_once: int, calls: int = CALLS) -> tuple[float, float]:
    """
    Calls a second on the running loop, and a CPU second of all threads.
    """
    async with KlingClient(ApiKey("sk-made-up"), base_url=base_url) as client:
        call = partial(client.get_task, TASK_ID)
        await burst(call, at_once, at_once * 4)
        cpu, wall = await burst(call, at_once, calls)
    return calls / wall, calls / cpu


def bridge() -> Iterable[Row]:
    """
    Calls a second on trio over calls a second on asyncio.
    """
    backends = ("trio", "asyncio")
    with pinned(), serving() as base_url:
        settle_allocator()
        for at_once, calls in ((AT_ONCE, 2 * CALLS), (512, 3 * CALLS)):
            told(f"bridge: {at_once} at once")
            found = [
                [anyio.run(rate, base_url, at_once, calls, backend=backend) for backend in backends]
                for _ in range(ROUNDS)
            ]
            name = f"calls a second, trio / asyncio, {at_once} at once"
            yield Row.of(name, (trio[0] / asyncio[0] for trio, asyncio in found), 0.75, 0.85, more=True)
            yield Row.of("... a CPU second", (trio[1] / asyncio[1] for trio, asyncio in found), more=True)
