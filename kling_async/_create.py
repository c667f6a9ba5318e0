"""
The only place from which a paid create is sent.

Its intent is written before the first byte leaves, and who writes it owns it. It is sent again when it provably did
not arrive, or was refused for its rate. Where its reply is lost its task is looked for, and only a proof of its
absence, with leave to resend, lets it go out again; any other doubt ends in UnknownOutcomeError.
"""

from collections.abc import Callable
from functools import partial
from weakref import WeakValueDictionary

import anyio
from attrs import define, evolve, field

from ._budget import price
from ._codec import create_body, encode
from ._doubt import Doubts, name, named
from ._endpoints import CREATE, GET
from ._exchange import Exchange, log, replayable
from ._ids import drawn_id
from ._lease import Leave
from ._ledger import forgotten
from ._replies import read
from ._search import Sign
from ._shelter import parting
from ._submit import (
    DOUBTFUL,
    Intent,
    after,
    check_same,
    moved,
    session_digest,
)
from ._urls import check_callback_url, check_url
from .edits import Edit
from .errors import (
    KlingError,
    NotFoundError,
    StoreError,
    UnknownOutcomeError,
)
from .models import FAILED, Task
from .slots import Slots
from .stores import IntentStore

ASKED_FIRST = 0.05
"""Seconds after which an intent of another owner is asked for again; each time twice as long."""
ASKED_MOST = 1.0
"""Seconds that this comes to at most."""
FRESH = 60.0
"""Seconds for which a look before the first send is good."""


