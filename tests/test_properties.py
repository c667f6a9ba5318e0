"""
Properties across the layers: the record of a selection is what the service holds, whatever is done.
"""

import anyio
import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from kling_async import (
    ApiKey,
    InvalidInputError,
    KlingClient,
    KlingError,
    RetryPolicy,
    SelectionSession,
    SelectionState,
    from_dict,
    to_dict,
)
from kling_async.simulator import Fault, Simulator

CLIP = "https://example.com/clip.mp4"
SPOTS = some.sampled_from([(n / 7, (n * 3 % 7) / 7) for n in range(7)] + [(0.1 + 0.2, 1.0), (5e-324, 0.0)])
STEPS = some.lists(
    some.tuples(
        some.sampled_from(["add", "add", "delete", "clear", "rebuild"]),
        some.integers(0, 11),
        some.lists(SPOTS, min_size=1, max_size=4),
    ),
    max_size=25,
)
FAULTS = some.lists(
    some.builds(
        Fault,
        some.sampled_from(["add", "delete", "clear"]),
        some.sampled_from(["lost", "cut"]),
        after=some.integers(0, 6),
    ),
    max_size=4,
)


def held(simulator, session_id):
    """
    What the simulator holds of a session.
    """
    marks = simulator._desk.machine.selections.sessions[session_id].marks
    return {frame: {tuple(spot) for spot in spots} for frame, spots in marks.items()}


def recorded(state):
    """
    What the client believes.
    """
    return {frame: {(point.x, point.y) for point in points} for frame, points in state.marks.items()}


async def act(selection, step):
    """
    One step; what a rule or a fault refuses is refused.
    """
    verb, frame, spots = step
    try:
        match verb:
            case "add":
                await selection.add_points(frame, spots)
            case "delete":
                await selection.delete_points(frame, spots)
            case "clear":
                await selection.clear()
            case _:
                await selection.rebuild()
    except InvalidInputError:
        pass
    except KlingError:
        return


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, backend=some.sampled_from(["asyncio", "trio"]))
def test_the_record_is_what_the_service_holds(steps, backend):
    """
    After any sequence of operations, each by another object that knows only the state as JSON.
    """

    async def main():
        simulator = Simulator()
        async with KlingClient(ApiKey("any"), transport=simulator.transport()) as client:
            async with SelectionSession(client, video_url=CLIP) as selection:
                state = selection.state
            for step in steps:
                carried = from_dict(SelectionState, orjson.loads(orjson.dumps(to_dict(state))))
                async with SelectionSession(client, state=carried) as selection:
                    await act(selection, step)
                    state = selection.state
                assert held(simulator, state.session_id) == recorded(state)
                assert frozenset() == state.uncertain

    anyio.run(main, backend=backend)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, faults=FAULTS, backend=some.sampled_from(["asyncio", "trio"]))
def test_what_is_not_uncertain_is_true_whatever_is_lost(steps, faults, backend):
    """
    Replies lost, requests cut: a frame that is certain is as recorded, and a rebuild makes all of them so.
    """

    async def main():
        simulator = Simulator(faults=faults)
        async with (
            KlingClient(ApiKey("any"), transport=simulator.transport(), retry=RetryPolicy(attempts=1)) as client,
            SelectionSession(client, video_url=CLIP) as selection,
        ):
            for step in steps:
                await act(selection, step)
                truth, belief = held(simulator, selection.session_id), recorded(selection.state)
                for frame in (truth.keys() | belief.keys()) - selection.state.uncertain:
                    assert truth.get(frame) == belief.get(frame)
            for _ in range(len(faults) + 1):
                if selection.state.uncertain:
                    await act(selection, ("rebuild", 0, []))
            assert held(simulator, selection.session_id) == recorded(selection.state)
            assert frozenset() == selection.state.uncertain

    anyio.run(main, backend=backend)
