"""
What a selection is believed to hold, and which changes of it are possible.

The service has no call that reads a selection back, so this side keeps the only record. Functions from
state to state; a frame is `uncertain` from before a change's first byte until its reply.
Limits: https://klingai.com/document-api/api/video/multi-elements.md (10 frames, 10 points a frame, 24 h)
"""

import warnings
from datetime import datetime, timedelta

from attrs import evolve

from .edits import Edit, Removal, Seconds, Swap
from .errors import InvalidInputError, KlingWarning, SelectionDirtyError, SelectionExpiredError
from .models import Marks, SelectionInfo, SelectionState, check_frame_index
from .points import Point

POINTS_MOST = 10
FRAMES_MOST = 10
LIFE = timedelta(hours=24)
MARGIN = timedelta(minutes=30)


def check_points(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """
    The points of one call.

    Raises:
        InvalidInputError: There are none, more than ten, or one of them twice.
    """
    if not points:
        raise InvalidInputError("points", "must hold at least one point")
    if len(points) > POINTS_MOST:
        raise InvalidInputError("points", f"holds {len(points)} points, more than {POINTS_MOST}")
    if len(set(points)) < len(points):
        twice = next(point for point in points if points.count(point) > 1)
        raise InvalidInputError("points", f"holds ({twice.x}, {twice.y}) twice")
    return points


def check_frame(state: SelectionState, frame_index: int) -> int:
    """
    A frame of this clip.

    Raises:
        InvalidInputError: It lies beyond the clip's end. `total_frames` itself is let through with a warning,
            for whether frames count from 0 or 1 is documented nowhere.
    """
    frame = check_frame_index(frame_index)
    total = state.info.total_frames if state.info else None
    if total is not None and frame > total:
        raise InvalidInputError("frame_index", f"{frame} lies beyond the clip's {total} frames")
    if frame == total:
        text = f"frame {frame} of {total} exists only if the service counts from 1, which it does not say"
        warnings.warn(text, KlingWarning, stacklevel=4)
    return frame


def adding(state: SelectionState, frame_index: int, points: tuple[Point, ...]) -> SelectionState:
    """
    The state while these points are being added.

    Raises:
        InvalidInputError: A limit would be broken, or a point is there already.
    """
    frame = check_frame(state, frame_index)
    check_points(points)
    if state.marks is not None:
        held = state.marks.get(frame, ())
        for point in points:
            if point in held:
                raise InvalidInputError("points", f"({point.x}, {point.y}) is already on frame {frame}")
        if len(held) + len(points) > POINTS_MOST:
            reason = f"frame {frame} would hold {len(held) + len(points)} points, more than {POINTS_MOST}"
            raise InvalidInputError("points", reason)
        if not held and len(state.marks) >= FRAMES_MOST:
            raise InvalidInputError("frame_index", f"{FRAMES_MOST} frames are marked already, which is the most")
    return evolve(state, uncertain=state.uncertain | {frame})


def deleting(state: SelectionState, frame_index: int, points: tuple[Point, ...]) -> SelectionState:
    """
    The state while these points are being deleted.

    Raises:
        InvalidInputError: One of them is not there.
    """
    frame = check_frame(state, frame_index)
    check_points(points)
    if state.marks is not None:
        held = state.marks.get(frame, ())
        for point in points:
            if point not in held:
                raise InvalidInputError("points", f"({point.x}, {point.y}) is not on frame {frame}")
    return evolve(state, uncertain=state.uncertain | {frame})


def added(state: SelectionState, frame_index: int, points: tuple[Point, ...]) -> SelectionState:
    """
    The state after the service confirmed the addition; an earlier doubt about the frame stays.
    """
    marks = state.marks
    if marks is not None:
        marks = marks.put(frame_index, (*marks.get(frame_index, ()), *points))
    return evolve(state, marks=marks)


def deleted(state: SelectionState, frame_index: int, points: tuple[Point, ...]) -> SelectionState:
    """
    The state after the service confirmed the deletion; an earlier doubt about the frame stays.
    """
    marks = state.marks
    if marks is not None:
        marks = marks.put(frame_index, tuple(held for held in marks.get(frame_index, ()) if held not in points))
    return evolve(state, marks=marks)


def settled(state: SelectionState, frame_index: int) -> SelectionState:
    """
    The state once it is known what the service did with this frame.
    """
    return evolve(state, uncertain=state.uncertain - {frame_index})


def clearing(state: SelectionState) -> SelectionState:
    """
    The state while everything is being cleared: every marked frame is in doubt.
    """
    return evolve(state, uncertain=state.uncertain | frozenset(state.marks or ()))


def cleared(state: SelectionState) -> SelectionState:
    """
    The state after everything was cleared: nothing marked, nothing in doubt.
    """
    return evolve(state, marks=Marks(), uncertain=frozenset())


def reopened(state: SelectionState, info: SelectionInfo, now: datetime) -> SelectionState:
    """
    The state of a new session on the same source: its marks are still to be replayed.
    """
    return evolve(state, session_id=info.session_id, opened_at=now, info=info, uncertain=state.marks or ())


def expired(state: SelectionState, now: datetime, *, margin: timedelta = timedelta()) -> bool:
    """
    Whether the session has ended, or will within the margin.
    """
    return now >= state.opened_at + LIFE - margin


def forgotten(session_id: str) -> SelectionExpiredError:
    """
    What to raise when the service says that a session is not there: it ended, or it is another account's.
    """
    return SelectionExpiredError(f"the service does not know selection {session_id} (any more): call rebuild()")


def check_create(state: SelectionState, edit: Edit, now: datetime) -> None:
    """
    Whether paying for this selection makes sense.

    Raises:
        SelectionDirtyError: It is not known what the service holds for a frame.
        SelectionExpiredError: The session has ended, or ends within half an hour.
        InvalidInputError: Nothing is marked, which a swap or a removal needs.
    """
    if state.uncertain:
        raise SelectionDirtyError(state.uncertain)
    if expired(state, now, margin=MARGIN):
        raise SelectionExpiredError(f"selection {state.session_id} is over 23.5 hours old: call rebuild() first")
    if isinstance(edit, Swap | Removal) and state.marks is not None and not state.marks:
        raise InvalidInputError("points", f"a {edit.edit_mode} needs marked points: call add_points first")
    duration = state.info.duration if state.info else None
    if edit.duration == 10 and duration is not None and duration < 7:
        raise InvalidInputError("duration", f"10 seconds need a clip of 7 seconds or more; this one has {duration:g}")


def fitting_duration(state: SelectionState) -> Seconds:
    """
    Seconds of the result that the clip's length allows: 10 from 7 seconds on, else 5.
    """
    duration = state.info.duration if state.info else None
    return 10 if duration is not None and duration >= 7 else 5
