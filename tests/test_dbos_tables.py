"""
Units as whole millionths, and rows that are there once.
"""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some

from kling_async.dbos._tables import PICTURES, insert, millionths, units
from tests.batching import (
    given_url,  # noqa: F401 - a fixture
    in_database,
)


@given(some.decimals(0, 10**9, places=6))
def test_units_are_told_as_they_were_kept(cost):
    """
    To the millionth.
    """
    assert cost == units(millionths(cost))


@pytest.mark.parametrize(
    "cost, whole", [("0", 0), ("3", 3_000_000), ("0.0000001", 1), ("2.5000001", 2_500_001), ("1E+3", 10**9)]
)
def test_what_is_finer_counts_as_one_more(cost, whole):
    """
    A budget is never overspent for its rounding.
    """
    assert whole == millionths(Decimal(cost))


@pytest.mark.parametrize("kept, told", [(0, "0"), (900_000_000, "900"), (2_500_000, "2.5"), (1, "0.000001")])
def test_units_are_told_as_people_write_them(kept, told):
    """
    Without powers of ten and without zeros at the end.
    """
    assert told == f"{units(kept):f}"
    assert "E+" not in str(units(kept))


@pytest.mark.real_clock
async def test_a_row_is_inserted_once(url):
    """
    Whoever comes second is told so, and changes nothing.
    """
    async with in_database(url) as kept:
        for new in (True, False):
            row = {"sha256": "ab", "wire": "new" if new else "other"}
            assert new == await kept.database.transact(lambda connection, row=row: insert(connection, PICTURES, row))
        found = await kept.database.read(lambda connection: connection.execute(PICTURES.select()).all())
        assert [("ab", "new")] == found
