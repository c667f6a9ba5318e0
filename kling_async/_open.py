"""
Which transport an event loop gets: aiohttp itself on asyncio, the bridge to it elsewhere.

Decides by anyio's token of the running loop, which is right under trio's guest mode too, and checks what was given.
Refuses to import aiohttp, asyncio or trio before one of them is needed, and to let the loop stand still for it.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import checkpoint_if_cancelled, current_token

from ._codec import converter
from .errors import InvalidInputError
from .policy import check_count, check_seconds
from .transport import Transport

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ("open_transport",)


async def open_transport(
    *,
    connections: int = 100,
    connect: float = 10.0,
    total: float = 120.0,
    proxy: str | None = None,
    ssl_context: "SSLContext | None" = None,
) -> Transport:
    """
    Open a pool of connections on the running event loop, asyncio or trio. Who opens it closes it: `await x.aclose()`.

    Args:
        connections: Exchanges at once, and as many downloads; others wait for their turn.
        connect: Seconds for name, connection and TLS handshake.
        total: Seconds for one exchange, from its turn to the last byte of its reply.
        proxy: For https, such as `http://user:password@proxy:3128`; else HTTPS_PROXY and NO_PROXY decide.
        ssl_context: With certificates to trust instead of the system's; verification cannot be turned off.

    Raises:
        InvalidInputError: A limit is not a positive number, or the proxy or the context cannot be used.

    Example:
        >>> async def main() -> None:
        ...     async with aclosing(await open_transport(connections=20, total=30)) as transport:
        ...         async with KlingClient.from_env(transport=transport) as client:
        ...             print(await client.get_task("878142"))
    """
    check_count("connections", connections)
    check_seconds("connect", connect)
    check_seconds("total", total)
    _check_context(ssl_context)
    await _ready()

    def build() -> Transport:
        from ._aiohttp import AiohttpTransport

        return AiohttpTransport(
            connections=connections, connect=connect, total=total, proxy=proxy, ssl_context=ssl_context
        )

    return await stand(build)


async def open_own(connections: int, *, digest: bool) -> Transport:
    """
    Open the pool that a client has for itself.

    Args:
        connections: Exchanges at once, and as many downloads.
        digest: Whether anybody is told the digests of what is downloaded; they are half of a download's work.
    """
    await _ready()

    def build() -> Transport:
        from ._aiohttp import AiohttpTransport
        from ._download import Limits

        return AiohttpTransport(connections=connections, limits=Limits(digest=digest))

    return await stand(build)


async def stand(build: Callable[[], Transport]) -> Transport:
    """
    A transport made for asyncio, usable on the running loop.
    """
    import asyncio

    if isinstance(current_token().native_token, asyncio.AbstractEventLoop):
        return build()
    from ._bridge import Bridge

    return await Bridge.open(build)


def load() -> None:
    """
    Import what a client needs from its opening on, a tenth of a second of work; the second time there is none left.
    """
    import_module("concurrent.futures.thread")  # where host names are looked up
    from . import _aiohttp, _bell  # noqa: F401

    converter()
    if "trio" in sys.modules:
        from . import _bridge  # noqa: F401
    for backend in ("asyncio", "trio"):
        if backend in sys.modules:
            # anyio loads it in its first call on such a loop, and has no public way to do so before.
            with suppress(ModuleNotFoundError):
                import_module(f"anyio._backends._{backend}")


async def _ready() -> None:
    """
    Load it in a thread, so that the loop goes on meanwhile.
    """
    if hasattr(sys.modules.get(f"{__package__}._aiohttp"), "AiohttpTransport"):  # whole, not underway elsewhere
        return
    # It may fail where it need not here: no thread is to be had, or another one imports the same from its other end.
    # What goes wrong in earnest does so again right after this. A limiter of its own, for the others may be taken.
    with suppress(ImportError, RuntimeError):
        await to_thread.run_sync(load, limiter=CapacityLimiter(1))
    await checkpoint_if_cancelled()


def _check_context(context: object) -> None:
    if context is None:
        return
    import ssl

    if not isinstance(context, ssl.SSLContext):
        raise InvalidInputError("ssl_context", "must be an ssl.SSLContext")
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise InvalidInputError("ssl_context", "must verify certificates and host names; add your authority to it")
