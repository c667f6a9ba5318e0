"""
What errors are called on the command line: a line for what happened, and one for what to do.

Decides words alone. The library's own texts speak to those who program; here options and commands are named. Knows
nothing of streams and exit codes.
"""

from collections.abc import Mapping
from functools import singledispatch

from attrs import evolve, field, frozen

from kling_async._auth import Credentials, KeyPair
from kling_async._routes import find_proxy
from kling_async.errors import (
    AccountError,
    APIError,
    AuthenticationError,
    ContentRejectedError,
    DecodeError,
    DownloadError,
    InvalidInputError,
    InvalidRequestError,
    KlingError,
    NotFoundError,
    QuotaFullError,
    SelectionDirtyError,
    SelectionRejectedError,
    StoreError,
    TaskFailedError,
    ThrottledError,
    TransportError,
    UnknownOutcomeError,
)

from ._reach import Stage, reach
from ._service import Address, Service

NO_TASK = frozenset({1203, "task_not_exist"})
"""Codes of a service that knows the route, and knows no such task."""

_OPTIONS = {
    "external_task_id": "--key",
    "account": "--account",
    "budget": "--budget",
    "database": "--database",
    "doubt": "--doubt",
    "frame_index": "--point",
    "host and port": "--port",
    "image": "--image",
    "images": "--image",
    "page": "--page",
    "page_size": "--page-size",
    "path": "--out",
    "points": "--point",
    "prompt": "--prompt",
    "quota": "--quota",
    "slots": "--slots",
    "task_seconds": "--task-seconds",
    "video_id": "source",
    "video_url": "source",
}
"""What the library's fields are called here."""

_TOP_UP = "Top up, or buy a pack, in the provider's console; trying again does not help."
_ACCOUNT: Mapping[object, str] = {
    1100: "Look at the account in the provider's console; trying again does not help.",
    1103: "The account may not use this: ask for the right in the provider's console.",
    1304: "Put this machine's address on the account's list in the provider's console.",
}


@frozen
class Told:
    """
    An error in the words of the command line.
    """

    what: str
    """What happened."""
    advice: str = ""
    """What to do; empty where the first line says it, or nothing can be done."""
    look: bool = False
    """Whether `doctor` knows more."""
    facts: Mapping[str, object] = field(factory=dict)
    """For programs."""


def words(error: KlingError | OSError, service: Service) -> Told:
    """
    Say an error.

    Args:
        error: It; its notes take the place of the advice.
        service: Whom the command spoke to.
    """
    told = _told(error, service)
    notes = " ".join(getattr(error, "__notes__", ()))
    return evolve(told, advice=notes) if notes else told


@singledispatch
def _told(error: Exception, _service: Service) -> Told:
    return Told(str(error))


@_told.register
def _system(error: OSError, _service: Service) -> Told:
    return Told(f"{error.filename}: {error.strerror}" if error.filename else str(error))


@_told.register
def _input(error: InvalidInputError, _service: Service) -> Told:
    return Told(f"{_OPTIONS.get(error.field, error.field)}: {error.reason}")


@_told.register
def _undecoded(error: DecodeError, service: Service) -> Told:
    if error.status is None:
        return Told(str(error))
    seen = str(error).partition(": <")[0]  # without the text of a web page
    return Told(f"{service.host} answers, but not as this service does: {seen}", _check_address(service), look=True)


@_told.register
def _unwritten(error: StoreError, _service: Service) -> Told:
    return Told(str(error), "Nothing was sent. Make that file usable, or name another folder with --state.")


@_told.register
def _unrecognised(error: SelectionRejectedError, _service: Service) -> Told:
    what = f"the service recognised nothing at these points (data.status {error.selection_status})"
    return Told(what, "Mark other points, well inside of what is meant.")


@_told.register
def _uncertain(error: SelectionDirtyError, _service: Service) -> Told:
    frames = ", ".join(map(str, error.frames))
    return Told(f"what the service holds for frame {frames} is not known", "Run the command again.")


@_told.register
def _failed(error: TaskFailedError, _service: Service) -> Told:
    content = "Change the prompt or the pictures: the same content will be refused again. "
    return Told(str(error), f"{content if error.content_rejected else ''}A failed task is not charged.")


