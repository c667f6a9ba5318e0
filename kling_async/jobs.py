"""
Jobs: one edit to do with its clip and marks, and how it came out.
"""

import hashlib
from typing import TypeAlias

from attrs import field, frozen

from ._ids import check_id, external_id
from ._ledger import FRAMES_MOST, check_points
from ._urls import check_url, shown_url
from .edits import Addition, Removal, Swap
from .errors import InvalidInputError, KlingError
from .models import Marks, Task

__all__ = ("Edited", "Failed", "Job", "Outcome")


@frozen
class Job:
    """
    One edit of one clip. Exactly one of `video_url` and `video_id` is given.

    A `key` names one paid run in the whole account, for ever: the id of its task is derived from it alone, and
    whoever runs the same key again gets the task that is there, and pays nothing. Another try is another key.

    Example:
        >>> job = Job("https://example.com/clip.mp4", marks={40: [(0.8, 0.53)]}, edit=Removal.of("the stones"), key="a")
        >>> job.external_task_id
        'ka1-zklycewkdo64v6wcggzzui64jwtyn37y'

    Raises:
        InvalidInputError: Not exactly one source is given, a limit is broken, or a swap or removal marks nothing.
    """

    video_url: str | None = field(default=None, repr=shown_url)
    """A public URL of the clip."""
    video_id: str | None = field(default=None, kw_only=True)
    """Instead, a result of the same account."""
    marks: Marks = field(kw_only=True, converter=Marks)
    """Points by frame index."""
    edit: Addition | Swap | Removal = field(kw_only=True)
    """What to do."""
    key: str | None = field(default=None, kw_only=True)
    """Any text that names this paid run; None draws a new run each time."""

    def __attrs_post_init__(self) -> None:
        if (not self.video_url) == (not self.video_id):
            raise InvalidInputError("video_url and video_id", "give exactly one of them")
        if self.video_url:
            check_url("video_url", self.video_url, local=True)
        else:
            check_id("video_id", self.video_id)
        given: object = self.edit
        if not isinstance(given, Addition | Swap | Removal):
            raise InvalidInputError("edit", f"must be an Addition, a Swap or a Removal, not {type(given).__name__}")
        if len(self.marks) > FRAMES_MOST:
            raise InvalidInputError("marks", f"holds {len(self.marks)} frames, more than {FRAMES_MOST}")
        for points in self.marks.values():
            check_points(points)
        if not self.marks and not isinstance(given, Addition):
            raise InvalidInputError("marks", f"is empty, and a {self.edit.edit_mode} needs marked points")
        key: object = self.key
        if key is not None and (not isinstance(key, str) or not key.strip()):
            raise InvalidInputError("key", "must be text that is not empty, or None")

    @property
    def external_task_id(self) -> str | None:
        """
        The id of its task, derived from the key alone; None without a key.
        """
        if self.key is None:
            return None
        return external_id(hashlib.sha256(self.key.encode(errors="surrogatepass")).digest())

    @property
    def source(self) -> str:
        """
        The clip, without the query of a signed link.
        """
        return (self.video_url or self.video_id or "").partition("?")[0]


@frozen
class Edited:
    """
    A job that succeeded.
    """

    job: Job
    """The job."""
    task: Task
    """Its task at the end, with its video."""


@frozen
class Failed:
    """
    A job that did not.
    """

    job: Job
    """The job."""
    error: KlingError
    """Why."""


Outcome: TypeAlias = Edited | Failed
"""How a job came out."""
