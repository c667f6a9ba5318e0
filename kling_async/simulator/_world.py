"""
What selections and tasks share: ids, files, the videos of the account, and the way to heavy work.

Decides how work that takes long leaves the machine: it is yielded, run by whoever drives the machine, and its
result is picked up when the machine is driven on. Knows no rules of the API.
"""

from collections.abc import Callable, Generator
from concurrent.futures import Future
from random import Random
from typing import TypeAlias, TypeVar
from uuid import UUID

from attrs import define, field

from ._answers import RefusalError
from ._scenes import Sight, Source
from ._shelf import Shelf

T = TypeVar("T")

Work: TypeAlias = Callable[[], None]
"""Something heavy, to be run once and anywhere."""
Steps: TypeAlias = Generator[Work, None, T]
"""A way to a result; it yields work that must be done before it can go on."""


@define(kw_only=True)
class World:
    """
    The ground that sessions and tasks stand on.
    """

    rng: Random
    """Where ids come from."""
    sight: Sight
    """What looks at clips."""
    shelf: Shelf
    """Files."""
    videos: dict[str, tuple[Source, float]] = field(init=False, factory=dict)
    """Results by their video id, each with the time of its making."""

    def new_id(self) -> str:
        """
        18 digits, like the ids in the official samples.
        """
        return str(self.rng.randrange(8 * 10**17, 9 * 10**17))

    def new_request_id(self) -> str:
        """
        A UUID.
        """
        return str(UUID(int=self.rng.getrandbits(128), version=4))

    def aside(self, work: Callable[[], T]) -> Steps[T]:
        """
        Do something with the sight: here and now when it is light, through the driver when it is heavy.

        Raises:
            RefusalError: The work raised it.
        """
        box: Future[T] = Future()

        def run() -> None:
            try:
                box.set_result(work())
            except RefusalError as error:
                box.set_exception(error)

        if self.sight.heavy:
            yield run
        else:
            run()
        return box.result(timeout=0)