@_told.register
def _unknown(error: UnknownOutcomeError, service: Service) -> Told:
    sent = error.first_sent_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    what = f"no usable answer came to the paid create {error.external_task_id}, sent {sent}"
    look = service.command("tasks", "reconcile")
    facts = {"external_task_id": error.external_task_id, "absent": error.absent}
    if error.absent:
        shown = "the service finds tasks by such ids and shows none, so most likely nothing was paid"
        return Told(f"{what}: {shown}", f"Before you pay again, under another --key, make sure:  {look}", facts=facts)
    shown = "its task was not found, and may exist and be charged all the same"
    return Told(f"{what}: {shown}", f"Before you pay again, look for it once more:  {look}", facts=facts)


@_told.register
def _unfetched(error: DownloadError, _service: Service) -> Told:
    """What a host says of itself is left out: it speaks of lengths and headers."""
    host, broke_off, _ = str(error).partition(": broke off (")
    if broke_off:
        return Told(f"{host}: the file broke off", "Try again: it goes on where it broke off, if the server can.")
    if error.status in {403, 404, 410}:
        what = f"{host.partition(';')[0]}: the link has expired, or is not there yet"
        return Told(what, "Run kling-async tasks download TASK: it asks for a fresh link. Results live for 30 days.")
    return Told(str(error))


@_told.register
def _refused(error: APIError, service: Service) -> Told:
    known = (error.code, f"HTTP {error.status}", f"request {error.request_id}" if error.request_id else None)
    message = "a web page in place of an answer" if error.message.startswith("<") else error.message
    said = f"{message} ({', '.join(str(fact) for fact in known if fact is not None)})"
    what, advice = f"the service refused: {said}", "Try again later."
    match error:
        case AuthenticationError():
            what = f"the key was refused: {said}"
            advice = _unlock(error, service.credentials())
        case AccountError():
            what = f"the account was refused: {said}"
            advice = _ACCOUNT.get(error.code, _TOP_UP)
        case QuotaFullError():
            what = f"as many tasks run as the account allows: {said}"
            advice = "Wait until one ends: nothing was created and nothing is paid."
            advice = f"{advice} See them:  {service.command('tasks', 'list')}"
        case ThrottledError():
            advice = "Wait a little and try again; nothing was done."
        case _ if wrong_path(error):
            what, advice = f"{service.host} does not know this path: {said}", _check_address(service)
        case NotFoundError() if error.code != "model_not_found":
            what = f"the service does not find it: {said}"
            advice = "Check the id: one is known to the account and the host that gave it, and to no other."
        case ContentRejectedError():
            advice = "Change the prompt or the pictures: the same content will be refused again."
        case InvalidRequestError():
            advice = "The service names no allowed values: compare with its documentation."
    look = isinstance(error, AuthenticationError) or wrong_path(error)
    return Told(what, advice, look, {"code": error.code, "status": error.status, "request_id": error.request_id})


def _unlock(error: AuthenticationError, credentials: Credentials) -> str:
    if error.code in {1003, 1004} and isinstance(credentials, KeyPair):
        return "Set this machine's clock: the token was refused for its time."
    return f"Check {credentials.source}: a key of another service or region is refused just so."


def wrong_path(error: APIError) -> bool:
    """
    Whether a host refused because it does not know the route.

    Args:
        error: Its answer.
    """
    # Kling's own code for it, and a 404 in a gateway's words or in none.
    return error.code == 1202 or (error.status == 404 and not isinstance(error.code, int) and error.code not in NO_TASK)


def _check_address(service: Service) -> str:
    if service.address.given:
        return f"Check {service.address.origin}: CometAPI's address ends in /kling, Kling's own has no path."
    return "Something between here and there may answer in its place."


@_told.register
def _unreached(error: TransportError, service: Service) -> Told:
    way, proxy = reach(error), proxy_of(service.address)
    host = f"{service.host} through the proxy {proxy}" if proxy else service.host
    failed = {Stage.TLS: f"{host} cannot be trusted", Stage.REPLY: host}.get(way.stage, f"{host} cannot be reached")
    return Told(f"{failed}: {way.reason}", way.advice, look=True)


def proxy_of(address: Address) -> str | None:
    """
    The proxy that leads to a service, without credentials; None where there is none.

    Args:
        address: Of the service.

    Raises:
        InvalidInputError: What the environment names cannot be one.
    """
    proxy = find_proxy(None)
    return proxy.url if proxy and proxy.serves(address.scheme, address.host_name) else None
