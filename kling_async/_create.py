"""
The only place from which a paid create is sent.

Its intent is written before the first byte leaves. It is sent again only when it provably did not
arrive, or when the service refused it for its rate; any other doubt ends in UnknownOutcomeError.
"""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from weakref import WeakValueDictionary

import anyio
import orjson
from attrs import define, evolve, field

from ._codec import create_body, encode, to_dict
from ._endpoints import CREATE, GET
from ._exchange import Exchange, log, replayable
from ._ids import drawn_id
from ._lease import Lease
from ._ledger import forgotten
from ._refusals import excerpt
from ._replies import read
from ._urls import check_callback_url, check_url
from .edits import Edit
from .errors import (
    APIError,
    DecodeError,
    InvalidRequestError,
    KeyConflictError,
    KlingError,
    LostReplyError,
    NotFoundError,
    NotSentError,
    ServerError,
    StoreError,
    UnknownOutcomeError,
)
from .events import Created
from .models import Marks, Task
from .slots import Slots
from .stores import Intent, IntentStore, State

BECAUSE = 120
"""Characters of what went wrong that an unknown outcome quotes."""


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
    said = {name: value for name, value in to_dict(edit).items() if name not in {"image", "images"}}
    said["pictures"] = [picture.digest for picture in edit.pictures]
    return hashlib.sha256(orjson.dumps({**of, "edit": said}, option=orjson.OPT_SORT_KEYS)).hexdigest()


def in_doubt(error: KlingError, key: str) -> bool:
    """
    Whether a create that failed so may exist all the same.

    A 5xx in the service's name, a lost reply, or a 2xx that is no envelope prove nothing. A gateway that
    answers 500 `invalid_request` or 503 `model_not_found` refused it: these are no ServerErrors. That the
    id is taken (1201 with the id in its message) is a sign of an earlier one that got through.
    """
    if isinstance(error, DecodeError):
        return error.status is None or error.status < 300
    if isinstance(error, InvalidRequestError):
        return key in error.message
    return isinstance(error, LostReplyError | ServerError) or type(error) is APIError


