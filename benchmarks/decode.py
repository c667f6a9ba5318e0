"""
From bytes to values: a task and a marked selection, against what `orjson.loads` alone takes for the same bytes.

Rounds alternate in one process.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial

import orjson

from benchmarks.answers import OBJECTS, TASK, marked
from benchmarks.rounds import in_turns, pinned, ratios
from benchmarks.table import Row, printed, status
from kling_async._endpoints import ADD, GET
from kling_async._replies import read
from kling_async.transport import Response

OURS, PARSER = "ours", "orjson"


async def spent(decode: Callable[[], object], times: int) -> float:
    """
    CPU seconds of so many.
    """
    began = time.process_time()
    for _ in range(times):
        decode()
    return time.process_time() - began


def against_orjson(decode: Callable[[], object], body: bytes, times: int) -> dict[str, list[float]]:
    """
    CPU seconds of ours and of the parser, round by round.
    """
    ways = {OURS: partial(spent, decode, times), PARSER: partial(spent, partial(orjson.loads, body), times)}
    return asyncio.run(in_turns(ways))


def rows() -> Iterable[Row]:
    """
    Both replies.
    """
    task, selection = Response(200, {}, TASK), Response(200, {}, marked())
    assert read(GET, task).has_video
    assert len(read(ADD, selection).masks) == OBJECTS
    with pinned():
        for name, decode, body, times, gate, goal in (
            ("task", partial(read, GET, task), TASK, 10_000, 8.0, 5.0),
            ("selection with its masks", partial(read, ADD, selection), marked(), 500, 2.0, 1.5),
        ):
            found = against_orjson(decode, body, times)
            yield Row.of(f"reading a {name} / orjson.loads", ratios(found[OURS], found[PARSER]), gate, goal, unit="x")
            yield Row.of(f"... of {len(body):,} bytes", (1e6 * each / times for each in found[OURS]), unit=" us")


if __name__ == "__main__":
    sys.exit(status(printed(rows())))
