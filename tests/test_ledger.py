"""
What a selection is believed to hold.
"""

import warnings
from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kling_async import (
    Addition,
    Image,
    InvalidInputError,
    KlingWarning,
    Marks,
    Point,
    Removal,
    SelectionDirtyError,
    SelectionExpiredError,
    SelectionInfo,
    SelectionState,
    Swap,
)
from kling_async._ledger import (
    FRAMES_MOST,
    LIFE,
    MARGIN,
    POINTS_MOST,
    added,
    adding,
    check_create,
    check_points,
    cleared,
    clearing,
    deleted,
    deleting,
    expired,
    fitting_duration,
    reopened,
    settled,
)
from tests import strategies
from tests.strategies import modest

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HAT = Image.from_url("https://example.com/hat.png")
A, B = Point(0.1, 0.2), Point(0.3, 0.4)


def row(count, start=0):
    """
    So many points in a row.
    """
    return tuple(Point(number / 100, 0.5) for number in range(start, start + count))


def state(marks=None, *, uncertain=(), opened_at=NOW, **info):
    """
    A selection of a minute's making; facts of its clip where some are given.
    """
    told = SelectionInfo(session_id="8475", **info) if info else None
    return SelectionState(session_id="8475", opened_at=opened_at, marks=marks, uncertain=uncertain, info=told)


@pytest.mark.parametrize(
    "held, frame, points, field",
    [
        pytest.param({}, 0, (), "points", id="B10"),
        pytest.param({}, 0, row(11), "points", id="B11"),
        pytest.param({0: row(6)}, 0, row(5, 50), "points", id="B12"),
        pytest.param({frame: [A] for frame in range(FRAMES_MOST)}, 10, (A,), "frame_index", id="B13"),
        pytest.param({}, 0, (A, B, A), "points", id="B14-call"),
        pytest.param({0: [A]}, 0, (B, A), "points", id="B14-held"),
        pytest.param({0: [(0.0, 0.5)]}, 0, (Point(-0.0, 0.5),), "points", id="B14-minus-zero"),
        pytest.param({}, -1, (A,), "frame_index", id="B16"),
        pytest.param({}, True, (A,), "frame_index", id="B17"),
        pytest.param({}, 1.0, (A,), "frame_index", id="B17-float"),
        pytest.param({}, "1", (A,), "frame_index", id="B17-text"),
        pytest.param({}, 151, (A,), "frame_index", id="B18"),
        pytest.param({}, 10**18, (A,), "frame_index", id="B18-huge"),
    ],
)
def test_points_that_break_a_limit_are_not_added(held, frame, points, field):
    """
    Counted over all calls, before any request.
    """
    with pytest.raises(InvalidInputError) as refused:
        adding(state(held, total_frames=150), frame, points)
    assert field == refused.value.field


@pytest.mark.parametrize(
    "held, frame, points",
    [
        pytest.param({0: [A]}, 0, (B,), id="B15"),
        pytest.param({0: [A]}, 1, (A,), id="B15-frame"),
        pytest.param({}, 0, (A,), id="B15-nothing"),
        pytest.param({0: [A, B]}, 0, (A, A), id="B14"),
        pytest.param({0: [A]}, 0, (), id="B10"),
        pytest.param({0: [A]}, -1, (A,), id="B16"),
        pytest.param({0: [(0.3, 0.5)]}, 0, (Point(0.1 + 0.2, 0.5),), id="B8"),
    ],
)
def test_points_that_are_not_there_are_not_deleted(held, frame, points):
    """
    Their digits must be the very ones that added them.
    """
    with pytest.raises(InvalidInputError):
        deleting(state(held), frame, points)


def test_a_point_that_stands_twice_is_named():
    """
    The one that repeats, not the first.
    """
    with pytest.raises(InvalidInputError, match=r"holds \(0\.1, 0\.2\) twice"):
        check_points((B, A, A))


