"""
What wires do to a paid create, over real sockets on both loops, judged by what the simulator saw and charged.
"""

import re
import socket
import ssl
import traceback
import tracemalloc
import zlib
from base64 import b64decode
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import anyio
import pytest
from attrs import define, field

from kling_async import ApiKey, Image, KlingClient, Removal, RetryPolicy, Swap, UnknownOutcomeError, open_transport
from kling_async.errors import DecodeError, NotSentError, TLSError
from kling_async.events import Replayed
from kling_async.simulator import Fault, Simulator
from tests.simulating import Caller, png
from tests.test_aiohttp import (
    CERTIFICATE,
    MIB,
    PRIVATE_KEY,
    SECRET,
    assert_nothing_secret,
    no_proxies,  # noqa: F401 (a fixture)
    reply,
    serving,
)
from tests.toxics import CREATE, Proxy, Toxic

pytestmark = pytest.mark.real_clock

POST = CREATE.decode().strip()
EDIT = Removal.of("the stones " * 100)
HALF = 700
"""About half of the body that this makes."""
BASE = 0.05
DOUBT = RetryPolicy(base=BASE, doubt=1.0)

EXPIRED = """\
-----BEGIN CERTIFICATE-----
MIIBVzCB/qADAgECAgECMAoGCCqGSM49BAMCMBMxETAPBgNVBAMMCGxvb3BiYWNr
MB4XDTIwMDEwMTAwMDAwMFoXDTIxMDEwMTAwMDAwMFowEzERMA8GA1UEAwwIbG9v
cGJhY2swWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAS63PSTrt+exG3piOrFWYZI
TLv/HrvdX7tWASqABaco7ykU7c0W5FPiRT6g8fsq5SOAfPvmNIkp+FhEy+bBUGKY
o0MwQTAPBgNVHREECDAGhwR/AAABMA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0OBBYE
FAWJT0x3AvqIQ/jrWovF7wRlImsuMAoGCCqGSM49BAMCA0gAMEUCIQCSBZxsICHA
GbYLOGhsGB+ig/aUWAUOY44E9kNqPutfZAIgC5z0WfLnmvu6dXN5q+HpWX6ddizX
3a5kXURXNtPy8gw=
-----END CERTIFICATE-----
"""


@define
class Wire:
    """
    A client, the proxy that it speaks to, the simulator behind it with a marked session, and what was replayed.
    """

    simulator: Simulator
    proxy: Proxy
    session_id: str
    replays: list = field(factory=list)
    client: KlingClient | None = None

    async def order(self, edit=EDIT):
        """
        The paid call; no fault of these may hold it up for longer.
        """
        with anyio.fail_after(10):
            return await self.client.create_task(self.session_id, edit)

    @property
    def posts(self):
        """
        How many creates the proxy was given, and how many reached the simulator.
        """
        return self.proxy.requests_seen.count(POST), self._endpoints.count("create")

    @property
    def looks(self):
        """
        How often a task was looked for.
        """
        return sum(name in {"get", "list"} for name in self._endpoints)

    @property
    def charges(self):
        return dict(self.simulator.charges)

    @property
    def _endpoints(self):
        return [seen.endpoint for seen in self.simulator.log]


@asynccontextmanager
async def opened(base_url, *, retry=DOUBT, observer=None, **limits):
    """
    A client with a pool of these limits.
    """
    async with (
        aclosing(await open_transport(**limits)) as transport,
        KlingClient(ApiKey(SECRET), base_url=base_url, transport=transport, retry=retry, observer=observer) as client,
    ):
        yield client


