"""
What a client tells its observer: frozen facts, as they happen.

`KlingClient(observer=...)` takes one callable; it is called in the client's own task, and must neither block
nor raise: what it raises ends the call that it was told of. None costs nothing. No event holds a key, a body,
or the query of a URL.
"""

from pathlib import Path
from typing import TypeAlias

from attrs import frozen

__all__ = ("Created", "Downloaded", "Duplicated", "Event", "Exchanged", "Looked", "Replayed")


@frozen(kw_only=True)
class Exchanged:
    """
    A reply came, whatever it says.
    """

    method: str
    """HTTP method."""
    path: str
    """Path below the base URL, without the query."""
    status: int
    """HTTP status."""
    seconds: float
    """From the request to the whole reply."""


@frozen(kw_only=True)
class Replayed:
    """
    A call failed and will be sent again, as its licence allows.
    """

    method: str
    """HTTP method."""
    path: str
    """Path below the base URL, without the query."""
    attempt: int
    """The attempt that comes next; 2 is the first replay."""
    delay: float
    """Seconds until it is sent."""
    error: str
    """The class of what went wrong."""


@frozen(kw_only=True)
class Created:
    """
    A paid create was accepted: this is what will be charged.
    """

    external_task_id: str
    """The caller's id."""
    task_id: str
    """The service's id."""


@frozen(kw_only=True)
class Duplicated:
    """
    One create is there more than once, which only a relay that sends requests again can do: tell its support.
    """

    external_task_id: str
    """The caller's id."""
    task_ids: tuple[str, ...]
    """The service's ids, oldest first; the first one is gone on with."""


@frozen(kw_only=True)
class Looked:
    """
    A running task was seen in another status than before.
    """

    task_id: str
    """The service's id."""
    external_task_id: str | None
    """The caller's id, where the service told it."""
    status: str
    """What it is now."""


@frozen(kw_only=True)
class Downloaded:
    """
    A file is whole and has its name.
    """

    path: Path
    """Where it is."""
    size: int
    """Its bytes."""
    sha256: str
    """Their SHA-256 as they were written, in hexadecimal."""


Event: TypeAlias = Exchanged | Replayed | Created | Duplicated | Looked | Downloaded
"""All that an observer may be told."""
