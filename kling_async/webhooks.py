"""
Webhooks: what the service posts when a task changes, received by any web framework.

A delivery is a hint and never believed: the path's token proves whom it is about, a signature who sent it, and our
own query what became of the task. Decides what is answered; refuses to know who serves the sockets.
Source of the payloads: https://kling.ai/document-api/api/get-started/callback
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, cast

from ._hints import BODY_MOST, Hint, read_hint
from ._inbox import Inbox
from ._receiver import BAD, TOO_LARGE, Answer, OnTask, Receiver
from ._signatures import keys
from .errors import InvalidInputError

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ("Hint", "Inbox", "aiohttp_handler", "parse_webhook", "webhook_app")

Scope: TypeAlias = Mapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, object]]]
Send: TypeAlias = Callable[[dict[str, object]], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def parse_webhook(
    body: bytes, headers: Mapping[str, str], *, secret: str | Sequence[str] | None = None, now: float | None = None
) -> Hint:
    """
    What a delivery claims, for a route of your own: hand it to `inbox.put`.

    Args:
        body: The bytes as they came, before anything has read them.
        headers: Of the request, in any case.
        secret: `whsec_...` from the provider's console, or several while one replaces another; then a delivery must
            be signed. None takes any, which is why a hint is never believed.
        now: Unix time in seconds; by default the clock's.

    Raises:
        SignatureError: It is not signed with a secret of ours, or not of the last five minutes.
        WebhookError: It is too large, no strict JSON, or names no task.
        InvalidInputError: A secret is none; it is never quoted.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    moment = time.time() if now is None else now
    valid = () if secret is None else keys(secret)
    del secret  # or it would be among the locals of every refusal's traceback
    return read_hint(body, lowered, valid, now=moment)


def webhook_app(inbox: Inbox, *, secret: str | Sequence[str] | None = None, on_task: OnTask | None = None) -> ASGIApp:
    """
    A bare ASGI application to be mounted where the client's `callback_url` points.

    ::

        inbox = Inbox()
        app.mount("/kling", webhook_app(inbox, on_task=finish))
        ...
        KlingClient.from_env(callback_url="https://me.example/kling", inbox=inbox)

    Each task has a path of its own, which any worker with the same credentials can check; a wrong one is a 404. A
    delivery is answered 200 when it woke who waits and `on_task` has returned; else 5xx, so that it comes again.
    A query of ours is made for it only where there is an `on_task`, and every two seconds at most for each task.

    Args:
        inbox: The inbox of an open client. While none is open, answers are 503.
        secret: `whsec_...`, or several while one replaces another; then deliveries must be signed.
        on_task: Awaited with the task as our own query returned it, once for each new status, in order. Each worker
            remembers for itself while it runs, so another may tell a status again. What it raises is the server's
            to answer: 500.

    Raises:
        InvalidInputError: A secret is none; it is never quoted.
    """
    receiver = _receiver(inbox, secret, on_task)
    del secret

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lived(receive, send)
        elif scope["type"] == "http":
            answer = await _asked(receiver, scope, receive)
            headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await send({"type": "http.response.body", "body": answer.text.encode()})
        else:
            await send({"type": "websocket.close"})

    return app


async def _lived(receive: Receive, send: Send) -> None:
    """The lifespan protocol, for servers that insist: there is nothing to begin or to end."""
    for name in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{name}.complete"})


async def _asked(receiver: Receiver, scope: Scope, receive: Receive) -> Answer:
    async def read() -> bytes | Answer:
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return BAD
            body += cast("bytes", message.get("body", b""))
            if len(body) > BODY_MOST:
                return TOO_LARGE
            more = bool(message.get("more_body"))
        return bytes(body)

    raw = cast("Iterable[tuple[bytes, bytes]]", scope["headers"])
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}
    # Servers and frameworks differ on whether the path still holds what it is mounted under.
    name = str(scope["path"]).removeprefix(str(scope.get("root_path", ""))).removeprefix("/")
    return await receiver.answer(str(scope["method"]), name, headers, read)


def aiohttp_handler(
    inbox: Inbox, *, secret: str | Sequence[str] | None = None, on_task: OnTask | None = None
) -> "Callable[[web.Request], Awaitable[web.StreamResponse]]":
    """
    The same as a handler of aiohttp.web, for a route such as `/kling/{name}`.

    Args:
        inbox: As for `webhook_app`.
        secret: As for `webhook_app`.
        on_task: As for `webhook_app`.

    Raises:
        InvalidInputError: A secret is none; it is never quoted.
    """
    from aiohttp import web

    receiver = _receiver(inbox, secret, on_task)
    del secret

    async def handler(request: web.Request) -> web.StreamResponse:
        async def read() -> bytes | Answer:
            body = bytearray()
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > BODY_MOST:
                    return TOO_LARGE
            return bytes(body)

        headers = {name.lower(): value for name, value in request.headers.items()}
        answer = await receiver.answer(request.method, request.path.rpartition("/")[2], headers, read)
        return web.Response(status=answer.status, body=answer.text.encode(), headers=answer.headers)

    return handler


def _receiver(inbox: Inbox, secret: str | Sequence[str] | None, on_task: OnTask | None) -> Receiver:
    given: object = inbox
    if not isinstance(given, Inbox):
        raise InvalidInputError("inbox", f"must be an Inbox, not {type(given).__name__}")
    return Receiver(given, () if secret is None else keys(secret), on_task)
