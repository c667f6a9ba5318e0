"""
Which transport an event loop gets, and what is refused before it gets one.
"""

import asyncio
import ssl
import subprocess
import sys
import threading
from decimal import Decimal

import anyio
import pytest
from anyio.abc import SocketAttribute

import kling_async
from kling_async import KlingError, _open
from kling_async._aiohttp import AiohttpTransport
from kling_async._bridge import Bridge
from kling_async._open import open_transport
from kling_async.errors import InvalidInputError
from kling_async.transport import Request

pytestmark = pytest.mark.real_clock


async def test_each_loop_gets_its_own(anyio_backend_name):
    """
    On asyncio it is aiohttp itself, on trio the bridge to it.
    """
    transport = await open_transport()
    assert (AiohttpTransport if anyio_backend_name == "asyncio" else Bridge) is type(transport)
    await transport.aclose()


async def test_limits_reach_the_pool(anyio_backend_name):
    """
    What was given is what the pool works with.
    """
    context = ssl.create_default_context()
    transport = await open_transport(
        connections=3, connect=2, total=4.5, proxy="http://proxy.example:3128", ssl_context=context
    )
    pool = transport if anyio_backend_name == "asyncio" else transport._engine.transport
    assert (3, 2, 4.5, "http://proxy.example:3128", context) == (
        pool.connections,
        pool.connect,
        pool.total,
        pool.proxy,
        pool.ssl_context,
    )
    await transport.aclose()


async def test_what_is_not_loaded_is_loaded_first(monkeypatch, anyio_backend_name):
    """
    In a thread, and anew: nothing but the module itself says that it is there.
    """
    threads = []
    monkeypatch.setattr(kling_async, "_aiohttp", kling_async._aiohttp)  # the import sets it, and this sets it back
    monkeypatch.delitem(sys.modules, "kling_async._aiohttp")
    monkeypatch.setattr(_open, "converter", lambda: threads.append(threading.current_thread()))
    transport = await open_transport()
    await transport.aclose()
    assert [False] == [thread is threading.main_thread() for thread in threads]
    assert (type(transport) is Bridge) == (anyio_backend_name == "trio")


async def answer(stream):
    async with stream:
        await stream.receive()
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


async def test_it_carries_a_request():
    """
    A transport that was opened speaks to a server on either loop.
    """
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        transport = await open_transport(connections=1, connect=5, total=5)
        reply = await transport.exchange(
            Request("GET", f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}")
        )
        await transport.aclose()
        group.cancel_scope.cancel()
    assert (200, b"{}") == (reply.status, reply.body)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
async def test_trio_as_a_guest_of_asyncio_gets_the_bridge():
    """
    In trio's guest mode an asyncio loop runs in the same thread; the loop that asks is trio's.
    """
    import trio

    loop = asyncio.get_running_loop()
    done = loop.create_future()

    async def guest():
        transport = await open_transport()
        await transport.aclose()
        return type(transport)

    trio.lowlevel.start_guest_run(
        guest,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        done_callback=done.set_result,
    )
    assert Bridge is (await done).unwrap()


@pytest.mark.parametrize(
    "field, value",
    [
        *[("connections", value) for value in (0, -1, True, 2.5, "3", None)],
        *[
            (field, value)
            for field in ("connect", "total")
            for value in (0, -1, True, float("nan"), float("inf"), "3", None, Decimal(3))
        ],
        *[("proxy", value) for value in (3, b"http://p:1", "socks5://p:1", "http://")],
        *[("ssl_context", value) for value in (False, True, "off")],
    ],
)
async def test_nonsense_is_refused(field, value):
    """
    A limit that is no positive number, a proxy that cannot be used and a context that is none name their field.
    """
    with pytest.raises(InvalidInputError) as caught:
        await open_transport(**{field: value})
    assert field == caught.value.field
    assert isinstance(caught.value, KlingError)


@pytest.mark.parametrize("without", ["certificates", "names"])
async def test_verification_cannot_be_turned_off(without):
    """
    A context that accepts any certificate, or any name in it, is refused.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    if without == "certificates":
        context.verify_mode = ssl.CERT_NONE
    with pytest.raises(InvalidInputError) as caught:
        await open_transport(ssl_context=context)
    assert "ssl_context" == caught.value.field


@pytest.mark.parametrize(
    "code, absent",
    [
        ("import kling_async", {"aiohttp", "trio", "asyncio", "ssl"}),
        ("import trio, kling_async; trio.run(kling_async.open_transport)", set()),
        ("import asyncio, kling_async; asyncio.run(kling_async.open_transport())", {"trio", "kling_async._bridge"}),
    ],
)
def test_heavy_packages_wait_until_they_are_needed(code, absent):
    """
    Importing the package loads none of aiohttp, asyncio and trio; opening loads what its loop needs.
    """
    code += "; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert not absent & set(done.stdout.split())
