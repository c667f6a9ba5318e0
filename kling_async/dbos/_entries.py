"""
A job of a batch as it is kept: plain JSON in a row, with large pictures once for all that show them.

Decides what an attempt is called and which paid run it is on.
"""

import hashlib
import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Literal

import orjson
import sqlalchemy as sa
from attrs import frozen

from kling_async._codec import from_dict, to_dict
from kling_async._submit import clip_digest
from kling_async.jobs import Job

from ._tables import JOBS, PICTURES, insert

State = Literal["waiting", "running", "done", "failed", "declined", "refused", "unknown", "cancelled"]

BEGUN: Final[frozenset[State]] = frozenset({"waiting", "running"})
AGAIN: Final[frozenset[State]] = frozenset({"failed", "declined", "refused", "unknown", "cancelled"})
"""Ends after which a job may be begun once more."""
LARGE: Final = 4096
"""Letters from which a picture is kept apart."""
_FOREIGN: Final = "extra"
"""What an edit holds that is none of our own."""


@frozen(kw_only=True)
class Entry:
    """
    A job as it is kept.
    """

    account: str
    key: str
    batch: str
    number: int
    """Its place in the batch."""
    attempt: int
    """How often it was begun, from 1."""
    run: int
    """Which paid run it is on, from 1: one that has a task is never begun again under the same key."""
    output: str
    """The result's file, under the worker's folder."""
    job: Job
    """The job as it was submitted."""
    state: State
    cost: int
    """Millionths of units that its earlier runs did cost, or might have where nobody knows."""
    outcome: Mapping[str, object]
    """What came of it, as far as it has ended."""
    made_at: float
    """Unix time."""
    ended_at: float | None

    @property
    def owed(self) -> bool:
        """
        Whether what ended it has nothing to do with it, or its result is there and was not fetched.
        """
        if self.state == "failed":
            return self.outcome.get("stage") == "finish" and not self.outcome.get("task_failed")
        return True

    @property
    def paid_job(self) -> Job:
        """The job under the key of this paid run."""
        job = self.job
        if self.run == 1:
            return job
        return Job(job.video_url, video_id=job.video_id, marks=job.marks, edit=job.edit, key=f"{self.key}~{self.run}")


@frozen(kw_only=True)
class Kept:
    """
    What is told of a job without reading it.
    """

    batch: str
    """What it belongs to."""
    state: State
    """How it stands."""
    output: str
    """The result's file, under the worker's folder."""
    payload: str
    """The digest of its edit."""


@frozen(kw_only=True)
class Wish:
    """
    A job to be added.
    """

    job: Job
    output: str
    number: int = 0


@frozen(kw_only=True)
class Counts:
    """
    How far a batch is.
    """

    states: Mapping[str, int]
    """Jobs by state."""
    spent: Decimal
    """Units: what has ended at its cost, what runs at its worst case."""
    budget: Decimal | None
    """Units that it may cost; None is no bound."""
    paused: str | None
    """Why no task is created just now."""
    slots: int
    """Tasks that may run at once."""
    ended_at: tuple[float, ...]
    """Unix times of the latest results."""


def workflow_id(account: str, job: Job, attempt: int) -> str:
    """
    What the engine calls an attempt, from nothing but account and key: submitted twice, it is there once.
    """
    return f"edit-{account}-{job.external_task_id}-{attempt}"


def row_of(connection: sa.Connection, account: str, batch: str, wish: Wish) -> dict[str, object]:
    """
    A wish as a row.
    """
    job = wish.job
    spec = to_dict(job)
    return {
        "account": account,
        "key": job.key,
        "batch": batch,
        "number": wish.number,
        "attempt": 1,
        "run": 1,
        "output": wish.output,
        "payload": clip_digest(job.source, job.marks, job.edit),
        "spec": orjson.dumps({**spec, "edit": _apart(connection, spec["edit"])}).decode(),
        "state": "waiting",
        "made_at": time.time(),
    }


def entry_of(connection: sa.Connection, row: sa.RowMapping) -> Entry:
    """
    A row as a job.
    """
    spec = orjson.loads(row["spec"])
    plain = {name: row[name] for name in _PLAIN}
    job = from_dict(Job, {**spec, "edit": _whole(connection, spec["edit"])})
    return Entry(job=job, outcome=orjson.loads(row["outcome"] or "{}"), **plain)


def _apart(connection: sa.Connection, value: object) -> object:
    if isinstance(value, list):
        return [_apart(connection, each) for each in value]
    if not isinstance(value, dict):
        return value
    wire = value.get("wire")
    if not isinstance(wire, str) or len(wire) < LARGE:
        return {name: each if name == _FOREIGN else _apart(connection, each) for name, each in value.items()}
    digest = hashlib.sha256(wire.encode()).hexdigest()
    insert(connection, PICTURES, {"sha256": digest, "wire": wire})
    return {"sha256": digest}


def _whole(connection: sa.Connection, value: object) -> object:
    if isinstance(value, list):
        return [_whole(connection, each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != {"sha256"}:
        return {name: each if name == _FOREIGN else _whole(connection, each) for name, each in value.items()}
    asked = sa.select(PICTURES.c.wire).where(PICTURES.c.sha256 == value["sha256"])
    return {"wire": connection.execute(asked).scalar_one()}


_OTHERS: Final = {"payload", "spec", "reserved", "outcome"}
_PLAIN: Final = tuple(column.name for column in JOBS.c if column.name not in _OTHERS)
