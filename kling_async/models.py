"""
What the service returns, as frozen values in our words.

Fields beyond an id may be None: CometAPI documents `session_id` and little more, and real answers leave
parts out. Nothing here knows how a reply is spelled; that is `_codec.py`'s.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TypeAlias

from attrs import field, frozen

from ._urls import shown_url
from .errors import DecodeError, InvalidInputError, TaskFailedError
from .masks import Mask
from .points import Point, PointLike, as_points

__all__ = ("Marked", "Marks", "Preview", "Reconciled", "SelectionInfo", "SelectionState", "Task", "Video")

Raw: TypeAlias = Mapping[str, object] | None

SUBMITTED = "submitted"
PROCESSING = "processing"
SUCCEED = "succeed"
FAILED = "failed"


@frozen(kw_only=True)
class SelectionInfo:
    """
    What opening a selection tells of the clip. All but `session_id` may be None.

    Source: https://klingai.com/document-api/api/video/multi-elements.md (init-selection)
    """

    session_id: str
    """The selection session; valid for 24 hours on the account that opened it."""
    fps: float | None = None
    """Frames per second."""
    width: int | None = None
    """Width in pixels."""
    height: int | None = None
    """Height in pixels."""
    total_frames: int | None = None
    """How many frames there are."""
    duration: float | None = None
    """Seconds; the wire's milliseconds (or, on some gateways, seconds) are told apart by frames and fps."""
    normalized_video_url: str | None = field(default=None, repr=shown_url)
    """The service's own copy of the clip, whose frames the indexes count."""
    raw: Raw = field(default=None, repr=False, eq=False)
    """The whole reply."""


