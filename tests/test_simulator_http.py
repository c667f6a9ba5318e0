"""
The simulator over real sockets, from both event loops.
"""

import gc
import socket
import threading
from pathlib import Path

import anyio
import orjson
import pytest
from attrs import frozen

from kling_async._endpoints import INIT, PREVIEW
from kling_async._replies import read
from kling_async.errors import InvalidInputError
from kling_async.simulator import Fault, Simulator
from kling_async.transport import Response
from tests.simulating import CLIP, FAMILY, KEY, Caller, Reply

pytestmark = pytest.mark.real_clock


@frozen
class Wire:
    """
    One connection for each request, by hand; a reply that was cut is what there is of it.
    """

    async def exchange(self, request):
        head, _, rest = request.url.removeprefix("http://").partition("/")
        host, _, port = head.rpartition(":")
        lines = [f"{request.method} /{rest} HTTP/1.1", f"Host: {head}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        lines += [f"Content-Length: {len(request.body)}", "", ""]
        received = b""
        async with await anyio.connect_tcp(host.strip("[]"), int(port)) as stream:
            await stream.send("\r\n".join(lines).encode() + request.body)
            try:
                while True:
                    received += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass
        head, _, body = received.partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        return Response(int(first.split()[1]) if first else 0, headers, body)


def over(base):
    return Caller(Wire(), base=base)


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("kling-simulator")]


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    gc.collect()
    assert [] == threads()


async def test_a_whole_edit_over_sockets():
    """
    All calls work, every link leads to the server, and the files behind the links are served without a key.
    """
    simulator = Simulator(task_seconds=0)
    async with simulator.serve() as base:
        assert base.startswith("http://127.0.0.1:")
        assert base.endswith("/kling")
        origin = base.removesuffix("/kling")
        caller = over(base)
        info = read(INIT, (await caller.post("init", video_url=CLIP)).response)
        session_id = await caller.marked()
        preview = read(PREVIEW, (await caller.post("preview", session_id=session_id)).response)
        task_id = (await caller.create(session_id)).data["task_id"]
        url = (await caller.get(task_id)).data["task_result"]["videos"][0]["url"]
        links = [info.normalized_video_url, preview.video_url, preview.cover_url, preview.tracking_url, url]
        files = [await Caller(Wire(), base="", key=None).send("GET", link) for link in links]
    assert {True} == {link.startswith(f"{origin}/media/") for link in links}
    assert [200] * 5 == [file.status for file in files]
    kinds = ["video/mp4", "video/mp4", "image/png", "application/json", "video/mp4"]
    assert kinds == [file.response.headers["content-type"] for file in files]


async def test_the_prefix_may_be_left_out_and_paths_are_checked():
    """
    `/v1` is served with and without `/kling`, and nothing else is.
    """
    async with Simulator(api_key=KEY).serve() as base:
        for known in (base, base.removesuffix("/kling")):
            assert [] == (await over(known).list()).data
            assert 1202 == (await over(known).send("POST", "/v1/nothing")).json["code"]
            assert 1001 == (await Caller(Wire(), base=known, key=None).list()).json["code"]
            assert (404, 1203) == (await over(known).get("a%2Fb")).refusal[:2]


async def test_what_is_published_is_known_by_either_name(tmp_path):
    """
    A URL made before serving is understood, and url() names the server while it runs.
    """
    simulator = Simulator()
    (tmp_path / "a.mov").write_bytes(b"moving")
    early = simulator.publish(tmp_path / "a.mov")
    assert "https://simulator.invalid/media/a.mov" == early
    async with simulator.serve() as base:
        url = simulator.url("a.mov")
        assert f"{base.removesuffix('/kling')}/media/a.mov" == url
        assert url.replace("a.mov", "clip-2.mp4") == simulator.publish(b"x")
        for given in (early, url):
            data = (await over(base).post("init", video_url=given)).data
            file = await Caller(Wire(), base="", key=None).send("GET", data["normalized_video"])
            assert b"moving" == file.response.body
    assert early == simulator.url("a.mov")


async def test_several_servers_share_one_simulator():
    """
    Two at once and one after them: sessions, tasks and bill are the same, also in process.
    """
    simulator = Simulator(task_seconds=0)
    async with simulator.serve() as first, simulator.serve() as second:
        assert first != second
        session_id = await over(first).marked()
        await over(second).create(session_id, external_task_id="a")
    async with simulator.serve() as third:
        assert "succeed" == (await over(third).get("a")).data["task_status"]
    assert "succeed" == (await Caller(simulator.transport()).get("a")).data["task_status"]
    assert {"a": 1} == simulator.charges


@pytest.mark.parametrize("kind, charges", [("lost", {"a": 1}), ("cut", {}), ("unsent", {})])
async def test_a_cut_reply_is_no_reply(kind, charges):
    """
    The connection ends without a byte; what had been handled is charged.
    """
    simulator = Simulator(faults=[Fault("create", kind)])
    async with simulator.serve() as base:
        session_id = await over(base).marked()
        with pytest.raises(orjson.JSONDecodeError):
            (await over(base).create(session_id, external_task_id="a")).json  # noqa: B018
        assert charges == simulator.charges
        assert 200 == (await over(base).list()).status


