"""
`tasks show`, `list`, `wait`, `download`: paid creates looked at again, by either of their ids.

An id is looked up among the creates kept here first, since not every host finds tasks by external ids.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from attrs import frozen

from kling_async._submit import SENDABLE
from kling_async.client import KlingClient
from kling_async.errors import NotFoundError, UnsupportedError
from kling_async.models import Task
from kling_async.stores import Intent, SqliteStore

from ._codes import UsageError
from ._ending import check_target, cost, fetched, task_facts, waited
from ._service import Service, Underway
from ._show import Show

INTENTS_MOST = 500_000
"""As many as a list of tasks can hold: 1,000 pages of 500."""


async def find(client: KlingClient, store: SqliteStore, name: str, *, service: Service) -> Task:
    """
    A task by its id, or by the external id of its create.

    Args:
        client: An open client.
        store: Its store.
        name: Either id.
        service: Whom the client speaks to.

    Raises:
        NotFoundError: There is none; what is kept here of its create is in the error's notes.
        KlingError: As `KlingClient.get_task`.
    """
    intent = await store.get(name)
    if intent is not None and intent.task_id is not None:
        return (await client.get_task(intent.task_id)).named(name)
    if intent is None:
        return await client.get_task(name)
    try:
        return await client.get_task(external_task_id=name)
    except NotFoundError as error:
        error.add_note(_doubt(intent, service))
        raise


def _doubt(intent: Intent, service: Service) -> str:
    if intent.first_sent_at is None or intent.state in SENDABLE:
        return f"Nothing was created: the create {intent.external_task_id} never got through."
    sent, look = moment(intent.first_sent_at), service.command("tasks", "reconcile")
    return f"Its create was sent on {sent}, and no answer came. Look for it in every way:  {look}"


async def show_task(task_id: str | None, external: str | None, *, service: Service, show: Show) -> None:
    """
    Show one task.

    Args:
        task_id: The service's id.
        external: Instead, the external id of its create.
        service: Where it runs.
        show: The command's voice.

    Raises:
        UsageError: Not exactly one id is given.
        KlingError: As `find`.
    """
    if (task_id is None) == (external is None):
        raise UsageError("give a task id, or --external with the id of its create")
    client, store = service.client()
    async with client:
        task = await (client.get_task(task_id) if external is None else find(client, store, external, service=service))
    show.event("task", task_facts(task))
    show.rows(_described(task))


def _described(task: Task) -> list[tuple[str, str]]:
    rows = [
        ("task", task.task_id),
        ("status", f"{task.status}: {task.status_message}" if task.status_message else task.status),
        ("external", task.external_task_id),
        ("created", moment(task.created_at)),
        ("updated", moment(task.updated_at)),
        ("cost", cost(task).removeprefix("cost ") if task.done else ""),
    ]
    for video in task.videos:
        length = f"{video.duration:g} s" if video.duration else ""
        rows += [
            ("video id", video.video_id),
            ("length", length),
            ("video", video.url),
            ("watermarked", video.watermark_url),
        ]
    return [(name, value) for name, value in rows if value]


def moment(when: datetime | None) -> str:
    """
    A time as people here read it; empty for none.

    Args:
        when: It, in any zone.
    """
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S") if when else ""


@frozen(kw_only=True)
class Listing:
    """
    Which tasks are to be listed.
    """

    page: int = 1
    """From 1."""
    page_size: int = 30
    """How many to a page."""
    every: bool = False
    """All pages."""
    status: tuple[str, ...] = ()
    """Only those with one of these, of all pages; empty for any."""

    @property
    def whole(self) -> bool:
        """
        Whether there is more to go through than a page.
        """
        return self.every or bool(self.status)

    def check(self) -> None:
        """
        Whether it makes sense.

        Raises:
            UsageError: A page is wanted of what is not paged.
        """
        if self.whole and self.page != 1:
            raise UsageError("--all and --status go through all pages: leave --page out")


async def list_tasks(listing: Listing, *, service: Service, show: Show) -> None:
    """
    Show the account's tasks; where the host has no list, the paid creates kept here.

    Args:
        listing: Which of them.
        service: Whose.
        show: The command's voice.

    Raises:
        UsageError: A page is wanted of what is not paged, or a status where none is known.
        KlingError: As `KlingClient.list_tasks`.
    """
    listing.check()
    client, store = service.client()
    async with client:
        try:
            tasks = await _listed(client, listing)
        except UnsupportedError as error:
            if listing.status:
                raise UsageError(f"{service.host} documents no list of tasks, so that --status is not known") from error
            kept = [intent for intent in await store.recent(INTENTS_MOST) if intent.base_url == client.base_url]
            if not listing.every:
                kept = kept[(listing.page - 1) * listing.page_size :][: listing.page_size]
            place = service.store_path
            show.warning(f"{service.host} documents no list of tasks; these are the paid creates kept in {place}")
            _list_intents(kept, show)
            return
    for task in tasks:
        show.event("task", task_facts(task))
    _put(("task", "status", "created", "units", "video id", "external id"), [_row(task) for task in tasks], show)


async def _listed(client: KlingClient, listing: Listing) -> list[Task]:
    if not listing.whole:
        return list(await client.list_tasks(listing.page, listing.page_size))
    return [task async for task in client.iter_tasks() if not listing.status or task.status in listing.status]


def _row(task: Task) -> tuple[str, ...]:
    videos = " ".join(video.video_id for video in task.videos if video.video_id)
    units = "" if task.units is None else f"{task.units}"
    return task.task_id, task.status, moment(task.created_at), units, videos, task.external_task_id or ""


def _list_intents(intents: list[Intent], show: Show) -> None:
    for intent in intents:
        facts = {
            "external_task_id": intent.external_task_id,
            "task_id": intent.task_id,
            "state": intent.state,
            "created_at": intent.created_at,
            "first_sent_at": intent.first_sent_at,
            "base_url": intent.base_url,
        }
        show.event("intent", facts)
    rows = [(kept.task_id or "", kept.state, moment(kept.created_at), kept.external_task_id) for kept in intents]
    _put(("task", "create", "meant", "external id"), rows, show)


def _put(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], show: Show) -> None:
    if rows:
        show.rows(rows, head)
    else:
        show.line("none")


async def wait(name: str, out: Path | None, *, force: bool, service: Service, show: Show, underway: Underway) -> None:
    """
    Wait for a task's end, and fetch its result where a file is named.

    Args:
        name: Either of its ids.
        out: Where the result goes; None for nowhere.
        force: Whether a file that is there may be replaced.
        service: Where it runs.
        show: The command's voice.
        underway: What the command leaves running.

    Raises:
        TaskFailedError: It failed.
        KlingError: As `find`, `KlingClient.wait` and `KlingClient.download`.
    """
    check_target("--out", out, force=force)
    underway.out, underway.force = out, force
    client, store = service.client()
    async with client:
        task = await find(client, store, name, service=service)
        underway.seen(task)
        task = await waited(client, task, show=show, underway=underway)
        if out is None:
            underway.task = None
            show.event("done", {**task_facts(task), "path": None})
            show.line(f"its result is kept for 30 days: {task.video.url}")
        else:
            await fetched(client, task, out, force=force, show=show, underway=underway)


async def download(
    name: str, out: Path | None, *, force: bool, service: Service, show: Show, underway: Underway
) -> None:
    """
    Fetch the result of a task that has ended.

    Args:
        name: Either of its ids.
        out: Where the result goes; None names it after the task.
        force: Whether a file that is there may be replaced.
        service: Where it ran.
        show: The command's voice.
        underway: What the command leaves running.

    Raises:
        UsageError: It still runs.
        TaskFailedError: It failed.
        KlingError: As `find` and `KlingClient.download`.
    """
    check_target("--out", out, force=force)
    underway.out, underway.force = out, force
    client, store = service.client()
    async with client:
        task = await find(client, store, name, service=service)
        underway.seen(task)
        if not task.done:
            raise UsageError(f"task {task.task_id} is still {task.status}")
        await fetched(client, task, out, force=force, show=show, underway=underway)
