"""
`edit`: one clip from its points to the file, asked for before it is paid.

Everything that can be wrong with the arguments is said before the first request, and nothing is paid
without a yes.
"""

from collections.abc import Mapping

from kling_async._submit import clip_digest
from kling_async.client import KlingClient
from kling_async.edits import Edit
from kling_async.errors import (
    DeclinedError,
    KlingError,
    UnknownOutcomeError,
)
from kling_async.models import Marks, Task
from kling_async.selection import SelectionSession

from ._ending import fetched, waited
from ._marking import mark, opened, preview
from ._order import Order, source_of
from ._service import Service, Underway
from ._show import Show

QUESTION = "Create the paid edit?"


async def edit(source: str, order: Order, *, service: Service, show: Show, underway: Underway) -> None:
    """
    Edit a clip.

    Args:
        source: A URL, or `video_id:` and an id.
        order: What to do.
        service: Where.
        show: The command's voice.
        underway: What the command leaves running.

    Raises:
        UsageError: The options do not add up.
        DeclinedError: The answer was no.
        KlingError: As the calls of a `SelectionSession`, `KlingClient.wait` and `KlingClient.download`.
    """
    clip, marks, wish = source_of(source), order.marks, order.edit
    order.check()
    underway.out, underway.force = order.out, order.force
    client, store = service.client()

    def told(external_task_id: str) -> None:
        underway.creating(external_task_id)
        show.event("create", {"external_task_id": external_task_id})

    store.told = told
    async with client:
        task = await _known(client, order, clip, wish)
        if task is not None:
            show.line(f"{order.key} already stands for task {task.task_id}: nothing is paid again")
        else:
            async with opened(client, show=show, **clip) as selection:
                for frame_index, points in marks.items():
                    await mark(selection, frame_index, points, show=show)
                if marks:
                    await preview(client, selection, order.preview, force=order.force, show=show)
                await _agreed(order, wish, show)
                task = await _created(selection, wish, order.key, underway)
        underway.seen(task)
        task = await waited(client, task, show=show, underway=underway)
        await fetched(client, task, order.out, force=order.force, show=show, underway=underway)


async def _known(client: KlingClient, order: Order, clip: Mapping[str, str], wish: Edit) -> Task | None:
    """The task that the key already stands for, looked up before anything is opened for it."""
    if order.key is None:
        return None
    [source] = clip.values()
    return await client.creates.known(order.key, clip_digest(source, Marks(order.marks), wish))


async def _agreed(order: Order, wish: Edit, show: Show) -> None:
    """Nobody has documented a price that could be told before; what it cost is told at the end."""
    show.done("prompt", wish.prompt)
    show.done("cost", f"see your provider: a {wish.edit_mode}, mode {wish.mode}")
    if not order.yes and not await show.agreed(QUESTION):
        raise DeclinedError("you said no, so nothing is paid")


async def _created(selection: SelectionSession, wish: Edit, key: str | None, underway: Underway) -> Task:
    """Without a key the library draws the id, for one that is given is looked for at the service first."""
    try:
        return await selection.create_task(wish, external_task_id=key)
    except UnknownOutcomeError:
        raise
    except KlingError:
        underway.refused()
        raise
