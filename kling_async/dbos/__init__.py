"""
Durable batches on DBOS: jobs in a database, workers on one machine or on many, each edit paid once.

Needs the extra: `pip install 'kling-async[dbos]'`.
"""

from importlib.util import find_spec

from kling_async.errors import InvalidInputError

if find_spec("dbos") is None:
    raise InvalidInputError("dbos", "is not installed: pip install 'kling-async[dbos]'")

from ._entries import Kept
from ._results import BatchResult
from ._runner import DbosRunner
from ._status import BatchStatus

__all__ = ("BatchResult", "BatchStatus", "DbosRunner", "Kept")
