"""
What an observer is told, and what it is not.
"""

import pytest

from kling_async import ApiKey, KlingClient, Removal, SelectionSession
from kling_async.events import Created, Exchanged, Looked, Replayed
from kling_async.simulator import Fault, Simulator
from tests.doubles import KEY

CLIP = "https://example.com/clip.mp4?signature=secret"


async def edited(observer, **named):
    simulator = Simulator(task_seconds=5, **named)
    async with KlingClient(ApiKey(KEY), transport=simulator.transport(), observer=observer) as client:
        async with SelectionSession(client, video_url=CLIP) as selection:
            await selection.add_points(0, [(0.5, 0.5)])
            task = await selection.create_task(Removal.of("it"), external_task_id="order-1")
        return await client.wait(task)


async def test_an_observer_is_told_of_an_edit_from_its_first_request_to_its_end():
    """
    Every exchange with its path and status, the create that is paid, and each change of the task.
    """
    told = []
    task = await edited(told.append)
    family = "/v1/videos/multi-elements"
    exchanged = [(event.method, event.path, event.status) for event in told if isinstance(event, Exchanged)]
    assert [
        ("POST", f"{family}/init-selection", 200),
        ("POST", f"{family}/add-selection", 200),
        ("GET", f"{family}/order-1", 404),
        ("POST", family, 200),
        ("GET", f"{family}/{task.task_id}", 200),
    ] == exchanged[:5]
    assert [Created(external_task_id="order-1", task_id=task.task_id)] == [e for e in told if isinstance(e, Created)]
    assert ["processing", "succeed"] == [event.status for event in told if isinstance(event, Looked)]
    assert all(event.seconds >= 0 for event in told if isinstance(event, Exchanged))


async def test_an_observer_is_told_of_replays():
    """
    Of a read and of a create that was refused for its rate, with the wait before the next attempt.
    """
    told = []
    await edited(told.append, faults=[Fault("init", "code", code=5000), Fault("create", "code", code=1302)])
    replayed = [(event.method, event.attempt, event.error) for event in told if isinstance(event, Replayed)]
    assert [("POST", 2, "ServerError"), ("POST", 2, "ThrottledError")] == replayed
    assert all(event.delay >= 0 for event in told if isinstance(event, Replayed))


async def test_no_event_holds_a_key_or_a_query():
    """
    What an observer may log is safe to log.
    """
    told = []
    await edited(told.append)
    assert KEY not in repr(told)
    assert "signature" not in repr(told)


async def test_what_an_observer_raises_is_the_callers():
    """
    A bug in it is not hidden.
    """

    def broken(_event):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await edited(broken)
