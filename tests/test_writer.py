"""
A thread that writes while more comes: true threads, on both loops, and what writes is made up.
"""

import asyncio
import random
import threading
from itertools import pairwise

import anyio
import pytest

from kling_async._writer import BATCH, Writer

pytestmark = pytest.mark.real_clock

FILM = random.Random(3).randbytes(4 * BATCH + 700)


class Disk:
    """
    Keeps what is written to it, and can be made to wait, or to fail, at the batch that begins with some byte.
    """

    def __init__(self, *, slow=-1, broken=-1):
        self.slow, self.broken = slow, broken
        self.spans = []
        self.data = b""
        self.threads = set()
        self.entered, self.go = threading.Event(), threading.Event()

    def write(self, start, data):
        self.threads.add(threading.current_thread())
        if start == self.slow:
            self.entered.set()
            self.go.wait(10)
        if start == self.broken:
            raise ZeroDivisionError
        self.spans.append((start, start + len(data)))
        self.data += data

    async def busy(self):
        """
        Wait until it waits.
        """
        await anyio.to_thread.run_sync(self.entered.wait, 10)

    async def ended(self):
        """
        Wait until its threads have.
        """
        for thread in self.threads:
            await anyio.to_thread.run_sync(thread.join, 10)
        assert not [thread for thread in self.threads if thread.is_alive()]


async def pour(writer, data):
    """
    Gather it all, and take turns.
    """
    rest = writer.gather(memoryview(data))
    while writer.full:
        await writer.turn()
        rest = writer.gather(rest)
    assert b"" == rest


@pytest.mark.parametrize("size", [len(FILM), 3 * BATCH, BATCH, BATCH - 1, 70_001])
async def test_what_comes_in_pieces_is_written_in_batches_and_in_order(size):
    """
    However large they are: no byte is lost, none comes twice, and what fills no batch stays with its giver.
    """
    disk = Disk()
    writer = Writer(disk.write, 100)
    for at in range(0, len(FILM), size):
        await pour(writer, FILM[at : at + size])
    await writer.settled()
    assert FILM[: 4 * BATCH] == disk.data
    assert [(100 + n * BATCH, 100 + (n + 1) * BATCH) for n in range(4)] == disk.spans
    assert (100 + 4 * BATCH, FILM[4 * BATCH :]) == writer.gathered
    assert [writer.gathered] == writer.unwritten
    writer.end()
    await disk.ended()


async def test_one_thread_writes_and_it_ends_when_it_is_let_go():
    """
    It is never the loop's; and where no batch is ever full there is none.
    """
    disk, idle = Disk(), Disk()
    writer, other = Writer(disk.write, 0), Writer(idle.write, 0)
    await pour(writer, FILM)
    await pour(other, FILM[: BATCH - 1])
    await writer.settled()
    await other.settled()
    writer.end()
    other.end()
    await disk.ended()
    assert 1 == len(disk.threads)
    assert threading.current_thread() not in disk.threads
    assert set() == idle.threads


async def test_what_was_given_is_written_also_when_it_is_let_go_at_once():
    """
    The end comes behind it.
    """
    disk = Disk(slow=0)
    writer = Writer(disk.write, 0)
    await pour(writer, FILM[:BATCH])
    writer.end()
    await disk.busy()
    disk.go.set()
    await disk.ended()
    assert FILM[:BATCH] == disk.data


async def test_more_is_gathered_while_a_batch_is_written_but_no_third():
    """
    The second batch fills up meanwhile, and then its giver waits.
    """
    disk = Disk(slow=0)
    writer = Writer(disk.write, 0)
    await pour(writer, FILM[: 2 * BATCH - 1])
    await disk.busy()
    assert [(0, FILM[:BATCH]), (BATCH, FILM[BATCH : 2 * BATCH - 1])] == writer.unwritten
    async with anyio.create_task_group() as group:
        group.start_soon(pour, writer, FILM[2 * BATCH - 1 :])
        await anyio.wait_all_tasks_blocked()
        assert writer.full
        assert [] == disk.spans
        assert [(0, FILM[:BATCH]), (BATCH, FILM[BATCH : 2 * BATCH])] == writer.unwritten
        disk.go.set()
    await writer.settled()
    assert FILM[: 4 * BATCH] == disk.data
    assert all(before[1] == after[0] for before, after in pairwise(disk.spans))
    writer.end()
    await disk.ended()


@pytest.mark.parametrize("step", ["gather", "turn", "settled"])
async def test_what_the_thread_raises_comes_out_at_the_next_step(step):
    """
    Be it the next piece, the next batch or the end; nothing more is written.
    """
    disk = Disk(slow=0, broken=0)
    writer = Writer(disk.write, 0)
    await pour(writer, FILM[: 2 * BATCH - 1])
    await disk.busy()
    disk.go.set()
    if step == "gather":
        writer.end()
        await disk.ended()
    with pytest.raises(ZeroDivisionError):
        await (pour(writer, b"!") if step == "gather" else getattr(writer, step)())
    writer.end()
    await disk.ended()
    assert [] == disk.spans


async def test_who_is_cancelled_at_a_turn_has_all_that_is_not_written():
    """
    What is under way comes first.
    """
    disk = Disk(slow=BATCH)
    writer = Writer(disk.write, 0)
    await pour(writer, FILM[: 2 * BATCH])
    await disk.busy()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await pour(writer, FILM[2 * BATCH :])
    assert scope.cancelled_caught
    assert [(BATCH, FILM[BATCH : 2 * BATCH]), (2 * BATCH, FILM[2 * BATCH : 3 * BATCH])] == writer.unwritten
    writer.end()
    disk.go.set()
    await disk.ended()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_that_ends_meanwhile_is_not_missed(backend):
    """
    The thread finds nobody to tell, and ends.
    """
    disk = Disk(slow=0)

    async def gone():
        writer = Writer(disk.write, 0)
        await pour(writer, FILM[:BATCH])
        writer.end()
        await disk.busy()

    anyio.run(gone, backend=backend)
    disk.go.set()
    asyncio.run(disk.ended())
    assert FILM[:BATCH] == disk.data