class Marks(Mapping[int, tuple[Point, ...]]):
    """
    Points by frame index: a mapping that cannot change, so that it can be a part of a value.

    Example:
        >>> Marks({40: [(0.8, 0.53)]})
        Marks({40: (Point(x=0.8, y=0.53),)})

    Raises:
        InvalidInputError: A frame index is no whole number from 0, or a point is wrong.
    """

    __slots__ = ("_items",)

    _items: dict[int, tuple[Point, ...]]

    def __init__(self, marks: Mapping[int, Iterable[PointLike]] | None = None) -> None:
        """Copy what is given, dropping frames without points."""
        checked = {check_frame_index(frame): as_points(tuple(points)) for frame, points in (marks or {}).items()}
        self._items = {frame: points for frame, points in sorted(checked.items()) if points}

    def __getitem__(self, frame_index: int) -> tuple[Point, ...]:
        return self._items[frame_index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def __repr__(self) -> str:
        return f"Marks({self._items!r})"

    def __reduce__(self) -> tuple[type["Marks"], tuple[dict[int, tuple[Point, ...]]]]:
        return Marks, (self._items,)

    def put(self, frame_index: int, points: tuple[Point, ...]) -> "Marks":
        """The same marks but for one frame, which now has these points."""
        return Marks({**self._items, frame_index: points})


def check_frame_index(value: object) -> int:
    """
    A frame index.

    Raises:
        InvalidInputError: It is no int, or negative.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInputError("frame_index", f"must be an int, not {value!r}")
    if value < 0:
        raise InvalidInputError("frame_index", f"counts from 0, so {value} is no frame")
    return value


def _marks(given: Mapping[int, Iterable[PointLike]] | None) -> Marks | None:
    return given if given is None or isinstance(given, Marks) else Marks(given)


def _frames(given: Iterable[int]) -> frozenset[int]:
    return frozenset(given)


@frozen(kw_only=True)
class SelectionState:
    """
    All that is known of one selection: enough to go on in another process.

    There is no call that reads a selection back, so this is the only record of its points.
    """

    session_id: str
    """The selection session."""
    opened_at: datetime
    """When it was opened, in UTC; it expires 24 hours later."""
    video_url: str | None = field(default=None, repr=shown_url)
    """Its source, if that was a URL."""
    video_id: str | None = None
    """Its source, if that was a video of the same account."""
    info: SelectionInfo | None = None
    """What opening it told; None where another process opened it."""
    marks: Marks | None = field(default=None, converter=_marks)
    """Points by frame index; None where they are not known."""
    uncertain: frozenset[int] = field(default=frozenset(), converter=_frames)
    """Frames of which a reply is outstanding or was lost."""


@frozen(kw_only=True)
class Marked:
    """
    The answer to a change of one frame's points: the masks that the frame now has.
    """

    frame_index: int | None = None
    """The frame; None where the reply did not say."""
    masks: tuple[Mask, ...] = ()
    """A mask for each object; empty when no point is left."""
    raw: Raw = field(default=None, repr=False, eq=False)
    """The whole reply."""


@frozen(kw_only=True)
class Preview:
    """
    The mask on every frame, rendered. The links' life is documented nowhere: fetch them soon.
    """

    video_url: str | None = field(default=None, repr=shown_url)
    """The clip with the mask drawn on it."""
    cover_url: str | None = field(default=None, repr=shown_url)
    """A picture for that clip."""
    tracking_url: str | None = field(default=None, repr=shown_url)
    """The masks of every frame, in a format that is documented nowhere."""
    raw: Raw = field(default=None, repr=False, eq=False)
    """The whole reply."""


@frozen(kw_only=True)
class Video:
    """
    A result. Its link is cleared after 30 days.
    """

    video_id: str | None = None
    """Opens a new selection on this result: `video_id=`."""
    url: str | None = field(default=None, repr=shown_url)
    """Where to fetch it; without any credentials."""
    watermark_url: str | None = field(default=None, repr=shown_url)
    """The watermarked copy, where one was asked for."""
    duration: float | None = None
    """Seconds."""


@frozen(kw_only=True)
class Task:
    """
    The service's run of one edit, as it was when looked at.
    """

    task_id: str
    """The service's id of it; valid on the host that gave it."""
    status: str
    """`submitted`, `processing`, `succeed` or `failed`; else as it came."""
    status_message: str | None = None
    """The service's reason for a failure."""
    external_task_id: str | None = None
    """The id that the caller gave it."""
    created_at: datetime | None = None
    """In UTC."""
    updated_at: datetime | None = None
    """In UTC."""
    videos: tuple[Video, ...] = ()
    """The results; this API makes one."""
    units: Decimal | None = None
    """What it cost in the provider's units; None is unknown, never zero."""
    raw: Raw = field(default=None, repr=False, eq=False)
    """The whole reply."""

    @property
    def done(self) -> bool:
        """Whether its status is final. A status that is not known is not final."""
        return self.status in {SUCCEED, FAILED}

    @property
    def video(self) -> Video:
        """
        The only result.

        Raises:
            TaskFailedError: The task failed.
            InvalidInputError: It still runs.
            DecodeError: It succeeded, but the service named no video.
        """
        if self.status == FAILED:
            raise TaskFailedError(self)
        if self.status != SUCCEED:
            raise InvalidInputError("task", f"{self.task_id} is {self.status}: wait(task) for its end first")
        if not self.has_video:
            raise DecodeError(f"task {self.task_id} succeeded but names no video; look again with get_task()")
        return self.videos[0]

    @property
    def settled(self) -> bool:
        """Whether another look could tell nothing new: it failed, or its link is there."""
        return self.status == FAILED or (self.status == SUCCEED and self.has_video)

    @property
    def has_video(self) -> bool:
        """Whether there is a link to fetch; a success may arrive a little before it."""
        return bool(self.videos and self.videos[0].url)

    def named(self, external_task_id: str) -> "Task":
        """The same task with the external id that it was created with, where the reply left it out."""
        if self.external_task_id:
            return self
        return Task(  # not `evolve`, which takes ten times as long: every create of most hosts comes by here
            task_id=self.task_id,
            status=self.status,
            status_message=self.status_message,
            external_task_id=external_task_id,
            created_at=self.created_at,
            updated_at=self.updated_at,
            videos=self.videos,
            units=self.units,
            raw=self.raw,
        )


@frozen(kw_only=True)
class Reconciled:
    """
    What became of the creates that a crash or a lost reply had left open.
    """

    adopted: tuple[Task, ...] = ()
    """They exist: wait for them."""
    absent: tuple[str, ...] = ()
    """External ids of which the host, which finds these, showed no task at every look: nothing was paid."""
    unknown: tuple[str, ...] = ()
    """External ids that stay in doubt: look in the provider's console."""
