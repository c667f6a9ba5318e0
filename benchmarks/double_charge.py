"""
How often one paid call is sent when its reply goes wrong: `python -m benchmarks double_charge`.

Every library places one order for each fault, with the retries that it comes with. What counts is what the server has
read to the end, in a process of its own on this machine. Orders run side by side, the longest for a minute and a half.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from functools import partial

from attrs import evolve, frozen

from benchmarks.peers import PEERS, Peer, kling
from benchmarks.till import FAULTS, FINDING, KLING, Run, Tally, charging
from kling_async import RetryPolicy

PATIENCE = 2.0
"""Seconds after which a client gives up a server that does not answer."""
APART = 0.05
"""Seconds between two orders: making a client keeps the loop busy, and must not use up the patience of others."""
ORDERS = len(FAULTS) - 1
"""Those that the server accepts: all but the one of an empty account."""

NOTES = f"""
Paid POSTs that the server read to the end, for one call each. It accepted all but those of column 1101: `charged` is
their sum over {ORDERS} calls, where {ORDERS} is right, and `returned` how many of these calls ended with what was paid
for. Settings are the defaults, but for what a row names and a timeout of {PATIENCE:g} s where no reply comes. Task
found, or not found: whether the service finds it by its external id.
Calls: runwayml video_to_video.create, openai images.generate (its video calls were shut down), fal-client submit,
replicate async_run, google-genai models.generate_videos, kling-async create_task.
"""


@frozen
class Row:
    """
    What became of one library's calls, by fault.
    """

    peer: Peer
    """The library."""
    tallies: dict[str, Tally]
    """The server's counts; empty where the library is not installed."""
    ends: dict[str, object]
    """What each call returned, or raised."""

    @property
    def charged(self) -> int:
        """
        Orders that were paid for.
        """
        return sum(tally.charges for tally in self.tallies.values())

    @property
    def returned(self) -> int:
        """
        Calls that ended well.
        """
        return sum(not isinstance(end, BaseException) for end in self.ends.values())

    @property
    def once(self) -> bool:
        """
        Whether each order was paid once, that of the empty account never, and the one that got its answer returned it.
        """
        paid = all(tally.charges == (fault != "1101") for fault, tally in self.tallies.items())
        return paid and not isinstance(self.ends["normal"], BaseException)

    @property
    def faults(self) -> list[str]:
        """
        What makes the row no measurement.
        """
        lost = [f"no POST came for {fault}" for fault, tally in self.tallies.items() if not tally.posts]
        end = self.ends.get("normal")
        return lost + ([f"it fails where nothing goes wrong: {end!r}"] if isinstance(end, BaseException) else [])

    def __str__(self) -> str:
        if not self.tallies:
            return f"| {self.peer.title} | not installed |" + " |" * (len(FAULTS) + 1)
        posts = [self.tallies[fault].posts for fault in FAULTS]
        return f"| {self.peer.title} | {' | '.join(map(str, [*posts, self.charged, self.returned]))} |"


def ours(retry: RetryPolicy | None = None) -> tuple[Peer, ...]:
    """The rows of kling_async; a policy stands in for the default one."""
    row = partial(Peer, distribution="kling-async", module="kling_async")
    daring = evolve(retry or RetryPolicy(), on_unknown="resend")
    return (
        row(f"{KLING}-resend", place=partial(kling, retry=daring), how='on_unknown="resend", task not found'),
        row(FINDING, place=partial(kling, retry=retry), how="task found"),
        row(KLING, place=partial(kling, retry=retry), how="task not found"),
    )


async def place(base_url: str, peers: Sequence[Peer], patience: float) -> dict[Run, object]:
    """One order of each for each fault, side by side; what each returned or raised."""
    runs = [(peer, fault) for peer in peers for fault in FAULTS]
    orders = []
    for peer, fault in runs:
        order = peer.place(f"{base_url}/{peer.who}/{fault}", patience if fault == "hang" else None)
        orders.append(asyncio.ensure_future(order))
        await asyncio.sleep(APART)
    ends = await asyncio.gather(*orders, return_exceptions=True)
    return {(peer.who, fault): end for (peer, fault), end in zip(runs, ends, strict=True)}


def measured(peers: Sequence[Peer], patience: float = PATIENCE) -> list[Row]:
    """A row for each library."""
    installed = [peer for peer in peers if peer.version]
    for peer in installed:
        peer.load()
    with charging() as (base_url, tallies):
        ends = asyncio.run(place(base_url, installed, patience))
    none = Tally(0, 0)
    return [
        Row(
            peer,
            {fault: tallies.get((peer.who, fault), none) for fault in FAULTS if peer.version},
            {fault: ends[peer.who, fault] for fault in FAULTS if peer.version},
        )
        for peer in peers
    ]


def main() -> int:
    """
    Measure and print; the exit status is 1 where a call of kling_async was not paid just once.
    """
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    own = ours()
    rows = measured([*PEERS, *own])
    print(f"| one call of | {' | '.join(FAULTS.values())} | charged | returned |")
    print("|---" * (len(FAULTS) + 3) + "|")
    for row in rows:
        print(row)
        for fault in row.faults:
            print(f"{row.peer.title}: {fault}", file=sys.stderr)
    print(NOTES)
    charges = ", ".join(f"{row.peer.title} {row.charged}" for row in rows if row.tallies)
    print(f"Charges for {ORDERS} orders: {charges}.")
    return 0 if all(row.once for row in rows if row.peer in own) else 1
