"""
What importing costs, and the way to a first client: `python -m benchmarks.imports` prints it with what is aimed at.

Each measurement is a fresh interpreter on one core. All take turns in every round, and ratios are medians over the
rounds. CPU seconds, user and system, come first: a busy machine spoils wall seconds more.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from statistics import median

from attrs import frozen

ROUNDS = 11
"""After one that is not counted: it compiles what was edited since."""

FRAME = """
import os, time

def now():
    try:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
    except OSError:
        pages = 0
    return time.perf_counter(), time.process_time(), pages * os.sysconf("SC_PAGE_SIZE") / 2**20

def done():
    print(*(end - start for start, end in zip(began, now())))

began = now()
"""

CLIENT = """
import asyncio

async def main():
    async with {} as client:
        {}done()

asyncio.run(main())
"""

OURS = "kling_async"
NAMED = "from kling_async import KlingClient"
AIOHTTP = "aiohttp"
READY = "our first client"

SCRIPTS = {
    OURS: "import kling_async\ndone()",
    NAMED: f"{NAMED}\ndone()",
    AIOHTTP: "import aiohttp\ndone()",
    READY: "from kling_async import ApiKey, KlingClient" + CLIENT.format("KlingClient(ApiKey('sk-made-up'))", ""),
}

PEERS = {
    "runwayml": "from runwayml import AsyncRunwayML"
    + CLIENT.format("AsyncRunwayML(api_key='sk-made-up')", "client.video_to_video; "),
    "openai": "from openai import AsyncOpenAI" + CLIENT.format("AsyncOpenAI(api_key='sk-made-up')", "client.images; "),
    "fal_client": "import fal_client\nclient = fal_client.AsyncClient(key='sk-made-up')\ndone()",
    "replicate": "from replicate import Client\nclient = Client(api_token='sk-made-up')\ndone()",
    "google.genai": "from google.genai import Client"
    + CLIENT.format("Client(api_key='sk-made-up').aio", "client.models; "),
}
"""The way to a client of each, with the part that has its paid call; fal_client and replicate connect later."""


@frozen
class Cost:
    """
    What one fresh process spent.
    """

    wall: float
    """Seconds."""
    cpu: float
    """Seconds, user and system."""
    memory: float
    """Megabytes over what the bare interpreter takes; 0 where the system does not say."""


@frozen
class Row:
    """
    A line of the table.
    """

    name: str
    """What against what."""
    cpu: float
    """The ratio of CPU seconds, or megabytes."""
    wall: float | None
    """The ratio of wall seconds; None for megabytes."""
    gate: float | None = None
    """What it must not exceed."""
    goal: float | None = None
    """What it should not exceed."""


def spent(script: str) -> Cost:
    """
    Run it in a new interpreter, which may write bytecode as every user's does.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", FRAME + script]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return Cost(*map(float, run.stdout.split()))


@contextmanager
def on_one_core() -> Iterator[None]:
    """
    Keep this process and its children on one core, where the system lets them be kept.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def alternating(scripts: Mapping[str, str], rounds: int = ROUNDS) -> dict[str, list[Cost]]:
    """
    The costs of each script, round by round.
    """
    found: dict[str, list[Cost]] = {name: [] for name in scripts}
    with on_one_core():
        for _ in range(rounds + 1):
            for name, script in scripts.items():
                found[name].append(spent(script))
    return {name: costs[1:] for name, costs in found.items()}


def middle(costs: Iterable[Cost]) -> Cost:
    """
    The median of each kind.
    """
    listed = list(costs)
    return Cost(*(median(getattr(cost, name) for cost in listed) for name in ("wall", "cpu", "memory")))


def against(name: str, ours: list[Cost], theirs: list[Cost], gate: float | None, goal: float | None) -> Row:
    """
    A row of ratios, each taken within its round.
    """
    pairs = list(zip(ours, theirs, strict=True))
    cpu, wall = (median(getattr(a, kind) / getattr(b, kind) for a, b in pairs) for kind in ("cpu", "wall"))
    return Row(name, cpu, wall, gate, goal)


def compared(found: Mapping[str, list[Cost]], peers: Iterable[str]) -> list[Row]:
    """
    The table of what was measured; peers that are not installed have no part in it.
    """
    ready = found[READY]
    rows = [
        against("import kling_async / import aiohttp", found[OURS], found[AIOHTTP], 0.5, 0.3),
        against("import KlingClient from it / import aiohttp", found[NAMED], found[AIOHTTP], None, None),
    ]
    for what, key, gate, goal in (("import", "{}", 0.65, 0.5), ("first client", "{}'s client", None, None)):
        theirs = [found[key.format(peer)] for peer in peers]
        if theirs:
            middles = [middle(costs) for costs in zip(*theirs, strict=True)]
            rows.append(against(f"first client / the median peer's {what}", ready, middles, gate, goal))
    return [*rows, Row("MB of a first client over the bare interpreter", middle(ready).memory, None, 32, 28)]


def measured(rounds: int = ROUNDS) -> tuple[dict[str, list[Cost]], list[Row]]:
    """
    All costs and the table, with those peers that are installed.
    """
    peers = [name for name in PEERS if find_spec(name.partition(".")[0]) and find_spec(name)]
    scripts = dict(SCRIPTS)
    for peer in peers:
        scripts |= {peer: f"import {peer}\ndone()", f"{peer}'s client": PEERS[peer]}
    found = alternating(scripts, rounds)
    return found, compared(found, peers)


def main() -> None:
    """
    Print both.
    """
    found, rows = measured()
    for name, costs in found.items():
        cost = middle(costs)
        print(f"| {name:<36} | {1000 * cost.cpu:6.1f} ms CPU | {1000 * cost.wall:6.1f} ms | {cost.memory:5.1f} MB |")
    print()
    for row in rows:
        wall = "" if row.wall is None else f"wall {row.wall:.2f}"
        aims = "" if row.gate is None else f"gate {row.gate:g}, goal {row.goal:g}"
        print(f"| {row.name:<46} | {row.cpu:5.2f} | {wall:<9} | {aims:<20} |")


if __name__ == "__main__":
    main()
