"""
What became of the creates that a crash or a lost reply left open.

Each is looked for as a create in doubt is, several at once; none is sent again from here.
"""

import anyio
from attrs import define, field

from ._create import Creates
from ._endpoints import GET
from ._submit import DOUBTFUL, Intent, check_age
from .errors import KlingError, SubmissionError, UnknownOutcomeError
from .models import Reconciled, Task

AT_ONCE = 8
"""Creates that are looked for at once."""
MOST = 100_000
"""Intents that are read at most."""


@define(eq=False, repr=False)
class Reconciliation:
    """
    One pass over the creates in doubt.
    """

    creates: Creates
    """What knows them."""
    _adopted: list[Task] = field(factory=list, init=False)
    _absent: list[str] = field(factory=list, init=False)
    _unknown: list[str] = field(factory=list, init=False)
    _failed: list[KlingError] = field(factory=list, init=False)

    async def run(self) -> Reconciled:
        """
        Look for each.

        Raises:
            KlingError: The store or the host could not be used; the others were seen to all the same.
        """
        creates = self.creates
        rows = await creates.store.recent(MOST, states=DOUBTFUL)
        limiter = anyio.CapacityLimiter(AT_ONCE)
        async with anyio.create_task_group() as group:
            for row in reversed(rows):
                if row.base_url == creates.exchange.host.base_url and not creates.busy(row.external_task_id):
                    group.start_soon(self._one, row, limiter)
        if self._failed:
            raise self._failed[0]
        return Reconciled(adopted=tuple(self._adopted), absent=tuple(self._absent), unknown=tuple(self._unknown))

    async def _one(self, row: Intent, limiter: anyio.CapacityLimiter) -> None:
        key = row.external_task_id
        async with limiter, self.creates.turn(key):
            try:
                found = await self._settled(row)
            except UnknownOutcomeError as error:
                (self._absent if error.absent else self._unknown).append(key)
            except SubmissionError:
                self._unknown.append(key)
            except KlingError as error:
                error.external_task_id = key
                self._failed.append(error)
            else:
                if isinstance(found, Task):
                    self._adopted.append(found)
                elif found is not None:
                    self._absent.append(key)

    async def _settled(self, row: Intent) -> Task | Intent | None:
        """None where another client is at it."""
        creates = self.creates
        intent = await creates.store.claim(row)
        if intent is None:
            return None
        try:
            if intent.state in DOUBTFUL:
                check_age(intent, creates.doubts.search.now())
                return await creates.doubts.settled(intent)
            if intent.task_id is None:
                return None
            task = await creates.exchange(GET, path=GET.at(intent.task_id))
            return task.named(intent.external_task_id)
        finally:
            await creates.released(intent)
