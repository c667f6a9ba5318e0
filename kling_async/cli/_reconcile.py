"""
`tasks reconcile`: what became of the paid creates kept here that are in doubt.

Decides what is said of each. How they are looked for is the library's.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from kling_async._submit import DOUBTFUL
from kling_async.models import Reconciled, Task
from kling_async.policy import RetryPolicy
from kling_async.stores import Intent

from ._codes import Exit
from ._ending import task_facts
from ._order import DOUBT
from ._service import Service
from ._show import Show
from ._tasks import INTENTS_MOST, moment

VERDICTS = ("found", "absent", "unknown", "underway")
"""What may be said of a create, for programs."""


async def reconcile(doubt: float, *, service: Service, show: Show) -> Exit:
    """
    Settle the creates in doubt at one host.

    Args:
        doubt: Seconds for which each is looked for.
        service: Which host, and whose options name the folder.
        show: The command's voice.

    Raises:
        InvalidInputError: That is no number of seconds.
        KlingError: As `KlingClient.reconcile`.
    """
    client, store = service.client(retry=RetryPolicy(doubt=doubt))
    found, kept = Reconciled(), dict[str, Intent]()
    async with client:
        for intent in await store.recent(INTENTS_MOST, states=DOUBTFUL):
            if intent.base_url == client.base_url:
                kept[intent.external_task_id] = intent
        if kept:
            count = "1 paid create" if len(kept) == 1 else f"{len(kept)} paid creates"
            with show.stage("reconcile", f"looking for {count}, for {doubt:g} s at most each") as stage:
                found = await client.reconcile()
                stage.result = f"{count} looked for"
    return _told(found, kept, service, show)


def _told(found: Reconciled, kept: Mapping[str, Intent], service: Service, show: Show) -> Exit:
    tasks = {str(task.external_task_id): task for task in found.adopted}
    # The library says nothing of those that another command owns.
    verdicts = dict.fromkeys(kept, "underway") | dict.fromkeys(tasks, "found")
    verdicts |= dict.fromkeys(found.absent, "absent") | dict.fromkeys(found.unknown, "unknown")
    rows = []
    for name, verdict in verdicts.items():
        # One may have come to be in doubt since they were counted.
        intent, task = kept.get(name), tasks.get(name)
        sent = (intent.sent_at or intent.first_sent_at) if intent else None
        facts = {"task_id": None} if task is None else task_facts(task)
        show.event("reconciled", {**facts, "external_task_id": name, "verdict": verdict, "sent_at": sent})
        rows.append((name, moment(sent), _said(verdict, sent, task)))
    code = Exit.FAILED if found.unknown else Exit.DONE
    counts = {verdict: list(verdicts.values()).count(verdict) for verdict in VERDICTS}
    show.event("done", {**counts, "exit_code": code})
    if rows:
        show.rows(rows, ("external id", "sent", "verdict"))
    else:
        show.line(f"no paid create at {service.host} is in doubt")
    _advised(found, service, show)
    return code


def _said(verdict: str, sent: datetime | None, task: Task | None) -> str:
    if task is not None:
        return f"found: task {task.task_id}, {task.status}"
    if verdict == "absent" and (sent is None or datetime.now(UTC) - sent < timedelta(seconds=DOUBT)):
        # With a small --doubt the host's index may lag behind still.
        return "not there so far: most likely nothing was paid"
    said = {"absent": "not there: nothing was paid", "unknown": "still unknown"}
    return said.get(verdict, "another command is at it")


def _advised(found: Reconciled, service: Service, show: Show) -> None:
    if found.adopted:
        word = "Wait for it" if len(found.adopted) == 1 else "Wait for each, such as"
        show.line(f"{word}:  {service.command('tasks', 'wait', found.adopted[0].task_id)}")
    if found.absent:
        show.line("To pay for what is not there, run its edit again under another --key.")
    if found.unknown:
        show.advice("What is still unknown may be charged: before you pay again, look in the provider's console.")
