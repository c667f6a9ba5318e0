"""
The only place from which a paid create is sent.

Its intent is written before the first byte leaves, and who writes it owns it. It is sent again when it provably did
not arrive, or was refused for its rate. Where its reply is lost its task is looked for, and only a proof of its
absence, with leave to resend, lets it go out again; any other doubt ends in UnknownOutcomeError.
"""

from collections.abc import Callable
from weakref import WeakValueDictionary

import anyio
from attrs import define, evolve, field

from ._codec import create_body, encode
from ._endpoints import CREATE, GET
from ._exchange import Exchange, log, replayable
from ._ids import drawn_id
from ._lease import Lease
from ._ledger import forgotten
from ._refusals import excerpt
from ._replies import read
from ._search import Search, Sign
from ._submit import (
    ABSENCES,
    DOUBTFUL,
    Intent,
    after,
    check_same,
    is_taken,
    looks,
    may_resend,
    session_digest,
)
from ._urls import check_callback_url, check_url
from .edits import Edit
from .errors import KlingError, NotFoundError, StoreError, UnknownOutcomeError
from .events import Created
from .models import FAILED, Task
from .slots import Slots
from .stores import IntentStore

BECAUSE = 120
"""Characters of what went wrong that an unknown outcome quotes."""
ASKED_FIRST = 0.05
"""Seconds after which an intent of another owner is asked for again; each time twice as long."""
ASKED_MOST = 1.0
"""Seconds that this comes to at most."""
GRACE = 5.0
"""Seconds that writing down may hold up a cancellation."""
FRESH = 60.0
"""Seconds for which a look before the first send is good."""


