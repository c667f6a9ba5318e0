"""
What is left of a batch: its failures with what to do about each, the contact sheet, results that are missing.

Decides what people are advised. Pays nothing and sends nothing.
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyio.to_thread import run_sync
from attrs import frozen

from kling_async import errors
from kling_async.models import Task

from ._batch_home import Home
from ._batch_plan import counted
from ._batch_watch import result_facts
from ._service import Service
from ._sheet import SHEET, can_draw, sheet_jpg
from ._show import Show

if TYPE_CHECKING:
    from kling_async.dbos import BatchResult, DbosRunner

FAILED: Final = ("failed", "declined", "refused", "unknown", "cancelled")
"""Ends without a result."""
SHOWN_MOST: Final = 50
"""Rows of failures that people are shown; the index has all."""
ALIKE_MOST: Final = 3
"""Failures that are shown one by one though they are alike."""

AGAIN: Final = "run again"
RETRY: Final = "retry"
CHANGE: Final = "change the row, under another key"
_ROW: Final = frozenset({"InvalidInputError", "InvalidRequestError", "ContentRejectedError", "SelectionRejectedError"})
"""What the same row would meet with again."""


def advice(result: "BatchResult") -> str:
    """
    What to do about a job that came to no result.

    Args:
        result: How it ended.
    """
    match result.state:
        case "refused":
            return f"a larger --budget, or none; {AGAIN}"
        case "unknown":
            return f"{AGAIN}: it is looked for, and not paid twice"
    if result.error == "DownloadError":
        return f"{AGAIN}: it is fetched"
    # The rule that tells a refused content is the error's own.
    task = Task(task_id="", status="failed", status_message=result.message)
    refused = result.error == "TaskFailedError" and errors.TaskFailedError(task).content_rejected
    return CHANGE if refused or result.error in _ROW else RETRY


def reason(result: "BatchResult") -> str:
    """
    Why a job came to no result: what was said, without the library's advice to those who program.

    Args:
        result: How it ended.
    """
    kind = getattr(errors, result.error or "", None)
    said = (result.message or "").removesuffix(getattr(kind, "advice", "")).strip()
    return said.splitlines()[0] if said else ""


def _together(failed: Iterable["BatchResult"]) -> list[tuple[str, str, str, str]]:
    """A row for each job, or for all that ended alike where that would say the same over and over."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for each in failed:
        alike.setdefault((each.state, advice(each), reason(each)), []).append(each.key)
    rows = []
    for how, keys in alike.items():
        shown = keys if len(keys) <= ALIKE_MOST else [f"{keys[0]} and {len(keys) - 1:,} more"]
        rows += [(key, *how) for key in shown]
    return rows


@frozen(kw_only=True)
class Remains:
    """
    What is left of a batch.
    """

    runner: "DbosRunner"
    """Open."""
    home: Home
    """Where it is kept."""
    service: Service
    """Whom its command spoke to."""
    show: Show
    """The command's voice."""

    async def failures(
        self, batch: str | None, *, again: str | None = None, keys: Collection[str] | None = None
    ) -> int:
        """
        Say which jobs came to no result, and what to do; how many they are.

        Args:
            batch: Of this one alone.
            again: The command that goes on, where it is known.
            keys: Those alone.

        Raises:
            StoreError: The database cannot be used.
        """
        found = await self.runner.results(batch=batch, states=FAILED)
        failed = [each for each in found if keys is None or each.key in keys]
        if not failed:
            return 0
        for each in failed:
            self.show.event("failure", result_facts(each))
        rows = _together(failed)
        self.show.line()
        self.show.rows(rows[:SHOWN_MOST], ("key", "state", "what to do", "why"))
        if len(rows) > SHOWN_MOST:
            self.show.line(f"  and {len(rows) - SHOWN_MOST:,} more")
        self.show.line()
        self._advise({advice(each) for each in failed}, batch, again)
        return len(failed)

    def _advise(self, found: set[str], batch: str | None, again: str | None) -> None:
        named = [] if batch is None else ["--name", batch]
        if RETRY in found:
            retry = self.home.command(self.service, "retry", *named)
            self.show.line(f"Retry:  {retry}")
        if again is not None:
            self.show.line(f"Run again:  {again}")

    async def missing(self, folder: Path, done: Sequence["BatchResult"]) -> None:
        """
        Say how many results are not in the folder.

        Args:
            folder: Where they should be.
            done: The jobs that have one.
        """
        gone = await run_sync(lambda: sum(not (folder / each.output).exists() for each in done))
        if gone:
            text = f"{counted(gone, 'result')} not in {folder}: other workers keep their own, or they were taken away"
            self.show.warning(text)

    async def sheet(self, folder: Path, done: Sequence["BatchResult"], *, new: bool) -> Path | None:
        """
        Draw the contact sheet, where that can be done; where it is.

        Args:
            folder: Of the results.
            done: The jobs that have one.
            new: Whether there is one that was not there before.
        """
        path = folder / SHEET
        there = [(each.key, folder / each.output) for each in done if (folder / each.output).exists()]
        if not there or not can_draw():
            return None
        if new or not path.exists():
            with self.show.stage("sheet", f"drawing {counted(len(there), 'result')}") as stage:
                await run_sync(lambda: path.write_bytes(sheet_jpg(there)))
                stage.result = str(path)
        return path
