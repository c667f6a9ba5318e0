"""
What is loaded before a first edit: by a program ahead of everything, or while its client opens.

Judged in fresh processes by what is imported, and on which thread, not by the clock.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kling_async import InvalidInputError, warm_up
from tests.commanding import KNOWN, PROXIES, serving

pytestmark = pytest.mark.real_clock

ROOT = Path(__file__).parents[1]

EDIT = """
async def edit(opened=lambda: None):
    async with KlingClient(ApiKey("sk-made-up"), base_url=BASE, poll=PollPolicy(first=0.01, ceiling=0.01)) as client:
        opened()
        async with SelectionSession(client, video_url=CLIP) as selection:
            await selection.add_points(40, [Point(0.8, 0.53)])
            await selection.preview()
            task = await selection.create_task(Removal.of("the stones"))
        task = await client.wait(task)
        await client.download(task.video, OUT)
"""

OPENED = """
import sys, anyio
from kling_async import *
{edit}
loaded = set()
anyio.run(edit, lambda: loaded.update(sys.modules), backend={backend!r})
print(*set(sys.modules) - loaded)
"""

WARMED = """
import os, sys, anyio, {backend}, kling_async
kling_async.warm_up()
from kling_async import *
{edit}
loaded = set(sys.modules)
if (child := os.fork() if hasattr(os, "fork") else 0) == 0:
    anyio.run(edit, backend={backend!r})
    print(*set(sys.modules) - loaded)
else:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

WATCHING = """
import sys, threading
import anyio, anyio.from_thread
from kling_async import *

class Watching:
    "Tells of each module that is about to be loaded."
    def find_spec(self, name, path=None, target=None):
        told(name)

told = lambda name: None
sys.meta_path.insert(0, Watching())
"""


@pytest.fixture(params=["asyncio", "trio"])
def backend(request):
    """
    By its name, for processes that choose their loop themselves.
    """
    return request.param


def fresh(script):
    """
    What a script prints in a process of its own, where every warning is an error.
    """
    environment = {name: value for name, value in os.environ.items() if name not in {*KNOWN, *PROXIES}}
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert 0 == done.returncode, done.stderr
    return done.stdout.split()


def edited(script, path, *, backend, host="127.0.0.1"):
    """
    The same of one that makes an edit over real sockets.
    """
    with serving() as served:
        base = served.base_url.replace("127.0.0.1", host)
        given = f"BASE, CLIP, OUT = {base!r}, {served.clip!r}, {str(path / 'out.mp4')!r}"
        return fresh(script.format(backend=backend, edit=given + EDIT))


def test_after_its_opening_a_client_imports_nothing(backend, tmp_path):
    """
    A whole edit, on either loop, finds everything loaded.
    """
    assert [] == edited(OPENED, tmp_path, backend=backend)


def test_after_a_warm_up_nothing_is_imported(backend, tmp_path):
    """
    Not even by a client's opening, nor to look a name up, nor in a forked process.
    """
    assert [] == edited(WARMED, tmp_path, backend=backend, host="localhost")


def test_a_warm_up_starts_nothing():
    """
    No thread, no process, no socket; what it opens it closes.
    """
    started = fresh("""
import os, sys, kling_async
seen = set()
sys.addaudithook(lambda event, _: seen.add(event))
folder = "/proc/self/fd"
before = os.listdir(folder) if os.path.exists(folder) else ()
kling_async.warm_up()
print(*seen & {"_thread.start_new_thread", "_thread.start_joinable_thread", "os.fork", "subprocess.Popen"})
print(*[event for event in seen if event.startswith("socket.")])
print(*set(os.listdir(folder)) - set(before) if before else ())
import threading, asyncio
print(*threading.enumerate()[1:], *(asyncio._get_running_loop(),) if asyncio._get_running_loop() else ())
""")
    assert [] == started


def test_a_warm_up_leaves_pixels_alone_unless_they_are_wanted():
    """
    They are for those who make pictures of masks.
    """
    pytest.importorskip("numpy")
    pytest.importorskip("PIL")
    script = "import sys, kling_async; kling_async.warm_up({}); print(*{{'numpy', 'PIL.Image'}} & set(sys.modules))"
    assert [] == fresh(script.format(""))
    assert {"numpy", "PIL.Image"} == set(fresh(script.format("pixels=True")))


def test_a_warm_up_can_be_repeated():
    """
    And by then there is nothing left to load.
    """
    warm_up()
    before = set(sys.modules)
    warm_up()
    assert before == set(sys.modules)


def test_pixels_need_numpy(monkeypatch):
    """
    Asked for without it, they are refused as `Mask.to_array` refuses them.
    """
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(InvalidInputError, match="pixels need numpy"):
        warm_up(pixels=True)


