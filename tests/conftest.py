"""
Two clocks and the fixtures that most tests ask for.

A test runs on a clock that jumps to its next timer; one marked `real_clock` runs on a true one, which
it needs as soon as a socket, a thread or a process takes part.
"""

import asyncio
import selectors
from contextlib import ExitStack

import pytest

from kling_async import _exchange

LONG = 6 * 3600
"""Seconds that a slow test may take with `--long`."""


class _JumpingSelector(selectors.DefaultSelector):
    """
    Never waits for a timer, but adds up the time that it would have waited.
    """

    now = 0.0

    def select(self, timeout=None):
        ready = super().select(timeout if timeout is None else 0)
        if not ready and timeout:
            self.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """
    An event loop that jumps to its next timer as soon as nothing else is ready.
    """

    def __init__(self):
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self):
        return self._jumping.now


def pytest_addoption(parser):
    """
    The option for nights.
    """
    parser.addoption("--long", action="store_true", help="run the state machines on thousands of examples, for hours")


def pytest_collection_modifyitems(config, items):
    """
    What is slow may take hours then.
    """
    if config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.timeout(LONG), append=False)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    """
    Both event loops, each with the clock that the test's marks ask for.
    """
    if request.node.get_closest_marker("real_clock"):
        return request.param, {}
    if request.param == "asyncio":
        return "asyncio", {"loop_factory": JumpingLoop}
    from trio.testing import MockClock

    return "trio", {"clock": MockClock(autojump_threshold=0)}


@pytest.fixture(autouse=True)
def _full_budgets():
    """
    No test pays for the replays of another, although clients of one host and key share a budget.
    """
    _exchange._BUDGETS.clear()


@pytest.fixture(scope="session")
def postgres():
    """
    A real PostgreSQL server, for tests that are marked `real_clock`; without its programs they are skipped.
    """
    pytest.importorskip("pwd", reason="PostgreSQL is run where users are as on Unix")
    pytest.importorskip("psycopg", reason="PostgreSQL is reached through psycopg")
    from tests.postgres import Unavailable, running

    with ExitStack() as stack:
        try:
            server = stack.enter_context(running())
        except Unavailable as reason:
            pytest.skip(str(reason))
        yield server
