"""
`batch`: many edits from a file, each paid once, gone on with after any end; asked about, begun again, and cancelled.

Decides in which order things are checked, kept, done and said. Nothing is kept before the whole manifest is right.
"""

from contextlib import suppress
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import anyio
from anyio.to_thread import run_sync
from attrs import frozen

from kling_async._endpoints import host
from kling_async.errors import InvalidInputError, KlingError, ManifestError
from kling_async.manifest import read_manifest

from ._batch_end import Remains
from ._batch_home import Home, Opener
from ._batch_plan import Plan, counted, faulty
from ._batch_watch import BatchStage, BatchUnderway, Paused, Watch, facts, figures, why
from ._codes import Exit, UsageError
from ._service import Service
from ._show import Show

if TYPE_CHECKING:
    from kling_async.dbos import BatchStatus, DbosRunner, Kept

DONE: Final[tuple[Literal["done"]]] = ("done",)
GRACE: Final = 5.0
"""Seconds that the last look may hold up an interruption."""


@frozen(kw_only=True)
class Order:
    """
    What `batch run` is asked for.
    """

    manifest: Path
    """Its file."""
    home: Home
    """Where it is kept."""
    service: Service
    """Who does it."""
    name: str | None
    """What the batch is called; None is the manifest's name without its ending."""
    slots: str | None
    """As it is spelled."""
    budget: str | None
    """As it is spelled."""

    @property
    def batch(self) -> str:
        """
        What the batch is called.
        """
        return self.name or self.manifest.stem

    @property
    def again(self) -> str:
        """
        The command that goes on; what was said of slots and budget is kept.
        """
        named = [] if self.name is None else ["--name", self.name]
        return self.home.command(self.service, "run", str(self.manifest), *named)


def read_slots(text: str | None) -> int | Literal["learned"] | None:
    """
    How many tasks may run at once.

    Args:
        text: A number or `learned`; None leaves it as it is.

    Raises:
        InvalidInputError: It is neither.
    """
    if text is None:
        return None
    if text == "learned":
        return "learned"
    if not text.isdecimal() or not text.isascii() or int(text) < 1:
        raise InvalidInputError("slots", f"must be a whole number from 1, or learned, not {text!r}")
    return int(text)


def read_budget(text: str) -> Decimal | None:
    """
    Units that a batch may cost.

    Args:
        text: A number, or `none` for no bound.

    Raises:
        InvalidInputError: It is neither.
    """
    if text == "none":
        return None
    try:
        units = Decimal(text)
    except InvalidOperation:
        units = Decimal(-1)
    if not units.is_finite() or units < 0:
        raise InvalidInputError("budget", f"must be a number of units from 0, or none, not {text!r}")
    return units


def opener(service: Service) -> Opener:
    """
    What makes a worker's client; whether there is a key and an address is checked now.

    Args:
        service: Whom it speaks to.

    Raises:
        CredentialsError: There is no usable key.
        InvalidInputError: The base URL makes no sense.
    """
    credentials = service.credentials()
    service.opening(credentials)
    return lambda store: service.opening(credentials, store=store)


async def run_batch(order: Order, *, dry: bool, show: Show, underway: BatchUnderway) -> Exit:
    """
    Do all that a manifest asks for, or say what that would be.

    Args:
        order: What was asked for.
        dry: Whether it is only said.
        show: The command's voice.
        underway: What the command leaves running.

    Raises:
        UsageError: The options do not add up.
        KlingError: As the calls of a `DbosRunner`.
    """
    slots, budget = read_slots(order.slots), None if order.budget is None else read_budget(order.budget)
    order.home.folder  # noqa: B018 - whether there is one
    underway.again = order.again
    client = None if dry else opener(order.service)
    try:
        with show.stage("manifest", f"checking {order.manifest}") as stage:
            plan = await _planned(order)
            stage.result = plan.told
    except ManifestError as error:
        return faulty(error.path, error.faults, show)
    show.event("plan", plan.facts)
    if dry:
        show.rows(plan.lines)
        show.line("\nNothing was sent, and nothing was kept.")
        return Exit.DONE
    runner = order.home.runner(slots=slots, client=client)
    async with runner:
        if order.budget is not None:
            await runner.set_budget(budget, batch=order.batch)
        return await _Run(order=order, plan=plan, runner=runner, show=show, underway=underway).whole()


async def _planned(order: Order) -> Plan:
    manifest = await run_sync(partial(read_manifest, order.manifest, local=_local(order.service)))
    plan = Plan(manifest=manifest, batch=order.batch, kept=await _kept(order.home.runner()))
    faults = await run_sync(lambda: tuple(plan.faults()))
    if faults:
        raise ManifestError(str(order.manifest), faults)
    if (other := plan.other) is not None:
        raise UsageError(f"its rows belong to the batch {other!r} already: give --name {other} to go on with that")
    return plan


def _local(service: Service) -> bool:
    """Whether clips of this machine are fine, as with the simulator."""
    address = service.address
    try:
        return bool(address.url) and host(address.url).local
    except InvalidInputError as error:
        raise InvalidInputError(address.origin, error.reason) from error


