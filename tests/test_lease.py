"""
Lifetimes: opened once, on one loop of one process, and calls that end with them.
"""

import subprocess
import sys

import anyio
import pytest

from kling_async import ClosedError
from kling_async._lease import Owner, _process


async def test_an_owner_opens_once():
    """
    Neither twice at once nor again after its end.
    """
    owner = Owner("KlingClient")
    owner.open()
    with pytest.raises(ClosedError, match="is open"):
        owner.open()
    owner.closing()
    with pytest.raises(ClosedError, match="is closed"):
        owner.open()


async def test_a_call_outside_its_block_names_method_and_reason():
    """
    Before and after, the error says which call and why.
    """
    owner = Owner("KlingClient")
    with pytest.raises(ClosedError, match=r"KlingClient\.wait\(\).*async with"):
        owner.lease("wait")
    owner.open()
    owner.closing()
    with pytest.raises(ClosedError, match=r"KlingClient\.wait\(\).*is closed"):
        owner.lease("wait")


@pytest.mark.parametrize("ours", [True, False])
async def test_closing_ends_what_is_underway_with_closed_error(ours):
    """
    The call gets ClosedError where it was called, and the owner learns when the last has ended.
    """
    owner, errors, entered = Owner("KlingClient"), [], anyio.Event()
    owner.open(ours=ours)

    async def call():
        try:
            with owner.lease("wait"):
                entered.set()
                await anyio.sleep_forever()
        except ClosedError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await entered.wait()
        owner.closing()
        await owner.drained()
    assert ["KlingClient closed while wait() was underway"] == errors


async def test_leases_end_one_by_one():
    """
    The owner is drained with the last of them only.
    """
    owner, first, second = Owner("KlingClient"), anyio.Event(), anyio.Event()
    owner.open()

    async def call(stay):
        with owner.lease("wait"), anyio.CancelScope(shield=True):
            await stay.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(call, first)
        group.start_soon(call, second)
        await anyio.wait_all_tasks_blocked()
        owner.closing()
        first.set()
        await anyio.wait_all_tasks_blocked()
        assert not owner._drained.is_set()
        second.set()
        await owner.drained()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("other", ["asyncio", "trio"])
def test_another_loop_is_refused(backend, other):
    """
    A pool belongs to the loop it was opened on; both are named.
    """
    owner = Owner("KlingClient")

    async def opened():
        owner.open()

    async def used():
        owner.lease("wait")

    anyio.run(opened, backend=backend)
    with pytest.raises(RuntimeError, match=r"opened on .* used on"):
        anyio.run(used, backend=other)


async def test_another_process_is_refused(monkeypatch):
    """
    After a fork the pool's sockets are shared, so the child is told to open its own.
    """
    owner = Owner("KlingClient")
    owner.open()
    monkeypatch.setattr(_process, "id", _process.id)
    with monkeypatch.context() as patched:
        patched.setattr("os.getpid", lambda: -1)
        _process.forked()
    with pytest.raises(RuntimeError, match=r"process .* used in -1"):
        owner.lease("wait")


async def test_a_loop_is_known_where_asyncio_was_never_loaded(monkeypatch):
    """
    The owner of a program on trio opens without it.
    """
    monkeypatch.delitem(sys.modules, "asyncio")
    owner = Owner("KlingClient")
    owner.open(ours=True)
    with owner.lease("wait"):
        pass


@pytest.mark.real_clock
def test_opening_on_trio_does_not_import_asyncio():
    """
    It is the engine's thread that imports it there; trio's loop has no need to wait for that.
    """
    script = (
        "import sys, trio\n"
        "from kling_async._lease import Owner\n"
        "async def main():\n"
        "    owner = Owner('KlingClient')\n"
        "    owner.open(ours=True)\n"
        "    with owner.lease('wait'):\n"
        "        await trio.lowlevel.checkpoint()\n"
        "trio.run(main)\n"
        "print('asyncio' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "False" == run.stdout.strip()