async def test_faults_that_answer_are_the_same_over_sockets():
    """
    Status, headers and body arrive as they were told.
    """
    faults = [
        Fault("list", "code", code=1302, retry_after=2),
        Fault("list", "status", status=503, body=b"busy"),
        Fault("list", "redirect", location="https://elsewhere.example/"),
        Fault("list", "empty"),
        Fault("media", "status", status=403),
        Fault("media", "truncated"),
    ]
    simulator = Simulator(faults=faults)
    url_of = simulator.publish(bytes(100_000), name="a.mp4")
    async with simulator.serve() as base:
        limited, busy, moved, empty = [(await over(base).list()).response for _ in range(4)]
        forbidden, half, whole = [
            (await Caller(Wire(), base="").send("GET", simulator.url("a.mp4"))).response for _ in range(3)
        ]
    assert url_of.endswith("/media/a.mp4")
    assert (429, "2", 1302) == (limited.status, limited.headers["retry-after"], Reply(limited).json["code"])
    assert (503, b"busy") == (busy.status, busy.body)
    assert (307, "https://elsewhere.example/") == (moved.status, moved.headers["location"])
    assert (429, b"") == (empty.status, empty.body)
    assert 403 == forbidden.status
    assert (200, "100000", 50_000) == (half.status, half.headers["content-length"], len(half.body))
    assert bytes(100_000) == whole.body


async def test_a_hanging_request_ends_with_its_client_or_its_server():
    """
    Neither a client that gives up nor a server that closes leaves anything behind.
    """
    simulator = Simulator(faults=[Fault("list", "hang", times=2)])

    async def hung(count):
        while len(simulator.log) < count:
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group, simulator.serve() as base:
        async with anyio.create_task_group() as clients:
            clients.start_soon(over(base).list)
            await hung(1)
            clients.cancel_scope.cancel()
        assert 1202 == (await over(base).send("GET", "/")).json["code"]
        group.start_soon(over(base).list)
        await hung(3)
    assert ["hang", None, "hang"] == [seen.fault for seen in simulator.log]


async def test_two_hundred_connections_at_once():
    """
    All are open before the first is answered.
    """
    simulator = Simulator()
    async with simulator.serve() as base:
        port = int(base.rpartition(":")[2].removesuffix("/kling"))
        request = f"GET /kling{FAMILY} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n".encode()
        streams = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(200)]
        try:
            for stream in streams:
                await stream.send(request)
            answers = [await stream.receive() for stream in streams]
        finally:
            for stream in streams:
                await anyio.aclose_forcefully(stream)
    assert {b"HTTP/1.1 200 OK"} == {answer[:15] for answer in answers}
    assert 200 == len(simulator.log)


async def test_links_are_spelled_as_the_caller_spells_the_host():
    """
    Whoever calls it localhost gets links to localhost, and they are known as the simulator's own.
    """
    simulator = Simulator(task_seconds=0)
    simulator.publish(b"moving", name="a.mp4")
    async with simulator.serve() as base:
        caller = over(base.replace("127.0.0.1", "localhost"))
        url = (await caller.post("init", video_url=simulator.url("a.mp4"))).data["normalized_video"]
        again = (await caller.post("init", video_url=url)).data["normalized_video"]
        head = (await Caller(Wire(), base="", key=None).send("HEAD", again)).response
    assert url.startswith("http://localhost:")
    assert (200, "6", b"") == (head.status, head.headers["content-length"], head.body)


@pytest.mark.parametrize("host", ["::1", "0.0.0.0", "localhost"])
async def test_the_base_url_can_be_called_whatever_was_listened_on(host):
    """
    Names and wildcards become an address that answers.
    """
    async with Simulator().serve(host) as base:
        assert 200 == (await over(base).list()).status


async def test_an_address_that_is_taken_is_told():
    """
    A port in use, or none at all, is an error of the argument; no thread is left.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInputError, match=rf"127\.0\.0\.1:{port} cannot be listened on"):
            async with Simulator().serve(port=port):
                pass
    for port in (-1, 65536, True, "80"):
        with pytest.raises(InvalidInputError, match="port"):
            async with Simulator().serve(port=port):
                pass


class TroubleError(Exception):
    """
    What a body raises.
    """


async def test_what_the_body_raises_comes_out_as_itself():
    """
    The server ends, and the error is neither wrapped nor replaced.
    """
    simulator = Simulator()

    async def serving():
        async with simulator.serve() as base:
            await over(base).list()
            raise TroubleError

    with pytest.raises(TroubleError):
        await serving()
    assert [] == threads()
    assert "https://simulator.invalid/media/x" == simulator.url("x")


async def test_a_cancelled_body_ends_the_server():
    """
    Cancellation waits for the sockets to be closed, and is not swallowed.
    """
    with anyio.CancelScope() as scope:
        async with Simulator().serve() as base:
            await over(base).list()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert [] == threads()


async def test_cancelled_before_it_begins_nothing_is_served():
    """
    A scope that is cancelled already starts no thread.
    """
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with Simulator().serve():
            raise AssertionError
    assert scope.cancelled_caught
    assert [] == threads()


async def test_a_body_that_is_too_large_is_refused():
    """
    64 MiB are read at most; the answer is a plain 413.
    """
    simulator = Simulator()
    async with simulator.serve() as base:
        address = base.removeprefix("http://").removesuffix("/kling")
        head = f"POST /kling{FAMILY} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {2**40}\r\n\r\n".encode()
        host, port = address.split(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(head)
            piece = bytes(1 << 20)
            try:
                for _ in range(80):
                    await stream.send(piece)
            except anyio.BrokenResourceError:
                pass
    assert () == simulator.log


def test_the_module_is_light():
    """
    Importing the simulator imports neither a server nor pictures.
    """
    import subprocess
    import sys

    code = "import sys, kling_async.simulator; print({'aiohttp', 'numpy', 'cv2', 'av', 'PIL'} & set(sys.modules))"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert "set()\n" == done.stdout
