"""
The one tree of errors.

::

    KlingError
    ├── InvalidInputError         also a ValueError; raised before any request
    │   └── ManifestError         a manifest with faults: nothing of it was sent
    ├── ClosedError               a client or selection used outside its context
    ├── UnsupportedError          this host does not offer that call
    ├── TransportError            no usable reply
    │   ├── NotSentError          proven unsent: always replayable
    │   │   └── TLSError          a certificate that fails: never replayed
    │   └── LostReplyError        sent, outcome unknown: replayed only under licence
    ├── DecodeError               the reply is not what the endpoint promises
    ├── APIError                  the service said no
    │   ├── AuthenticationError   1000 to 1004
    │   ├── AccountError          1100 to 1103, 1304
    │   ├── InvalidRequestError   1200 to 1202
    │   ├── NotFoundError         1203
    │   ├── ContentRejectedError  1300, 1301
    │   ├── ThrottledError        1302
    │   ├── QuotaFullError        1303: nothing was created
    │   └── ServerError           5000 to 5002
    ├── SubmissionError           about one paid create
    │   ├── UnknownOutcomeError   it may or may not exist
    │   └── KeyConflictError      same key, other payload
    ├── SelectionError            about the state of a selection
    │   ├── SelectionRejectedError  code 0, but data.status not 0
    │   ├── SelectionDirtyError   a frame is uncertain
    │   └── SelectionExpiredError 24 hours have passed
    ├── StoreError                the intent could not be written: nothing was sent
    ├── DeclinedError             a gate said no before the paid call
    ├── TaskFailedError           the task ended without a video
    ├── DownloadError             a file could not be fetched whole
    └── WebhookError
        └── SignatureError

Each carries its data as attributes, pickles, and says what to do next.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from ._refusals import (
    AccountError,
    APIError,
    AuthenticationError,
    ContentRejectedError,
    InvalidRequestError,
    KlingError,
    NotFoundError,
    QuotaFullError,
    ServerError,
    ThrottledError,
    excerpt,
)

if TYPE_CHECKING:
    from ._tables import Fault
    from .models import Task

__all__ = (
    "APIError",
    "AccountError",
    "AuthenticationError",
    "ClosedError",
    "ContentRejectedError",
    "DeclinedError",
    "DecodeError",
    "DownloadError",
    "InvalidInputError",
    "InvalidRequestError",
    "KeyConflictError",
    "KlingError",
    "KlingWarning",
    "LostReplyError",
    "ManifestError",
    "NotFoundError",
    "NotSentError",
    "QuotaFullError",
    "SelectionDirtyError",
    "SelectionError",
    "SelectionExpiredError",
    "SelectionRejectedError",
    "ServerError",
    "SignatureError",
    "StoreError",
    "SubmissionError",
    "TLSError",
    "TaskFailedError",
    "ThrottledError",
    "TransportError",
    "UnknownOutcomeError",
    "UnsupportedError",
    "WebhookError",
)

_PROBLEMS_TOLD = 3
"""Problems that the text of a DecodeError lists; `.problems` has them all."""
_FAULTS_TOLD = 10
"""Faults that the text of a ManifestError lists; `.faults` has them all."""


class KlingWarning(UserWarning):
    """
    An input that is accepted but is likely not what was meant.
    """


class InvalidInputError(KlingError, ValueError):
    """
    A value that the service would refuse, told before any request.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        """Name of the parameter or field."""
        self.reason = reason
        """What is wrong and what to give instead."""


class ManifestError(InvalidInputError):
    """
    A manifest with faults. All of it was looked at, and nothing of it was sent.
    """

    def __init__(self, path: str, faults: Iterable["Fault"]) -> None:
        self.path = path
        """The file."""
        self.faults: tuple[Fault, ...] = tuple(faults)
        """Every fault, in the order of the file."""
        rest = len(self.faults) - _FAULTS_TOLD
        head = () if len(self.faults) == 1 else (f"{len(self.faults):,} faults, and nothing was sent",)
        more = (f"and {rest:,} more",) if rest > 0 else ()
        super().__init__(path, "\n  ".join((*head, *map(str, self.faults[:_FAULTS_TOLD]), *more)))


class ClosedError(KlingError):
    """
    A client or a selection used outside its `async with` block, or closed while a call was in flight.
    """


class UnsupportedError(KlingError):
    """
    This host does not offer the call; the message names the way round.
    """


class TransportError(KlingError):
    """
    No usable reply came back.
    """


class NotSentError(TransportError):
    """
    The request provably never reached the service: name, connection, handshake or pool failed.
    """


class TLSError(NotSentError):
    """
    The certificate of the host does not verify; never tried again.
    """