@define
class Creates:
    """
    Sends creates for one client, and knows those that were sent before.
    """

    exchange: Exchange
    """The way out."""
    store: IntentStore
    """Where intents are written."""
    lease: Callable[[str], Lease]
    """Leave of the client for a call."""
    callback_url: Callable[[str], str | None]
    """Where changes of the task with this external id are posted, unless its create names another place."""
    _turns: WeakValueDictionary[str, Slots] = field(factory=WeakValueDictionary, init=False)

    async def create(
        self,
        session_id: str,
        edit: Edit,
        *,
        payload: str | None = None,
        external_task_id: str | None,
        callback_url: str | None,
    ) -> Task:
        """
        Create a task once, or return the one that this id already has.

        Args:
            session_id: The selection.
            edit: The edit.
            payload: Digest of what is paid for; by default that of the session and the edit.
            external_task_id: The caller's id; None draws one.
            callback_url: Where changes are posted.
        """
        with self.lease("create_task"):
            local = self.exchange.host.local
            key = drawn_id() if external_task_id is None else external_task_id
            hook = self.callback_url(key) if callback_url is None else check_callback_url(callback_url, local=local)
            body = encode(create_body(session_id, edit, external_task_id=key, callback_url=hook))
            for picture in edit.pictures:
                if picture.is_url:
                    check_url("image", picture.wire, local=local)
            digest = payload or session_digest(session_id, edit)
            try:
                # One create of an id at a time: the second finds what the first has written.
                async with self._turns.setdefault(key, Slots(1)):
                    known = None if external_task_id is None else await self._known(key, digest)
                    return known or await self._send(self._intent(key, digest, session_id), body)
            except KlingError as error:
                error.external_task_id = key
                raise

    async def known(self, external_task_id: str, payload: str) -> Task | None:
        """
        The task that an earlier create with this id made, here or elsewhere; None where there is none to be found.

        Raises:
            KeyConflictError: The id stands for another payload.
            UnknownOutcomeError: It was sent, and what became of it is not known.
        """
        with self.lease("create_task"):
            try:
                return await self._known(external_task_id, payload)
            except KlingError as error:
                error.external_task_id = external_task_id
                raise

    def _intent(self, key: str, payload: str, session_id: str) -> Intent:
        return Intent(
            external_task_id=key,
            payload=payload,
            base_url=self.exchange.host.base_url,
            session_id=session_id,
            created_at=datetime.now(UTC),
        )

    async def _known(self, key: str, payload: str) -> Task | None:
        earlier = await self.store.get(key)
        if earlier is None:
            return await self._found(self._intent(key, payload, ""))
        if earlier.base_url != self.exchange.host.base_url:
            text = f"{key!r} was used at {earlier.base_url}: another service needs another id"
            raise KeyConflictError(text, external_task_id=key)
        if earlier.payload != payload:
            raise KeyConflictError(
                f"{key!r} already stands for another edit: another edit needs another id", external_task_id=key
            )
        if earlier.state in {"intent", "refused"}:
            return None
        if earlier.task_id is not None:
            task = await self.exchange(GET, path=GET.at(earlier.task_id))
            return task.named(key)
        found = await self._found(earlier)
        if found is None:
            # That it is not found proves nothing: it may be on its way, or the host may not look by our id.
            raise _unknown(earlier)
        return found

    async def _found(self, intent: Intent) -> Task | None:
        """The task that answers to our id, written down; whoever created it, it is not created again."""
        key = intent.external_task_id
        try:
            task = await self.exchange(GET, path=GET.at(key))
        except (NotFoundError, InvalidRequestError):
            return None
        if task.external_task_id != key:
            raise _unknown(intent)
        await self._put(evolve(intent, task_id=task.task_id), "accepted")
        return task

    async def _send(self, intent: Intent, body: bytes) -> Task:
        await self.store.put(intent)
        while True:
            intent = evolve(
                intent,
                state="sending",
                attempts=intent.attempts + 1,
                first_sent_at=intent.first_sent_at or datetime.now(UTC),
            )
            await self.store.put(intent)
            try:
                task = await self._once(intent, body)
            except KlingError as error:
                doubt = in_doubt(error, intent.external_task_id)
                await self._put(intent, _state(error, doubt=doubt))
                if isinstance(error, NotFoundError) and error.code == 1203:
                    raise forgotten(intent.session_id) from error
                if doubt:
                    raise _unknown(intent, error) from error
                delay = self.exchange.delay(intent.attempts, error) if replayable(error, CREATE.replay) else None
                if delay is None:
                    raise
                self.exchange.replaying(CREATE.method, CREATE.path, intent.attempts, delay, error)
            else:
                await self._put(evolve(intent, task_id=task.task_id), "accepted")
                if self.exchange.observer is not None:
                    told = Created(external_task_id=intent.external_task_id, task_id=task.task_id)
                    self.exchange.observer(told)
                return task.named(intent.external_task_id)
            await anyio.sleep(delay)

    async def _once(self, intent: Intent, body: bytes) -> Task:
        url = f"{self.exchange.host.base_url}{CREATE.path}"
        try:
            return await self.exchange.once(
                CREATE.method, url, body, lambda response: read(CREATE, response, about=self.exchange.about)
            )
        except KlingError:
            raise
        except BaseException as error:
            # Cancelled, or an observer's own fault: the caller is leaving, and a task may be there.
            text = f"create {intent.external_task_id!r} was cut off on its way: a paid task may exist"
            log.warning("%s", text)
            error.add_note(text)
            raise

    async def _put(self, intent: Intent, state: State) -> None:
        """
        Write down what came of a create, even while the caller is being cancelled.

        A store that fails now must not hide it: the caller is told of the task, or of the service's own error.
        """
        key, task = intent.external_task_id, intent.task_id
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            try:
                await self.store.put(evolve(intent, state=state))
            except StoreError as error:
                log.warning("create %s is %s (task %s), but that could not be written: %s", key, state, task, error)


def _state(error: KlingError, *, doubt: bool) -> State:
    if doubt:
        return "unknown"
    return "intent" if isinstance(error, NotSentError) else "refused"


def _unknown(intent: Intent, error: KlingError | None = None) -> UnknownOutcomeError:
    return UnknownOutcomeError(
        because=None if error is None else excerpt(error, BECAUSE),
        external_task_id=intent.external_task_id,
        attempts=intent.attempts,
        first_sent_at=intent.first_sent_at or intent.created_at,
    )
