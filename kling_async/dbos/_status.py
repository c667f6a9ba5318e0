"""
How far a batch is, from what was counted: how much of it is done, what it cost, and how long it will take.
"""

from decimal import Decimal

from attrs import frozen

from ._entries import Counts


@frozen(kw_only=True)
class BatchStatus:
    """
    How far a batch is.
    """

    done: int
    """Results that lie in the folder."""
    running: int
    """Jobs whose task may run."""
    waiting: int
    """Jobs that nothing is paid for yet."""
    failed: int
    """Jobs that ended otherwise, whatever the reason."""
    states: dict[str, int]
    """All of them by state."""
    spent: Decimal
    """Units: what has ended at its cost, what runs at its worst case."""
    budget: Decimal | None
    """Units that it may cost; None is no bound."""
    paused: str | None
    """Why no task is created just now, such as an empty balance; None where they are."""
    slots: int
    """Jobs that may run at once."""
    seconds_left: float | None
    """Until the last one, at the pace of the latest results; None where there is none yet."""

    @property
    def total(self) -> int:
        """All jobs."""
        return self.done + self.running + self.waiting + self.failed

    @classmethod
    def of(cls, counts: Counts) -> "BatchStatus":
        """
        From what was counted.
        """
        states = dict(counts.states)
        running, waiting, done = (states.get(name, 0) for name in ("running", "waiting", "done"))
        ends, left = counts.ended_at, running + waiting
        pace = (len(ends) - 1) / (ends[0] - ends[-1]) if len(ends) > 1 and ends[0] > ends[-1] else None
        return cls(
            done=done,
            running=running,
            waiting=waiting,
            failed=sum(states.values()) - running - waiting - done,
            states=states,
            spent=counts.spent,
            budget=counts.budget,
            paused=counts.paused,
            slots=counts.slots,
            seconds_left=left / pace if pace else None,
        )
