"""
`batch status`, `batch retry`, `batch cancel`: what is asked of batches without working on them.

Decides what is said of an account with several batches. Needs no credentials; with them, the account's packs are told.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import anyio

from kling_async.errors import InvalidInputError, KlingError

from ._batch_end import Remains
from ._batch_home import Home
from ._batch_plan import counted
from ._batch_watch import facts, units, why
from ._codes import CredentialsError, UsageError
from ._service import Service
from ._show import Show, seconds

if TYPE_CHECKING:
    from kling_async.dbos import BatchStatus, DbosRunner, Kept

PATIENCE: Final = 5.0
"""Seconds that the host may take to tell of its packs."""
SPAN: Final = timedelta(days=365)
"""Of packs that are asked for."""
PACKS: Final = "/account/costs"
"""https://klingai.com/document-api: account information; free, once a second at most."""


async def status(home: Home, name: str | None, *, service: Service, show: Show) -> None:
    """
    Say how far batches are.

    Args:
        home: Where they are kept.
        name: This one alone.
        service: Whose packs are told, where there is a key.
        show: The command's voice.

    Raises:
        UsageError: There is no such batch.
        KlingError: As the calls of a `DbosRunner`.
    """
    async with await _opened(home) as runner:
        names = await runner.batches()
        _check(name, names)
        found = {each: await runner.status(batch=each) for each in names if name in {None, each}}
        for each, one in found.items():
            show.event("batch", {"name": each, **facts(one)})
        whole = await runner.status(batch=name)
        packs = await _packs(service)
        show.event("status", {"database": home.shown, "account": home.account, **facts(whole), "packs": packs})
        show.rows(
            [(what, text) for what, text in _lines(home, names if name is None else (name,), whole, packs) if text]
        )
        if len(found) > 1:
            show.line()
            show.rows([_row(each, one) for each, one in found.items()], _HEAD)
        await Remains(runner=runner, home=home, service=service, show=show).failures(name)


_HEAD: Final = ("batch", "done", "running", "waiting", "failed", "spent")


def _row(name: str, one: "BatchStatus") -> tuple[str, ...]:
    counts = (f"{one.done} of {one.total}", *map(str, (one.running, one.waiting, one.failed)))
    return (name, *counts, units(one))


def _lines(
    home: Home, names: Sequence[str], whole: "BatchStatus", packs: Sequence[Mapping[str, object]] | None
) -> list[tuple[str, str]]:
    failed = ", ".join(f"{count} {state}" for state, count in sorted(whole.states.items()) if state not in _PLAIN)
    left = "" if whole.seconds_left is None or not whole.running + whole.waiting else seconds(whole.seconds_left)
    told = [
        (str(pack.get("resource_pack_name") or "pack"), pack.get("remaining_quantity"), pack.get("total_quantity"))
        for pack in packs or ()
    ]
    return [
        ("batch" if len(names) == 1 else "batches", ", ".join(names)),
        ("kept in", f"{home.shown}, account {home.account}"),
        ("done", f"{whole.done} of {whole.total}"),
        ("running", f"{whole.running}, up to {whole.slots} at once"),
        ("waiting", str(whole.waiting)),
        ("failed", failed or "0"),
        ("spent", units(whole)),
        ("time left", left and f"about {left}"),
        ("paused", why(whole.paused or "")),
        *(("pack", f"{name}: {left} of {total} units left, as of some hours ago") for name, left, total in told),
        ("packs", "not told by this host" if packs is None else ""),
    ]


_PLAIN: Final = frozenset({"waiting", "running", "done"})


async def _opened(home: Home) -> "DbosRunner":
    runner = home.runner()
    if not await runner.exists():
        raise UsageError(f"no batch is kept in {home.shown}")
    return runner


def _check(name: str | None, names: Collection[str]) -> None:
    if name is not None and name not in names:
        raise UsageError(f"--name: no batch is called {name!r}; there are: {', '.join(names) or 'none'}")


async def _packs(service: Service) -> list[dict[str, object]] | None:
    """The account's packs that are in use; None where nobody tells."""
    now = datetime.now(UTC)
    span = {"start_time": _stamp(now - SPAN), "end_time": _stamp(now)}
    data: object = None
    try:
        with anyio.move_on_after(PATIENCE):
            async with service.opening(service.credentials()) as client:
                data = await client.request("GET", PACKS, params=span)
    except (CredentialsError, InvalidInputError, KlingError):
        return None
    listed = data.get("resource_pack_subscribe_infos") if isinstance(data, dict) else None
    if not isinstance(listed, list):
        return None
    return [pack for pack in listed if isinstance(pack, dict) and pack.get("status") == "online"]


def _stamp(when: datetime) -> int:
    return int(when.timestamp() * 1000)


async def retry(keys: Sequence[str], home: Home, name: str | None, *, service: Service, show: Show) -> None:
    """
    Begin jobs once more that came to no result.

    Args:
        keys: Those alone; empty for all of them.
        home: Where they are kept.
        name: Of this batch alone.
        service: Named in the command that goes on.
        show: The command's voice.

    Raises:
        UsageError: There is no such batch, or no such job.
        KlingError: As the calls of a `DbosRunner`.
    """
    async with await _opened(home) as runner:
        kept = await _meant(runner, keys, name)
        count = await runner.retry(keys or None, batch=name)
    show.event("retried", {"jobs": count})
    for key, each in kept.items():
        if each.state in _PLAIN:
            show.line(f"{key} is {each.state}: there is nothing to begin again.")
    show.line(f"{counted(count, 'job')} to be done once more." if count else "There is nothing to begin again.")
    if count:
        run = home.command(service, "run", "MANIFEST")
        show.line(f"They are, as soon as a worker serves, or with:  {run}")


async def cancel(keys: Sequence[str], home: Home, name: str | None, *, show: Show) -> None:
    """
    End jobs that wait.

    Args:
        keys: Those alone; empty for all of them.
        home: Where they are kept.
        name: Of this batch alone.
        show: The command's voice.

    Raises:
        UsageError: There is no such batch, or no such job.
        KlingError: As the calls of a `DbosRunner`.
    """
    async with await _opened(home) as runner:
        kept = await _meant(runner, keys, name)
        count = await runner.cancel(keys or None, batch=name)
        running = (await runner.status(batch=name)).running
    show.event("cancelled", {"jobs": count, "running": running})
    for key, each in kept.items():
        if each.state != "waiting":
            show.line(f"{key} is {each.state}: it cannot be cancelled.")
    show.line(f"{counted(count, 'job')} that waited will not be done." if count else "Nothing waits.")
    if running:
        show.line(f"{running} may be paid already and go on: the service has no way to stop a task.")


async def _meant(runner: "DbosRunner", keys: Sequence[str], name: str | None) -> "dict[str, Kept]":
    """The jobs with these keys."""
    _check(name, await runner.batches())
    if not keys:
        return {}
    kept = await runner.kept(batch=name)
    unknown = [key for key in keys if key not in kept]
    if unknown:
        raise UsageError(f"no job has the key {unknown[0]!r}")
    return {key: kept[key] for key in keys}