@define(eq=False, repr=False)
class Creates:
    """
    Sends creates for one client, and knows those that were sent before.
    """

    exchange: Exchange
    """The way out."""
    store: IntentStore
    """Where intents are written."""
    doubts: Doubts
    """What settles those in doubt."""
    lease: Callable[[str], Leave]
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
            key, given = (drawn_id(), False) if external_task_id is None else (external_task_id, True)
            hook = self.callback_url(key) if callback_url is None else check_callback_url(callback_url, local=local)
            body = encode(create_body(session_id, edit, external_task_id=key, callback_url=hook))
            for picture in edit.pictures:
                if picture.is_url:
                    check_url("image", picture.wire, local=local)
            meant = self._intent(key, payload or session_digest(session_id, edit), session_id)
            try:
                if not given:
                    return await self._owned(meant, body, given=False) or await self._again(meant, body, given=False)
                # One create of an id at a time: the second finds what the first has written.
                async with self.turn(key):
                    return await self._owned(meant, body, given=True) or await self._again(meant, body, given=True)
            except KlingError as error:
                error.external_task_id = key
                raise

    async def known(self, external_task_id: str, payload: str) -> Task | None:
        """
        The task that an earlier create with this id made, here or elsewhere; None where one may be sent.

        Raises:
            KeyConflictError: The id stands for another payload.
            UnknownOutcomeError: It was sent, and what became of it is not known.
        """
        with self.lease("create_task"):
            meant = self._intent(external_task_id, payload, "")
            try:
                async with self.turn(external_task_id):
                    while True:
                        intent = await self.claimed(meant)
                        try:
                            found = await self._earlier(intent, meant, given=True)
                        finally:
                            await self.released(intent)
                        if found is not None:
                            return found if isinstance(found, Task) else None
            except KlingError as error:
                error.external_task_id = external_task_id
                raise

    def turn(self, key: str) -> Slots:
        """
        What one create of this id holds at a time, in this client.
        """
        return self._turns.setdefault(key, Slots(1))

    def busy(self, key: str) -> bool:
        """
        Whether this client is at this id just now.
        """
        turn = self._turns.get(key)
        return turn is not None and turn.held > 0

    def _intent(self, key: str, payload: str, session_id: str) -> Intent:
        return Intent(
            external_task_id=key,
            payload=payload,
            base_url=self.exchange.host.base_url,
            session_id=session_id,
            created_at=self.doubts.search.now(),
            account=self.doubts.search.account,
        )

    async def claimed(self, meant: Intent) -> Intent:
        """
        The intent with this id, ours now; another owner is waited for.
        """
        wait = ASKED_FIRST
        while (intent := await self.store.claim(meant)) is None:
            if wait == ASKED_FIRST:
                log.info("create %s is being seen to by another client: waiting for it", meant.external_task_id)
            await anyio.sleep(wait)
            wait = min(2 * wait, ASKED_MOST)
        return intent

    async def released(self, intent: Intent) -> None:
        """
        Let others see to it, even while the caller is being cancelled.
        """

        async def release() -> None:
            try:
                await self.store.release(intent)
            except StoreError as error:
                log.warning("create %s could not be released: %s", intent.external_task_id, error)

        await parting(release)

    async def _again(self, meant: Intent, body: bytes, *, given: bool) -> Task:
        """Another owner has taken over meanwhile: what it made of it is in the store."""
        task: Task | None = None
        while task is None:
            try:
                with named(evolve(meant, state="unknown")):
                    task = await self._owned(meant, body, given=given)
            except UnknownOutcomeError:
                raise
            except KlingError as error:
                # We may have sent it before, so that this must not read as if nothing was created.
                raise self.doubts.unknown(meant, error) from error
        return task

    async def _owned(self, meant: Intent, body: bytes, *, given: bool) -> Task | None:
        intent = await self.store.claim(meant) or await self.claimed(meant)
        try:
            new = intent.fence == 1 and intent.state == "intent" and not given
            found = intent if new else await self._earlier(intent, meant, given=given)
            task = await self._send(found, body) if isinstance(found, Intent) else found
        except BaseException:
            await self.released(intent)
            raise
        if task is None:
            # Ours it may still be, where the store did not take what came before: we would wait for ourselves.
            await self.released(intent)
        return task

    async def _earlier(self, intent: Intent, meant: Intent, *, given: bool) -> Task | Intent | None:
        """
        The task of an earlier create with this id; else the intent, which may be sent; None where it is ours no more.
        """
        check_same(intent, meant)
        if meant.session_id not in {"", intent.session_id}:
            intent = evolve(intent, session_id=meant.session_id)
        if intent.task_id is not None:
            return (await self.exchange(GET, path=GET.at(intent.task_id))).named(intent.external_task_id)
        if intent.state in DOUBTFUL:
            return await self.doubts.settled(intent)
        if (given or intent.fence > 1) and not self._is_fresh(intent):
            found = await self.doubts.search.first(intent)
            if isinstance(found, Task):
                return await self.doubts.adopted(intent, found)
            if found is Sign.MASKED:
                raise self.doubts.unknown(intent, "something answers under this id but does not tell it")
            intent = evolve(intent, looked_at=self.doubts.search.now(), account=self.doubts.search.account)
            return intent if intent.state != "intent" or await self.store.put(intent) else None
        ours = intent.account == self.doubts.search.account
        return intent if ours else evolve(intent, account=self.doubts.search.account)

    def _is_fresh(self, intent: Intent) -> bool:
        if intent.looked_at is None:
            return False
        return 0 <= (self.doubts.search.now() - intent.looked_at).total_seconds() < FRESH

    async def _send(self, intent: Intent, body: bytes) -> Task | None:
        """Send until it is accepted or refused for good; None where another owner has taken over."""
        attempt = paid = 0
        url = self.exchange.host.base_url + CREATE.path
        reader = partial(read, CREATE, about=self.exchange.about)
        while True:
            attempt += 1
            intent = moved(intent, "sending", sent_at=self.doubts.search.now())
            if not await self.store.put(intent):
                return None
            try:
                task = await self.exchange.once(CREATE.method, url, body, reader, paid=paid)
                return await self._accepted(intent, task)
            except KlingError as error:
                intent = after(intent, error)
                with named(intent):
                    written = await self.doubts.put(intent)
                if isinstance(error, NotFoundError) and error.code == 1203:
                    raise forgotten(intent.session_id) from error
                if intent.state == "unknown":
                    found = await self.doubts.settled(intent, error) if written else None
                    if not isinstance(found, Intent):
                        return found
                    if attempt >= self.exchange.retry.attempts:
                        raise self.doubts.unknown(found, error, absent=True) from error
                    intent, paid = found, 0
                    continue
                delay = self.exchange.delay(attempt, error) if replayable(error, CREATE.replay) else None
                if delay is None:
                    raise
                self.exchange.replaying(CREATE.method, CREATE.path, attempt, delay, error)
                paid = price(error)
            except BaseException as error:
                name(error, intent)
                raise
            await anyio.sleep(delay)

    async def _accepted(self, intent: Intent, task: Task) -> Task:
        key = intent.external_task_id
        await self.doubts.put(moved(intent, "accepted", task_id=task.task_id))
        if task.external_task_id == key:
            await self.doubts.search.learn(echoes=True)
        self.doubts.tell(intent, task)
        return task.named(key)

    async def ended(self, task: Task, key: str | None) -> None:
        """
        Note how a task has ended, and whether the host tells the id that it was created with.

        Args:
            task: As the service showed it last.
            key: The external id, where it is known here.
        """
        name = key or task.external_task_id
        try:
            intent = None if name is None else await self.store.get(name)
        except StoreError as error:
            log.warning("the end of task %s could not be written: %s", task.task_id, error)
            return
        if intent is None or intent.task_id != task.task_id or intent.state != "accepted":
            return
        await self.doubts.search.learn(echoes=task.external_task_id == name)
        await self.doubts.put(evolve(intent, state="failed" if task.status == FAILED else "succeeded"))
