"""
What a simulator remembers of each request: the truth that tests are held to.
"""

from collections.abc import Mapping

from attrs import field, frozen

__all__ = ("Seen",)


@frozen(kw_only=True)
class Seen:
    """
    One request that reached the simulator. The key itself is never kept.
    """

    time: float
    """Seconds on the simulator's clock, which begins at 0 with its first request."""
    method: str
    """HTTP method."""
    path: str
    """The URL's path, with its prefix."""
    query: Mapping[str, str] = field(factory=dict, hash=False)
    """The URL's query."""
    json: object = field(default=None, repr=False, hash=False)
    """The body's JSON; None where there was none."""
    endpoint: str | None = None
    """
    `init`, `add`, `delete`, `clear`, `preview`, `create`, `get`, `list`, `media`, `openapi` for the document; None for
    no such call.
    """
    with_key: bool = False
    """Whether an Authorization field came along."""
    range: str | None = None
    """The Range field: a download that goes on where another broke off says `bytes=N-`."""
    fault: str | None = None
    """The kind of the fault that met it."""
    status: int | None = None
    """HTTP status of the answer; None while there is none, and for ever if the reply was cut."""
