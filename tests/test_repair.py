"""
A selection that is in doubt, or over: nobody pays for it, and a rebuild makes the service hold what the record says.

The simulator's own marks, log and charges are the judge.
"""

from contextlib import asynccontextmanager

import pytest

from kling_async import (
    ApiKey,
    InvalidInputError,
    InvalidRequestError,
    KlingClient,
    LostReplyError,
    Point,
    Removal,
    SelectionDirtyError,
    SelectionExpiredError,
    SelectionRejectedError,
    SelectionSession,
)
from kling_async.simulator import Fault, Shape, Simulator

CLIP = "https://example.com/clip.mp4"
EDIT = Removal.of("the stones")
# Coordinates that do not survive being rounded on the way.
A, B, C = Point(0.1 + 0.2, 0.53), Point(0.37, 1 / 3), Point(5e-324, 1)

LOST = pytest.mark.parametrize("kind", ["lost", "cut"], ids=["done", "not done"])
"""The reply never comes; the change was made, or it was not."""


@asynccontextmanager
async def selecting(simulator):
    """
    A selection with two points on frame 40.
    """
    async with (
        KlingClient(ApiKey("any"), transport=simulator.transport()) as client,
        SelectionSession(client, video_url=CLIP) as selection,
    ):
        await selection.add_points(40, [A, B])
        yield selection


def held(simulator, selection):
    """
    Points by frame index, in their order, as the simulator has them.
    """
    return simulator._desk.machine.selections.sessions[selection.session_id].marks


def recorded(selection):
    """
    The same as our record has them.
    """
    return {frame: tuple((point.x, point.y) for point in points) for frame, points in selection.marks.items()}


def asked(simulator, *, since=0):
    """
    The calls that the simulator saw.
    """
    return [seen.endpoint for seen in simulator.log[since:]]


async def refused(simulator, selection, frames):
    """
    Nobody pays as long as what the service holds on these frames is not known.
    """
    before = len(simulator.log)
    assert frames == selection.state.uncertain
    with pytest.raises(SelectionDirtyError) as caught:
        await selection.create_task(EDIT, external_task_id="order-1")
    assert tuple(sorted(frames)) == caught.value.frames
    assert [] == asked(simulator, since=before)


async def paid(simulator, selection, holding):
    """
    A rebuild makes the service hold this and nothing else, which is then paid for once.
    """
    await selection.rebuild()
    assert frozenset() == selection.state.uncertain
    assert holding == held(simulator, selection) == recorded(selection)
    await selection.create_task(EDIT, external_task_id="order-1")
    assert {"order-1": 1} == simulator.charges


@LOST
@pytest.mark.parametrize("frame", [40, 41], ids=["a marked frame", "another frame"])
async def test_f31_an_add_whose_reply_is_lost(kind, frame):
    """
    Made or not, its frame is in doubt; after a rebuild the service holds the points that were confirmed.
    """
    simulator = Simulator()
    async with selecting(simulator) as selection:
        simulator.script(Fault("add", kind))
        before = len(simulator.log)
        with pytest.raises(LostReplyError):
            await selection.add_points(frame, [C])
        assert ["add"] == asked(simulator, since=before)
        assert (kind == "lost") == ((C.x, C.y) in held(simulator, selection).get(frame, ()))
        await refused(simulator, selection, {frame})
        await paid(simulator, selection, {40: ((A.x, A.y), (B.x, B.y))})


@LOST
async def test_f31_the_point_can_be_added_once_more_after_the_rebuild(kind):
    """
    The record never held it, so it is no point twice, neither here nor at the service.
    """
    simulator = Simulator()
    async with selecting(simulator) as selection:
        simulator.script(Fault("add", kind))
        with pytest.raises(LostReplyError):
            await selection.add_points(41, [C])
        await selection.rebuild()
        await selection.add_points(41, [C])
        await paid(simulator, selection, {40: ((A.x, A.y), (B.x, B.y)), 41: ((C.x, C.y),)})


@LOST
async def test_f31_a_rebuild_whose_replies_are_lost_is_done_again(kind):
    """
    Its own clear or add may be lost as well: what was not replayed is in doubt until a rebuild comes through.
    """
    simulator = Simulator()
    async with selecting(simulator) as selection:
        await selection.add_points(7, [C])
        # A clear may be sent again, so that it takes three to lose it; an add may not.
        for faults, frames in (([Fault("clear", kind, times=3)], {7, 40}), ([Fault("add", kind, after=1)], {40})):
            simulator.script(*faults)
            with pytest.raises(LostReplyError):
                await selection.rebuild()
            await refused(simulator, selection, frames)
        await paid(simulator, selection, {7: ((C.x, C.y),), 40: ((A.x, A.y), (B.x, B.y))})