def test_limits_are_reached_and_not_passed():
    """
    Ten points at once, ten on a frame over two calls, a tenth frame, more points on a frame that is marked.
    """
    assert row(POINTS_MOST) == check_points(row(POINTS_MOST))
    adding(state({0: row(6)}), 0, row(4, 50))
    nine = {frame: [A] for frame in range(9)}
    adding(state(nine), 9, (A,))
    adding(state({**nine, 9: [A]}), 9, (B,))


def test_a_frame_is_uncertain_from_the_first_byte_to_the_reply():
    """
    And its marks change with the reply alone.
    """
    before = state({0: [A]}, uncertain={4})
    during = adding(before, 7, (B,))
    assert evolve(before, uncertain={4, 7}) == during
    assert evolve(during, marks={0: [A], 7: [B]}) == added(during, 7, (B,))
    assert before == settled(during, 7)
    assert evolve(before, uncertain={0, 4}) == deleting(before, 0, (A,))
    assert evolve(before, marks={}, uncertain={0, 4}) == deleted(deleting(before, 0, (A,)), 0, (A,))


def test_unknown_marks_stay_unknown_and_are_not_checked_against():
    """
    A bare session id: the limits of one call hold, those of the session are the service's to keep.
    """
    unknown = state(None)
    assert unknown == settled(added(adding(unknown, 0, (A,)), 0, (A,)), 0)
    assert unknown == settled(deleted(deleting(unknown, 0, (A,)), 0, (A,)), 0)
    with pytest.raises(InvalidInputError):
        adding(unknown, 0, row(11))
    assert state(Marks()) == cleared(unknown)