@asynccontextmanager
async def wired(*toxics, faults=(), rises_at=None, host="127.0.0.1", **settings):
    """
    A client of a simulator with toxics between them; what is down rises at a replay of this number.
    """
    simulator = Simulator(faults=faults)
    session_id = await Caller(simulator.transport()).marked()

    def told(event):
        if isinstance(event, Replayed):
            wire.replays.append(event)
            if len(wire.replays) == rises_at:
                proxy.rise()

    async with simulator.serve() as base_url:
        with Proxy(base_url, *toxics) as proxy:
            wire = Wire(simulator, proxy, session_id)
            async with opened(proxy.base_url.replace("127.0.0.1", host), observer=told, **settings) as wire.client:
                yield wire


def assert_replayed_unsent(wire, attempts):
    """
    Each replay followed a NotSentError, after a wait within the policy's bounds.
    """
    assert list(range(2, attempts + 1)) == [event.attempt for event in wire.replays]
    assert {"NotSentError"} == {event.error for event in wire.replays}
    assert {POST} == {f"{event.method} /kling{event.path}" for event in wire.replays}
    for event in wire.replays:
        assert 0 <= event.delay <= BASE * 2 ** (event.attempt - 2)


@pytest.fixture
def names(monkeypatch):
    """
    How many look-ups of names fail from now on; those of addresses never do.
    """
    failing, tried = [], []
    lookup = socket.getaddrinfo

    def resolve(host, *args, **kwargs):
        if host in {"localhost", "api.kling.invalid"}:
            tried.append(host)
            if failing and len(tried) <= failing[0]:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return failing, tried


async def test_f1_a_name_that_does_not_resolve_is_tried_again(names):
    """
    Two look-ups fail, the third succeeds: sent once, charged once, and never looked for.
    """
    failing, tried = names
    async with wired(host="localhost") as wire:
        failing.append(2)
        task = await wire.order()
        assert 3 == len(tried)
        assert_replayed_unsent(wire, 3)
        assert ({task.external_task_id: 1}, (1, 1), 0) == (wire.charges, wire.posts, wire.looks)


async def test_f1_a_name_that_never_resolves_was_not_sent(names):
    """
    After three look-ups the error says that nothing was sent, and to whom.
    """
    failing, tried = names
    failing.append(99)
    async with opened("https://api.kling.invalid/kling") as client:
        with pytest.raises(NotSentError, match=r"api\.kling\.invalid") as caught:
            await client.create_task("8475", EDIT)
    assert NotSentError is type(caught.value)
    assert ["api.kling.invalid"] * 3 == tried
    assert_nothing_secret(caught.value)


async def test_f2_a_refused_connection_is_tried_again():
    """
    Refused twice and then let in: three attempts with waits within their bounds, one charge, and no look.
    """
    async with wired(Toxic("down"), rises_at=2) as wire:
        task = await wire.order()
        assert_replayed_unsent(wire, 3)
        assert ({task.external_task_id: 1}, (1, 1), 0) == (wire.charges, wire.posts, wire.looks)


async def test_f2_a_host_that_stays_down_was_not_sent():
    """
    After three attempts the error says so; nothing was charged and nothing looked for.
    """
    async with wired(Toxic("down")) as wire:
        with pytest.raises(NotSentError, match=r"127\.0\.0\.1") as caught:
            await wire.order()
        assert_replayed_unsent(wire, 3)
        assert ({}, (0, 0), 0) == (wire.charges, wire.posts, wire.looks)
    assert_nothing_secret(caught.value)


@pytest.mark.parametrize("fault", ["unknown authority", "expired", "other host"])
async def test_f3_a_certificate_that_fails_is_never_tried_again(tmp_path, fault):
    """
    One connection, no replay, and a server that was not told a byte: neither the request nor the key.
    """
    certificate = EXPIRED if fault == "expired" else CERTIFICATE
    (tmp_path / "key.pem").write_text(PRIVATE_KEY)
    (tmp_path / "certificate.pem").write_text(certificate)
    there = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    there.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    here = None if fault == "unknown authority" else ssl.create_default_context(cadata=certificate)
    replays = []
    async with serving(certificate=there) as server:
        with Proxy(f"{server.url}/kling") as proxy:
            name = "localhost" if fault == "other host" else "127.0.0.1"
            url = proxy.base_url.replace("127.0.0.1", name)
            async with opened(url, ssl_context=here, observer=replays.append) as client:
                with pytest.raises(TLSError, match=f"^{name}: its certificate does not verify") as caught:
                    await client.create_task("8475", EDIT)
        assert ([], 1, 0, []) == (replays, proxy.connections, server.connections, server.requests)
    assert_nothing_secret(caught.value)


