"""
What may go wrong with single replies: a small closed vocabulary of values, and the script they are read from.

Decides which request a fault meets and what is answered instead. Knows neither state nor sockets: that a reply is
cut or never comes is an outcome which both drivers act upon.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from attrs import Factory, define, field, fields, frozen

from kling_async.errors import InvalidInputError
from kling_async.transport import Response

from ._answers import accepted, gateway, nested, no_task, refused, reply, wrong_path
from ._shape import Shape

__all__ = ("Fault",)

Where = Literal[
    "init", "add", "delete", "clear", "preview", "create", "get", "list", "media", "task", "video"
]  # fmt: skip
Kind = Literal[
    "unsent", "lost", "cut", "hang", "status", "code", "rejected", "missing", "failed",
    "gateway", "nested", "wrong_path", "empty", "account", "html", "truncated", "redirect", "shape",
]  # fmt: skip

_MARKING = frozenset({"init", "add", "delete", "clear", "preview"})
_CALLS = _MARKING | {"create", "get", "list"}
_ANY = _CALLS | {"media"}


@frozen
class _Rule:
    """
    Where a kind may happen, and what it may be told.
    """

    places: frozenset[str]
    takes: frozenset[str] = frozenset()


def _rule(places: Iterable[str], *takes: str) -> _Rule:
    return _Rule(frozenset(places), frozenset(takes))


_RULES: Mapping[str, _Rule] = {
    "unsent": _rule(_CALLS),
    "lost": _rule(_ANY),
    "cut": _rule(_ANY),
    "hang": _rule(_ANY, "handled"),
    "status": _rule(_ANY, "status", "body", "handled", "retry_after"),
    "code": _rule(_CALLS, "code", "message", "status", "handled", "retry_after"),
    "rejected": _rule(_MARKING, "code", "handled"),
    "missing": _rule({"get", "video"}, "word", "handled"),
    "failed": _rule({"task"}, "message"),
    "gateway": _rule(_CALLS, "status", "word", "message", "handled"),
    "nested": _rule(_CALLS, "code", "message", "status", "depth", "handled"),
    "wrong_path": _rule(_CALLS, "status"),
    "empty": _rule(_CALLS, "status", "handled"),
    "account": _rule(_CALLS, "status", "message"),
    "html": _rule(_CALLS, "status", "handled"),
    "truncated": _rule({"media"}),
    "redirect": _rule(_ANY, "status", "location", "handled"),
    "shape": _rule(_CALLS, "shape"),
}
_HANDLED = frozenset({"lost", "truncated", "failed", "shape"})

_STATUS = {"status": 500, "gateway": 500, "wrong_path": 404, "empty": 429, "account": 401, "html": 502, "redirect": 307}
_HTML = b"<!DOCTYPE html><html><head><title>%d</title></head><body><h1>%d</h1><hr>openresty</body></html>"


@frozen
class Fault:
    """
    One thing that goes wrong, at one place, once or `times` over.

    Places are the eight calls (`init`, `add`, `delete`, `clear`, `preview`, `create`, `get`, `list`), `media` for
    downloads, `task` for a task itself, and `video` for the result that a finished task names. Faults of one place
    are used up in the order in which they were given.

    Kinds:
        - `unsent`: it never reaches the simulator: NotSentError in the same process. Over sockets nothing can prove
          that, so there it is a cut connection. It is not in the log.
        - `lost`: handled, charged, and then the reply is cut.
        - `cut`: dropped unhandled, without a reply.
        - `hang`: never answered.
        - `status`: this HTTP `status` (500) with this `body`.
        - `code`: a refusal with this `code` of Kling's, its documented HTTP status and message; `retry_after` in
          seconds. `status=200` gives the refusal that hides behind a 200.
        - `rejected`: code 0, but `data.status` is `code` (1): no object was recognised, nothing is marked.
        - `missing`: at `get`, the task is not found, in the host's words or under a gateway's `word`; at `video`, a
          finished task names no video yet.
        - `failed`: at `task`, the next accepted task will fail with this `message`, and is not charged.
        - `gateway`: `{"error": {"message", "type", "code": word}}`, HTTP 500 and `invalid_request` by default.
        - `nested`: a refusal as text in a gateway's `message`, `depth` (1) times encoded.
        - `wrong_path`, `empty`, `account`, `html`: what gateways answer on 404, on 429 without a body, on a wrong
          key of theirs, and from their proxy (502).
        - `truncated`: a download that ends in the middle.
        - `redirect`: to `location`.
        - `shape`: nothing goes wrong, but this once the host has the ways of this `shape`.

    Example:
        >>> Fault("create", "lost").handled
        True
        >>> Fault("get", "code", code=5001, times=3, after=2).times
        3

    Raises:
        InvalidInputError: A word is unknown, or the kind does not happen there or takes no such argument.
    """

    endpoint: Where
    """Where it happens."""
    kind: Kind
    """What happens."""
    times: int | None = field(default=1, kw_only=True)
    """How often; None for ever."""
    after: int = field(default=0, kw_only=True)
    """How many pass unharmed before it."""
    handled: bool = field(default=Factory(lambda self: self.kind in _HANDLED, takes_self=True), kw_only=True)
    """Whether the request takes effect all the same, so that only its answer is false."""
    status: int | None = field(default=None, kw_only=True)
    """HTTP status of the answer."""
    code: int | None = field(default=None, kw_only=True)
    """Kling's code, or for `rejected` the `data.status`."""
    message: str | None = field(default=None, kw_only=True)
    """Words of the answer."""
    word: str | None = field(default=None, kw_only=True)
    """A gateway's code."""
    body: bytes | None = field(default=None, kw_only=True)
    """The answer's body as it is."""
    depth: int | None = field(default=None, kw_only=True)
    """How many times the inner body is encoded: 1 to 3."""
    retry_after: int | None = field(default=None, kw_only=True)
    """Seconds, as a header."""
    location: str | None = field(default=None, kw_only=True)
    """Where a redirect leads."""
    shape: Shape | None = field(default=None, kw_only=True)
    """The ways of the host, for this request."""

    def __attrs_post_init__(self) -> None:
        for name, value, words in (("endpoint", self.endpoint, Where), ("kind", self.kind, Kind)):
            if value not in get_args(words):
                raise InvalidInputError(f"fault.{name}", f"must be one of {get_args(words)}, not {value!r}")
        rule = _RULES[self.kind]
        if self.endpoint not in rule.places:
            raise InvalidInputError("fault.kind", f"{self.kind!r} happens at {sorted(rule.places)} alone")
        for attribute in fields(Fault)[4:]:
            fixed = attribute.name == "handled" and self.handled == (self.kind in _HANDLED)
            if getattr(self, attribute.name) is None or fixed or attribute.name in rule.takes:
                continue
            raise InvalidInputError(f"fault.{attribute.name}", f"says nothing about {self.kind!r}")
        self._check_numbers()

    def _check_numbers(self) -> None:
        limits = {"times": (1, 10**9), "after": (0, 10**9), "status": (200, 599), "depth": (1, 3)}
        limits |= {"code": (1, 10**6), "retry_after": (0, 10**6)}
        for name, (least, most) in limits.items():
            value: object = getattr(self, name)
            if value is not None and (type(value) is not int or not least <= value <= most):
                raise InvalidInputError(f"fault.{name}", f"must be a whole number from {least} to {most}")
        if self.kind in {"code", "nested"} and self.code is None:
            raise InvalidInputError("fault.code", f"{self.kind!r} needs a code, such as 5000")
        if self.kind == "shape" and not isinstance(self.shape, Shape):
            raise InvalidInputError("fault.shape", f"must be a Shape, not {self.shape!r}")

    def answer(self, shape: Shape, request_id: str) -> Response:
        """
        What is answered instead, for the kinds that answer at all.
        """
        status = self.status or _STATUS.get(self.kind, 0)
        waiting = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        response = Response(status, waiting, self.body or b"")
        match self.kind:
            case "code":
                words = self.message or ""
                response = refused(self.code or 0, words, request_id, status=self.status, headers=waiting)
            case "rejected":
                response = accepted(shape, request_id, {"status": self.code or 1, "final_unit_deduction": "0"})
            case "missing":
                response = no_task(shape, request_id, word=self.word)
            case "nested":
                words, depth = self.message or "", self.depth or 1
                response = nested(self.code or 0, words, request_id, status=self.status, depth=depth)
            case "html":
                response = Response(status, {"content-type": "text/html"}, _HTML % (status, status))
            case "redirect":
                response = Response(status, {"location": self.location or "https://redirect.invalid/"})
            case "gateway":
                word = "invalid_request" if self.word is None else self.word
                response = gateway(status, word, self.message or "the request failed", request_id)
            case "wrong_path":
                response = wrong_path(status)
            case "account":
                # Seen at https://github.com/QuantumNous/new-api (`middleware/auth.go`).
                body = {"success": False, "message": self.message or "invalid token", "code": "AUTH_INVALID"}
                response = reply(status, body)
        return response


