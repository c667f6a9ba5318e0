"""
A batch while it runs: how far it is, drawn on a terminal, a line now and then in a pipe, an event for programs.

Decides how often that is looked at and said. What is counted is the library's.
"""

import time
from typing import TYPE_CHECKING, Final

import anyio
from attrs import define, field
from rich.console import Group
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kling_async.errors import KlingError

from ._service import Underway
from ._show import NAME_WIDTH, Show, Stage, seconds

if TYPE_CHECKING:
    from kling_async.dbos import BatchResult, BatchStatus, DbosRunner

LOOK: Final = 1.0
"""Seconds between two looks."""
EVERY: Final = 30.0
"""Seconds between two lines where nothing can be drawn."""
KEYS_MOST: Final = 500
"""Results that are read at a time."""
BEGUN: Final = frozenset({"waiting", "running"})
_BAR = 24
_WHY: Final = {"AccountError": "the account was refused", "AuthenticationError": "the key was refused"}


class Paused(KlingError):  # noqa: N818 - no error but the end of a watch
    """
    No task of the account is created until someone has seen to it.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        """The library's words, with the class of the error that paused it."""
        super().__init__(reason)

    @property
    def refused(self) -> bool:
        """
        Whether it is the key.
        """
        return self.reason.startswith("AuthenticationError:")


def why(reason: str) -> str:
    """
    Why a batch is paused, for people.

    Args:
        reason: The library's words.
    """
    kind, _, said = reason.partition(": ")
    return f"{_WHY[kind]}: {said}" if kind in _WHY else reason


def units(status: "BatchStatus") -> str:
    """
    What a batch has cost, for people.

    Args:
        status: How far it is.
    """
    return f"{status.spent:f} units" if status.budget is None else f"{status.spent:f} of {status.budget:f} units"


def figures(status: "BatchStatus") -> str:
    """
    How far a batch is, in a line.

    Args:
        status: How far it is.
    """
    counts = ("running", status.running), ("waiting", status.waiting), ("failed", status.failed)
    parts = [f"{status.done} of {status.total} done", *(f"{count} {name}" for name, count in counts if count)]
    left = "" if status.seconds_left is None or not status.running + status.waiting else seconds(status.seconds_left)
    return "; ".join(filter(None, (", ".join(parts), units(status), left and f"about {left} left")))


def facts(status: "BatchStatus") -> dict[str, object]:
    """
    The same for programs.

    Args:
        status: How far it is.
    """
    return {
        "total": status.total,
        "done": status.done,
        "running": status.running,
        "waiting": status.waiting,
        "failed": status.failed,
        "states": status.states,
        "spent": status.spent,
        "budget": status.budget,
        "paused": status.paused,
        "slots": status.slots,
        "seconds_left": status.seconds_left,
    }


def result_facts(result: "BatchResult") -> dict[str, object]:
    """
    What came of a job, for programs.

    Args:
        result: That.
    """
    names = ("key", "state", "output", "task_id", "external_task_id", "units", "sha256", "error", "message")
    return {name: getattr(result, name) for name in names}


@define
class BatchStage(Stage):
    """
    A batch as it is drawn.
    """

    status: "BatchStatus | None" = field(default=None, init=False)
    """How far it is; None before the first look."""

    def __rich__(self) -> Table:
        """
        A line with a bar, and below it the figures.
        """
        if self.status is None:
            return super().__rich__()
        ended, name = self.status.done + self.status.failed, Text(f"{self.name:<{NAME_WIDTH}}", style="bold")
        row = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(1, self.status.total), completed=ended, width=_BAR)
        row.add_row(self._spinner, name, bar, Text(seconds(time.perf_counter() - self._since), style="dim"))
        whole = Table.grid()
        whole.add_row(Group(row, Padding(Text(figures(self.status)), (0, 0, 0, NAME_WIDTH + 3))))
        return whole


