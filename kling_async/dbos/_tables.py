"""
The tables of a batch, beside the engine's own.

Units are kept as whole millionths, so that every database adds them up exactly. Columns are only ever added.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

TABLES: Final = sa.MetaData()

JOBS: Final = sa.Table(
    "kling_jobs",
    TABLES,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("batch", sa.Text, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("run", sa.Integer, nullable=False),
    sa.Column("output", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reserved", sa.BigInteger, nullable=False, default=0),
    sa.Column("cost", sa.BigInteger, nullable=False, default=0),
    sa.Column("outcome", sa.Text),
    sa.Column("made_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),
    sa.Index("kling_jobs_by_state", "account", "batch", "state"),
)
"""One row a key: what is asked for, and what came of it."""

ACCOUNTS: Final = sa.Table(
    "kling_accounts",
    TABLES,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("slots", sa.Float, nullable=False),
    sa.Column("learning", sa.Boolean, nullable=False),
    sa.Column("refused_at", sa.Float, nullable=False, default=0.0),
    sa.Column("paused", sa.Text),
    sa.Column("turns", sa.BigInteger, nullable=False, default=0),
)
"""One row an account: how many tasks may run, why none is created just now, and how many turns were given out."""

BATCHES: Final = sa.Table(
    "kling_batches",
    TABLES,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("batch", sa.Text, primary_key=True),
    sa.Column("budget", sa.BigInteger),
    sa.Column("spent", sa.BigInteger, nullable=False, default=0),
)
"""One row a batch: its money. `spent` holds what runs at its worst case, and what has ended at its cost."""

PICTURES: Final = sa.Table(
    "kling_pictures",
    TABLES,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("wire", sa.Text, nullable=False),
)
"""Reference pictures, each once however many jobs show it."""

WORKERS: Final = sa.Table(
    "kling_workers",
    TABLES,
    sa.Column("executor", sa.Text, primary_key=True),
    sa.Column("seen_at", sa.Float, nullable=False),
)
"""When a worker last gave a sign of life, by the database's clock."""

_MILLIONTHS: Final = 1_000_000


def insert(connection: sa.Connection, table: sa.Table, row: Mapping[str, object]) -> bool:
    """
    Insert a row unless one with its key is there; whether it was new.
    """
    return bool(insert_all(connection, table, [row], sa.literal_column("1")))


def insert_all(
    connection: sa.Connection,
    table: sa.Table,
    rows: Sequence[Mapping[str, object]],
    told: sa.ColumnElement[object],
) -> list[object]:
    """
    Insert rows unless others with their keys are there; of those that were new, what is told.
    """
    kind = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    # Of rows that are inserted Postgres tells no number here.
    new: sa.Executable = kind(table).values(rows).on_conflict_do_nothing().returning(told)
    return list(connection.execute(new).scalars())


def millionths(units: Decimal) -> int:
    """
    Units as they are kept; what is finer than a millionth counts as one more.
    """
    return int((units * _MILLIONTHS).to_integral_value("ROUND_CEILING"))


def units(millionths: int) -> Decimal:
    """
    Units as they are told.
    """
    told = Decimal(millionths) / _MILLIONTHS
    # Nine hundred is 900, not 9E+2.
    return told.to_integral() if told == told.to_integral() else told.normalize()
