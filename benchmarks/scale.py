"""
Past one machine: 1,000,000 edits over 200 accounts and 50 workers in virtual time: `python -m benchmarks.scale`.

Every edit goes the library's whole way, from the look for an earlier task to the notice of its end, against the
simulator in the same process. Accounts have quotas from 2 to 50 that nobody is told and that change; as many edits are
ordered of each as keep all busy for about as long. One request of a hundred goes wrong, half of them after they were
done, and one task of a hundred fails. Workers live for two hours on average and come back after two minutes; their
jobs go to others after half a minute. The service does not refuse an id that it knows, so that nothing but the library
stands between an edit and a second charge, and the user has given leave to send again what is proven absent.

What was charged is what the service says. Accounts share nothing but their workers, and when a worker dies is drawn for
it alone: so each account is run by itself, in any process. What an engine would add, its own rows and their reading,
is not counted here; `python -m benchmarks.batch` measures it. Where a line tells two further numbers, these are the
least and the most of one account.
"""

import gc
import logging
import pickle
import sys
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import chain, pairwise
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import harmonic_mean

from attrs import frozen

from benchmarks.rounds import CORES, told
from benchmarks.shift import Plan, Tally, done
from benchmarks.table import Row, printed, status
from kling_async import PollPolicy

EDITS, ACCOUNTS, WORKERS, SERVED = 1_000_000, 200, 50, 2
QUOTA_LEAST, QUOTA_MOST, QUOTAS = 2, 50, 3
"""How many tasks of an account may run at once, and how many such numbers it has, one after the other."""
CLASSES = (2, 8, 25, 51)
"""Bounds between quotas that are told apart."""
RATE, LIFE = 0.01, 7200.0
"""How likely a fault is, and seconds that a worker lives on average."""
INTERVAL = PollPolicy().ceiling
"""Seconds between two looks at a task that runs for long."""
SELDOM = (10_000, 20, 1_000)
"""Thresholds of the garbage collector."""
WRITES, READS = ("claim", "put", "release", "learn"), ("get", "recent", "abilities")
"""Calls of the store."""


def plans(
    edits: int = EDITS,
    accounts: int = ACCOUNTS,
    workers: int = WORKERS,
    served: int = SERVED,
    *,
    faults: float = RATE,
    life: float = LIFE,
    seed: int = 1,
) -> list[Plan]:
    """
    A plan for each account.

    Args:
        edits: How many in all.
        accounts: How many there are.
        workers: How many there are.
        served: By how many workers each account is served.
        faults: How likely a request is to go wrong.
        life: Seconds that a worker lives on average.
        seed: Of all chance.
    """
    draw = Random(seed)
    quotas = [_quotas(draw) for _ in range(accounts)]
    weights = [harmonic_mean(each) for each in quotas]
    bounds = [round(edits * sum(weights[:number]) / sum(weights)) for number in range(accounts + 1)]
    return [
        Plan(
            name=f"account-{number}",
            edits=bounds[number + 1] - bounds[number],
            quotas=each,
            workers=tuple(draw.sample(range(workers), served)),
            seed=seed,
            faults=faults,
            life=life,
        )
        for number, each in enumerate(quotas)
    ]


def _quotas(draw: Random) -> tuple[int, ...]:
    """Each further one is half to twice the one before."""
    quotas = [draw.randint(QUOTA_LEAST, QUOTA_MOST)]
    while len(quotas) < QUOTAS:
        quotas.append(min(QUOTA_MOST, max(QUOTA_LEAST, round(quotas[-1] * 2 ** draw.uniform(-1, 1)))))
    return tuple(quotas)


def tallies(todo: Sequence[Plan], processes: int, kept: Path | None = None) -> list[Tally]:
    """
    Do all plans, the longest first, each in one of so many processes.

    Args:
        todo: The plans.
        processes: How many there are.
        kept: A folder that remembers the tallies of a run that was stopped.
    """
    began, found = time.perf_counter(), list[Tally]()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_begin) as pool:
        waiting = [pool.submit(_tally, plan, kept) for plan in sorted(todo, key=lambda plan: -plan.edits)]
        for future in as_completed(waiting):
            found.append(future.result())
            edits, seconds = sum(tally.edits for tally in found), time.perf_counter() - began
            told(f"scale: {len(found)} of {len(todo)} accounts, {edits:,} edits, {seconds:,.0f} s")
    return found