async def test_f4_a_connection_that_is_not_answered_is_tried_again():
    """
    Nobody answers within `connect` seconds, then somebody does: sent once, charged once, and never looked for.
    """
    async with wired(Toxic("deaf"), rises_at=1, connect=0.5) as wire:
        task = await wire.order()
        assert_replayed_unsent(wire, 2)
        assert ({task.external_task_id: 1}, (1, 1), 0) == (wire.charges, wire.posts, wire.looks)


async def test_f4_a_host_that_never_answers_was_not_sent():
    """
    After three attempts the error says so; nothing was charged and nothing looked for.
    """
    async with wired(Toxic("deaf"), connect=0.2) as wire:
        with pytest.raises(NotSentError, match=r"127\.0\.0\.1") as caught:
            await wire.order()
        assert_replayed_unsent(wire, 3)
        assert ({}, (0, 0), 0) == (wire.charges, wire.posts, wire.looks)
    assert_nothing_secret(caught.value)


def large():
    """
    An edit whose body is sent in many pieces.
    """
    return Swap.of("the stones", "a bird", Image.from_bytes(b64decode(png()) + bytes(2 * MIB)))


@pytest.mark.parametrize("edit, at", [(EDIT, HALF), (large(), MIB)], ids=["small", "large"])
async def test_f5_a_create_cut_in_its_body_stays_in_doubt(edit, at):
    """
    An RST after half of the body: sent once, looked for, not found, not charged, and not sent again unasked.
    """
    async with wired(Toxic("reset", "up", at=at, of_body=True, match=CREATE)) as wire:
        with pytest.raises(UnknownOutcomeError) as caught:
            await wire.order(edit)
        assert ({}, (1, 0), 1) == (wire.charges, wire.posts, caught.value.attempts)
        assert 3 <= wire.looks
    assert_nothing_secret(caught.value)


@pytest.mark.parametrize("on_unknown", ["raise", "resend"])
async def test_f5_a_create_proven_absent_is_sent_again_where_that_is_asked_for(on_unknown):
    """
    On a host that finds what it has, the one that was cut is found absent; only who asked for it gets it sent again.
    """
    retry = RetryPolicy(base=BASE, doubt=1.0, on_unknown=on_unknown)
    async with wired(Toxic("reset", "up", at=HALF, of_body=True, match=CREATE, after=1), retry=retry) as wire:
        ids = [(await wire.order()).external_task_id]
        if on_unknown == "resend":
            ids.append((await wire.order()).external_task_id)
        else:
            with pytest.raises(UnknownOutcomeError) as caught:
                await wire.order()
            assert caught.value.absent
        assert dict.fromkeys(ids, 1) == wire.charges
        assert ((3, 2) if on_unknown == "resend" else (2, 1)) == wire.posts
        assert 3 <= wire.looks


async def assert_adopted(wire):
    """
    The create returns the task that it made although no reply of it came: sent once, and charged once.
    """
    task = await wire.order()
    assert ({task.external_task_id: 1}, (1, 1)) == (wire.charges, wire.posts)
    assert 1 <= wire.looks
    assert [] == wire.replays
    assert task.task_id == (await wire.client.get_task(task.task_id)).task_id


async def test_f6_a_create_reset_before_its_status_line_is_found():
    """
    Accepted, and then an RST instead of an answer.
    """
    async with wired(Toxic("reset", match=CREATE)) as wire:
        await assert_adopted(wire)


