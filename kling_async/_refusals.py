"""
The root of the tree, and the refusals of the service with the table from its codes to their classes.

The class comes from the code where there is one, for HTTP 429 alone has five meanings, of which two may
be tried again; else from a gateway's word, else from the HTTP status. `errors.py` draws the whole tree.
Codes: https://kling.ai/document-api/api/get-started/error-codes
"""

import re
from typing import ClassVar, TypeVar

QUOTED = 200
"""Characters of a foreign text that an error quotes at most."""

_SECRET = re.compile(r"(?<![A-Za-z0-9])sk-[\w*.-]+|(?i:bearer)\s+\S+|eyJ[\w-]+\.[\w-]+\.[\w-]*")

E = TypeVar("E", bound="KlingError")


def excerpt(text: object, most: int = QUOTED) -> str:
    """
    What an error may quote of a foreign text: one printable line, 200 characters, nothing that looks like a key.
    """
    shown = "".join(character if character.isprintable() else " " for character in str(text)[: 4 * QUOTED])
    line = " ".join(_SECRET.sub("***", shown).split())
    return line if len(line) <= most else line[: most - 1] + "…"


class KlingError(Exception):
    """
    The root of everything this package raises on purpose.
    """

    external_task_id: str | None = None
    """Of the paid create that this error belongs to, where there is one."""

    def __reduce__(self) -> tuple[object, ...]:
        return _revive, (type(self), self.args, self.__dict__)


def _revive(cls: type[E], args: tuple[object, ...], state: dict[str, object]) -> E:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class APIError(KlingError):
    """
    The service answered and refused.
    """

    advice: ClassVar[str] = "See the message; the request was understood and refused."

    def __init__(
        self,
        message: str,
        *,
        code: int | str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        about: str | None = None,
    ) -> None:
        self.message = message
        """The service's own words, cut to 200 characters and without anything like a key."""
        self.code = code
        """The service's code: a number from Kling, a word from a gateway, or None."""
        self.status = status
        """HTTP status."""
        self.request_id = request_id
        """What to quote to the provider's support."""
        self.retry_after = retry_after
        """Seconds that the service asked to wait, if it did."""
        facts = [f"HTTP {status}" if status else "", f"request {request_id}" if request_id else ""]
        known = ", ".join(fact for fact in facts if fact)
        head = f"{code}: {message}" if code is not None else message
        super().__init__(f"{head}{f' ({known})' if known else ''}. {about or self.advice}")


class AuthenticationError(APIError):
    """
    The key was not accepted: codes 1000 to 1004, HTTP 401.
    """

    advice = "Check the key, and that it belongs to this host: a key of the other region fails just so."


class AccountError(APIError):
    """
    Money, rights or address list: codes 1100 to 1103 and 1304, HTTP 402 and 403. Trying again never helps.
    """

    advice = "Top up or check the account, its rights and its IP list; trying again does not help."


class InvalidRequestError(APIError):
    """
    The service found a parameter wrong: codes 1200 to 1202, other HTTP 4xx.
    """

    advice = "Compare it with the service's documentation; clips and pictures must be reachable without login."


class NotFoundError(APIError):
    """
    What was asked for does not exist: code 1203, HTTP 404.
    """

    advice = "Check the id, and that it was made with this account and this host."


class ContentRejectedError(APIError):
    """
    Content policy: codes 1300 and 1301. Change the prompt or the pictures.
    """

    advice = "Change the prompt or the pictures; the same content will be refused again."


class ThrottledError(APIError):
    """
    Too many requests at once: code 1302, HTTP 429 without a code. Nothing was done.
    """

    advice = "Wait and try again; nothing was done."


class QuotaFullError(APIError):
    """
    As many tasks run as the account allows: code 1303. Nothing was created.
    """

    advice = "Wait until a task ends and create again; nothing was created and nothing is paid."


class ServerError(APIError):
    """
    A fault on the service's side: codes 5000 to 5002, HTTP 5xx.
    """

    advice = "Try again later."


def _table(*rows: tuple[int, type[APIError]]) -> dict[int, type[APIError]]:
    table = dict(rows)
    if len(table) != len(rows):
        msg = "a code stands twice in the table"
        raise ValueError(msg)
    return table


CODES = _table(
    *((code, AuthenticationError) for code in range(1000, 1005)),
    *((code, AccountError) for code in (1100, 1101, 1102, 1103, 1304)),
    *((code, InvalidRequestError) for code in (1200, 1201, 1202)),
    (1203, NotFoundError),
    *((code, ContentRejectedError) for code in (1300, 1301)),
    (1302, ThrottledError),
    (1303, QuotaFullError),
    *((code, ServerError) for code in (5000, 5001, 5002)),
)
"""The documented codes; an unlisted one falls to its range."""

_RANGES: tuple[tuple[range, type[APIError]], ...] = (
    (range(1000, 1100), AuthenticationError),
    (range(1100, 1200), AccountError),
    (range(1200, 1300), InvalidRequestError),
    (range(5000, 6000), ServerError),
)

_WORDS: dict[str, type[APIError]] = {
    "invalid_request": InvalidRequestError,
    "model_not_found": NotFoundError,
    "task_not_exist": NotFoundError,
    "insufficient_user_quota": AccountError,
    "pre_consume_token_quota_failed": AccountError,
    "get_channel_failed": ServerError,
    "do_request_failed": ServerError,
    "task_failed": ServerError,
}
"""Words of the gateways, whose HTTP status misleads: a missing field may come as 500 `invalid_request`."""

_STATUSES: dict[int, type[APIError]] = {
    401: AuthenticationError,
    402: AccountError,
    403: AccountError,
    404: NotFoundError,
    408: ServerError,
    429: ThrottledError,
    499: ServerError,
}


def error_class(code: int | str | None, status: int) -> type[APIError]:
    """
    The class for a refusal: by the code, by its range, by the gateway's word, else by the HTTP status.
    """
    if isinstance(code, int):
        by_range = next((cls for codes, cls in _RANGES if code in codes), None)
        found = CODES.get(code, by_range)
    else:
        found = _WORDS.get(code or "")
    if found is None:
        found = _STATUSES.get(status)
    if found is None:
        found = ServerError if status >= 500 else InvalidRequestError if 400 <= status < 500 else APIError
    return found