class LostReplyError(TransportError):
    """
    The request may have been read, but no whole reply arrived.
    """


class DecodeError(KlingError):
    """
    A reply, mask or file that is not what it should be.
    """

    def __init__(self, message: str, *, problems: Iterable[str] = (), status: int | None = None) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        """Each fault as `what @ $.path.to.field`."""
        self.status = status
        """HTTP status of the reply, where it was a reply."""
        rest = len(self.problems) - _PROBLEMS_TOLD
        more = (f"and {rest} more",) if rest > 0 else ()
        super().__init__("; ".join((message, *self.problems[:_PROBLEMS_TOLD], *more)))


class SubmissionError(KlingError):
    """
    About one paid create; `external_task_id` names it.
    """

    external_task_id: str

    def __init__(self, message: str, *, external_task_id: str) -> None:
        super().__init__(message)
        self.external_task_id = external_task_id


_IN_DOUBT = (
    "a paid task may exist. client.reconcile() settles it where the host can find it; else look in the provider's"
    " console before you create again under another id"
)
_ABSENT = (
    "most likely none exists, for the host, which finds external ids, shows no such task. With"
    " RetryPolicy(on_unknown='resend') the same id may be sent again; or create under another id"
)


class UnknownOutcomeError(SubmissionError):
    """
    A create was sent and no usable answer came: a paid task may or may not exist.
    """

    def __init__(
        self,
        *,
        external_task_id: str,
        attempts: int,
        first_sent_at: datetime,
        because: str | None = None,
        absent: bool = False,
    ) -> None:
        self.attempts = attempts
        """How often the create was sent."""
        self.first_sent_at = first_sent_at
        """When its first byte may have left."""
        self.absent = absent
        """Whether every look said that there is no such task, on a host that is known to find external ids."""
        why = f" ({because})" if because else ""
        told = _ABSENT if absent else _IN_DOUBT
        sent = first_sent_at.isoformat(timespec="seconds")
        super().__init__(
            f"the create {external_task_id!r} was sent at {sent} and its outcome is unknown{why}: {told}",
            external_task_id=external_task_id,
        )


class KeyConflictError(SubmissionError):
    """
    The same key was used for another payload; nothing was sent.
    """


class SelectionError(KlingError):
    """
    About the state of a selection.
    """


class SelectionRejectedError(SelectionError):
    """
    The reply has code 0 but its `data.status` is not 0: the object was not recognised.
    """

    def __init__(self, message: str, *, selection_status: int | str, request_id: str | None = None) -> None:
        super().__init__(message)
        self.selection_status = selection_status
        """The non-zero `data.status`; its values are documented nowhere."""
        self.request_id = request_id
        """What to quote to the provider's support."""


class SelectionDirtyError(SelectionError):
    """
    A reply about a frame was lost, so what the server holds is not known; `rebuild()` is the cure.
    """

    def __init__(self, frames: Iterable[int]) -> None:
        self.frames: tuple[int, ...] = tuple(sorted(frames))
        """The uncertain frame indexes."""
        listed = ", ".join(map(str, self.frames))
        super().__init__(f"what the service holds for frame {listed} is not known: call rebuild() first")


class SelectionExpiredError(SelectionError):
    """
    A selection session lives 24 hours; `rebuild()` opens it anew from its source.
    """


class StoreError(KlingError):
    """
    The intent of a paid create could not be written, so nothing was sent.
    """


class DeclinedError(KlingError):
    """
    A gate said no before the paid call.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"declined before the paid call: {reason}")
        self.reason = reason
        """What the gate answered."""


class TaskFailedError(KlingError):
    """
    The task ended without a video. A failed generation is not charged; another try is another create.
    """

    def __init__(self, task: "Task") -> None:
        self.task = task
        """The task as the service last returned it."""
        self.external_task_id: str | None = task.external_task_id
        reason = excerpt(task.status_message or "the service gave no reason")
        super().__init__(f"task {task.task_id} failed: {reason}")

    @property
    def content_rejected(self) -> bool:
        """
        Whether the reason reads like a content refusal, which arrives as a failed task.
        """
        words = (self.task.status_message or "").lower()
        return any(word in words for word in ("risk control", "content policy", "sensitive"))


class DownloadError(KlingError):
    """
    A file could not be fetched whole; its final name was never written.
    """

    def __init__(self, message: str, *, status: int | None = None, final: bool = False) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status of the reply, where one came: 403 for a link that has expired."""
        self.final: bool = final or not (status is None or status == 404 or status >= 500)
        """Whether another try of the same link would end the same way."""


class WebhookError(KlingError):
    """
    A delivery that is not what a webhook of this service looks like.
    """


class SignatureError(WebhookError):
    """
    A delivery whose signature does not verify.
    """
