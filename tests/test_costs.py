"""
What an edit will cost: the published price where there is one, and nothing where there is none.
"""

import math
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from kling_async import (
    Addition,
    ApiKey,
    Image,
    InvalidInputError,
    Job,
    KlingClient,
    Removal,
    SelectionInfo,
    SelectionSession,
    SelectionState,
    Swap,
    edit,
    estimate_units,
)
from kling_async._ledger import fitting_duration
from kling_async.simulator import Fault, Footage, Simulator

CLIP = "https://example.com/clip.mp4"
HAT = Image.from_url("https://example.com/hat.png")
PRICES = [("std", 5, "3"), ("std", 10, "6"), ("pro", 5, "5"), ("pro", 10, "10")]


def footage(seconds):
    return Footage(fps=24, total_frames=24 * seconds)


@pytest.mark.parametrize("mode, duration, units", PRICES)
@pytest.mark.parametrize(
    "build",
    [
        lambda **named: Removal.of("the bird", **named),
        lambda **named: Swap.of("the bird", "the hat", HAT, **named),
        lambda **named: Addition.of("the hat", HAT, **named),
    ],
    ids=["removal", "swap", "addition"],
)
def test_mode_and_seconds_make_the_price(build, mode, duration, units):
    """
    Whichever edit it is, with a watermark or not.
    """
    assert Decimal(units) == estimate_units(build(mode=mode, duration=duration))
    assert Decimal(units) == estimate_units(build(mode=mode, duration=str(duration), watermark=True))


@pytest.mark.parametrize("seconds, units", [(2, "3"), (5.5, "3"), (6.99, "3"), (7, "6"), (10.5, "6")])
def test_without_a_duration_the_clip_decides(seconds, units):
    """
    As the session that creates it would decide; without the clip's length nothing is known.
    """
    asked = Removal.of("the bird")
    assert Decimal(units) == estimate_units(asked, clip_seconds=seconds)
    assert estimate_units(asked) is None
    info = SelectionInfo(session_id="1", duration=seconds)
    state = SelectionState(session_id="1", opened_at=datetime.now(UTC), video_url=CLIP, info=info)
    lasting = Removal.of("the bird", duration=fitting_duration(state))
    assert estimate_units(lasting) == estimate_units(asked, clip_seconds=seconds)


def test_a_duration_goes_before_the_length_of_the_clip():
    """
    Five seconds of a clip of ten cost five seconds.
    """
    assert Decimal(3) == estimate_units(Removal.of("the bird", duration=5), clip_seconds=10)


@pytest.mark.parametrize("extra", [None, {}, {"model_name": "kling-v1-6"}, {"model_name": None}, {"model_name": ""}])
def test_the_one_model_may_be_named(extra):
    """
    By its name, or left to the service.
    """
    assert Decimal(3) == estimate_units(Removal.of("the bird", duration=5, extra=extra))


@pytest.mark.parametrize(
    "extra",
    [
        {"model_name": "kling-v3"},
        {"model_name": ["kling-v1-6"]},
        {"sound": "on"},
        {"model_name": "kling-v1-6", "sound": None},
    ],
    ids=["other-model", "no-name", "other-field", "both"],
)
def test_what_has_no_published_price_has_no_estimate(extra):
    """
    Another model, or a field that the documents do not have.
    """
    assert estimate_units(Removal.of("the bird", duration=5, extra=extra)) is None


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf, True, "5"])
def test_a_length_that_is_none_is_told_by_name(wrong):
    """
    Seconds are a positive number, even where they are not needed.
    """
    with pytest.raises(InvalidInputError) as refused:
        estimate_units(Removal.of("the bird", duration=5), clip_seconds=wrong)
    assert "clip_seconds" == refused.value.field


def test_only_edits_have_a_price():
    """
    A job has an edit, but is none.
    """
    with pytest.raises(InvalidInputError, match="not Job") as refused:
        estimate_units(Job(CLIP, marks={0: [(0.5, 0.5)]}, edit=Removal.of("the bird")))
    assert "edit" == refused.value.field


@pytest.mark.parametrize("mode, duration, units", PRICES)
async def test_the_estimate_is_what_the_task_costs(mode, duration, units):
    """
    The simulator has its own table: its tasks tell the same units.
    """
    simulator = Simulator(task_seconds=1, footage=footage(duration))
    asked = Removal.of("the bird", mode=mode, duration=duration)
    async with KlingClient(ApiKey("any"), transport=simulator.transport()) as client:
        task = await edit(client, Job(CLIP, marks={0: [(0.5, 0.5)]}, edit=asked))
    assert Decimal(units) == task.units == estimate_units(asked)


@pytest.mark.parametrize("mode", ["std", "pro"])
@pytest.mark.parametrize("seconds", [2, 5, 7, 10])
async def test_the_estimate_for_a_clip_is_what_its_task_costs(mode, seconds):
    """
    Without a duration of its own, from the length that opening the selection told.
    """
    simulator, asked = Simulator(task_seconds=1, footage=footage(seconds)), Removal.of("the bird", mode=mode)
    client = KlingClient(ApiKey("any"), transport=simulator.transport())
    async with client, SelectionSession(client, video_url=CLIP) as selection:
        await selection.add_points(0, [(0.5, 0.5)])
        expected = estimate_units(asked, clip_seconds=selection.info.duration)
        task = await client.wait(await selection.create_task(asked))
    assert expected == task.units


async def test_a_task_that_fails_costs_nothing_whatever_was_estimated():
    """
    The estimate is for a success; what it did cost is the task's own word.
    """
    simulator = Simulator(task_seconds=1, faults=[Fault("task", "failed")])
    async with KlingClient(ApiKey("any"), transport=simulator.transport()) as client:
        async with SelectionSession(client, video_url=CLIP) as selection:
            await selection.add_points(0, [(0.5, 0.5)])
            created = await selection.create_task(Removal.of("the bird", duration=5), external_task_id="order-1")
        [*_, final] = [task async for task in client.watch(created)]
    assert ("failed", 0) == (final.status, final.units)
    assert {"order-1": 0} == dict(simulator.charges)
