"""
`edit`: one clip from its points to the file, asked for before it is paid.

Everything that can be wrong with the arguments is said before the first request, and nothing is paid
without a yes.
"""

from collections.abc import Callable

from attrs import frozen

from kling_async._submit import clip_digest
from kling_async.client import KlingClient
from kling_async.costs import estimate_units
from kling_async.edits import Edit
from kling_async.errors import (
    DeclinedError,
    KlingError,
    UnknownOutcomeError,
)
from kling_async.models import SelectionInfo, Task
from kling_async.selection import SelectionSession

from ._ending import fetched, waited
from ._marking import mark, opened, preview
from ._order import Order, source_of
from ._service import Service, Store, Underway
from ._show import Show, Stage

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
    client, store = service.client(retry=order.retry)
    payment = Payment(client, store, order, wish, show, underway)
    store.told = payment.told
    async with client:
        task = None if order.key is None else await payment.known(order.key, *clip.values())
        if task is None:
            async with opened(client, show=show, **clip) as selection:
                for frame_index, points in marks.items():
                    await mark(selection, frame_index, points, show=show)
                if marks:
                    await preview(client, selection, order.preview, force=order.force, show=show)
                await payment.agreed(selection.info)
                task = await payment.created(selection)
        underway.seen(task)
        task = await waited(client, task, show=show, underway=underway)
        await fetched(client, task, order.out, force=order.force, show=show, underway=underway)


@frozen
class Payment:
    """
    The one step of an edit that costs money, and all that is said of it.
    """

    client: KlingClient
    """An open client."""
    store: Store
    """Its store."""
    order: Order
    """What was asked for."""
    wish: Edit
    """The edit of that."""
    show: Show
    """The command's voice."""
    underway: Underway
    """What the command leaves running."""

    def told(self, external_task_id: str) -> None:
        """
        A create is about to be sent.
        """
        self.underway.creating(external_task_id)
        self.show.event("create", {"external_task_id": external_task_id})

    def _doubted(self, stage: Stage) -> Callable[[str], None]:
        """What a store is to tell of a create in doubt, for to find that takes a while."""

        def doubted(external_task_id: str) -> None:
            self.underway.creating(external_task_id)
            looking = f"looking for its task for {self.order.doubt:g} s at most"
            self.show.event("doubt", {"external_task_id": external_task_id, "seconds": self.order.doubt})
            stage.say(looking)
            self.show.warning(f"no usable answer came to the paid create {external_task_id}: {looking}")

        return doubted

    async def known(self, key: str, source: str) -> Task | None:
        """
        The task that the key already stands for, looked up before anything is opened for it.

        Args:
            key: The key.
            source: The clip's URL or id.

        Raises:
            KlingError: As `SelectionSession.create_task`.
        """
        with self.show.stage("key", f"looking for what {key} stands for") as stage:
            self.store.doubted = self._doubted(stage)
            task = await self.client.creates.known(key, clip_digest(source, self.order.marks, self.wish))
            if task is None:
                self.underway.refused()
                stage.result = f"{key} stands for no task yet"
            else:
                stage.result = f"{key} already stands for task {task.task_id}: nothing is paid again"
        return task

    async def agreed(self, info: SelectionInfo | None) -> None:
        """
        Ask, unless that was answered beforehand.

        Args:
            info: The clip.

        Raises:
            DeclinedError: The answer was no.
        """
        self.show.done("prompt", self.wish.prompt)
        self.show.done("cost", f"{price(self.wish, info)}: a {self.wish.edit_mode}, mode {self.wish.mode}")
        if not self.order.yes and not await self.show.agreed(QUESTION):
            raise DeclinedError("you said no, so nothing is paid")

    async def created(self, selection: SelectionSession) -> Task:
        """
        Pay. Without a key the library draws the id, for one that is given is looked for at the service first.

        Args:
            selection: An open selection.

        Raises:
            KlingError: As `SelectionSession.create_task`.
        """
        with self.show.stage("create", "the paid call") as stage:
            self.store.doubted = self._doubted(stage)
            try:
                task = await selection.create_task(self.wish, external_task_id=self.order.key)
            except UnknownOutcomeError:
                raise
            except KlingError:
                self.underway.refused()
                raise
            self.underway.seen(task)
            stage.result = f"task {task.task_id}, external id {task.external_task_id}"
        return task


def price(wish: Edit, info: SelectionInfo | None) -> str:
    """
    What an edit will cost, as far as that is published; what it did cost is told at the end.

    Args:
        wish: The edit.
        info: Its clip.
    """
    seconds = info.duration if info else None
    units = estimate_units(wish, clip_seconds=seconds if seconds and seconds > 0 else None)
    return "see your provider" if units is None else f"about {units} units (published price)"