def _tally(plan: Plan, kept: Path | None) -> Tally:
    gc.collect()
    if kept is None:
        return done(plan)
    path = kept / f"{plan.name}.pickle"
    if path.exists():
        tally: Tally = pickle.loads(path.read_bytes())
        if tally.plan == plan:
            return tally
    tally = done(plan)
    part = path.with_suffix(".part")
    part.write_bytes(pickle.dumps(tally))
    part.replace(path)
    return tally


def _begin() -> None:
    """
    Faults are made here on purpose: nobody has to be warned of each. And what the service remembers, which no worker
    has with it, is not to be searched for garbage over and over: that would be a third of all work.
    """
    logging.getLogger("kling_async").setLevel(logging.CRITICAL)
    gc.set_threshold(*SELDOM)


@frozen
class Sums:
    """
    All accounts together.
    """

    tallies: Sequence[Tally]
    """One of each."""

    def __call__(self, part: Callable[[Tally], float]) -> float:
        """The sum of something."""
        return sum(map(part, self.tallies))

    def row(self, name: str, part: Callable[[Tally], float], per: Callable[[Tally], float], unit: str = "") -> Row:
        """One sum over another, with the least and the most of one account."""
        each = [part(tally) / per(tally) for tally in self.tallies]
        return Row(name, self(part) / self(per), noise=(min(each), max(each)), unit=unit)

    def late(self, name: str, part: Callable[[Tally], Sequence[float]], parts: Sequence[float]) -> Iterator[Row]:
        """How late that many of all were noticed at most, in seconds and in intervals."""
        every = sorted(chain.from_iterable(map(part, self.tallies)))
        for share in parts if every else ():
            seconds = every[min(len(every) - 1, int(len(every) * share))]
            yield Row(f"{name}: {share:.0%} within", seconds, unit=" s")
            yield Row(f"{name}: {share:.0%} within, in polls of {INTERVAL:g} s", seconds / INTERVAL)

    def classes(self) -> Iterator[tuple[str, "Sums"]]:
        """Those of accounts that allow few tasks at once, more, and many."""
        for least, most in pairwise(CLASSES):
            found = [tally for tally in self.tallies if least <= harmonic_mean(tally.plan.quotas) < most]
            if found:
                yield f"quota {least} to {most}", Sums(found)

    @property
    def requests(self) -> Counter[str]:
        """Of all, by call."""
        return sum((tally.requests for tally in self.tallies), Counter[str]())

    @property
    def store(self) -> Counter[str]:
        """Calls of all stores."""
        return sum((tally.store for tally in self.tallies), Counter[str]())

    @property
    def deaths(self) -> int:
        """How often a worker died, whom several accounts may have lost."""
        return len(frozenset[tuple[int, int]]().union(*(tally.deaths for tally in self.tallies)))


def edits(tally: Tally) -> int:
    """
    What most is told for each of.
    """
    return tally.edits


def money(all_of: Sums) -> Iterator[Row]:
    """
    What is charged, and what may not be.
    """
    yield all_of.row("charges per edit", lambda tally: tally.charges, edits)
    yield Row("charged twice", all_of(lambda tally: tally.twice), 0, 0)
    yield Row("lost: charged, and its result known to nobody", all_of(lambda tally: tally.lost), 0, 0)
    yield Row("edits not done", all_of(lambda tally: tally.undone), 0, 0)


def traffic(all_of: Sums) -> Iterator[Row]:
    """
    What the service is asked.
    """
    number = all_of(edits)
    yield all_of.row("requests per edit", lambda tally: tally.requests.total(), edits)
    for name, times in sorted(all_of.requests.items()):
        yield Row(f"requests per edit: {name}", times / number)
    yield Row("requests that met a fault", all_of(lambda tally: tally.spoiled) / all_of.requests.total())
    yield all_of.row("kB of replies per edit", lambda tally: tally.sent / 1000, edits)
    yield all_of.row(
        "refusals for a full quota (1303) per task", lambda tally: tally.refused, lambda tally: tally.tasks
    )
    yield all_of.row("share of the quotas kept busy", lambda tally: tally.busy, lambda tally: tally.whole)
    for name, part in all_of.classes():
        yield part.row(f"{name}: requests per edit", lambda tally: tally.requests.total(), edits)
        yield part.row(f"{name}: refusals per task", lambda tally: tally.refused, lambda tally: tally.tasks)
        yield part.row(f"{name}: share kept busy", lambda tally: tally.busy, lambda tally: tally.whole)


