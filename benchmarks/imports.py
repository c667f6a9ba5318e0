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

from benchmarks.table import Row, printed, status

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
WARM = "our warm_up"
ENGINE = "an aiohttp session"
STALL = "our first client beside others"

SCRIPTS = {
    OURS: "import kling_async\ndone()",
    NAMED: f"{NAMED}\ndone()",
    AIOHTTP: "import aiohttp\ndone()",
    READY: "from kling_async import ApiKey, KlingClient" + CLIENT.format("KlingClient(ApiKey('sk-made-up'))", ""),
    WARM: "from kling_async import warm_up\nwarm_up()\ndone()",
    ENGINE: "import aiohttp" + CLIENT.format("aiohttp.ClientSession()", ""),
    STALL: """
import asyncio
from kling_async import ApiKey, KlingClient

async def ticking(gaps):
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        gaps.append(now - last - 0.001)
        last = now

async def main():
    gaps = []
    other = asyncio.create_task(ticking(gaps))
    await asyncio.sleep(0.01)
    async with KlingClient(ApiKey('sk-made-up')):
        other.cancel()
    print(max(gaps), *(end - start for start, end in list(zip(began, now()))[1:]))

asyncio.run(main())
""",
}
"""`ENGINE` is the least that a client on aiohttp can cost. `STALL` tells the longest gap between turns of a loop."""

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
    A row of ratios of CPU seconds, each taken within its round.
    """
    return Row.of(name, (a.cpu / b.cpu for a, b in zip(ours, theirs, strict=True)), gate, goal)


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
            rows.append(against(f"aiohttp session / the median peer's {what}", found[ENGINE], middles, None, None))
    stands = (1000 * cost.wall for cost in found[STALL])
    rows.append(Row.of("ms the loop stands still as a client opens", stands, unit=" ms"))
    taken = (cost.memory for cost in ready)
    return [*rows, Row.of("MB of a first client over the bare interpreter", taken, 32, 28, unit=" MB")]


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


def rows() -> Iterable[Row]:
    """
    The table.
    """
    _, table = measured()
    return table


def main() -> int:
    """
    Print all costs, and the table.
    """
    found, table = measured()
    for name, costs in found.items():
        cost = middle(costs)
        print(f"| {name:<36} | {1000 * cost.cpu:6.1f} ms CPU | {1000 * cost.wall:6.1f} ms | {cost.memory:5.1f} MB |")
    print()
    return status(printed(table))


if __name__ == "__main__":
    sys.exit(main())
