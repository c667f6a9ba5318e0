"""
The work of one job in four steps: prepare, reserve, submit, finish. Each may be done twice, and nothing is paid twice.

Decides what is waited out, what ends a job, and what pauses all of them. Values go in and out as plain JSON, for the
engine writes them down; no error leaves a step, for the engine would repeat it for ever.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, cast

import anyio
from anyio.to_thread import run_sync
from attrs import define, evolve, field

from kling_async._codec import from_dict, to_dict
from kling_async._exchange import log
from kling_async._submit import clip_digest
from kling_async.batch import QUOTA_MOST, QUOTA_WAIT, Gate
from kling_async.client import KlingClient
from kling_async.costs import estimate_units
from kling_async.errors import (
    AccountError,
    APIError,
    AuthenticationError,
    ClosedError,
    DeclinedError,
    DownloadError,
    InvalidInputError,
    KlingError,
    QuotaFullError,
    SelectionDirtyError,
    SelectionExpiredError,
    ServerError,
    StoreError,
    SubmissionError,
    TaskFailedError,
    ThrottledError,
    TLSError,
    TransportError,
    UnknownOutcomeError,
)
from kling_async.models import SelectionInfo, SelectionState, Task
from kling_async.selection import SelectionSession

from ._account import Account
from ._entries import Entry, State
from ._money import Money
from ._records import Records
from ._results import record, recorded, saved

T = TypeVar("T")
JSON = dict[str, object]

AGAIN_FIRST, AGAIN_MOST = 1.0, 60.0
"""Seconds between tries while the service is away, at first and at most."""
LINKS: Final = 4
"""How often a result's link is asked for afresh."""
LOOK: Final = 2.0
"""Seconds between two looks whether a pause is over."""


def _ended(state: State, error: KlingError | str, stage: str, **more: object) -> JSON:
    """How a job ends that comes to no result."""
    said: JSON = {"state": state, "stage": stage, "message": str(error), **more}
    if isinstance(error, KlingError):
        said["error"] = type(error).__name__
    if isinstance(error, APIError) and error.code is not None:
        said["code"] = error.code
    return {"ended": said}


def worst(entry: Entry, info: SelectionInfo | None) -> Decimal | None:
    """
    Units that a job may cost at most; None where no price is published.
    """
    edit = entry.job.edit
    if edit.duration is None and (info is None or not info.duration):
        edit = evolve(edit, duration=10)
    return estimate_units(edit, clip_seconds=info.duration if info and info.duration else None)


