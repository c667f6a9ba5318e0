"""
A create whose outcome is not known, until it is: looked for, adopted, proven absent, or told as unknown.

Decides what follows from what a search has found, and writes it down whatever becomes of the caller. Never sends.
"""

from functools import partial
from types import TracebackType

import anyio
from attrs import define, evolve, frozen

from ._exchange import Exchange, log
from ._refusals import excerpt
from ._search import Search, Sign
from ._shelter import parting
from ._submit import ABSENCES, SENDABLE, Intent, is_taken, looks, may_resend
from .errors import KlingError, StoreError, UnknownOutcomeError
from .events import Created
from .models import Task
from .stores import IntentStore

BECAUSE = 120
"""Characters of what went wrong that an unknown outcome quotes."""


@define(eq=False, repr=False)
class Doubts:
    """
    Settles creates in doubt.
    """

    exchange: Exchange
    """The way out."""
    store: IntentStore
    """Where intents are written."""
    search: Search
    """What looks for them."""

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
        with named(intent):
            found = await self._looked_for(intent, error)
            if isinstance(found, Task):
                return await self.adopted(intent, found, taken=is_taken(error, intent.external_task_id))
            if found is None:
                return None
            able, policy = await self.search.able(), self.exchange.retry
            if found is Sign.ABSENT and may_resend(policy, able, self.exchange.host):
                absent = evolve(intent, state="absent", looked_at=self.search.now())
                return absent if await self.store.put(absent) else None
            raise self.unknown(intent, error, absent=found is Sign.ABSENT) from error

    async def _looked_for(self, intent: Intent, error: KlingError | None) -> Task | Sign | None:
        """Look until it is found, or long enough; None where the row has moved on without us."""
        sent = intent.sent_at or intent.first_sent_at or intent.created_at
        # What was sent just now is young, however long it was on its way.
        age = 0.0 if error else (self.search.now() - sent).total_seconds()
        times = looks(self.exchange.retry.doubt, age)
        if await self.search.hopeless():
            times = times[:1]
        text = "create %s: outcome unknown (%s); looking for its task for %.0f s at most"
        log.info(text, intent.external_task_id, type(error).__name__ if error else "of an earlier run", times[-1])
        began, absences, found = anyio.current_time(), 0, Sign.SILENT
        for time in times:
            await anyio.sleep_until(began + time)
            if not await self.put(evolve(intent, looked_at=self.search.now())):
                return None
            answer = await self.search.again(intent)
            if isinstance(answer, Task):
                return answer
            found, absences = answer, absences + (answer is Sign.ABSENT)
        return found if found is not Sign.ABSENT or absences >= ABSENCES else Sign.SILENT

    async def adopted(self, intent: Intent, task: Task, *, taken: bool = False) -> Task:
        """
        Its task, written down.

        Args:
            intent: The row.
            task: What was found.
            taken: Whether the host refused the id because it is there already.
        """
        if taken:
            await self.search.learn(enforces=True)
        await self.put(evolve(intent, state="accepted", task_id=task.task_id))
        if intent.attempts:
            self.tell(intent, task)
        return task

    async def put(self, intent: Intent) -> bool:
        """
        Write down what came of a create, even while the caller is being cancelled; whether the row has taken it.

        A store that fails now must not hide it: the caller is told of the task, or of the service's own error.
        """
        try:
            return await self._written(intent)
        except anyio.get_cancelled_exc_class():
            await parting(partial(self._written, intent))
            raise

    async def _written(self, intent: Intent) -> bool:
        try:
            return await self.store.put(intent)
        except StoreError as error:
            key, state, task = intent.external_task_id, intent.state, intent.task_id
            log.warning("create %s is %s (task %s), but that could not be written: %s", key, state, task, error)
            return True

    def tell(self, intent: Intent, task: Task) -> None:
        """
        Tell the observer of a create that was accepted.
        """
        if self.exchange.observer is not None:
            self.exchange.observer(Created(external_task_id=intent.external_task_id, task_id=task.task_id))

    def unknown(
        self, intent: Intent, error: KlingError | str | None = None, *, absent: bool = False
    ) -> UnknownOutcomeError:
        """
        What to raise where nobody knows.

        Args:
            intent: The row.
            error: Why.
            absent: Whether its absence is proven, but it may not be sent again.
        """
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


@frozen
class named:  # noqa: N801 (a context manager, used as a verb)
    """
    Whoever is cut off in here, cancelled or by an observer's own fault, while a task may be there: the log and the
    exception say which.
    """

    intent: Intent
    """The row."""

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            name(error, self.intent)


def name(error: BaseException, intent: Intent) -> None:
    """
    Say of an error that cuts off a create which task may be there, once; errors of our own say it themselves.
    """
    if isinstance(error, KlingError) or intent.state in SENDABLE:
        return
    text = f"create {intent.external_task_id!r} was cut off on its way: a paid task may exist"
    if text not in getattr(error, "__notes__", ()):
        # First what another Ctrl-C cannot stop midway.
        error.add_note(text)
        log.warning("%s", text)