@define(kw_only=True)
class BatchUnderway(Underway):
    """
    What of a batch still runs when its command ends early, and how to go on.
    """

    again: str = ""
    """The command that goes on."""
    status: "BatchStatus | None" = None
    """How far it was at the last look; None before anything was kept."""

    @property
    def take_up(self) -> str | None:
        """
        The command that goes on; None before anything was kept.
        """
        return None if self.status is None else self.again

    @property
    def lines(self) -> tuple[str, ...]:
        """
        The same for people, with what still runs.
        """
        if self.status is None:
            return super().lines
        done = f"{self.status.done} of {self.status.total} are done"
        count = self.status.running
        going = "1 task goes" if count == 1 else f"up to {count} tasks go"
        runs = f"{going} on at the service and {'is' if count == 1 else 'are'} paid" if count else "none runs"
        return f"{done}; {runs}.", f"Go on:  {self.again}"

    @property
    def facts(self) -> dict[str, object]:
        """
        The same for programs.
        """
        told = {} if self.status is None else facts(self.status)
        return {**told, "take_up": self.take_up}


@define(kw_only=True, eq=False)
class Watch:
    """
    Looks at a batch until it has ended.
    """

    runner: "DbosRunner"
    """Open."""
    batch: str | None
    """Its name; None for all of the account."""
    show: Show
    """The command's voice."""
    stage: BatchStage
    """Where it is drawn."""
    underway: BatchUnderway
    """What the command leaves running."""
    _told: "BatchStatus | None" = field(default=None, init=False)
    _ended: dict[str, str] = field(factory=dict, init=False)
    _said_at: float = field(default=-EVERY, init=False)

    async def begin(self) -> None:
        """
        Take note of what has ended before.

        Raises:
            StoreError: The database cannot be used.
        """
        if self.show.json:
            self._ended = await self._ends()

    async def until_ended(self) -> "BatchStatus":
        """
        Look on until all of it has ended.

        Raises:
            Paused: No task is created until someone has seen to it.
            StoreError: The database cannot be used.
        """
        while True:
            status = await self._look()
            if not status.running + status.waiting:
                return status
            if status.paused is not None:
                # From here on the library can only speak of what the command says better.
                self.show.stopping = True
                raise Paused(status.paused)
            await anyio.sleep(LOOK)

    async def for_ever(self) -> None:
        """
        Look on, and say of each pause that it is one.

        Raises:
            StoreError: The database cannot be used.
        """
        paused: str | None = None
        while True:
            status = await self._look()
            if status.paused != paused:
                paused = status.paused
                self.show.event("paused", {"reason": paused})
                self.show.warning("the pause is over" if paused is None else f"the batch is paused, for {why(paused)}")
            await anyio.sleep(LOOK)

    async def _look(self) -> "BatchStatus":
        status = await self.runner.status(batch=self.batch)
        self.underway.status = self.stage.status = status
        before, self._told = self._told, status
        if before is None or (before.states, before.spent) != (status.states, status.spent):
            self.show.event("progress", facts(status))
            if self.show.json and self.batch is not None:
                await self._tell_ends()
            self._say(status)
        return status

    def _say(self, status: "BatchStatus") -> None:
        now = time.monotonic()
        if not self.show.draws and now - self._said_at >= EVERY:
            self._said_at = now
            self.show.line(figures(status))

    async def _ends(self) -> dict[str, str]:
        kept = await self.runner.kept(batch=self.batch)
        return {key: each.state for key, each in kept.items() if each.state not in BEGUN}

    async def _tell_ends(self) -> None:
        """Each job's end once, in the order of the batch."""
        before, self._ended = self._ended, await self._ends()
        new = [key for key, state in self._ended.items() if before.get(key) != state]
        for at in range(0, len(new), KEYS_MOST):
            for result in await self.runner.results(batch=self.batch, keys=new[at : at + KEYS_MOST]):
                self.show.event("job", result_facts(result))