@define(eq=False, repr=False)
class Worker:
    """
    Does jobs of one account in this process.
    """

    client: KlingClient
    """Open, with the account's credentials."""
    records: Records
    money: Money
    account: Account
    out: Path
    """Where results go."""
    gate: Gate | None
    """Runs just before each paid create."""
    resize: Callable[[int], Awaitable[None]]
    """Tells the engine how many tasks may run at once."""
    patience: float
    """Seconds for which a service that is away is waited for."""
    holding: bool = field(default=True, init=False)
    """Whether jobs wait for a pause to end; at first nobody knows whether there is one."""
    _turn: anyio.Lock = field(factory=anyio.Lock, init=False)

    async def prepare(self, entry: Entry) -> JSON:
        """
        Open the selection, mark the points, and ask the gate; or find the task that the key already has.
        """
        return await self._told("prepare", lambda: self._patiently(lambda: self._prepared(entry)))

    async def _prepared(self, entry: Entry) -> JSON:
        job = entry.paid_job
        assert job.external_task_id is not None
        payload = clip_digest(job.source, job.marks, job.edit)
        known = None
        if self.gate is not None or entry.attempt > 1 or await self._is_met(job.external_task_id):
            known = await self.client.creates.known(job.external_task_id, payload)
        if known is not None:
            return {"task_id": known.task_id, "worst": _text(worst(entry, None))}
        async with SelectionSession(self.client, video_url=job.video_url, video_id=job.video_id) as selection:
            for frame_index, points in job.marks.items():
                await selection.add_points(frame_index, points)
            if self.gate is not None and (reason := await self.gate(job, selection)) is not None:
                raise DeclinedError(reason)
            areas = {str(frame): [mask.area for mask in found.masks] for frame, found in selection.marked.items()}
            return {
                "state": to_dict(selection.state),
                "session_id": selection.session_id,
                "areas": areas,
                "worst": _text(worst(entry, selection.info)),
            }

    async def _is_met(self, external_task_id: str) -> bool:
        """Whether a create of it was begun before. Of any other the paid call itself asks the service first."""
        return await self.client.creates.store.get(external_task_id) is not None

    async def reserve(self, entry: Entry, prepared: Mapping[str, object]) -> JSON:
        """
        Take what it may cost from the budget. From here on a create may exist.
        """
        cost = prepared["worst"]
        known = None if cost is None else Decimal(str(cost))
        refusal = await self.money.reserve(entry, known, paid="task_id" in prepared)
        if refusal is None:
            return {}
        return _ended("cancelled" if "cancelled" in refusal else "refused", refusal, "reserve")

    async def submit(self, entry: Entry, prepared: Mapping[str, object]) -> JSON:
        """
        Create the task once, or find it: the paid call.
        """
        if "task_id" in prepared:
            return {"task_id": prepared["task_id"]}
        return await self._told("submit", lambda: self._submitted(entry, prepared))

    async def _submitted(self, entry: Entry, prepared: Mapping[str, object]) -> JSON:
        job, refusals = entry.paid_job, 0
        state = from_dict(SelectionState, _object(prepared["state"]))
        async with SelectionSession(self.client, state=state) as selection:
            while True:
                try:
                    task = await self._patiently(
                        lambda: selection.create_task(job.edit, external_task_id=job.external_task_id)
                    )
                except (SelectionExpiredError, SelectionDirtyError):
                    await self._patiently(selection.rebuild)
                except QuotaFullError as error:
                    refusals += 1
                    await self._full(refusals, error)
                else:
                    return {"task_id": task.task_id}

    async def _full(self, refusals: int, error: QuotaFullError) -> None:
        """Wait for room; where the quota is learned, that teaches."""
        await self._learn(refused=True)
        drawn = self.client.creates.exchange.drawn(refusals)
        await anyio.sleep(min(QUOTA_MOST, max(QUOTA_WAIT, error.retry_after or 0.0, drawn)))

    async def _learn(self, *, refused: bool) -> None:
        slots = await self.account.learned(refused=refused)
        if slots is not None:
            await self.resize(slots)

    async def finish(self, entry: Entry, prepared: Mapping[str, object], submitted: Mapping[str, object]) -> JSON:
        """
        Wait for the task's end, fetch the result, and write all of it down.
        """
        found = prepared if "ended" in prepared else submitted
        if "ended" not in found:
            found = await self._told("finish", lambda: self._finished(entry, prepared, str(submitted["task_id"])))
        ended = _object(found.get("ended") or found)
        state, cost = cast("State", ended.pop("state")), ended.get("units")
        nothing = state in {"declined", "refused", "cancelled"} or ended.pop("free", False)
        known = Decimal(0) if nothing else None if cost is None else Decimal(str(cost))
        await self.money.end(entry, state, ended, known)
        return {"state": state}

    async def _finished(self, entry: Entry, prepared: Mapping[str, object], task_id: str) -> JSON:
        path = self.out / entry.output
        task = await self._patiently(lambda: self.client.wait(task_id))
        await self._learn(refused=False)
        told = await _filed(partial(saved, path, task_id))
        if told is None:
            await self._fetched(task, path)
            told = await _filed(partial(recorded, path, partial(record, entry, prepared, task)))
        names = ("task_id", "external_task_id", "video_id", "units", "sha256", "bytes")
        return {"state": "done", **{name: told.get(name) for name in names}}

    async def _fetched(self, task: Task, path: Path) -> None:
        """Links expire; each try asks for a fresh one."""
        tries = 0
        while True:
            try:
                await self._patiently(partial(self._downloaded, task, path))
            except DownloadError as error:
                tries += 1
                # What has no status is this machine's own trouble: no link would mend it.
                if tries == LINKS or (error.final and error.status is None):
                    raise
                log.info("the result of %s could not be fetched (%s); asking for its link again", task.task_id, error)
            else:
                return
            await anyio.sleep(AGAIN_FIRST * 4 ** (tries - 1))
            task = await self._patiently(partial(self.client.get_task, task.task_id))

    async def _downloaded(self, task: Task, path: Path) -> None:
        try:
            await self.client.download(task.video, path, overwrite=True)
        except InvalidInputError:
            # A worker that was taken for dead may hold the unfinished file for as long as it hangs: past it.
            aside = path.with_name(f"{path.stem}.{secrets.token_hex(4)}{path.suffix}")
            await self.client.download(task.video, aside, overwrite=True)
            await _filed(partial(aside.replace, path))

    async def _told(self, stage: str, work: Callable[[], Awaitable[JSON]]) -> JSON:
        """What a step comes to, errors included."""
        try:
            return await work()
        except DeclinedError as error:
            return _ended("declined", error, stage)
        except UnknownOutcomeError as error:
            return _ended("unknown", error, stage)
        except TaskFailedError as error:
            task = error.task
            cost = {} if task.units is None else {"units": str(task.units)}
            return _ended("failed", error, stage, task_id=task.task_id, task_failed=True, **cost)
        except ClosedError:
            # This worker ends; the job goes on with another.
            raise
        except KlingError as error:
            # Of the paid call any other error says that nothing was created; the steps around it change no cost.
            return _ended("failed", error, stage, free=stage == "submit" and not isinstance(error, SubmissionError))

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do it; what comes and goes is waited out, and so is an empty balance."""
        await self._released()
        since, delay = anyio.current_time(), AGAIN_FIRST
        while True:
            try:
                return await call()
            except (AccountError, AuthenticationError) as error:
                await self._paused(error)
                since, delay = anyio.current_time(), AGAIN_FIRST
            except (TransportError, ServerError, ThrottledError, StoreError) as error:
                if isinstance(error, TLSError) or anyio.current_time() - since > self.patience:
                    raise
                log.info("%s; again in %.0f s", error, delay)
                await anyio.sleep(delay)
                delay = min(2 * delay, AGAIN_MOST)

    async def _paused(self, error: AccountError | AuthenticationError) -> None:
        """All stop until someone has seen to it: no clip is to fail for an empty balance."""
        if await self.account.pause(f"{type(error).__name__}: {error}"):
            # Marked, for a command that watches says it better.
            log.warning("the batch is paused: %s", error, extra={"paused": True})
        self.holding = True
        await self._released()

    async def _released(self) -> None:
        while self.holding:
            # One of them looks, the others wait for its turn.
            async with self._turn:
                if await self.account.paused() is None:
                    self.holding = False
                else:
                    await anyio.sleep(LOOK)


async def _filed(work: Callable[[], T]) -> T:
    """Work on the folder of results: what goes wrong there can be mended, and the result is fetched then."""
    try:
        return await run_sync(work)
    except OSError as error:
        raise DownloadError(f"the result could not be filed: {error}", final=True) from error


def _object(value: object) -> JSON:
    assert isinstance(value, dict)
    return value


def _text(units: Decimal | None) -> str | None:
    return None if units is None else str(units)
