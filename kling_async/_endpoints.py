"""
Hosts and endpoints as data: where a call goes, what it returns, and whether it may be replayed.

Paths: https://klingai.com/document-api/api/video/multi-elements.md; CometAPI serves the same under `/kling`.
"""

from enum import Enum
from typing import Generic, TypeVar
from urllib.parse import quote, urlsplit

from attrs import Factory, field, frozen

from ._urls import NONSENSE, split
from .errors import InvalidInputError
from .models import Marked, Preview, SelectionInfo, Task

T = TypeVar("T")

COMETAPI_URL = "https://api.cometapi.com/kling"
"""CometAPI: https://apidoc.cometapi.com; the prefix is part of the URL."""
KLING_GLOBAL_URL = "https://api-singapore.klingai.com"
"""Kling for callers outside China."""
KLING_CHINA_URL = "https://api-beijing.klingai.com"
"""Kling for callers in China; keys of one region are not known in the other."""

GATEWAY = ".cometapi.com"
"""CometAPI documents neither a list of tasks nor a query by external id."""
KLINGS_OWN = (".klingai.com", ".kling.ai")
"""Hosts without a relay before them: one key is one account there."""

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""Hosts that may be spoken to without TLS: the simulator's."""


class Replay(Enum):
    """
    What allows a call to be sent again.
    """

    SAFE = "safe"
    """Reads and idempotent calls: after any passing fault."""
    TWICE = "twice"
    """Heavy reads that may be charged: as SAFE, but once more at most where the first may have been done."""
    REFUSED = "refused"
    """Only when it provably was not done: never sent, or refused for its rate."""
    KEYED = "keyed"
    """The paid create: `_create.py` alone decides."""


@frozen
class Endpoint(Generic[T]):
    """
    One call of the API; `result` types what `exchange` returns for it.
    """

    method: str
    """HTTP method."""
    path: str
    """Path below the base URL; `{id}` is filled in quoted."""
    result: type[T]
    """The model of the reply's data."""
    replay: Replay
    """The licence to send it again."""

    def at(self, task_id: str) -> str:
        """
        The path with its id filled in; ids come from users and servers, so every reserved character is quoted.
        """
        plain = task_id.isalnum() and task_id.isascii()
        return self.path.replace("{id}", task_id if plain else quote(task_id, safe=""))


_FAMILY = "/v1/videos/multi-elements"
INIT = Endpoint("POST", f"{_FAMILY}/init-selection", SelectionInfo, Replay.SAFE)
ADD = Endpoint("POST", f"{_FAMILY}/add-selection", Marked, Replay.REFUSED)
DELETE = Endpoint("POST", f"{_FAMILY}/delete-selection", Marked, Replay.REFUSED)
CLEAR = Endpoint("POST", f"{_FAMILY}/clear-selection", type(None), Replay.SAFE)
PREVIEW = Endpoint("POST", f"{_FAMILY}/preview-selection", Preview, Replay.TWICE)
CREATE = Endpoint("POST", _FAMILY, Task, Replay.KEYED)
GET = Endpoint("GET", f"{_FAMILY}/{{id}}", Task, Replay.SAFE)
LIST: Endpoint[tuple[Task, ...]] = Endpoint("GET", _FAMILY, tuple, Replay.SAFE)

ENDPOINTS = (INIT, ADD, DELETE, CLEAR, PREVIEW, CREATE, GET, LIST)
"""All eight, for those who walk over them."""


@frozen
class Host:
    """
    What is known of the service behind a base URL.
    """

    base_url: str
    """Scheme, host and prefix, without a slash at the end."""
    lists: bool = field(
        init=False, default=Factory(lambda self: not f".{self.hostname}".endswith(GATEWAY), takes_self=True)
    )
    """Whether it documents the list of tasks; CometAPI documents none."""
    finds_external_ids: bool = field(init=False, default=Factory(lambda self: self.lists, takes_self=True))
    """Whether it documents the query by external_task_id; CometAPI documents task_id alone."""
    local: bool = field(init=False, default=Factory(lambda self: self.hostname in LOOPBACK, takes_self=True))
    """Whether it is on this machine, so that plain http and loopback media are fine."""

    @property
    def direct(self) -> bool:
        """
        Whether one key surely is one account; a relay may spread it over several, each with external ids of its own.
        """
        return self.local or f".{self.hostname}".endswith(KLINGS_OWN)

    @property
    def hostname(self) -> str:
        """
        The host alone, in lower case.
        """
        return urlsplit(self.base_url).hostname or ""

    @property
    def name(self) -> str:
        """
        Host and port, for messages.
        """
        return urlsplit(self.base_url).netloc


def host(base_url: str) -> Host:
    """
    A checked base URL.

    Raises:
        InvalidInputError: It has no https scheme (http is for loopback only), a query, or credentials.
    """
    given: object = base_url
    if not isinstance(given, str):
        raise InvalidInputError("base_url", f"give the URL as text, such as {COMETAPI_URL!r}")
    parts = split(base_url)
    if parts is None:
        raise InvalidInputError("base_url", NONSENSE)
    loopback = (parts.hostname or "") in LOOPBACK
    spaced = " " in base_url or not base_url.isprintable()  # which urlsplit drops in silence
    if parts.scheme not in {"https", "http"} or not parts.hostname or spaced:
        raise InvalidInputError("base_url", f"needs scheme and host, such as {COMETAPI_URL!r}")
    if "@" in parts.netloc or "?" in base_url or "#" in base_url:
        raise InvalidInputError("base_url", "takes scheme, host and prefix only: no user, query or fragment")
    if parts.scheme == "http" and not loopback:
        raise InvalidInputError("base_url", "must be https; plain http is for 127.0.0.1, ::1 and localhost")
    return Host(base_url.rstrip("/"))