def test_what_is_not_installed_is_left_out(monkeypatch):
    """
    PyJWT and Pillow are extras, and so is trio.
    """
    pytest.importorskip("numpy")
    monkeypatch.setattr("kling_async._warm.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "trio", raising=False)
    monkeypatch.delitem(sys.modules, "jwt", raising=False)
    warm_up(pixels=True)
    assert "jwt" not in sys.modules


def test_opening_loads_in_another_thread(backend):
    """
    The loop goes on while aiohttp, cattrs and all behind them are imported.
    """
    heavy = {"aiohttp", "cattrs", "kling_async._aiohttp"}
    if backend == "trio":
        heavy |= {"asyncio", "kling_async._bridge"}
    assert heavy == set(
        fresh(f"""{WATCHING}
told = lambda name: print(name) if name in {heavy!r} and threading.current_thread() is not first else None
first = threading.current_thread()
async def main():
    transport = await open_transport()
    await transport.aclose()
anyio.run(main, backend={backend!r})
""")
    )


def test_opening_waits_for_no_other_threads():
    """
    However many of the loop's threads are taken, this one is to be had.
    """
    assert ["opened"] == fresh("""
import anyio, threading
from kling_async import open_transport
async def main():
    free = threading.Event()
    async with anyio.create_task_group() as group:
        for _ in range(int(anyio.to_thread.current_default_thread_limiter().total_tokens)):
            group.start_soon(anyio.to_thread.run_sync, free.wait)
        await anyio.wait_all_tasks_blocked()
        transport = await open_transport()
        print("opened")
        free.set()
        await transport.aclose()
anyio.run(main)
""")


CANCELLED = """
began, go = threading.Event(), threading.Event()
def told(name):
    if name == "aiohttp" and not began.is_set():
        began.set()
        anyio.from_thread.run_sync(under_way.set)
        go.wait()
"""


def test_a_cancelled_opening_leaves_nothing_broken(backend):
    """
    Cut off in the middle of the import, it ends as cancelled, and the next one opens.
    """
    assert ["True", "True"] == fresh(f"""{WATCHING}{CANCELLED}
async def main():
    global under_way
    under_way = anyio.Event()
    async def opening(scope):
        with scope:
            await open_transport()
        print(scope.cancelled_caught)
    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()
        group.start_soon(opening, scope)
        await under_way.wait()
        scope.cancel()
        go.set()
    transport = await open_transport()
    print(hasattr(transport, "exchange"))
    await transport.aclose()
anyio.run(main, backend={backend!r})
""")


def test_a_cancelled_task_need_not_wait_for_the_import():
    """
    Cancelled by asyncio itself, the opening ends at once and the import goes on; the next opening waits for that.
    """
    assert ["cancelled", "True"] == fresh(f"""{WATCHING}{CANCELLED}
import asyncio
async def main():
    global under_way
    under_way = anyio.Event()
    opening = asyncio.create_task(open_transport())
    await under_way.wait()
    opening.cancel()
    try:
        await opening
    except asyncio.CancelledError:
        print("cancelled")
    again = asyncio.create_task(open_transport())
    await asyncio.sleep(0)
    go.set()
    transport = await again
    print(hasattr(transport, "exchange"))
    await transport.aclose()
asyncio.run(main())
""")


def test_clients_that_open_together_get_the_same():
    """
    One loads, the others wait for it off the loop.
    """
    assert ["1"] == fresh(f"""{WATCHING}
async def main():
    found = []
    async def opening():
        async with KlingClient(ApiKey("sk-made-up")) as client:
            found.append(type(client._own))
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(opening)
    print(len({{*found}}))
anyio.run(main)
""")


@pytest.mark.parametrize("error", ["ImportError('half of it')", "RuntimeError('no thread')"])
def test_what_fails_in_the_thread_is_tried_on_the_loop(error):
    """
    Another thread may import the same from its other end at that moment, or no thread may be had.
    """
    assert ["True"] == fresh(f"""{WATCHING}
failed = []
def told(name):
    if name == "aiohttp" and not failed:
        failed.append(name)
        raise {error}
async def main():
    transport = await open_transport()
    print(hasattr(transport, "exchange"))
    await transport.aclose()
anyio.run(main)
""")


def test_what_is_broken_is_told():
    """
    An aiohttp that cannot be imported is an ImportError of the opening.
    """
    assert ["broken"] == fresh(f"""{WATCHING}
def told(name):
    if name == "aiohttp":
        raise ImportError("broken")
async def main():
    try:
        await open_transport()
    except ImportError as error:
        print(error)
anyio.run(main)
""")


def test_ctrl_c_while_a_client_opens_is_one():
    """
    It comes out as KeyboardInterrupt; the import ends with the process.
    """
    assert ["interrupted"] == fresh(f"""{WATCHING}
import os, signal
interrupted = []
def told(name):
    if name == "aiohttp" and not interrupted:
        interrupted.append(name)
        os.kill(os.getpid(), signal.SIGINT)
try:
    anyio.run(open_transport)
except KeyboardInterrupt:
    print("interrupted")
""")
