"""
The life of a paid create: its states as a table, and what may be concluded from what.

::

    intent ──> sending ──> accepted ──> succeeded | failed
      ^           │  └───> refused ──> sending
      └───────────┤
                  └──────> unknown ──> accepted | absent ──> sending

Decides which change of a row may stand, whether a failed create may exist all the same, when to look for it, and
whether it may be sent again. Knows neither store nor clock: rows and times come in as values.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, Literal

import orjson
from attrs import evolve, frozen

from ._codec import to_dict
from ._endpoints import Host
from .edits import Edit
from .errors import (
    APIError,
    DecodeError,
    InvalidRequestError,
    KeyConflictError,
    KlingError,
    LostReplyError,
    NotSentError,
    QuotaFullError,
    ServerError,
    SubmissionError,
    ThrottledError,
)
from .models import Marks
from .policy import RetryPolicy

State = Literal["intent", "sending", "refused", "unknown", "absent", "accepted", "succeeded", "failed"]

SETTLED: Final[frozenset[State]] = frozenset({"accepted", "succeeded", "failed"})
"""The task is known. Whoever knows it may write it, and nobody has to own the row any more."""
DOUBTFUL: Final[frozenset[State]] = frozenset({"sending", "unknown"})
"""A task may exist that nobody has seen."""
SENDABLE: Final[frozenset[State]] = frozenset({"intent", "refused", "absent"})
"""Nothing was created: not sent, refused, or proven not to be there."""

_FORWARD: Final[Mapping[State, frozenset[State]]] = {
    "intent": frozenset({"intent", "sending", "accepted"}),
    "sending": frozenset({"intent", "refused", "unknown", "accepted"}),
    "refused": frozenset({"sending", "accepted"}),
    "unknown": frozenset({"unknown", "absent", "accepted"}),
    "absent": frozenset({"sending", "accepted"}),
    "accepted": frozenset({"accepted", "succeeded", "failed"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
}

AGE_MOST: Final = timedelta(days=29)
"""After this a row proves nothing any more: the service clears tasks after 30 days."""
SLACK: Final = 600.0
"""Seconds by which two wall clocks may differ."""
FIRST_LOOKS: Final = (0.5, 1.0, 2.0, 4.0)
"""Seconds after a lost reply at which its task is looked for at first."""
LOOK_EVERY: Final = 8.0
"""Seconds between the later looks."""
ABSENCES: Final = 3
"""Looks that must prove the absence before a create may be sent again."""
OLD_LOOKS: Final = (0.0, 0.5, 1.5)
"""Seconds between looks where the create was sent so long ago that no index lags behind it."""


@frozen(kw_only=True)
class Intent:
    """
    One paid create, as far as it has come. It holds no secret.
    """

    external_task_id: str
    """Its id, given or drawn before anything was sent."""
    payload: str
    """SHA-256 of what is paid for; the same id with another payload is refused."""
    base_url: str
    """The service it goes to."""
    session_id: str
    """The selection session."""
    created_at: datetime
    """When it was first meant, in UTC."""
    state: State = "intent"
    """`intent`, `refused`, `absent`: nothing was created. `sending`, `unknown`: perhaps. Else its task is known."""
    attempts: int = 0
    """How often it was sent."""
    first_sent_at: datetime | None = None
    """When its first byte may have left, in UTC."""
    sent_at: datetime | None = None
    """When that of its last attempt may have left, in UTC."""
    task_id: str | None = None
    """The service's id, once accepted."""
    account: str = ""
    """Fingerprint of the credentials that it is sent with."""
    looked_at: datetime | None = None
    """When it was last looked for, in UTC."""
    fence: int = 0
    """Number of its owner, higher with each: what an earlier owner writes is not taken any more."""


@frozen(kw_only=True)
class Abilities:
    """
    What was learned of a host; None is not known yet.
    """

    finds: bool | None = None
    """Whether a known task was found by its external id."""
    enforces: bool | None = None
    """Whether it refused an id that was there already."""
    echoes: bool | None = None
    """Whether its tasks tell the external id that they were created with."""


def moved(
    intent: Intent,
    state: State,
    *,
    fence: int | None = None,
    sent_at: datetime | None = None,
    task_id: str | None = None,
) -> Intent:
    """
    A row one step on; None leaves a field as it is, and whenever it is sent, that is one attempt more.

    `attrs.evolve` takes twice as long to find out what the fields are, and every create goes this way three times.
    """
    return Intent(
        external_task_id=intent.external_task_id,
        payload=intent.payload,
        base_url=intent.base_url,
        session_id=intent.session_id,
        created_at=intent.created_at,
        state=state,
        attempts=intent.attempts + (sent_at is not None),
        first_sent_at=intent.first_sent_at or sent_at,
        sent_at=sent_at or intent.sent_at,
        task_id=task_id or intent.task_id,
        account=intent.account,
        looked_at=intent.looked_at,
        fence=fence or intent.fence,
    )


