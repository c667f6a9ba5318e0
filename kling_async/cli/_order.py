"""
What `edit` is asked for: its options, and the clip, points and edit that they stand for.

Decides, before any request, whether they make sense together. Knows nothing of what is done with them.
"""

import sys
from pathlib import Path
from typing import Annotated, Literal

from attrs import evolve, frozen
from cyclopts import Parameter

from kling_async._ids import check_external_task_id
from kling_async.edits import Addition, Edit, Removal, Swap
from kling_async.errors import InvalidInputError
from kling_async.models import Marks
from kling_async.pictures import Image
from kling_async.points import Point, spelled_point
from kling_async.policy import RetryPolicy

from ._codes import UsageError
from ._ending import check_target

DOUBT = RetryPolicy().doubt
"""Seconds for which the library looks for the task of a create without an answer."""


@Parameter(name="*")
@frozen(kw_only=True)
class Order:
    """
    What `edit` is asked for, as its options.
    """

    point: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = ()
    """What is meant: FRAME:X,Y with x and y from 0 to 1, (0, 0) at the top left; give it again for more."""
    remove: str | None = None
    """Remove the marked object; say what it is."""
    swap: str | None = None
    """Replace the marked object; say what it is, and give --with and --image."""
    with_: Annotated[str | None, Parameter(name="--with")] = None
    """What comes in the place of --swap."""
    add: str | None = None
    """Add something; say what it is, and give --image."""
    image: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = ()
    """A picture of what comes, a file or a URL; --add takes it several times."""
    prompt: str | None = None
    """Words of your own in place of the provider's template; they name <<<video_1>>> and <<<image_1>>>."""
    mode: Literal["std", "pro"] = "std"
    """`pro` looks better and costs more."""
    duration: Literal[5, 10] | None = None
    """Seconds of the result; by default what the clip's length allows."""
    preview: Path | None = None
    """Save the clip with its mask drawn to this file."""
    out: Path | None = None
    """Where the result goes; by default kling-TASK.mp4 here."""
    force: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    """Replace files that are there."""
    yes: Annotated[bool, Parameter(name=("--yes", "-y"), negative=(), show_default=False)] = False
    """Do not ask before the paid call."""
    key: str | None = None
    """An id of yours for this one paid run (external_task_id): the same command again then pays nothing more."""
    doubt: float = DOUBT
    """Seconds for which the task is looked for when no answer came to the paid call; that is not sent again."""

    @property
    def marks(self) -> Marks:
        """
        The points by frame.

        Raises:
            InvalidInputError: One makes no sense.
        """
        found: dict[int, list[Point]] = {}
        for text in self.point:
            frame_index, point = spelled_point("--point", text)
            found.setdefault(frame_index, []).append(point)
        return Marks(found)

    @property
    def edit(self) -> Edit:
        """
        The edit.

        Raises:
            UsageError: The options do not add up to one.
            InvalidInputError: One makes no sense.
        """
        images = tuple(_image(text) for text in self.image)
        edit: Edit
        match self.remove, self.swap, self.add:
            case str(what), None, None:
                self._check(images=not images, with_=self.with_ is None, text="--remove takes no --with and no --image")
                edit = Removal.of(what, mode=self.mode, duration=self.duration)
            case None, str(old), None:
                self._check(images=len(images) == 1, with_=bool(self.with_), text="--swap needs --with and one --image")
                edit = Swap.of(old, str(self.with_), images[0], mode=self.mode, duration=self.duration)
            case None, None, str(what):
                self._check(images=bool(images), with_=self.with_ is None, text="--add needs --image, and no --with")
                edit = Addition.of(what, *images, mode=self.mode, duration=self.duration)
            case _:
                raise UsageError("say what to do: --remove TEXT, --swap OLD --with NEW --image FILE, or --add TEXT")
        if not isinstance(edit, Addition) and not self.point:
            raise UsageError(f"a {edit.edit_mode} needs --point FRAME:X,Y, such as --point 40:0.80,0.53")
        return edit if self.prompt is None else evolve(edit, prompt=self.prompt)

    @property
    def retry(self) -> RetryPolicy:
        """
        How long a create without an answer is looked for.

        Raises:
            InvalidInputError: It is no number of seconds.
        """
        return RetryPolicy(doubt=self.doubt)

    def _check(self, *, images: bool, with_: bool, text: str) -> None:
        if not (images and with_):
            raise UsageError(text)

    def check(self) -> None:
        """
        Whether everything else makes sense, as far as that can be told from here.

        Raises:
            UsageError: It would ask, and there is nobody to ask.
            InvalidInputError: A file cannot be written, or the key cannot be one.
        """
        check_target("--out", self.out, force=self.force)
        check_target("--preview", self.preview, force=self.force)
        if self.key is not None:
            check_external_task_id(self.key)
        if not self.yes and not (sys.stdin and sys.stdin.isatty()):
            raise UsageError("the paid edit is asked for first, and there is no terminal to ask on: pass --yes")


def _image(text: str) -> Image:
    try:
        return Image.from_url(text) if text.startswith(("http://", "https://")) else Image.from_file(text)
    except InvalidInputError as error:
        named = error.reason.startswith(text)
        raise InvalidInputError("--image", error.reason if named else f"{text} {error.reason}") from error


def source_of(text: str) -> dict[str, str]:
    """
    A source as the keywords of a selection.

    Args:
        text: A URL, or `video_id:` and an id.

    Raises:
        InvalidInputError: It is neither.
    """
    if text.startswith("video_id:"):
        return {"video_id": text.removeprefix("video_id:")}
    if text.startswith(("http://", "https://")):
        return {"video_url": text}
    kind = "is a file on this machine, which the service cannot read" if Path(text).exists() else "is no URL"
    raise InvalidInputError("source", f"{text} {kind}: give a public https URL, or video_id:ID of a result")
