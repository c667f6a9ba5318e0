"""
Looking for the task of a create whose reply never came: by its external id, then in the list where the host has one.

Decides what a look proves, and learns on the way what the host can do. A task is ours only if it tells our external
id byte for byte. That none is found proves its absence only on a host that has found a known one before.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import partial

from attrs import define, evolve, field

from ._endpoints import GET, LIST
from ._exchange import Exchange, log
from ._submit import SETTLED, Abilities, Intent
from .errors import DecodeError, InvalidRequestError, KlingError, NotFoundError, StoreError
from .events import Duplicated
from .models import Task
from .stores import IntentStore

PAGE_SIZE = 500
"""Tasks on a page of the list, which is its most."""
PAGES_MOST = 20
"""Pages that are searched at most."""
BEFORE = timedelta(minutes=10)
"""How much earlier than its intent a task may seem to be created, by another clock."""
INDEXED = timedelta(minutes=1)
"""After this a known task that is not found by its external id will not be."""
KNOWN_MOST = 20
"""Intents among which a known task is looked for."""


class Sign(Enum):
    """
    What a look that found no task of ours says.
    """

    ABSENT = "absent"
    """There is none: the host finds tasks by their external ids, and not this one."""
    SILENT = "silent"
    """Nothing: it may be there."""
    MASKED = "masked"
    """Something answers under our id, but does not tell it."""


@define(eq=False, repr=False)
class Search:
    """
    Looks for tasks by the external ids of their creates.
    """

    exchange: Exchange
    """The way out."""
    store: IntentStore
    """Where it is remembered what the host can do."""
    account: str
    """Fingerprint of the credentials that look."""
    now: Callable[[], datetime] = field(default=partial(datetime.now, UTC))
    """The wall clock, for ages."""
    _able: Abilities | None = field(default=None, init=False)

    async def able(self) -> Abilities:
        """
        What is known of the host; nothing where the store fails, which must not end a create in doubt.
        """
        if self._able is None:
            try:
                self._able = await self.store.abilities(self.exchange.host.base_url)
            except StoreError as error:
                log.warning("what was learned of %s could not be read: %s", self.exchange.host.name, error)
                return Abilities()
        return self._able

    async def hopeless(self) -> bool:
        """
        Whether a create in doubt can be found in no way that is known.
        """
        return (await self.able()).finds is False and not self.exchange.host.lists

    async def learn(
        self, *, finds: bool | None = None, enforces: bool | None = None, echoes: bool | None = None
    ) -> None:
        """
        Remember what the host has shown; None tells nothing. A store that fails here only forgets.
        """
        known = self._able or await self.able()
        if finds in {None, known.finds} and enforces in {None, known.enforces} and echoes in {None, known.echoes}:
            return
        told = {"finds": finds, "enforces": enforces, "echoes": echoes}
        able = evolve(known, **{name: value for name, value in told.items() if value is not None})
        self._able = able
        if able.echoes is False and known.echoes is not False:
            text = "%s drops external ids: a create whose reply is lost cannot be found there again"
            log.warning(text, self.exchange.host.name)
        try:
            await self.store.learn(self.exchange.host.base_url, able)
        except StoreError as error:
            log.warning("what was learned of %s could not be written: %s", self.exchange.host.name, error)

    async def first(self, intent: Intent) -> Task | Sign:
        """
        Look once for an id that was given, before anything is sent under it.

        Raises:
            KlingError: It cannot be looked for now.
        """
        found = await self._by_id(intent.external_task_id)
        if found is Sign.SILENT and (await self.able()).finds is None:
            await self._try_known(intent)
        if found is Sign.SILENT and (await self.able()).finds is not True and self.exchange.host.lists:
            return await self._in_list(intent) or found
        return found

    async def again(self, intent: Intent) -> Task | Sign:
        """
        Look once more for a create in doubt, in every way there is; a look that fails says nothing.
        """
        try:
            found = await self._by_id(intent.external_task_id)
            if isinstance(found, Task):
                return found
            if (await self.able()).finds is not True:
                await self._try_known(intent)
            listed = await self._in_list(intent) if self.exchange.host.lists else None
        except KlingError as error:
            log.info("create %s cannot be looked for now: %s", intent.external_task_id, type(error).__name__)
            return Sign.SILENT
        if listed is not None or found is Sign.MASKED:
            return listed or found
        # Another account's host may well not find it.
        proven = (await self.able()).finds is True and intent.account in {"", self.account}
        return Sign.ABSENT if proven else Sign.SILENT

    async def _by_id(self, key: str) -> Task | Sign:
        try:
            task = await self.exchange(GET, path=GET.at(key))
        except (NotFoundError, InvalidRequestError):
            return Sign.SILENT
        if task.external_task_id != key:
            return Sign.MASKED
        await self.learn(finds=True, echoes=True)
        return task

    async def _try_known(self, intent: Intent) -> None:
        """Learn from the latest task that is known whether the host finds tasks by their external ids."""
        for known in await self.store.recent(KNOWN_MOST, states=SETTLED):
            if known.base_url == intent.base_url and known.account == self.account and known.task_id is not None:
                sent = known.first_sent_at or known.created_at
                await self._prove(known.external_task_id, known.task_id, old=self.now() - sent > INDEXED)
                return

    async def _prove(self, key: str, task_id: str, *, old: bool) -> None:
        try:
            task = await self.exchange(GET, path=GET.at(key))
        except (NotFoundError, InvalidRequestError):
            if old:
                await self.learn(finds=False)
            return
        if task.task_id == task_id:
            await self.learn(finds=True, echoes=task.external_task_id == key)

    async def _in_list(self, intent: Intent) -> Task | None:
        """The task in the list; on the way, any other is used to learn whether the host finds external ids."""
        since = (intent.first_sent_at or intent.created_at) - BEFORE
        ours, other = list[Task](), None
        for page in range(1, PAGES_MOST + 1):
            try:
                tasks = await self.exchange(LIST, params={"pageNum": page, "pageSize": PAGE_SIZE})
            except (NotFoundError, InvalidRequestError, DecodeError):
                break  # no list after all: relays answer that in many ways
            ours += [task for task in tasks if task.external_task_id == intent.external_task_id]
            other = other or next(_telling(tasks, intent.external_task_id), None)
            if len(tasks) < PAGE_SIZE or _is_before(tasks[-1], since):
                break
        if other is not None and other.external_task_id is not None and (await self.able()).finds is None:
            await self._prove(other.external_task_id, other.task_id, old=_is_before(other, self.now() - INDEXED))
        if len(ours) > 1:
            self._tell_twice(intent.external_task_id, ours)
        return ours[-1] if ours else None

    def _tell_twice(self, key: str, tasks: list[Task]) -> None:
        ids = tuple(reversed([task.task_id for task in tasks]))
        log.error("create %s was charged %d times, which only a relay can do: tasks %s", key, len(ids), ", ".join(ids))
        if self.exchange.observer is not None:
            self.exchange.observer(Duplicated(external_task_id=key, task_ids=ids))


def _telling(tasks: tuple[Task, ...], key: str) -> Iterator[Task]:
    return (task for task in tasks if task.external_task_id not in {None, "", key})


def _is_before(task: Task, moment: datetime) -> bool:
    return task.created_at is not None and task.created_at < moment
