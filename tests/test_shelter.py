"""
Work that is done to its end whatever becomes of its caller, and for how long.
"""

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field

from kling_async._shelter import GRACE, parting, sheltered
from tests.checkpoints import called_off, cuts, natives


@define
class Work:
    """
    Something in three steps, which may be stopped before each.
    """

    seconds: float = 0.0
    done: int = field(default=0, init=False)

    async def __call__(self):
        for _ in range(3):
            await anyio.sleep(self.seconds)
        self.done += 1
        return "done"


async def failed(work):
    """
    Ends with an error of its own, and does the work before.
    """
    try:
        raise ZeroDivisionError
    finally:
        await parting(work)


async def noted(work):
    """
    Is cancelled while it waits, notes that, and does the work before it goes.
    """
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class() as cancelled:
        cancelled.add_note("on its way")
        await parting(work)
        raise


async def test_what_it_returns_is_returned():
    """
    Without a cancellation it is done once, and may take any time.
    """
    work = Work(seconds=10 * GRACE)
    assert "done" == await sheltered(work)
    assert 1 == work.done


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
async def test_cut_off_anywhere_it_is_done_all_the_same(anyio_backend_name, again):
    """
    By a scope, by asyncio itself, and by asyncio twice; the cancellation comes out unless the result does.
    """
    for cut in cuts(anyio_backend_name, again=again):
        work = Work()
        await cut.run(lambda work=work: sheltered(work))
        assert work.done, cut
        assert cut.cancelled or "done" == cut.result, cut


async def test_it_holds_a_cancellation_up_for_the_grace_only(anyio_backend_name):
    """
    Work that hangs is given up; its time is counted from the cancellation on.
    """
    for native in natives(anyio_backend_name):
        work = Work(seconds=3600)
        seconds, end = await called_off(lambda work=work: sheltered(work), native=native)
        assert (GRACE, 0) == (seconds, work.done)
        assert isinstance(end, anyio.get_cancelled_exc_class())


async def test_a_cancellation_that_is_on_its_way_goes_on_with_its_notes(anyio_backend_name):
    """
    It is the same exception, not one that the work was cut off with, and it is held up for the grace only.
    """
    for native in natives(anyio_backend_name):
        for seconds, done in ((0, 1), (3600, 0)):
            work = Work(seconds=seconds)
            lasted, end = await called_off(lambda work=work: noted(work), native=native)
            assert (done, ["on its way"]) == (work.done, end.__notes__)
            assert GRACE * (not done) == lasted


async def test_before_an_error_goes_on_it_takes_its_time():
    """
    Nobody is waiting for a cancellation then.
    """
    work = Work(seconds=10 * GRACE)
    with pytest.raises(ZeroDivisionError):
        await failed(work)
    assert 1 == work.done


async def test_ctrl_c_is_held_up_for_the_grace_only():
    """
    It may have struck inside of the very thing that the work waits for.
    """
    work, began = Work(seconds=3600), anyio.current_time()
    with pytest.raises(KeyboardInterrupt):
        try:
            raise KeyboardInterrupt
        finally:
            await parting(work)
    assert (GRACE, 0) == (anyio.current_time() - began, work.done)


async def test_cut_off_before_an_error_goes_on_the_cancellation_comes_out(anyio_backend_name):
    """
    It is not swallowed by the error.
    """
    for cut in cuts(anyio_backend_name):
        work = Work()

        async def caught(work=work):
            try:
                await failed(work)
            except ZeroDivisionError:
                return "the error"

        await cut.run(caught)
        assert work.done, cut
        assert cut.cancelled or "the error" == cut.result, cut
