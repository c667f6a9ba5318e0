"""
One call: through the library against a bare aiohttp call, and from trio against asyncio.

Rounds alternate in one process; ratios are medians over the rounds.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median

import anyio

from kling_async import ApiKey, KlingClient, Removal

AT_ONCE = 32
CALLS = 1_600
ROUNDS = 9
EDIT = Removal.of("the stones")

Call = Callable[[], Awaitable[object]]


async def burst(call: Call, at_once: int, calls: int) -> tuple[float, float]:
    """
    CPU seconds of this process and wall seconds for so many calls.
    """
    left = calls

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    cpu, wall = time.process_time(), time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(at_once):
            group.start_soon(worker)
    return time.process_time() - cpu, time.perf_counter() - wall


async def against_bare(base_url: str) -> dict[str, float]:
    """
    CPU of a library call over CPU of a bare aiohttp call, GET of a task and POST of a create.
    """
    import aiohttp

    body = b'{"session_id":"8475","edit_mode":"removal","prompt":"Delete the stones from <<<video_1>>>"}'
    url = f"{base_url}/v1/videos/multi-elements"
    headers = {"Authorization": "Bearer sk-made-up", "Content-Type": "application/json"}
    async with aiohttp.ClientSession() as session, KlingClient(ApiKey("sk-made-up"), base_url=base_url) as client:

        async def bare_get() -> None:
            async with session.get(f"{url}/878106242831892487", headers=headers) as response:
                await response.read()

        async def bare_post() -> None:
            async with session.post(url, data=body, headers=headers) as response:
                await response.read()

        pairs: dict[str, tuple[Call, Call]] = {
            "get": (partial(client.get_task, "878106242831892487"), bare_get),
            "create": (partial(client.create_task, "8475", EDIT), bare_post),
        }
        ratios: dict[str, list[float]] = {name: [] for name in pairs}
        for _ in range(ROUNDS + 1):
            for name, (ours, bare) in pairs.items():
                mine, _ = await burst(ours, AT_ONCE, CALLS)
                theirs, _ = await burst(bare, AT_ONCE, CALLS)
                ratios[name].append(mine / theirs)
    return {name: median(found[1:]) for name, found in ratios.items()}


async def rate(base_url: str, at_once: int) -> float:
    """
    Calls a second on the running loop.
    """
    async with KlingClient(ApiKey("sk-made-up"), base_url=base_url) as client:
        call = partial(client.get_task, "878106242831892487")
        await burst(call, at_once, at_once * 4)
        _, wall = await burst(call, at_once, CALLS)
    return CALLS / wall


def trio_against_asyncio(base_url: str, at_once: int) -> float:
    """
    Calls a second on trio over calls a second on asyncio.
    """
    ratios = []
    for _ in range(ROUNDS):
        found = [anyio.run(rate, base_url, at_once, backend=backend) for backend in ("trio", "asyncio")]
        ratios.append(found[0] / found[1])
    return median(ratios)