def notice(all_of: Sums) -> Iterator[Row]:
    """
    When ends are seen.
    """
    yield from all_of.late("end to notice", lambda tally: [*tally.late, *tally.late_moved], (0.5, 0.99, 1.0))
    yield from all_of.late("end to notice, its worker dead", lambda tally: tally.late_moved, (0.5, 0.99))


def work(all_of: Sums) -> Iterator[Row]:
    """
    What stores and workers have to do.
    """
    number, store = all_of(edits), all_of.store
    yield all_of.row("store writes per edit", lambda tally: sum(tally.store[name] for name in WRITES), edits)
    yield all_of.row("store reads per edit", lambda tally: sum(tally.store[name] for name in READS), edits)
    for name in ("claim", "put", "release", "get"):
        yield Row(f"store calls per edit: {name}", store[name] / number)
    yield all_of.row("CPU per edit, workers", lambda tally: 1000 * (tally.cpu - tally.service), edits, " ms")
    yield all_of.row("CPU per edit, simulator", lambda tally: 1000 * tally.service, edits, " ms")


def deaths(all_of: Sums) -> Iterator[Row]:
    """
    What went wrong, and what became of it.
    """
    for what, name in (
        ("taken over from dead workers", "moved"),
        ("taken over with a create in doubt", "moved in doubt"),
        ("intents taken when a lease was over", "seized"),
        ("tried again under the same key", "again"),
        ("of these, outcome unknown", "UnknownOutcomeError"),
        ("tasks that failed, ordered anew", "task failed"),
    ):
        yield Row(what, all_of(lambda tally, name=name: tally.counts[name]))  # type: ignore[misc]


def pace(all_of: Sums) -> Iterator[Row]:
    """
    What all that means per second, while all accounts run.
    """
    seconds = max(tally.seconds for tally in all_of.tallies)
    yield Row("virtual hours", seconds / 3600)
    yield Row("edits per second", all_of(edits) / seconds)
    yield Row("requests per second", all_of.requests.total() / seconds)
    busiest = max(tally.requests.total() / tally.seconds for tally in all_of.tallies)
    yield Row("requests per second of the busiest account", busiest)
    yield Row("MB of replies per second", all_of(lambda tally: tally.sent) / seconds / 1e6)
    yield Row("store writes per second", sum(all_of.store[name] for name in WRITES) / seconds)
    yield Row("cores that all workers together keep busy", all_of(lambda tally: tally.cpu - tally.service) / seconds)


def rows(todo: Sequence[Plan], processes: int, kept: Path | None = None) -> Iterator[Row]:
    """
    Do it all, and tell.
    """
    all_of = Sums(tallies(todo, processes, kept))
    yield Row("edits", all_of(edits))
    yield Row("accounts", len(todo))
    yield Row("workers", len({worker for plan in todo for worker in plan.workers}))
    yield Row("workers of an account", len(todo[0].workers))
    for part in (money, traffic, notice, work):
        yield from part(all_of)
    yield Row("workers that died", all_of.deaths)
    yield from deaths(all_of)
    yield from pace(all_of)
    yield Row("CPU minutes", all_of(lambda tally: tally.cpu) / 60)
    yield Row(f"wall minutes in {processes} processes", all_of(lambda tally: tally.wall) / processes / 60)
    yield Row("memory of a process at most", max(tally.memory for tally in all_of.tallies), unit=" MB")


def main() -> int:
    """
    Simulate and print; the exit status is 1 where anything was charged twice, lost or not done.
    """
    parser = ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("--edits", type=int, default=EDITS)
    parser.add_argument("--accounts", type=int, default=ACCOUNTS)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--served", type=int, default=SERVED, help="workers that serve each account")
    parser.add_argument("--faults", type=float, default=RATE, help="share of the requests that go wrong")
    parser.add_argument("--life", type=float, default=LIFE, help="seconds that a worker lives on average")
    parser.add_argument("--processes", type=int, default=len(CORES) or 1)
    parser.add_argument("--kept", type=Path, help="a folder that remembers what a run has done that was stopped")
    given = parser.parse_args()
    todo = plans(given.edits, given.accounts, given.workers, given.served, faults=given.faults, life=given.life)
    return status(printed(rows(todo, given.processes, given.kept)))


if __name__ == "__main__":
    sys.exit(main())
