"""
SelectionSession: a session_id, its points, and the record of both.

The record is kept here because the service has no call that reads a selection back. Entering opens a
session where a source is given; leaving makes no request, for a task may still need the marks.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Self

import anyio
from attrs import evolve

from ._lease import Leave, Owner
from ._ledger import (
    MARGIN,
    added,
    adding,
    check_create,
    cleared,
    clearing,
    deleted,
    deleting,
    expired,
    fitting_duration,
    forgotten,
    reopened,
    settled,
)
from ._submit import clip_digest
from ._urls import check_url
from .client import KlingClient
from .edits import Edit
from .errors import (
    APIError,
    InvalidInputError,
    InvalidRequestError,
    KlingError,
    NotFoundError,
    NotSentError,
    SelectionError,
    SelectionExpiredError,
    ServerError,
)
from .models import Marked, Marks, Preview, SelectionInfo, SelectionState, Task
from .points import PointLike, as_points

__all__ = ("SelectionSession",)


def _not_done(error: KlingError) -> bool:
    """Whether a change that failed so provably was not made."""
    return isinstance(error, NotSentError | SelectionExpiredError) or (
        isinstance(error, APIError) and not isinstance(error, ServerError) and type(error) is not APIError
    )


@contextmanager
def _expiry_told(state: SelectionState) -> Iterator[None]:
    """Which code an expired session is answered with is documented nowhere; 1203 says that it is not there."""
    try:
        yield
    except NotFoundError as error:
        raise forgotten(state.session_id) from error


class SelectionSession:
    """
    One clip's selection: its id, its points, its masks. Calls on one object go one after another.

    Exactly one of the four is given. With `video_url` or `video_id`, entering opens a session; with `state`
    it goes on where another process left off; with a bare `session_id` its marks are not known.

    Args:
        client: An open client.
        video_url: A public URL of the clip.
        video_id: A result of the same account.
        state: What `.state` was elsewhere; one writer at a time is the caller's care.
        session_id: A session opened elsewhere.

    Example:
        >>> client = KlingClient(ApiKey("sk-made-up"))
        >>> SelectionSession(client, video_url="https://example.com/clip.mp4")
        <SelectionSession of https://example.com/clip.mp4, not opened yet>

    Raises:
        InvalidInputError: Not exactly one of the four is given, or it makes no sense.
    """

    def __init__(
        self,
        client: KlingClient,
        *,
        video_url: str | None = None,
        video_id: str | None = None,
        state: SelectionState | None = None,
        session_id: str | None = None,
    ) -> None:
        """Check and keep; nothing is sent before the `async with` block."""
        given = (video_url, video_id, state, session_id)
        if sum(bool(value) for value in given) != 1:
            raise InvalidInputError("video_url, video_id, state, session_id", "give exactly one of them")
        if video_url:
            check_url("video_url", video_url, local=True)
        self._client = client
        self._video_url, self._video_id = video_url or None, video_id or None
        self._state = state
        if session_id:
            self._state = SelectionState(session_id=session_id, opened_at=datetime.now(UTC))
        self._marked: dict[int, Marked] = {}
        self._owner = Owner(type(self).__name__)
        # What is done under it goes over the network, so that others get their turn without a detour through the loop.
        self._turn = anyio.Lock(fast_acquire=True)

    def __repr__(self) -> str:
        name = self._state.session_id if self._state else self._video_url or self._video_id
        return f"<SelectionSession of {str(name).partition('?')[0]}, {self._owner.state}>"

    async def __aenter__(self) -> Self:
        self._owner.open()
        if self._state is None:
            try:
                info = await self._client.init_selection(video_url=self._video_url, video_id=self._video_id)
            except BaseException:
                self._owner.closing()
                raise
            self._state = SelectionState(
                session_id=info.session_id,
                opened_at=datetime.now(UTC),
                video_url=self._video_url,
                video_id=self._video_id,
                info=info,
                marks=Marks(),
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.closing()

    @property
    def state(self) -> SelectionState:
        """
        All that is known of the selection, as a value; also after the block.

        Raises:
            ClosedError: It was never opened.
        """
        if self._state is None:
            self._lease("state")
        assert self._state is not None
        return self._state

    @property
    def session_id(self) -> str:
        """
        The service's id of the session.
        """
        return self.state.session_id

    @property
    def info(self) -> SelectionInfo | None:
        """
        What opening it told of the clip; None where another process opened it.
        """
        return self.state.info

    @property
    def marks(self) -> Marks | None:
        """
        Points by frame index; None where they are not known.
        """
        return self.state.marks

    @property
    def marked(self) -> Mapping[int, Marked]:
        """
        By frame index, the last answer about each frame that this object marked.
        """
        return dict(self._marked)

    async def add_points(self, frame_index: int, points: Sequence[PointLike]) -> Marked:
        """
        Mark points on one frame and get its masks.

        At most 10 points a frame and 10 frames, counted here before any request. Until the reply is there
        the frame is in `state.uncertain`, and it stays there if the reply is lost.

        Raises:
            InvalidInputError: A limit would be broken, or a point is there already.
            SelectionRejectedError: No object was recognised there; the frame is uncertain.
            SelectionExpiredError: The session is over.
            APIError: The service refused.
            TransportError: No usable reply came.
        """
        given = as_points(points)
        with self._lease("add_points"):
            async with self._turn:
                began = adding(self._live(), frame_index, given)
                marked = await self._change(began, frame_index, partial(self._add, frame_index, given))
                self._state = added(self.state, frame_index, given)
                return marked

    async def delete_points(self, frame_index: int, points: Sequence[PointLike]) -> Marked:
        """
        Take points of one frame away, by the very coordinates that added them.

        Raises:
            InvalidInputError: A point is not there.
            SelectionRejectedError: The rest was not recognised; the frame is uncertain.
            SelectionExpiredError: The session is over.
            APIError: The service refused.
            TransportError: No usable reply came.
        """
        given = as_points(points)
        with self._lease("delete_points"):
            async with self._turn:
                began = deleting(self._live(), frame_index, given)
                delete = partial(self._client.delete_selection, self.session_id, frame_index, given)
                marked = await self._change(began, frame_index, delete)
                self._state = deleted(self.state, frame_index, given)
                return marked

    async def clear(self) -> None:
        """
        Drop every point; from then on the marks are known again.

        Raises:
            SelectionExpiredError: The session is over.
            APIError: The service refused.
            TransportError: No usable reply came.
        """
        with self._lease("clear"):
            async with self._turn:
                before = self._live()
                self._state = clearing(before)
                try:
                    await self._clear()
                except KlingError as error:
                    if _not_done(error):
                        self._state = before
                    raise
                self._state = cleared(self.state)

    async def rebuild(self) -> None:
        """
        Make the service hold exactly `.marks`: clear, and add each frame's points again.

        The cure for SelectionDirtyError and SelectionExpiredError: a session that is over is opened anew from
        its source, under another session_id. Stopped midway, what is missing stays uncertain: rebuild again.

        Raises:
            SelectionError: The marks are not known.
            SelectionExpiredError: The session is over and its source is not known.
            APIError: The service refused.
            TransportError: No usable reply came.
        """
        with self._lease("rebuild"):
            async with self._turn:
                marks = self.state.marks
                if marks is None:
                    raise SelectionError("the marks of this selection are not known: clear() it and mark again")
                await self._emptied()
                for frame_index, points in marks.items():
                    await self._change(self.state, frame_index, partial(self._add, frame_index, points))
                    self._state = settled(self.state, frame_index)

    async def preview(self) -> Preview:
        """
        Have the mask rendered on every frame of the clip; takes the service seconds.

        Raises:
            SelectionExpiredError: The session is over.
            APIError: The service refused, as it may when nothing is marked.
            TransportError: No usable reply came.
        """
        with self._lease("preview"):
            async with self._turn:
                self._live()
                with _expiry_told(self.state):
                    return await self._client.preview_selection(self.session_id)

    async def create_task(
        self, edit: Edit, *, external_task_id: str | None = None, callback_url: str | None = None
    ) -> Task:
        """
        Create the edit of what is marked: **the call that costs money**. See `KlingClient.create_task`.

        `edit.duration=None` becomes what the clip's length allows: 10 from 7 seconds on, else 5.

        Raises:
            SelectionDirtyError: It is not known what the service holds for a frame.
            SelectionExpiredError: The session is over 23.5 hours old.
            InvalidInputError: A swap or removal of nothing marked, or 10 seconds of a short clip.
            UnknownOutcomeError: A task may exist and be charged; after any other error nothing was created.
            KlingError: As `KlingClient.create_task`.
        """
        with self._lease("create_task"):
            async with self._turn:
                check_create(self.state, edit, datetime.now(UTC))
                payload = self._payload(edit)
                if edit.duration is None:
                    edit = evolve(edit, duration=fitting_duration(self.state))
                return await self._client.creates.create(
                    self.session_id,
                    edit,
                    payload=payload,
                    external_task_id=external_task_id,
                    callback_url=callback_url,
                )

    def _payload(self, edit: Edit) -> str | None:
        """What is paid for, whichever session it is in; None where clip or marks are not known."""
        state = self.state
        source = state.video_url or state.video_id
        return clip_digest(source, state.marks, edit) if source and state.marks is not None else None

    def _lease(self, method: str) -> Leave:
        return self._owner.lease(method)

    def _live(self) -> SelectionState:
        if expired(self.state, datetime.now(UTC)):
            raise SelectionExpiredError(f"selection {self.session_id} is over 24 hours old: call rebuild()")
        return self.state

    async def _add(self, frame_index: int, points: Sequence[PointLike]) -> Marked:
        return await self._client.add_selection(self.session_id, frame_index, points)

    async def _change(self, began: SelectionState, frame_index: int, call: Callable[[], Awaitable[Marked]]) -> Marked:
        """Make a change of one frame, which is uncertain from before its first byte until its reply."""
        before = self.state
        self._state = began
        try:
            with _expiry_told(began):
                marked = await call()
        except KlingError as error:
            if _not_done(error):
                self._state = before
            raise
        # What was in doubt before still is: an answer about one change says nothing of a lost one.
        self._state = before
        if began.info is not None:
            height, width = began.info.height, began.info.width
            if any((mask.height, mask.width) != (height, width) for mask in marked.masks):
                marked = evolve(marked, masks=tuple(mask.fitted(height, width) for mask in marked.masks))
        self._marked[frame_index] = marked
        return marked

    async def _clear(self) -> None:
        with _expiry_told(self.state):
            await self._client.clear_selection(self.session_id)
        self._marked.clear()

    async def _emptied(self) -> None:
        """An empty session, the old one or a new one, in which every marked frame is uncertain for now."""
        state = self.state
        self._state = clearing(state)
        if not expired(state, datetime.now(UTC), margin=MARGIN):
            try:
                await self._clear()
            except (SelectionExpiredError, InvalidRequestError):
                # A clear says nothing but which session: refused for that, there is none such, whatever the code.
                pass
            else:
                self._state = evolve(state, uncertain=state.marks or ())
                return
        if state.video_url is None and state.video_id is None:
            raise SelectionExpiredError(f"selection {state.session_id} is over, and its source is not known here")
        info = await self._client.init_selection(video_url=state.video_url, video_id=state.video_id)
        self._state = reopened(state, info, datetime.now(UTC))
        self._marked.clear()
