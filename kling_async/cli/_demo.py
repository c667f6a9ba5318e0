"""
`demo`: the whole way of one edit through all eight calls, over real sockets, against the simulator.

Decides what is shown. The clip is the shipped one, and nothing costs anything.
"""

from collections.abc import Callable
from pathlib import Path

from anyio import to_thread
from attrs import frozen

from kling_async._auth import ApiKey
from kling_async.client import KlingClient
from kling_async.edits import Removal
from kling_async.models import Marked
from kling_async.policy import PollPolicy
from kling_async.selection import SelectionSession
from kling_async.simulator import Simulator

from ._codes import UsageError
from ._ending import fetched, waited
from ._footage import CLIP, CREDIT, FRAME_INDEX, RABBIT, STONES, attribution, check_extra, frame_png, sheet_png
from ._marking import mark, mask_facts, mask_text, opened, preview
from ._service import Underway
from ._show import Show, seconds

_POLL = PollPolicy(first=0.2, factor=1.2, ceiling=0.5)


@frozen
class Folder:
    """
    What the demo leaves behind.
    """

    path: Path
    """Where."""

    @property
    def marked_frame(self) -> Path:
        """
        The frame with its points.
        """
        return self.path / "marked-frame.png"

    @property
    def mask(self) -> Path:
        """
        The same with the mask that they gave.
        """
        return self.path / "mask.png"

    @property
    def preview(self) -> Path:
        """
        The clip with the mask on every frame.
        """
        return self.path / "preview.mp4"

    @property
    def result(self) -> Path:
        """
        The edited clip.
        """
        return self.path / "result.mp4"

    @property
    def sheet(self) -> Path:
        """
        Before, mask and after side by side.
        """
        return self.path / "contact-sheet.png"

    @property
    def attribution(self) -> Path:
        """
        Whose clip it is.
        """
        return self.path / "ATTRIBUTION.txt"

    @property
    def parts(self) -> dict[str, Path]:
        """
        All of them, by what they show.
        """
        return {
            "points": self.marked_frame,
            "mask": self.mask,
            "preview": self.preview,
            "result": self.result,
            "all of it": self.sheet,
            "credit": self.attribution,
        }

    def make(self) -> None:
        """
        Make it, unless it is there.

        Raises:
            UsageError: Something else is there.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file: give --out another folder")
        self.path.mkdir(parents=True, exist_ok=True)


async def demo(path: Path, *, show: Show) -> None:
    """
    Run the demo.

    Args:
        path: The folder; its own files in it are replaced.
        show: The command's voice.

    Raises:
        UsageError: The extra `demo` is missing, or the folder cannot be made.
        KlingError: As the calls of a client; the simulator gives no reason to.
    """
    check_extra()
    folder = Folder(path)
    folder.make()
    show.line("Removing the stones from a clip, with the simulator in place of the service: nothing is paid.")
    show.line(f"The clip: {CREDIT}", "dim")
    show.line()
    with Simulator(eyes=True, task_seconds=0.5) as simulator:
        async with simulator.serve() as base_url:
            url = simulator.publish(CLIP)
            async with KlingClient(ApiKey("demo"), base_url=base_url, poll=_POLL) as client:
                await _edited(client, url, folder, show)
    await _written(folder.attribution, lambda: attribution().encode())
    with show.stage("pictures", "putting before, mask and after side by side") as stage:
        await _written(folder.sheet, lambda: sheet_png(folder.preview, folder.result))
        stage.result = str(folder.sheet)
    _summed_up(folder, show)


async def _edited(client: KlingClient, url: str, folder: Folder, show: Show) -> None:
    async with opened(client, show=show, video_url=url) as selection:
        marked = await _marked(selection, show)
        await _drawn(marked, folder, show)
        await preview(client, selection, folder.preview, force=True, show=show)
        task = await selection.create_task(Removal.of("the stones"))
    underway = Underway()
    task = await waited(client, task, show=show, underway=underway)
    listed = await client.list_tasks()
    show.done("list", f"{len(listed)} task in the account: {listed[0].task_id}")
    await fetched(client, task, folder.result, force=True, show=show, underway=underway)


async def _marked(selection: SelectionSession, show: Show) -> Marked:
    """Mark the stones, and the rabbit by mistake; take that back, and have it all made afresh."""
    await mark(selection, FRAME_INDEX, STONES, show=show, label=f"{len(STONES)} points on the stones")
    await mark(selection, FRAME_INDEX, RABBIT, show=show, label="a point on the rabbit by mistake")
    with show.stage("mask", "taking the misplaced point away") as stage:
        marked = await selection.delete_points(FRAME_INDEX, RABBIT)
        show.event("mask", mask_facts(FRAME_INDEX, marked))
        stage.result = mask_text("that point taken away", marked)
    with show.stage("mask", "clearing the selection and marking it again") as stage:
        await selection.rebuild()
        marked = selection.marked[FRAME_INDEX]
        show.event("mask", mask_facts(FRAME_INDEX, marked))
        stage.result = mask_text("cleared and marked afresh", marked)
    return marked


async def _drawn(marked: Marked, folder: Folder, show: Show) -> None:
    with show.stage("pictures", "drawing the points and the mask") as stage:
        await _written(folder.marked_frame, lambda: frame_png(None, STONES, RABBIT))
        await _written(folder.mask, lambda: frame_png(marked.masks[0], STONES))
        stage.result = f"{folder.marked_frame}, {folder.mask}"


async def _written(path: Path, make: Callable[[], bytes]) -> None:
    """Drawing takes long enough that the live line would stand still."""
    await to_thread.run_sync(lambda: path.write_bytes(make()))


def _summed_up(folder: Folder, show: Show) -> None:
    show.line()
    show.rows([(name, f"{seconds(spent):>9}") for name, spent in show.spent.items()])
    show.line()
    show.rows([(name, str(path)) for name, path in folder.parts.items()])
    named = {name.replace(" ", "_"): path for name, path in folder.parts.items()}
    show.event("files", {"files": named, "seconds": show.spent})
