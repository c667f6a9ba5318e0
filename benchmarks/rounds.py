"""
What all measurements share: cores, the allocator, bursts of calls, and rounds in which all who are compared take turns.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Final, TypeVar

import anyio
from anyio.lowlevel import current_token

T = TypeVar("T")

Call = Callable[[], Awaitable[object]]
"""One call, made anew each time."""

ROUNDS: Final = 9
"""Odd, so that the median is a round that there was."""
AT_ONCE: Final = 32
"""Calls underway at once, unless a figure says otherwise."""
CORES: Final[Sequence[int]] = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ()
"""Those of this process at its start; none where the system does not say."""


def pin(core: int | None) -> None:
    """
    Keep this process, and what it starts, on one core.
    """
    if core is not None:
        os.sched_setaffinity(0, {core})


def client_core() -> int | None:
    """
    The core of whoever is measured; None where there is no choice.
    """
    return CORES[0] if len(CORES) > 1 else None


def server_core() -> int | None:
    """
    Another one, for the server.
    """
    return CORES[-1] if len(CORES) > 1 else None


@contextmanager
def pinned() -> Iterator[None]:
    """
    The client's core for what is measured in the block.
    """
    core = client_core()
    pin(core)
    try:
        yield
    finally:
        if core is not None:
            os.sched_setaffinity(0, CORES)


def settle_allocator() -> None:
    """
    Free one large block, so that no process is lucky.

    asyncio's transports ask for 256 KiB at each read. Depending on how the heap happens to lie, that costs nothing or a
    quarter of a call; once a larger block was freed, it costs nothing.
    """
    del [bytearray(1 << 20)][:]


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


async def lasting(call: Call, at_once: int, seconds: float) -> tuple[int, float, float]:
    """
    As many calls as begin within so many seconds; their number, CPU seconds of this process and wall seconds.
    """
    calls = 0
    end = time.perf_counter() + seconds

    async def worker() -> None:
        nonlocal calls
        while time.perf_counter() < end:
            calls += 1
            await call()

    cpu, wall = time.process_time(), time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(at_once):
            group.start_soon(worker)
    return calls, time.process_time() - cpu, time.perf_counter() - wall


@asynccontextmanager
async def own_tasks(*, cut_off: bool = False) -> AsyncIterator[Callable[..., object]]:
    """
    What starts tasks as a program would have its own, of the running loop itself.

    Args:
        cut_off: Cancel them at the end, instead of waiting for theirs.
    """
    if not isinstance(current_token().native_token, asyncio.AbstractEventLoop):
        import trio

        async with trio.open_nursery() as nursery:
            yield nursery.start_soon
            if cut_off:
                nursery.cancel_scope.cancel()
        return
    tasks: list[asyncio.Task[object]] = []

    def start(call: Callable[..., Coroutine[object, object, object]], *given: object) -> None:
        tasks.append(asyncio.create_task(call(*given)))

    yield start
    for task in tasks if cut_off else ():
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=cut_off)


async def in_turns(ways: Mapping[str, Callable[[], Awaitable[T]]], rounds: int = ROUNDS) -> dict[str, list[T]]:
    """
    What each gave, round by round: A B A B, after a round that is not counted.
    """
    found: dict[str, list[T]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            found[name].append(await way())
    return {name: each[1:] for name, each in found.items()}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """
    Ours over theirs, within each round.
    """
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def fresh(module: str, *words: object, seconds: float = 300.0) -> list[float]:
    """
    The numbers that a module prints as JSON, run in a process of its own on the client's core.

    Raises:
        subprocess.TimeoutExpired: It did not come to an end.
    """
    command = [sys.executable, "-m", module, *map(str, words)]
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    began = partial(pin, client_core())
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=seconds, preexec_fn=began
    )
    if run.returncode:
        msg = f"{' '.join(command[1:])} failed:\n{run.stderr}"
        raise RuntimeError(msg)
    return [float(number) for number in json.loads(run.stdout)]


def told(text: str) -> None:
    """
    Progress, apart from the table.
    """
    print(text, file=sys.stderr, flush=True)
