"""
pytest fixtures for tests of one's own: a simulator of the service for each test, and a client of it.

Decides how a test says what it wants of its simulator, and how fast the client looks. Every project that has this
package installed loads this module with pytest, so what is heavy is imported by the fixtures that need it.
"""

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .client import KlingClient
    from .simulator import Simulator

__all__ = ("kling_client", "kling_simulator")

_MARK = "kling_simulator(quota=5, task_seconds=0, faults=(), ...): what this test's `kling_simulator` is made with"
_PAUSE = 0.01
"""Seconds between two looks or two attempts; tests run on a true clock, mostly."""
_DOUBT = 1.0
"""Seconds for which the client looks for a create whose reply was lost."""


def pytest_configure(config: pytest.Config) -> None:
    """
    Make the marker known to `--strict-markers`.
    """
    config.addinivalue_line("markers", _MARK)


def _settings(node: pytest.Item) -> dict[str, object]:
    """
    What the markers say, the nearest with the last word.
    """
    settings: dict[str, object] = {"task_seconds": 0}
    for mark in reversed(list(node.iter_markers("kling_simulator"))):
        if mark.args:
            raise pytest.UsageError("kling_simulator takes the keywords of kling_async.simulator.Simulator alone")
        settings |= mark.kwargs
    return settings


@pytest.fixture
def kling_simulator(request: pytest.FixtureRequest) -> "Iterator[Simulator]":
    """
    A new `kling_async.simulator.Simulator`, whose tasks end at their next look unless the test is marked otherwise.

    The marker takes the Simulator's own keywords: `@pytest.mark.kling_simulator(faults=[Fault("create", "lost")])`.
    """
    from .simulator import Simulator

    with Simulator(**_settings(request.node)) as simulator:  # type: ignore[arg-type]
        yield simulator


@pytest.fixture
async def kling_client(kling_simulator: "Simulator", request: pytest.FixtureRequest) -> "AsyncIterator[KlingClient]":
    """
    An open `kling_async.KlingClient` of this test's `kling_simulator`, in process, that hardly waits between looks.

    It is for tests that anyio's pytest plugin runs, on asyncio or trio, and for those of pytest-asyncio's auto mode.
    Elsewhere open one in the test: `KlingClient(ApiKey("any"), transport=kling_simulator.transport())`.
    """
    from ._auth import ApiKey
    from .client import KlingClient
    from .policy import PollPolicy, RetryPolicy

    key = _settings(request.node).get("api_key") or "any"
    poll, retry = PollPolicy(first=_PAUSE, ceiling=_PAUSE), RetryPolicy(base=_PAUSE, ceiling=_PAUSE, doubt=_DOUBT)
    async with KlingClient(ApiKey(str(key)), transport=kling_simulator.transport(), poll=poll, retry=retry) as client:
        yield client
