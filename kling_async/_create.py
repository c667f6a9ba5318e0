"""
The only place from which a paid create is sent.

Its intent is written before the first byte leaves. It is sent again only when it provably did not
arrive, or when the service refused it for its rate; any other doubt ends in UnknownOutcomeError.
"""

import hashlib
import logging
import secrets
from datetime import UTC, datetime

import anyio
import orjson
from attrs import define, evolve

from ._codec import create_body, encode, to_dict
from ._endpoints import CREATE, GET
from ._exchange import Exchange, replayable
from ._ids import check_external_task_id, external_id
from ._replies import read
from .edits import Edit
from .errors import (
    APIError,
    DecodeError,
    InvalidRequestError,
    KeyConflictError,
    KlingError,
    LostReplyError,
    NotSentError,
    ServerError,
    UnknownOutcomeError,
)
from .models import Task
from .stores import Intent, IntentStore, State

log = logging.getLogger("kling_async")


def payload_digest(session_id: str, edit: Edit) -> str:
    """
    SHA-256 of what a create pays for: the session and the edit, pictures by their digests.
    """
    said = {**to_dict(edit), "edit_mode": edit.edit_mode, "pictures": [picture.digest for picture in edit.pictures]}
    said = {name: value for name, value in said.items() if name not in {"image", "images"}}
    text = orjson.dumps({"session_id": session_id, "edit": said}, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()


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
    Sends creates for one client.
    """

    exchange: Exchange
    """The way out."""
    store: IntentStore
    """Where intents are written."""

    async def create(
        self, session_id: str, edit: Edit, *, external_task_id: str | None, callback_url: str | None
    ) -> Task:
        """
        Create a task once, or return the one that this id already has.
        """
        key = external_id(secrets.token_bytes(20)) if external_task_id is None else external_task_id
        check_external_task_id(key)
        body = encode(create_body(session_id, edit, external_task_id=key, callback_url=callback_url))
        intent = Intent(
            external_task_id=key,
            payload=payload_digest(session_id, edit),
            base_url=self.exchange.host.base_url,
            session_id=session_id,
            created_at=datetime.now(UTC),
        )
        try:
            known = await self._known(intent)
            return known or await self._send(intent, body)
        except KlingError as error:
            error.external_task_id = key
            raise

    async def _known(self, intent: Intent) -> Task | None:
        """The task that an earlier create with this id made; None where there was none."""
        earlier = await self.store.get(intent.external_task_id)
        if earlier is None or earlier.state in {"intent", "refused"}:
            return None
        if earlier.payload != intent.payload or earlier.base_url != intent.base_url:
            raise KeyConflictError(
                f"{intent.external_task_id!r} already stands for another edit: another edit needs another id",
                external_task_id=intent.external_task_id,
            )
        if earlier.task_id is None:
            raise _unknown(earlier)
        task = await self.exchange(GET, path=GET.at(earlier.task_id))
        return task.named(intent.external_task_id)

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
                if doubt:
                    raise _unknown(intent) from error
                delay = self.exchange.delay(intent.attempts, error) if replayable(error, CREATE.replay) else None
                if delay is None:
                    raise
                log.info("create %s: %s; again in %.1f s", intent.external_task_id, type(error).__name__, delay)
            else:
                await self._put(evolve(intent, task_id=task.task_id), "accepted")
                return task.named(intent.external_task_id)
            await anyio.sleep(delay)

    async def _once(self, intent: Intent, body: bytes) -> Task:
        url = f"{self.exchange.host.base_url}{CREATE.path}"
        try:
            return await self.exchange.once(
                CREATE.method, url, body, lambda response: read(CREATE, response, about=self.exchange.about)
            )
        except anyio.get_cancelled_exc_class() as cancelled:
            text = f"cancelled while create {intent.external_task_id!r} was on its way: a paid task may exist"
            log.warning("%s", text)
            cancelled.add_note(text)
            raise

    async def _put(self, intent: Intent, state: State) -> None:
        """What is known of a paid task is written down even while the caller is being cancelled."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            await self.store.put(evolve(intent, state=state))


def _state(error: KlingError, *, doubt: bool) -> State:
    if doubt:
        return "unknown"
    return "intent" if isinstance(error, NotSentError) else "refused"


def _unknown(intent: Intent) -> UnknownOutcomeError:
    return UnknownOutcomeError(
        external_task_id=intent.external_task_id,
        attempts=intent.attempts,
        first_sent_at=intent.first_sent_at or intent.created_at,
    )