@define
class Script:
    """
    Faults that are still to come, and how far each has got.
    """

    faults: tuple[Fault, ...]
    """In the order in which they were given."""
    _left: dict[int, tuple[int, int | None]] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        given, self.faults = self.faults, ()
        self.extend(given)

    def extend(self, faults: Iterable[Fault]) -> None:
        """
        Let more go wrong, after what is still to come.

        Raises:
            InvalidInputError: One of them is no Fault; none is taken.
        """
        more = tuple(faults)
        for fault in more:
            if not isinstance(fault, Fault):
                raise InvalidInputError("faults", f"must be Faults, not {fault!r}")
        self._left |= {len(self.faults) + index: (fault.after, fault.times) for index, fault in enumerate(more)}
        self.faults += more

    def take(self, endpoint: str) -> Fault | None:
        """
        The fault that this occasion meets, if any; it counts as used.
        """
        for index, (after, times) in self._left.items():
            fault = self.faults[index]
            if fault.endpoint != endpoint or times == 0:
                continue
            if after:
                self._left[index] = (after - 1, times)
                return None
            self._left[index] = (0, None if times is None else times - 1)
            return fault
        return None


@frozen
class Broken:
    """
    An outcome that is no whole reply; both drivers know how to act it out.
    """

    how: Literal["unsent", "cut", "hang", "truncated"]
    """What becomes of the reply."""
    response: Response | None = None
    """For `truncated`: of which half is sent."""


Outcome = Response | Broken
