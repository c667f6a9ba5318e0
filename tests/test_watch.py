"""
Waiting: soon at first, then less often, without an end of its own.
"""

import anyio
import pytest

from kling_async import (
    ApiKey,
    AuthenticationError,
    InvalidInputError,
    KlingClient,
    LostReplyError,
    NotFoundError,
    PollPolicy,
    RetryPolicy,
    Task,
    TaskFailedError,
    TLSError,
)
from tests.doubles import KEY, Script, envelope, task_reply

STEADY = PollPolicy(jitter=0)
ONCE = RetryPolicy(attempts=1)


def client_of(*steps, poll=STEADY):
    return KlingClient(ApiKey(KEY), transport=Script(list(steps)), poll=poll, retry=ONCE)


def running(status="submitted"):
    return Task(task_id="8781", status=status)


async def test_the_first_look_comes_within_a_second_and_then_they_grow():
    """
    Looks at 1, 2.5 and 4.75 seconds after the create.
    """
    steps = [task_reply("processing"), task_reply("processing"), task_reply("succeed")]
    async with client_of(*steps) as client:
        began = anyio.current_time()
        assert "succeed" == (await client.wait(running())).status
        assert 4.75 == pytest.approx(anyio.current_time() - began)


async def test_waits_stop_growing_at_the_ceiling_and_never_end_by_themselves():
    """
    An hour of looking is an hour of looks ten seconds apart, and goes on.
    """
    async with client_of(*[task_reply("processing")] * 400) as client:
        with anyio.move_on_after(3600) as scope:
            await client.wait("8781")
        assert scope.cancelled_caught
        assert 350 < 400 - len(client._exchange.transport.steps) < 370


async def test_an_id_is_looked_at_at_once():
    """
    Nothing is known of a bare id, so the first look does not wait.
    """
    async with client_of(task_reply("succeed")) as client:
        began = anyio.current_time()
        await client.wait("8781")
        assert began == pytest.approx(anyio.current_time())


async def test_a_task_that_has_ended_is_not_looked_at():
    """
    A final task with its video is the answer.
    """
    async with client_of(task_reply("succeed")) as client:
        task = await client.wait("8781")
        assert task is await client.wait(task)


async def test_a_failed_task_is_raised_with_its_reason():
    """
    A failure arrives with code 0 and SUCCEED; it is raised all the same.
    """
    failed = task_reply("failed", task_status_msg="Failure to pass the risk control system")
    async with client_of(failed) as client:
        with pytest.raises(TaskFailedError, match="risk control") as caught:
            await client.wait(running())
    assert caught.value.content_rejected
    assert "8781" == caught.value.task.task_id


async def test_passing_faults_cost_a_look(caplog):
    """
    Lost replies, 5xx and 1302 between looks do not end the wait, and warn once.
    """
    faults = [LostReplyError("cut"), envelope(code=5000, status=500), envelope(code=1302, status=429)]
    async with client_of(*faults, task_reply("succeed")) as client:
        assert "succeed" == (await client.wait(running())).status
    assert 1 == len(caplog.records)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(TLSError("expired"), TLSError), (envelope(code=1002, status=401), AuthenticationError)],
)
async def test_what_does_not_pass_ends_the_wait(fault, kind):
    """
    A broken certificate or key is raised at once.
    """
    async with client_of(fault) as client:
        with pytest.raises(kind):
            await client.wait(running())


async def test_a_task_just_created_may_be_missing_for_a_moment():
    """
    Gateways answer `task_not_exist` right after a create; three times are forgiven.
    """
    missing = envelope(code="task_not_exist", status=400)
    async with client_of(missing, missing, missing, task_reply("succeed")) as client:
        assert "succeed" == (await client.wait(running())).status
    async with client_of(*[missing] * 4) as client:
        with pytest.raises(NotFoundError):
            await client.wait(running())
    async with client_of(missing) as client:
        with pytest.raises(NotFoundError):
            await client.wait("8781")


async def test_watch_tells_the_present_state_each_change_and_the_end():
    """
    Repeated states are told once, a step back is not believed, and a failure is a state.
    """
    steps = [
        task_reply("submitted"),
        task_reply("submitted"),
        task_reply("processing"),
        task_reply("submitted"),
        task_reply("pondering"),
        task_reply("failed"),
    ]
    async with client_of(*steps) as client:
        told = [task.status async for task in client.watch(running())]
    assert ["submitted", "processing", "pondering", "failed"] == told


async def test_watch_of_an_ended_task_tells_it_once():
    """
    What is over is told from what is known.
    """
    async with client_of() as client:
        assert ["failed"] == [task.status async for task in client.watch(running("failed"))]


async def test_a_watch_left_early_leaves_nothing():
    """
    It is a plain iterator: leaving it and going on later both work.
    """
    async with client_of(task_reply("submitted"), task_reply("succeed")) as client:
        watch = client.watch("8781")
        async for task in watch:
            assert "submitted" == task.status
            break
        assert ["succeed"] == [task.status async for task in watch]


async def test_looks_are_spread_by_chance():
    """
    Many waiters do not look at the same moment.
    """
    async with client_of(*[task_reply("succeed")] * 50, poll=PollPolicy()) as client:
        ends = []

        async def one():
            await client.wait(running())
            ends.append(anyio.current_time())

        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(one)
        assert 10 < len(set(ends))
        assert 1.0 >= max(ends) - began
        assert 0.9 <= min(ends) - began


async def test_what_to_wait_for_is_a_task_or_an_id():
    """
    Anything else is told by name.
    """
    async with client_of() as client:
        with pytest.raises(InvalidInputError, match="task"):
            client.watch(8781)


async def test_a_task_known_to_have_failed_is_raised_without_a_look():
    """
    What is over needs no request.
    """
    async with client_of() as client:
        with pytest.raises(TaskFailedError, match="gave no reason"):
            await client.wait(running("failed"))


async def test_looks_go_on_when_no_replay_can_be_paid():
    """
    An empty budget ends a look, not the wait: the next look comes in the rhythm of the policy.
    """
    steps = [envelope(code=5001, status=503)] * 3 + [task_reply("succeed")]
    client = KlingClient(ApiKey(KEY), transport=Script(steps), poll=STEADY)
    async with client:
        client._exchange.budget.left = 0
        began = anyio.current_time()
        assert "succeed" == (await client.wait(running())).status
        assert 1 + 1.5 + 2.25 + 3.375 == pytest.approx(anyio.current_time() - began)
        assert 1 == client._exchange.budget.left