@pytest.mark.parametrize("kind", ["limit_data", "reset", "half_close"])
@pytest.mark.parametrize("at, of_body", [(20, False), (0, True), (30, True)], ids=["head", "head's end", "body"])
async def test_f7_a_create_whose_answer_is_cut_is_found(kind, at, of_body):
    """
    Accepted, and then an answer that breaks off: in its head, right after it, or in its body.
    """
    async with wired(Toxic(kind, at=at, of_body=of_body, match=CREATE)) as wire:
        await assert_adopted(wire)


async def test_f8_a_create_that_is_never_answered_is_found():
    """
    Accepted, and then silence on a connection that stays open, for no longer than the transport allows.
    """
    async with wired(Toxic("stall", match=CREATE), total=1.0) as wire:
        await assert_adopted(wire)


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_f10_a_create_behind_a_gateways_page_is_found(status):
    """
    Accepted, and then a page of HTML from a gateway that lost it.
    """
    async with wired(faults=[Fault("create", "html", handled=True, status=status)]) as wire:
        await assert_adopted(wire)


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_f10_a_gateways_page_is_not_quoted_at_length(status, caplog):
    """
    Of a long page that stands for a doubt no error in the chain and no record says more than 200 characters.
    """
    caplog.set_level("DEBUG")
    page = b"<html><body><h1>Bad Gateway</h1>%s</body></html>" % (b"x" * 9000)
    async with wired(faults=[Fault("create", "status", status=status, body=page)]) as wire:
        with pytest.raises(UnknownOutcomeError) as caught:
            await wire.order()
        assert ({}, (1, 1)) == (wire.charges, wire.posts)
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "Bad Gateway" in told
    assert 200 >= max(map(len, re.findall("x+", told)))


@pytest.mark.parametrize("kind", ["reset", "limit_data"])
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_f40_a_dead_connection_gets_a_create_once(kind, direction):
    """
    A kept-alive connection that dies under a create is not replaced for it: exactly one POST, and then looking.
    """
    async with wired(Toxic(kind, direction, match=CREATE)) as wire:
        assert () == await wire.client.list_tasks()
        assert 1 == wire.proxy.connections
        if direction == "down":
            await assert_adopted(wire)
        else:
            with pytest.raises(UnknownOutcomeError):
                await wire.order()
            assert ({}, (1, 0)) == (wire.charges, wire.posts)
        assert 2 == wire.proxy.connections


async def test_f42_a_create_is_not_led_to_another_host():
    """
    A redirect is a DecodeError that created nothing; nobody connects to where it leads, so the key stays here.
    """
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(serving())
        fault = Fault("create", "redirect", location=f"{other.url}/kling/v1/videos/multi-elements")
        wire = await stack.enter_async_context(wired(faults=[fault]))
        with pytest.raises(DecodeError, match="307") as caught:
            await wire.order()
        assert 307 == caught.value.status
        assert ({}, (1, 1), 0, []) == (wire.charges, wire.posts, other.connections, wire.replays)
    assert_nothing_secret(caught.value)


def bomb(count):
    """
    A gzip stream of zeros: so many pieces of a kilobyte that become a MiB each.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first, next_one = (packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + next_one * (count - 1)


async def test_f44_a_gzip_bomb_is_defused():
    """
    A reply of 10 KiB for every 10 MiB that it becomes is a DecodeError at the limit, and takes little memory.
    """
    async with serving() as server:
        server.talk = server.answer(reply(bomb(256), "Content-Encoding: gzip", "Content-Type: application/json"))
        async with opened(f"{server.url}/kling") as client:
            tracemalloc.start()
            try:
                with pytest.raises(DecodeError, match="larger than 8388608 bytes") as caught:
                    await client.get_task("8781")
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
    assert (200, 1) == (caught.value.status, len(server.requests))
    assert peak < 32 * MIB