def test_the_frame_after_the_last_is_warned_of():
    """
    B18: whether frames count from 0 or 1 is documented nowhere, and without a total nothing is known.
    """
    with pytest.warns(KlingWarning, match="frame 150 of 150"):
        adding(state({}, total_frames=150), 150, (A,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adding(state({}, total_frames=150), 149, (A,))
        adding(state({}, fps=30.0), 10**18, (A,))
        adding(state({}), 10**18, (A,))


@given(strategies.states, strategies.frames, strategies.groups)
@modest
def test_adding_and_deleting_leaves_everything_as_it_was(before, frame, points):
    """
    The record of a selection forgets nothing and invents nothing.
    """
    before = evolve(before, info=None, uncertain=before.uncertain - {frame})
    try:
        after = added(adding(before, frame, tuple(points)), frame, tuple(points))
    except InvalidInputError:
        assert before.marks is not None  # nothing is checked against marks that are not known
        return
    assert before == settled(deleted(deleting(after, frame, tuple(points)), frame, tuple(points)), frame)


class Selection(RuleBasedStateMachine):
    """
    Any calls in any order, against a plain dictionary of sets.
    """

    def __init__(self):
        super().__init__()
        self.state = state({})
        self.model = {}

    places = st.integers(0, 12)
    choices = st.lists(st.integers(0, 14), min_size=1, max_size=6, unique=True).map(
        lambda numbers: tuple(Point(number / 20, 0.5) for number in numbers)
    )

    @rule(frame=places, points=choices, lost=st.booleans())
    def add(self, frame, points, lost):
        held = self.model.get(frame, set())
        fits = len(held | set(points)) == len(held) + len(points) <= POINTS_MOST
        fits = fits and (held or len(self.model) < FRAMES_MOST)
        try:
            during = adding(self.state, frame, points)
        except InvalidInputError:
            assert not fits
            return
        assert fits
        self.state = during if lost else added(during, frame, points)
        if not lost:
            self.model[frame] = held | set(points)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data):
        frame = data.draw(st.sampled_from(sorted(self.model)))
        held = sorted(self.model[frame], key=lambda point: point.x)
        points = tuple(data.draw(st.lists(st.sampled_from(held), min_size=1, unique=True)))
        self.state = deleted(deleting(self.state, frame, points), frame, points)
        self.model[frame] -= set(points)
        if not self.model[frame]:
            del self.model[frame]

    @rule()
    def clear(self):
        self.state = cleared(self.state)
        self.model = {}

    @invariant()
    def agrees(self):
        assert self.model == {frame: set(points) for frame, points in self.state.marks.items()}

    @invariant()
    def keeps_to_the_limits(self):
        assert len(self.state.marks) <= FRAMES_MOST
        assert all(len(points) <= POINTS_MOST for points in self.state.marks.values())


class TestTheLedger(Selection.TestCase):
    """
    Agrees with its model after any calls, and never holds more than ten frames or ten points on one.
    """

    settings = modest


def test_a_new_session_starts_with_every_frame_in_doubt():
    """
    Until the marks are replayed the service holds none of them.
    """
    info = SelectionInfo(session_id="9000", fps=30.0)
    later = NOW + timedelta(hours=25)
    fresh = reopened(state({0: [A], 7: [B]}), info, later)
    assert ("9000", later, info) == (fresh.session_id, fresh.opened_at, fresh.info)
    assert (Marks({0: [A], 7: [B]}), frozenset({0, 7})) == (fresh.marks, fresh.uncertain)
    assert frozenset() == reopened(state(None), info, later).uncertain


def test_a_session_lives_a_day():
    """
    To the second, or shorter by a margin.
    """
    assert not expired(state({}), NOW + LIFE - timedelta(seconds=1))
    assert expired(state({}), NOW + LIFE)
    assert not expired(state({}), NOW + LIFE - MARGIN - timedelta(seconds=1), margin=MARGIN)
    assert expired(state({}), NOW + LIFE - MARGIN, margin=MARGIN)


@pytest.mark.parametrize(
    "held, edit",
    [
        ({0: [A]}, Removal.of("a")),
        ({0: [A]}, Swap.of("a", "b", HAT)),
        ({}, Addition.of("a", HAT)),
        (None, Removal.of("a")),
        (None, Swap.of("a", "b", HAT)),
    ],
    ids=["removal", "swap", "B64-addition", "unknown-removal", "unknown-swap"],
)
def test_a_selection_that_makes_sense_may_be_paid_for(held, edit):
    """
    An addition needs no marks, and unknown marks are the caller's word.
    """
    check_create(state(held), edit, NOW)


@pytest.mark.parametrize(
    "selection, edit, after, error",
    [
        pytest.param(state({}), Removal.of("a"), 0, InvalidInputError, id="B64-removal"),
        pytest.param(state({}), Swap.of("a", "b", HAT), 0, InvalidInputError, id="B64-swap"),
        pytest.param(state({0: [A]}, uncertain={0}), Removal.of("a"), 0, SelectionDirtyError, id="dirty"),
        pytest.param(state({0: [A]}), Removal.of("a"), 23.5, SelectionExpiredError, id="old"),
        pytest.param(state({0: [A]}, duration=5.04), Removal.of("a", duration=10), 0, InvalidInputError, id="B49"),
    ],
)
def test_a_selection_that_makes_none_may_not(selection, edit, after, error):
    """
    Money is not spent on unknown masks, on a session about to end, or on a clip that is too short.
    """
    with pytest.raises(error):
        check_create(selection, edit, NOW + timedelta(hours=after))


@pytest.mark.parametrize("duration, seconds", [(None, 5), (2.0, 5), (5.146, 5), (6.99, 5), (7.0, 10), (10.5, 10)])
def test_the_clip_decides_the_length_of_the_result(duration, seconds):
    """
    Ten seconds from seven on; five where the length is not known.
    """
    marked = state({0: [A]}, duration=duration)
    assert seconds == fitting_duration(marked)
    check_create(marked, Removal.of("a", duration=seconds), NOW + timedelta(hours=23, minutes=29, seconds=59))


def test_without_facts_of_the_clip_five_seconds_fit():
    """
    And ten may be asked for: the service decides.
    """
    assert 5 == fitting_duration(state({0: [A]}))
    check_create(state({0: [A]}), Removal.of("a", duration=10), NOW)


def test_while_everything_is_cleared_every_marked_frame_is_in_doubt():
    """
    A lost reply to a clear leaves open which frames are still marked.
    """
    assert frozenset({0, 4, 7}) == clearing(state({0: [A], 7: [B]}, uncertain={4})).uncertain
    assert frozenset() == clearing(state(None)).uncertain
