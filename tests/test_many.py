"""
Many edits at once over real sockets: all end, nothing is left behind, and cancelling half leaves the pool whole.
"""

import contextlib
import gc
import threading
import traceback
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from kling_async import (
    ApiKey,
    Edited,
    Job,
    KlingClient,
    PollPolicy,
    Removal,
    RetryPolicy,
    SelectionSession,
    Slots,
    TransportError,
    edit_many,
)
from kling_async.simulator import Fault, Simulator
from tests.doubles import KEY

pytestmark = [pytest.mark.real_clock, pytest.mark.timeout(100), pytest.mark.slow]

CLIP = "https://example.com/clip.mp4"
MANY = 200
SOON = PollPolicy(first=0.05, ceiling=0.2)


def sockets():
    """
    The sockets that this process holds, as Linux names them; elsewhere nothing is counted.
    """
    found = set()
    for name in Path("/proc/self/fd").iterdir() if Path("/proc/self/fd").exists() else ():
        with contextlib.suppress(OSError):
            found.add(str(name.readlink()))
    return {target for target in found if target.startswith("socket:")}


async def edit(client, number, folder, done):
    async with SelectionSession(client, video_url=CLIP) as selection:
        await selection.add_points(0, [(0.42, 0.61)])
        task = await selection.create_task(Removal.of("the bird"), external_task_id=f"order-{number}")
    task = await client.wait(task)
    done.add(str(await client.download(task.video, folder / f"{number}.mp4")))


@pytest.fixture
def left_behind():
    """
    What a test leaves: sockets and threads that were not there before it.
    """
    gc.collect()
    before, threads = sockets(), set(threading.enumerate())
    yield
    gc.collect()
    # Both loops keep idle worker threads for the next file: these are theirs, and few.
    pooled = ("AnyIO worker thread", "Trio thread")
    assert [] == [each for each in set(threading.enumerate()) - threads if not each.name.startswith(pooled)]
    assert set() == sockets() - before


async def test_two_hundred_edits_at_once_end_and_leave_nothing(left_behind, tmp_path):
    """
    Every edit has its file, each was charged once, and no socket, thread or task remains.
    """
    simulator, done = Simulator(quota=MANY, task_seconds=0.3), set()
    async with (
        simulator.serve() as base_url,
        KlingClient(ApiKey("sk-made-up"), base_url=base_url, poll=SOON) as client,
        anyio.create_task_group() as group,
    ):
        for number in range(MANY):
            group.start_soon(edit, client, number, tmp_path, done)
    assert MANY == len(done) == len(list(tmp_path.iterdir()))
    assert {f"order-{number}": 1 for number in range(MANY)} == dict(simulator.charges)


@pytest.mark.parametrize("how", ["lost", "dead host"])
async def test_no_frame_of_a_failed_call_holds_the_key(how):
    """
    Error reporters collect the locals of every frame: the key is in none of them.
    """
    simulator = Simulator(faults=[Fault("get", "cut", times=5)])
    async with simulator.serve() as base_url:
        url = base_url if how == "lost" else "http://127.0.0.1:1/kling"
        async with KlingClient(ApiKey(KEY), base_url=url, retry=RetryPolicy(attempts=1)) as client:
            with pytest.raises(TransportError) as caught:
                await client.get_task("8781")
    told = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "_exchange.py" in told
    assert KEY not in told


async def test_a_thousand_jobs_run_fifty_at_a_time(left_behind):
    """
    All end, at most fifty run by the simulator's own count, each is charged once, and nothing is left.
    """
    simulator = Simulator(quota=100, task_seconds=0.05)
    jobs = (Job(CLIP, marks={0: [(0.42, 0.61)]}, edit=Removal.of("it"), key=f"job-{n}") for n in range(1000))
    async with (
        simulator.serve() as base_url,
        KlingClient(ApiKey("sk-made-up"), base_url=base_url, poll=SOON) as client,
        edit_many(client, jobs, slots=50) as outcomes,
    ):
        ends = [type(outcome).__name__ async for outcome in outcomes]
    assert ["Edited"] * 1000 == ends
    assert 50 >= simulator.most_running
    assert 1000 == len(simulator.charges)
    assert {1} == set(simulator.charges.values())


async def test_learned_slots_do_all_jobs_under_a_quota_that_changes(left_behind):
    """
    Over sockets as well: each is charged once, no more run than are allowed, and few creates are refused.
    """
    simulator, ends = Simulator(quota=20, task_seconds=0.3), 0
    jobs = (Job(CLIP, marks={0: [(0.42, 0.61)]}, edit=Removal.of("it"), key=f"job-{n}") for n in range(200))
    async with (
        simulator.serve() as base_url,
        KlingClient(ApiKey("sk-made-up"), base_url=base_url, poll=SOON) as client,
        edit_many(client, jobs, slots=Slots.learned()) as outcomes,
    ):
        async for outcome in outcomes:
            assert isinstance(outcome, Edited)
            ends += 1
            simulator.quota = 20 if ends < 70 else 8 if ends < 130 else 30
    assert 200 == ends
    assert {1} == set(simulator.charges.values())
    assert 20 <= simulator.most_running <= 30
    assert sum(seen.status == 429 for seen in simulator.log) < 60


async def test_cancelling_half_of_them_midway_leaves_the_pool_whole(left_behind, tmp_path):
    """
    The other half ends, and the same client goes on with new edits.
    """
    simulator, done = Simulator(quota=2 * MANY, task_seconds=0.5), set()
    async with (
        simulator.serve() as base_url,
        KlingClient(ApiKey("sk-made-up"), base_url=base_url, poll=SOON, connections=20) as client,
    ):
        async with anyio.create_task_group() as stay, anyio.create_task_group() as leave:
            for number in range(MANY):
                (stay, leave)[number % 2].start_soon(edit, client, number, tmp_path, done)
            while len(simulator.charges) < MANY // 4:
                await client.clear_selection((await client.init_selection(video_url=CLIP)).session_id)
            leave.cancel_scope.cancel()
        assert {str(tmp_path / f"{number}.mp4") for number in range(0, MANY, 2)} <= done
        assert len(done) < MANY
        await edit(client, MANY, tmp_path, done)
    assert {1} == set(simulator.charges.values())
    assert done == {str(path) for path in tmp_path.iterdir()}