async def _kept(runner: "DbosRunner") -> "dict[str, Kept]":
    if not await runner.exists():
        return {}
    async with runner:
        return await runner.kept()


@frozen(kw_only=True)
class _Run:
    """
    A batch from its plan to its end.
    """

    order: Order
    plan: Plan
    runner: "DbosRunner"
    show: Show
    underway: BatchUnderway

    @property
    def remains(self) -> Remains:
        """
        What is left of it.
        """
        order = self.order
        return Remains(runner=self.runner, home=order.home, service=order.service, show=self.show)

    async def whole(self) -> Exit:
        """
        Keep it, do it, and say what came of it.

        Raises:
            KlingError: As the calls of a `DbosRunner`.
        """
        before = await self._submitted()
        try:
            status = await self._worked(before)
        except Paused as paused:
            return self._paused(paused)
        return await self._ended(before.done, status)

    async def _submitted(self) -> "BatchStatus":
        """A key that is there already stays as it is, and what nothing was paid for goes on."""
        order, runner = self.order, self.runner
        jobs = [(row.job, row.output) for row in self.plan.manifest.rows]
        with self.show.stage("batch", f"keeping {counted(len(jobs), 'job')} in {order.home.shown}") as stage:
            new = await runner.submit_many(jobs, batch=order.batch)
            again = await runner.resume(batch=order.batch)
            self.underway.status = status = await runner.status(batch=order.batch)
            known = len(jobs) - new
            already = f", {known:,} kept already" if known else ""
            stage.result = f"{order.batch}: {counted(new, 'new job')}{already}, in {order.home.shown}"
        told = {"name": order.batch, "database": order.home.shown, "new": new, "known": known, "again": again}
        self.show.event("batch", {**told, **facts(status)})
        for name, count in self.plan.elsewhere.items():
            self.show.warning(f"of the batch {name} already, and counted there alone: {counted(count, 'row')}")
        if dropped := self.plan.dropped:
            take = order.home.command(order.service, "cancel", *dropped)
            what = f"{counted(len(dropped), 'job')} will be done though the manifest no longer says so"
            self.show.warning(f"{what}; to take that back:  {take}")
        return status

    async def _worked(self, status: "BatchStatus") -> "BatchStatus":
        runner, batch, stage = self.runner, self.order.batch, BatchStage("edits", "beginning")
        watch = Watch(runner=runner, batch=batch, show=self.show, stage=stage, underway=self.underway)
        try:
            with self.show.following(stage):
                if status.running + status.waiting:
                    await watch.begin()
                    async with runner.working():
                        status = await watch.until_ended()
                stage.result = figures(status)
        except BaseException:
            await self._left()
            raise
        return status

    async def _left(self) -> None:
        """How far it is, whatever ended it."""
        with anyio.move_on_after(GRACE, shield=True), suppress(KlingError, OSError):
            self.underway.status = await self.runner.status(batch=self.order.batch)
            await self.runner.write_index(batch=self.order.batch)

    def _paused(self, paused: Paused) -> Exit:
        code = Exit.CREDENTIALS if paused.refused else Exit.FAILED
        self.show.event("paused", {"reason": paused.reason, "exit_code": code, **self.underway.facts})
        self.show.error(f"the batch is paused, for {why(paused.reason)}")
        self.show.advice(self.underway.lines[0])
        self.show.advice(f"Once that is mended, go on:  {self.order.again}")
        return code

    async def _ended(self, before: int, status: "BatchStatus") -> Exit:
        order, runner, remains = self.order, self.runner, self.remains
        index = await runner.write_index(batch=order.batch)
        done = await runner.results(batch=order.batch, states=DONE)
        self.show.done("index", str(index))
        sheet = await remains.sheet(order.home.folder, done, new=status.done > before)
        await remains.missing(order.home.folder, done)
        keys = {str(row.job.key) for row in self.plan.manifest.rows}
        failed = await remains.failures(order.batch, again=order.again, keys=keys)
        code = Exit.FAILED if failed else Exit.DONE
        self.show.event("end", {**facts(status), "index": index, "sheet": sheet, "exit_code": code})
        return code


async def work(home: Home, slots: str | None, *, service: Service, show: Show, underway: BatchUnderway) -> None:
    """
    Work for an account until stopped.

    Args:
        home: Where its jobs are kept, and results go.
        slots: As it is spelled.
        service: Whom it speaks to.
        show: The command's voice.
        underway: What the command leaves running.

    Raises:
        UsageError: The options do not add up.
        KlingError: As `DbosRunner.working`.
    """
    folder, client = home.folder, opener(service)
    runner = home.runner(slots=read_slots(slots), client=client)
    # Asked for its own sake: what is misspelt is said at once.
    await runner.exists()
    async with runner:
        show.event("working", {"database": home.shown, "account": home.account, "out": folder})
        show.line(f"Working for the account {home.account} in {home.shown} until Ctrl-C; results go to {folder}.")
        stage = BatchStage("edits", "beginning")
        with show.following(stage):
            async with runner.working():
                await Watch(runner=runner, batch=None, show=show, stage=stage, underway=underway).for_ever()
