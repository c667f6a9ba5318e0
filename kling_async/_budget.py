"""
The budget of replays: what a replay costs, and what a success brings back. Numbers alone, without clock or chance.

A service that fails altogether would otherwise get three times the requests of one that works. Decides neither which
failures may be sent again, nor when: those are `_exchange.py`'s and `policy.py`'s.
"""

from typing import Final

from attrs import define

from .errors import DownloadError, KlingError, LostReplyError

CAPACITY: Final = 500
"""Tokens of a full budget; it begins full."""
REPLAY: Final = 5
"""What a replay costs."""
TIMEOUT: Final = 10
"""What a replay costs after a timeout or a lost reply, which have held a connection for long."""
FIRST: Final = 1
"""What a call brings that succeeds at its first attempt."""


@define(eq=False, repr=False)
class Budget:
    """
    The tokens that pay for the replays of all calls to one host with one key.

    The four numbers, and that a replay which succeeds gets back what it has paid, are those of the AWS SDKs' standard
    retry mode: https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html, with the constants as
    botocore (`retries/standard.py`) and aws-smithy-runtime (`token_bucket.rs`) have them.

    It is counted without a lock: loops in several threads may lose a token to each other, and it is a brake, no bill.

    Example:
        >>> budget = Budget(left=7)
        >>> budget.pay(5), budget.pay(5), budget.left
        (True, False, 2)
        >>> budget.earn(5)
        >>> budget.left
        7
    """

    left: int = CAPACITY
    """Tokens that are left."""

    def pay(self, price: int) -> bool:
        """
        Take the price of a replay; False, and nothing taken, where that much is not left.
        """
        if self.left < price:
            return False
        self.left -= price
        return True

    def earn(self, paid: int) -> None:
        """
        Take note of a success.

        Args:
            paid: What its replay had paid; 0 for a first attempt, or for a replay that was free.
        """
        if self.left < CAPACITY:
            self.left = min(CAPACITY, self.left + (paid or FIRST))


def price(error: KlingError) -> int:
    """
    What it costs to send a call again that failed so; the host of a download is another, and has no budget.
    """
    if isinstance(error, DownloadError):
        return 0
    slow = isinstance(error, LostReplyError) or isinstance(error.__cause__, TimeoutError)
    return TIMEOUT if slow else REPLAY
