"""
The eight endpoints as documented coroutines: what each takes, returns and raises, and whether it is replayed.

They keep no ledger of a selection: that is SelectionSession's. Lifetime and flows are `client.py`'s.
Source of every limit: https://klingai.com/document-api/api/video/multi-elements.md
"""

from collections.abc import Sequence

import anyio

from ._codec import init_body, points_body, session_body
from ._create import Creates
from ._endpoints import ADD, CLEAR, DELETE, GET, INIT, LIST, PREVIEW, Host
from ._exchange import Exchange
from ._ids import check_external_task_id, check_id
from ._lease import OPEN, Leave, Owner
from ._urls import check_url
from .edits import Edit
from .errors import InvalidInputError, NotFoundError, UnsupportedError
from .models import Marked, Preview, SelectionInfo, Task
from .points import PointLike, as_points
from .policy import check_count


class Calls:
    """
    One coroutine for each endpoint; `KlingClient` gives it a lifetime.
    """

    _host: Host
    _owner: Owner
    _exchange: Exchange
    _creates: Creates

    def _lease(self, method: str) -> Leave:
        return self._owner.lease(method)

    async def _pause(self, seconds: float) -> None:
        with self._lease("pause"):
            await anyio.sleep(seconds)

    @property
    def creates(self) -> Creates:
        """
        What sends the paid creates, for flows built on the client.

        Raises:
            ClosedError: The client is not open.
        """
        if self._owner.state != OPEN:
            self._lease("create_task")
        return self._creates

    async def init_selection(self, *, video_url: str | None = None, video_id: str | None = None) -> SelectionInfo:
        """
        Open a selection session of 24 hours on a clip.

        The clip: MP4 or MOV, 2 to 5 or 7 to 10 seconds, both sides 720 to 2160 px, 24, 30 or 60 fps.
        May be sent again: a lost reply costs an unused session. Cancelling it does no harm.
        Source: https://klingai.com/document-api/api/video/multi-elements.md

        Args:
            video_url: A public URL of the clip.
            video_id: Instead, the `video_id` of a result of this account, not older than 30 days.

        Raises:
            InvalidInputError: Not exactly one source is given, or the URL cannot be fetched by the service.
            APIError: The service refused.
            SelectionRejectedError: The service could not use the clip.
            TransportError: No usable reply came.
        """
        with self._owner.lease("init_selection", brief=True):
            if video_url:
                check_url("video_url", video_url, local=self._host.local)
            return await self._exchange(INIT, body=init_body(video_url, video_id))

    async def add_selection(self, session_id: str, frame_index: int, points: Sequence[PointLike]) -> Marked:
        """
        Mark points on one frame and get its masks; 10 points a frame and 10 frames at most.

        Sent again only when it provably was not done. Cancelled underway, the points may be there or not.

        Args:
            session_id: From `init_selection`, on the same account.
            frame_index: From 0.
            points: One to ten Points or pairs of fractions.

        Raises:
            InvalidInputError: A value makes no sense.
            APIError: The service refused.
            SelectionRejectedError: No object was recognised there.
            TransportError: No usable reply came.
        """
        with self._owner.lease("add_selection", brief=True):
            return await self._exchange(ADD, body=points_body(session_id, frame_index, as_points(points)))

    async def delete_selection(self, session_id: str, frame_index: int, points: Sequence[PointLike]) -> Marked:
        """
        Take points of one frame away; their coordinates must be the very ones that added them.

        Sent again only when it provably was not done. Cancelled underway, the points may be there or not.

        Args:
            session_id: From `init_selection`, on the same account.
            frame_index: From 0.
            points: One to ten Points or pairs of fractions.

        Raises:
            InvalidInputError: A value makes no sense.
            APIError: The service refused.
            SelectionRejectedError: The rest was not recognised.
            TransportError: No usable reply came.
        """
        with self._owner.lease("delete_selection", brief=True):
            return await self._exchange(DELETE, body=points_body(session_id, frame_index, as_points(points)))

    async def clear_selection(self, session_id: str) -> None:
        """
        Drop every point; the session stays usable. May be sent again, and cancelling it does no harm.

        Raises:
            InvalidInputError: The id makes no sense.
            APIError: The service refused.
            SelectionRejectedError: The service said no with code 0.
            TransportError: No usable reply came.
        """
        with self._owner.lease("clear_selection", brief=True):
            await self._exchange(CLEAR, body=session_body(session_id))

    async def preview_selection(self, session_id: str) -> Preview:
        """
        Have the mask rendered on every frame. Sent again once at most after a lost reply; cancelling it does no harm.

        Raises:
            InvalidInputError: The id makes no sense.
            APIError: The service refused, as it may when nothing is marked.
            SelectionRejectedError: The service said no with code 0.
            TransportError: No usable reply came.
        """
        with self._owner.lease("preview_selection", brief=True):
            return await self._exchange(PREVIEW, body=session_body(session_id))

    async def create_task(
        self,
        session_id: str,
        edit: Edit,
        *,
        external_task_id: str | None = None,
        callback_url: str | None = None,
    ) -> Task:
        """
        Create the edit: **the call that costs money**.

        It is sent once, under an id written down before. It is sent again only when it provably did not
        arrive or was refused for its rate (1302). After a lost reply its task is looked for, over
        `RetryPolicy.doubt` seconds, and returned; that it is not there must be proven, and `on_unknown="resend"`
        set, before it is sent again. An id that has a task already pays nothing: its task is returned. There is
        no call that cancels a task.

        Args:
            session_id: The selection.
            edit: An Addition, a Swap or a Removal. `duration=None` asks for 5 seconds here.
            external_task_id: Your own id, unique in the account; drawn where it is None.
            callback_url: Where changes are posted, sent as it is; the client's where it is None, with this task's
                own path where the client has an inbox.

        Raises:
            UnknownOutcomeError: A task may exist and be charged; after any other error nothing was created.
            QuotaFullError: As many tasks run as the account allows.
            KeyConflictError: The id stands for another edit.
            SubmissionError: The id is over 29 days old.
            StoreError: The intent could not be written.
            InvalidInputError: A value makes no sense.
            APIError: The service refused.
            NotSentError: It could not be sent.
        """
        return await self.creates.create(session_id, edit, external_task_id=external_task_id, callback_url=callback_url)

    async def get_task(self, task_id: str | None = None, *, external_task_id: str | None = None) -> Task:
        """
        Look at a task once, by either id. May be sent again, and cancelling it does no harm.

        Raises:
            InvalidInputError: Not exactly one id is given, or it makes no sense.
            NotFoundError: There is none; for an external id on a host that is not known to find these, this
                proves nothing, and the error says so.
            APIError: The service refused.
            TransportError: No usable reply came.
        """
        with self._owner.lease("get_task", brief=True):
            if external_task_id is None:
                return await self._exchange(GET, path=GET.at(check_id("task_id", task_id)))
            if task_id is not None:
                raise InvalidInputError("task_id and external_task_id", "give exactly one of them")
            try:
                return await self._exchange(GET, path=GET.at(check_external_task_id(external_task_id)))
            except NotFoundError as error:
                if not self._host.finds_external_ids:
                    error.add_note(f"{self._host.name} is not known to find external ids: this proves nothing")
                raise

    async def list_tasks(self, page: int = 1, page_size: int = 30) -> tuple[Task, ...]:
        """
        A page of the account's tasks. May be sent again, and cancelling it does no harm.

        Source: https://klingai.com/document-api/api/video/multi-elements.md (query list)

        Args:
            page: From 1 to 1000.
            page_size: From 1 to 500.

        Raises:
            UnsupportedError: This host documents no list.
            InvalidInputError: A number is out of range.
            APIError: The service refused.
            TransportError: No usable reply came.
        """
        with self._owner.lease("list_tasks", brief=True):
            if check_count("page", page) > 1000:
                raise InvalidInputError("page", f"must be at most 1000, not {page}")
            if check_count("page_size", page_size) > 500:
                raise InvalidInputError("page_size", f"must be at most 500, not {page_size}")
            if not self._host.lists:
                raise UnsupportedError(f"{self._host.name} documents no list of tasks: keep the ids that create gave")
            return await self._exchange(LIST, params={"pageNum": page, "pageSize": page_size})