def follows(new: Intent, old: Intent) -> bool:
    """
    Whether a row may take the place of another with the same id: only forward, and only from its owner.

    That a task exists may be written by whoever knows it, but never another task than before.
    """
    if new.state not in _FORWARD[old.state]:
        return False
    if new.state in SETTLED:
        return new.task_id is not None and old.task_id in {None, new.task_id}
    return new.fence == old.fence


def check_same(kept: Intent, meant: Intent) -> None:
    """
    Whether a create is the one that its id stands for.

    Raises:
        KeyConflictError: It goes to another service, or pays for something else.
        SubmissionError: The id is so old that the service may have forgotten its task.
    """
    key = kept.external_task_id
    if kept.base_url != meant.base_url:
        text = f"{key!r} was used at {kept.base_url}: another service needs another id"
        raise KeyConflictError(text, external_task_id=key)
    if kept.payload != meant.payload:
        text = f"{key!r} already stands for another edit: another edit needs another id"
        raise KeyConflictError(text, external_task_id=key)
    check_age(kept, meant.created_at)


def check_age(kept: Intent, now: datetime) -> None:
    """
    Whether the service must still know what became of a create.

    Raises:
        SubmissionError: It is so old that the service may have forgotten its task.
    """
    key = kept.external_task_id
    if kept.state not in SENDABLE and now - kept.created_at > AGE_MOST:
        text = f"{key!r} is over 29 days old, and the service forgets its tasks after 30: use another id"
        raise SubmissionError(text, external_task_id=key)


def in_doubt(error: KlingError, key: str) -> bool:
    """
    Whether a create that failed so may exist all the same.

    A 5xx in the service's name, a lost reply, or a 2xx that is no envelope prove nothing. A gateway that
    answers 500 `invalid_request` or 503 `model_not_found` refused it: these are no ServerErrors. That the
    id is taken (1201 with the id in its message) is a sign of an earlier one that got through.
    """
    if isinstance(error, DecodeError):
        return error.status is None or error.status < 300
    return isinstance(error, LostReplyError | ServerError) or type(error) is APIError or is_taken(error, key)


def is_taken(error: KlingError | None, key: str) -> bool:
    """
    Whether the service refused the id because it has it already.
    """
    return isinstance(error, InvalidRequestError) and key in error.message


def after(intent: Intent, error: KlingError) -> Intent:
    """
    The row of a create in flight once it has failed so.
    """
    if in_doubt(error, intent.external_task_id):
        return evolve(intent, state="unknown")
    if isinstance(error, NotSentError):
        return evolve(intent, state="intent")
    # A relay's words may cover an acceptance: the next create of this id looks for it, which costs nothing. That a
    # quota is full is Kling's own word, and is asked about often.
    looked_at = intent.looked_at if isinstance(error, ThrottledError | QuotaFullError) else None
    return evolve(intent, state="refused", looked_at=looked_at)


def looks(doubt: float, age: float) -> tuple[float, ...]:
    """
    When to look for the task of a create in doubt, in seconds from now; three times at least.

    Args:
        doubt: Seconds that an index may lag behind.
        age: Seconds since the create was sent, by the wall clock.
    """
    if age > doubt + SLACK:
        return OLD_LOOKS
    times = [time for time in FIRST_LOOKS if time < doubt]
    while times and times[-1] + LOOK_EVERY < doubt:
        times.append(times[-1] + LOOK_EVERY)
    times.append(doubt)
    return tuple(times) if len(times) >= ABSENCES else (doubt / 4, doubt / 2, doubt)


def may_resend(policy: RetryPolicy, able: Abilities, host: Host) -> bool:
    """
    Whether a create that is proven absent may be sent again.

    That a host once refused an id proves something only where one key is one account (`Host.direct`). Where tasks do
    not tell their external id, even the proof of absence is none.
    """
    if able.echoes is False:
        return False
    return policy.on_unknown == "resend" or (able.enforces is True and host.direct)


def session_digest(session_id: str, edit: Edit) -> str:
    """
    SHA-256 of what a create pays for where only its session is known.
    """
    return _digest({"session_id": session_id}, edit)


def clip_digest(source: str, marks: Marks, edit: Edit) -> str:
    """
    SHA-256 of what a create pays for: clip, marks and edit, in whichever session.

    Args:
        source: The clip's URL or id; the query of a signed link is left out.
        marks: Its points by frame index, in any order.
        edit: The edit.
    """
    spots = {str(frame): sorted([point.x, point.y] for point in points) for frame, points in marks.items()}
    return _digest({"source": source.partition("?")[0], "marks": spots}, edit)


def _digest(of: Mapping[str, object], edit: Edit) -> str:
    said = {
        "edit_mode": edit.edit_mode,
        "prompt": edit.prompt,
        "negative_prompt": edit.negative_prompt,
        "mode": edit.mode,
        "duration": edit.duration,
        "watermark": edit.watermark,
        "extra": None if edit.extra is None else to_dict(edit)["extra"],
        "pictures": [picture.digest for picture in edit.pictures],
    }
    return hashlib.sha256(orjson.dumps({**of, "edit": said}, option=orjson.OPT_SORT_KEYS)).hexdigest()
