"""
How far a batch is, in numbers that people ask for.
"""

from decimal import Decimal

import pytest

from kling_async.dbos import BatchStatus
from kling_async.dbos._entries import Counts


def counts(*ended_at, **states):
    return Counts(states=states, spent=Decimal(3), budget=None, paused=None, slots=5, ended_at=ended_at)


def test_states_are_four_numbers():
    """
    What is neither done nor running nor waiting has failed, whatever the reason.
    """
    status = BatchStatus.of(counts(done=5, running=2, waiting=3, failed=1, refused=1, cancelled=4))
    assert (5, 2, 3, 6, 16) == (status.done, status.running, status.waiting, status.failed, status.total)
    assert {"done": 5, "running": 2, "waiting": 3, "failed": 1, "refused": 1, "cancelled": 4} == status.states


def test_a_batch_of_nothing_is_at_its_end():
    """
    All numbers are zero, and nobody knows how long nothing takes.
    """
    status = BatchStatus.of(counts())
    assert (0, 0, None) == (status.total, status.failed, status.seconds_left)


@pytest.mark.parametrize("ends", [(), (100.0,), (100.0, 100.0)])
def test_without_a_pace_nobody_knows_how_long_it_takes(ends):
    """
    It takes two ends at two times.
    """
    assert BatchStatus.of(counts(*ends, waiting=3)).seconds_left is None


def test_the_rest_takes_as_long_as_the_latest_results_did():
    """
    What runs and what waits, at that pace.
    """
    assert pytest.approx(20.0) == BatchStatus.of(counts(110.0, 105.0, 100.0, running=1, waiting=3)).seconds_left
    assert 0.0 == BatchStatus.of(counts(110.0, 100.0, done=2)).seconds_left
