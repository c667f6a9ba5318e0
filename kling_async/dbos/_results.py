"""
What lies in the folder in the end: each result with a record beside it, and one index of the whole batch.

Files appear whole or not at all. Neither holds a secret: signed links are left out, and so is every key.
"""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

import orjson
from attrs import asdict, frozen

import kling_async
from kling_async._parts import _held
from kling_async.models import Task

from ._entries import Entry, State

INDEX: Final = "index.jsonl"
"""The index's name; one line a job, in the order of the manifest."""


@frozen(kw_only=True)
class BatchResult:
    """
    What came of one job of a batch.
    """

    key: str
    """The job's key."""
    state: State
    """
    `done`; `failed`, `declined` by a gate, `refused` by the budget, `unknown` whether it was created, `cancelled`; or
    not ended yet: `waiting`, `running`.
    """
    output: str
    """The result's file, under the worker's folder."""
    task_id: str | None = None
    """The service's id, where a task was created."""
    external_task_id: str | None = None
    """The id that its create was sent with."""
    units: Decimal | None = None
    """What it cost; None is unknown, never zero."""
    sha256: str | None = None
    """Of the file."""
    error: str | None = None
    """The class of the error that ended it."""
    message: str | None = None
    """What it said."""

    @classmethod
    def of(cls, entry: Entry) -> "BatchResult":
        """
        A job's, as it is kept.
        """
        told = entry.outcome
        texts = {name: _text(told.get(name)) for name in ("task_id", "sha256", "error", "message")}
        cost = _text(told.get("units"))
        return cls(
            key=entry.key,
            state=entry.state,
            output=entry.output,
            external_task_id=entry.paid_job.external_task_id,
            units=None if cost is None else Decimal(cost),
            **texts,
        )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def record(entry: Entry, prepared: Mapping[str, object], task: Task, file: Mapping[str, object]) -> dict[str, object]:
    """
    What stands beside a result.

    Args:
        entry: The job.
        prepared: Its selection and masks, as far as it had its own.
        task: How it ended.
        file: What is known of the file.
    """
    job = entry.paid_job
    return {
        "key": entry.key,
        "batch": entry.batch,
        "source": job.source,
        "points": {str(frame): [[point.x, point.y] for point in points] for frame, points in job.marks.items()},
        "mask_area": prepared.get("areas"),
        "edit_mode": job.edit.edit_mode,
        "prompt": job.edit.prompt,
        "negative_prompt": job.edit.negative_prompt,
        "mode": job.edit.mode,
        "duration": job.edit.duration,
        "session_id": prepared.get("session_id"),
        "task_id": task.task_id,
        "external_task_id": job.external_task_id,
        "video_id": task.videos[0].video_id if task.videos else None,
        "attempt": entry.attempt,
        "submitted_at": datetime.fromtimestamp(entry.made_at, UTC).isoformat(),
        "created_at": task.created_at and task.created_at.isoformat(),
        "updated_at": task.updated_at and task.updated_at.isoformat(),
        "saved_at": datetime.now(UTC).isoformat(),
        "units": None if task.units is None else str(task.units),
        "worst_units": prepared.get("worst"),
        **file,
        "kling_async": kling_async.__version__,
    }


def index(entries: Iterable[Entry]) -> bytes:
    """
    The index of a batch.
    """
    lines = []
    for entry in entries:
        result = BatchResult.of(entry)
        units = None if result.units is None else str(result.units)
        lines.append(orjson.dumps({"number": entry.number, **asdict(result), "units": units}))
    return b"".join(line + b"\n" for line in lines)


def beside(path: Path) -> Path:
    """
    Where the record of a result stands.
    """
    return path.with_name(f"{path.name}.json")


def digest(path: Path) -> dict[str, object]:
    """
    A file's length and sum.
    """
    with path.open("rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def written(path: Path, data: bytes) -> None:
    """
    Put a file in its place, whole and on the disk, over what was there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    file = part.open("ab")
    # What a writer left that was killed is written over; past one that lives, which may hang.
    if not _held(part, file.fileno()):
        file.close()
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        file = part.open("xb")
    with file:
        try:
            file.truncate(0)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def recorded(path: Path, told: Callable[[Mapping[str, object]], dict[str, object]]) -> dict[str, object]:
    """
    Put the record of a file beside it.

    Args:
        path: The file.
        told: What stands in it, from what is known of the file.
    """
    whole = told(digest(path))
    written(beside(path), orjson.dumps(whole, option=orjson.OPT_INDENT_2))
    return whole


def saved(path: Path, task_id: str) -> dict[str, object] | None:
    """
    What the record beside a file says of it, if it is this task's result and as it was; None where it must be fetched,
    and its folder is there then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        told = orjson.loads(beside(path).read_bytes())
        there = digest(path)
    except (OSError, orjson.JSONDecodeError):
        return None
    same = isinstance(told, dict) and told.get("task_id") == task_id and told.get("sha256") == there["sha256"]
    return told if same else None
