"""
The benchmark that counts orders, with kling_async alone.
"""

from functools import partial

import aiohttp
import pytest

from benchmarks.double_charge import measured, ours
from benchmarks.peers import Peer
from benchmarks.till import FAULTS
from kling_async import RetryPolicy, Task, UnknownOutcomeError

pytestmark = pytest.mark.real_clock


async def twice(url, seconds, headers):
    """
    Order and, whatever came of it, order again.
    """
    async with aiohttp.ClientSession(headers=headers) as session:
        for _ in range(2):
            try:
                async with session.post(f"{url}/", json={}, timeout=aiohttp.ClientTimeout(seconds)) as response:
                    await response.read()
            except OSError:
                pass


def test_f6_f8_f9_f14_a_create_is_sent_once_whatever_becomes_of_its_reply():
    """
    Reset, no answer, a 500, an empty account: one POST each at a server in another process, found again or not.
    """
    rows = measured(ours(RetryPolicy(doubt=0.2)), patience=0.3)
    assert isinstance(rows[0].ends["normal"], Task)
    assert isinstance(rows[1].ends["drop"], Task)
    assert isinstance(rows[2].ends["drop"], UnknownOutcomeError)
    assert [[1] * len(FAULTS)] * 3 == [[tally.posts for tally in row.tallies.values()] for row in rows]
    assert [(True, 4, 1), (True, 4, 4), (True, 4, 1)] == [(row.once, row.charged, row.returned) for row in rows]


def test_a_repeat_is_charged_unless_it_carries_the_key_of_the_first():
    """
    The server counts both POSTs, and takes money for the second only where nothing ties it to the first.
    """
    keys = {"without": {}, "with": {"Idempotency-Key": "1"}}
    peers = [Peer(who, "aiohttp", "aiohttp", partial(twice, headers=headers)) for who, headers in keys.items()]
    rows = measured(peers, patience=0.3)
    assert [[2] * len(FAULTS)] * 2 == [[tally.posts for tally in row.tallies.values()] for row in rows]
    assert [(8, False), (4, True)] == [(row.charged, row.once) for row in rows]


def test_a_library_that_is_absent_has_a_row_that_says_so():
    """
    A peer that is not installed is not called.
    """
    (row,) = measured([Peer("absent", "no-such-distribution", "no_such_module", twice)])
    assert "| no-such-distribution | not installed | | | | | | |" == str(row)