@LOST
@pytest.mark.parametrize("points", [[A], [A, B]], ids=["one of two", "all"])
async def test_f32_a_delete_whose_reply_is_lost(kind, points):
    """
    Made or not, its frame is in doubt; after a rebuild the service holds the points again, and they can be deleted.
    """
    simulator = Simulator()
    async with selecting(simulator) as selection:
        await selection.add_points(7, [C])
        simulator.script(Fault("delete", kind))
        before = len(simulator.log)
        with pytest.raises(LostReplyError):
            await selection.delete_points(40, points)
        assert ["delete"] == asked(simulator, since=before)
        left = {(point.x, point.y) for point in points} & set(held(simulator, selection).get(40, ()))
        assert (kind == "lost") == (not left)
        await refused(simulator, selection, {40})
        await selection.rebuild()
        assert {7: ((C.x, C.y),), 40: ((A.x, A.y), (B.x, B.y))} == held(simulator, selection)
        await selection.delete_points(40, points)
        kept = {} if B in points else {40: ((B.x, B.y),)}
        await paid(simulator, selection, {7: ((C.x, C.y),), **kept})


async def test_f33_a_session_that_ends_between_preview_and_create():
    """
    Nothing is paid; a rebuild opens another session with the same points, and the same order is then paid for once.
    """
    simulator = Simulator()
    async with selecting(simulator) as selection:
        await selection.preview()
        first = selection.session_id
        simulator.expire(first)
        with pytest.raises(SelectionExpiredError, match=r"rebuild\(\)") as caught:
            await selection.create_task(EDIT, external_task_id="order-1")
        assert "order-1" == caught.value.external_task_id
        assert {} == simulator.charges
        before = len(simulator.log)
        await paid(simulator, selection, {40: ((A.x, A.y), (B.x, B.y))})
        assert first != selection.session_id
        assert ["clear", "init", "add", "get", "create"] == asked(simulator, since=before)


async def test_f33_a_host_that_has_another_code_for_a_session_that_is_over():
    """
    Which code it is, is documented nowhere: nothing is paid, and a rebuild finds out by itself.
    """
    simulator = Simulator(shape=Shape(lost_session=1201))
    async with selecting(simulator) as selection:
        first = selection.session_id
        simulator.expire(first)
        with pytest.raises(InvalidRequestError, match="does not exist or has expired"):
            await selection.create_task(EDIT, external_task_id="order-1")
        assert {} == simulator.charges
        await paid(simulator, selection, {40: ((A.x, A.y), (B.x, B.y))})
        assert first != selection.session_id


async def test_f33_a_session_that_ends_while_it_is_marked():
    """
    The change was not made, and is no doubt: after a rebuild it is made in the new session.
    """
    simulator = Simulator()
    async with selecting(simulator) as selection:
        simulator.expire(selection.session_id)
        for change in (selection.add_points, selection.delete_points):
            with pytest.raises(SelectionExpiredError):
                await change(40, [C] if change == selection.add_points else [A])
        assert frozenset() == selection.state.uncertain
        await selection.rebuild()
        await selection.add_points(40, [C])
        await paid(simulator, selection, {40: ((A.x, A.y), (B.x, B.y), (C.x, C.y))})


@pytest.mark.parametrize("handled", [False, True], ids=["not marked", "marked"])
async def test_f34_an_add_that_is_accepted_without_an_object(handled):
    """
    Code 0 with another data.status is a refusal: whatever the service has marked then, nobody pays for it.
    """
    simulator = Simulator()
    async with (
        KlingClient(ApiKey("any"), transport=simulator.transport()) as client,
        SelectionSession(client, video_url=CLIP) as selection,
    ):
        simulator.script(Fault("add", "rejected", handled=handled))
        with pytest.raises(SelectionRejectedError):
            await selection.add_points(40, [A])
        assert {} == recorded(selection)
        assert ({40: ((A.x, A.y),)} if handled else {}) == held(simulator, selection)
        await refused(simulator, selection, {40})
        await selection.rebuild()
        assert {} == held(simulator, selection)
        with pytest.raises(InvalidInputError, match="needs marked points"):
            await selection.create_task(EDIT, external_task_id="order-1")
        assert "create" not in asked(simulator)
        await selection.add_points(40, [B])
        await paid(simulator, selection, {40: ((B.x, B.y),)})