@define
class Creates:
    """
    Sends creates for one client, and knows those that were sent before.
    """

    exchange: Exchange
    """The way out."""
    store: IntentStore
    """Where intents are written."""
    search: Search
    """What looks for those in doubt."""
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
            meant = self._intent(key, payload or session_digest(session_id, edit), session_id)
            try:
                # One create of an id at a time: the second finds what the first has written.
                async with self.turn(key):
                    return await self._paid(meant, body, given=external_task_id is not None)
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
        return key in self._turns

    def _intent(self, key: str, payload: str, session_id: str) -> Intent:
        return Intent(
            external_task_id=key,
            payload=payload,
            base_url=self.exchange.host.base_url,
            session_id=session_id,
            created_at=self.search.now(),
            account=self.search.account,
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
        with anyio.CancelScope(shield=True), anyio.move_on_after(GRACE):
            try:
                await self.store.release(intent)
            except StoreError as error:
                log.warning("create %s could not be released: %s", intent.external_task_id, error)

    async def _paid(self, meant: Intent, body: bytes, *, given: bool) -> Task:
        while True:
            intent = await self.claimed(meant)
            try:
                found = await self._earlier(intent, meant, given=given)
                task = await self._send(found, body) if isinstance(found, Intent) else found
            except BaseException:
                await self.released(intent)
                raise
            if task is not None:
                return task
            # Another owner has taken over meanwhile: what it made of it is in the store.

    async def _earlier(self, intent: Intent, meant: Intent, *, given: bool) -> Task | Intent | None:
        """
        The task of an earlier create with this id; else the intent, which may be sent; None where it is ours no more.
        """
        check_same(intent, meant)
        intent = evolve(intent, session_id=meant.session_id or intent.session_id)
        if intent.task_id is not None:
            return (await self.exchange(GET, path=GET.at(intent.task_id))).named(intent.external_task_id)
        if intent.state in DOUBTFUL:
            return await self.settled(intent)
        if intent.state == "intent" and (given or intent.fence > 1) and not self._is_fresh(intent):
            found = await self.search.first(intent)
            if isinstance(found, Task):
                return await self._adopted(intent, found)
            if found is Sign.MASKED:
                raise self._unknown(intent)
            intent = evolve(intent, looked_at=self.search.now(), account=self.search.account)
            return intent if await self.store.put(intent) else None
        return evolve(intent, account=self.search.account)

    def _is_fresh(self, intent: Intent) -> bool:
        if intent.looked_at is None:
            return False
        return 0 <= (self.search.now() - intent.looked_at).total_seconds() < FRESH

    async def settled(self, intent: Intent, error: KlingError | None = None) -> Task | Intent | None:
        """
        What became of a create in doubt: its task; the intent, which may be sent again; None where it is ours no more.

        Args:
            intent: Its row, ours.
            error: What went wrong just now.

        Raises:
            UnknownOutcomeError: It was not found, and that it is not there is not proven, or it may not be sent again.
        """
        intent = evolve(intent, state="unknown")
        try:
            found = await self._looked_for(intent, error)
        except anyio.get_cancelled_exc_class() as cancelled:
            _leave(intent, cancelled)
            raise
        if isinstance(found, Task):
            return await self._adopted(intent, found, taken=is_taken(error, intent.external_task_id))
        if found is None:
            return None
        able, policy = await self.search.able(), self.exchange.retry
        if found is Sign.ABSENT and may_resend(policy, able, self.exchange.host):
            absent = evolve(intent, state="absent", looked_at=self.search.now())
            return absent if await self.store.put(absent) else None
        raise self._unknown(intent, error, absent=found is Sign.ABSENT) from error

    async def _looked_for(self, intent: Intent, error: KlingError | None) -> Task | Sign | None:
        """Look until it is found, or long enough; None where the row has moved on without us."""
        sent = intent.sent_at or intent.first_sent_at or intent.created_at
        age, doubt = (self.search.now() - sent).total_seconds(), self.exchange.retry.doubt
        times = looks(doubt, age)[:1] if await self.search.hopeless() else looks(doubt, age)
        text = "create %s: outcome unknown (%s); looking for its task for %.0f s at most"
        log.info(text, intent.external_task_id, type(error).__name__ if error else "of an earlier run", times[-1])
        began, absences, found = anyio.current_time(), 0, Sign.SILENT
        for time in times:
            await anyio.sleep_until(began + time)
            if not await self.store.put(evolve(intent, looked_at=self.search.now())):
                return None
            answer = await self.search.again(intent)
            if isinstance(answer, Task):
                return answer
            found, absences = answer, absences + (answer is Sign.ABSENT)
        return found if found is not Sign.ABSENT or absences >= ABSENCES else Sign.SILENT

    async def _adopted(self, intent: Intent, task: Task, *, taken: bool = False) -> Task:
        if taken:
            await self.search.learn(enforces=True)
        await self._put(evolve(intent, state="accepted", task_id=task.task_id))
        if intent.attempts:
            self._tell(intent, task)
        return task

    async def _send(self, intent: Intent, body: bytes) -> Task | None:
        """Send until it is accepted or refused for good; None where another owner has taken over."""
        attempt = 0
        while True:
            attempt += 1
            now = self.search.now()
            intent = evolve(intent, state="sending", attempts=intent.attempts + 1, sent_at=now)
            intent = evolve(intent, first_sent_at=intent.first_sent_at or now)
            if not await self.store.put(intent):
                return None
            try:
                return await self._accepted(intent, await self._once(intent, body))
            except KlingError as error:
                intent = after(intent, error)
                written = await self._put(intent)
                if isinstance(error, NotFoundError) and error.code == 1203:
                    raise forgotten(intent.session_id) from error
                if intent.state == "unknown":
                    found = await self.settled(intent, error) if written else None
                    if not isinstance(found, Intent):
                        return found
                    if attempt >= self.exchange.retry.attempts:
                        raise self._unknown(found, error, absent=True) from error
                    intent = found
                    continue
                delay = self.exchange.delay(attempt, error) if replayable(error, CREATE.replay) else None
                if delay is None:
                    raise
                self.exchange.replaying(CREATE.method, CREATE.path, attempt, delay, error)
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
            # Cancelled, or an observer's own fault.
            _leave(intent, error)
            raise

    async def _accepted(self, intent: Intent, task: Task) -> Task:
        key = intent.external_task_id
        await self._put(evolve(intent, state="accepted", task_id=task.task_id))
        if task.external_task_id == key:
            await self.search.learn(echoes=True)
        self._tell(intent, task)
        return task.named(key)

    def _tell(self, intent: Intent, task: Task) -> None:
        if self.exchange.observer is not None:
            self.exchange.observer(Created(external_task_id=intent.external_task_id, task_id=task.task_id))

    async def ended(self, task: Task, key: str | None) -> None:
        """
        Note how a task has ended, and whether the host tells the id that it was created with.

        Args:
            task: As the service showed it last.
            key: The external id, where it is known here.
        """
        name = key or task.external_task_id
        intent = None if name is None else await self.store.get(name)
        if intent is None or intent.task_id != task.task_id or intent.state != "accepted":
            return
        await self.search.learn(echoes=task.external_task_id == name)
        await self._put(evolve(intent, state="failed" if task.status == FAILED else "succeeded"))

    async def _put(self, intent: Intent) -> bool:
        """
        Write down what came of a create, even while the caller is being cancelled; whether the row is still ours.

        A store that fails now must not hide it: the caller is told of the task, or of the service's own error.
        """
        key, state, task = intent.external_task_id, intent.state, intent.task_id
        with anyio.CancelScope(shield=True), anyio.move_on_after(GRACE):
            try:
                return await self.store.put(intent)
            except StoreError as error:
                log.warning("create %s is %s (task %s), but that could not be written: %s", key, state, task, error)
        return True

    def _unknown(self, intent: Intent, error: KlingError | None = None, *, absent: bool = False) -> UnknownOutcomeError:
        said = [] if error is None else [excerpt(error, BECAUSE)]
        if intent.account not in {"", self.search.account}:
            said.append("it was sent with another key")
        return UnknownOutcomeError(
            because="; ".join(said) or None,
            external_task_id=intent.external_task_id,
            attempts=intent.attempts,
            first_sent_at=intent.first_sent_at or intent.created_at,
            absent=absent,
        )


def _leave(intent: Intent, error: BaseException) -> None:
    """The caller is leaving, and a task may be there: the log and the exception say which."""
    text = f"create {intent.external_task_id!r} was cut off on its way: a paid task may exist"
    log.warning("%s", text)
    error.add_note(text)
