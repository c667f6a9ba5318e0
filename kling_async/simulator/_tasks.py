"""
Tasks: what create makes, how it moves from submitted to its end, and what it costs.

Decides a task's state from the time that has passed; where the sight is heavy, its clip must be rendered as well.
A slot is held from create to the end. Whether a task is known by its external id, when, and twice, is the shape's.
Source: https://klingai.com/document-api/api/video/multi-elements.md
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice

from attrs import define, field

from kling_async.models import FAILED, PROCESSING, SUBMITTED, SUCCEED

from ._answers import RefusalError, View
from ._faults import Fault
from ._rules import LONG, SHORT, Creation
from ._scenes import Film, Order
from ._selections import Session
from ._shape import Shape
from ._shelf import KEPT, File, contents
from ._world import World

UNREADABLE = "The simulator could not render this task"
CLOSED = "The simulator was closed before this task was rendered"

Render = Callable[[Callable[[], Film]], "Future[Film]"]
"""How rendering is begun: at once, or in a thread."""


def at_once(work: Callable[[], Film]) -> "Future[Film]":
    """
    Render here and now.
    """
    done: Future[Film] = Future()
    done.set_result(work())
    return done


@define(kw_only=True, eq=False)
class Run:
    """
    A task that was accepted.
    """

    task_id: str
    """Its id."""
    video_id: str
    """The id that its result will have."""
    creation: Creation
    """What was asked for."""
    created_at: float
    """On the simulator's clock."""
    seconds: float
    """How long it runs at least."""
    film: "Future[Film] | None"
    """What it makes; None where it is to fail."""
    reason: str | None
    """Why it failed, or will."""
    ended_at: float | None = None
    """When it ended; None while it runs."""
    late: bool = False
    """Whether its time was over before its clip was there."""

    @property
    def due(self) -> float:
        """
        When its time is over.
        """
        return self.created_at + self.seconds

    @property
    def charged_to(self) -> str:
        """
        The name under which it is charged.
        """
        return self.creation.external_task_id or self.task_id

    def settle(self, now: float) -> bool:
        """
        End it, its time being over, if its clip is there; whether it ended.
        """
        if self.film is not None and not self.film.done():
            self.late = True
            return False
        self.ended_at = now if self.late else self.due
        if self.film is not None:
            self.reason = _trouble(self.film)
        return True

    def status(self, now: float) -> str:
        """
        Submitted for the first half of its time.
        """
        if self.ended_at is not None:
            return FAILED if self.reason is not None else SUCCEED
        fresh = now <= self.created_at or now < self.created_at + self.seconds / 2
        return SUBMITTED if fresh else PROCESSING

    def moved_at(self, now: float) -> float:
        """
        When its status last changed.
        """
        if self.ended_at is not None:
            return self.ended_at
        return self.created_at if self.status(now) == SUBMITTED else self.created_at + self.seconds / 2


def _trouble(film: "Future[Film]") -> str | None:
    """
    What came in the way of a film, if anything; the words of the API are told as they are.
    """
    if film.cancelled():
        return CLOSED
    error = film.exception()
    if error is None:
        return None
    return str(error) if isinstance(error, RefusalError) else f"{UNREADABLE}: {error}"


@define(kw_only=True)
class Tasks:
    """
    All tasks of the account.
    """

    world: World
    """Ids, files, sight."""
    quota: int
    """How many may run at once."""
    seconds: float
    """How long each runs."""
    render: Render
    """How rendering is begun."""
    most: int = field(init=False, default=0)
    """How many ever ran at once."""
    charges: dict[str, int] = field(init=False, factory=dict)
    """How often each id was charged; a failed task is charged back."""
    _all: dict[str, Run] = field(init=False, factory=dict)
    _external: dict[str, list[Run]] = field(init=False, factory=dict)
    _running: deque[Run] = field(init=False, factory=deque)

    def running(self, now: float) -> int:
        """
        End what is due, and count what runs on.
        """
        late: list[Run] = []
        # All tasks run equally long, so the first that is not due ends the search.
        while self._running and self._running[0].due <= now:
            run = self._running.popleft()
            if run.settle(now):
                self._end(run)
            else:
                late.append(run)
        self._running.extendleft(reversed(late))
        return len(self._running)

    def _end(self, run: Run) -> None:
        if run.film is None or run.reason is not None:
            self.charges[run.charged_to] -= 1
            return
        film, made_at = run.film.result(timeout=0), run.moved_at(run.due)
        file = File(film.source.content or b"", film.source.footage, made_at + KEPT)
        self.world.shelf.put(f"{run.video_id}.mp4", file)
        self.world.videos[run.video_id] = (film.source, made_at)

    def create(
        self, creation: Creation, session: Session, now: float, *, shape: Shape, fault: Callable[[], Fault | None]
    ) -> Run:
        """
        Accept a task.

        Args:
            creation: What is asked for.
            session: From where.
            now: The time.
            shape: The ways of the host.
            fault: Asked once the task is accepted: what it will die of, if anything.

        Raises:
            RefusalError: The session does not fit, the external id is taken, or the quota is full.
        """
        _check_fit(creation, session)
        external = creation.external_task_id
        if external in self._external and shape.external_ids == "unique":
            raise RefusalError(1201, f"external_task_id '{external}' already exists")
        if self.running(now) >= self.quota:
            raise RefusalError(1303)
        met = fault()
        run = Run(
            task_id=self.world.new_id(),
            video_id=self.world.new_id(),
            creation=creation,
            created_at=now,
            seconds=self.seconds,
            film=None if met else self.render(self._work(creation, session, now)),
            reason=(met.message or "Failure to pass the risk control system") if met else None,
        )
        self._all[run.task_id] = run
        if external is not None:
            self._external.setdefault(external, []).append(run)
        self._running.append(run)
        self.most = max(self.most, len(self._running))
        self.charges[run.charged_to] = self.charges.get(run.charged_to, 0) + 1
        return run

    def _work(self, creation: Creation, session: Session, now: float) -> Callable[[], Film]:
        source, footage, sight = session.source, session.footage, self.world.sight
        order = Order(
            edit_mode=creation.edit_mode,
            images=tuple(self._picture(image, now) for image in creation.images),
            marks=dict(session.marks),
            seconds=creation.seconds,
        )
        return lambda: sight.make(source, footage, order)

    def _picture(self, image: str, now: float) -> str | bytes:
        link = self.world.shelf.link(image)
        if link is None:
            return image
        file = self.world.shelf.reach(link, now)
        if file is None:
            raise RefusalError(1201, f"image '{image:.200}' can not be downloaded")
        return contents(file.content)

    def get(self, name: str, now: float, shape: Shape) -> Run | None:
        """
        A task by its id or, as the host has it, by its external id.
        """
        self.running(now)
        if name in self._all or shape.external_ids == "dropped" or not shape.finds_external_ids:
            return self._all.get(name)
        return next(_known(reversed(self._external.get(name, [])), now, shape), None)

    def page(self, number: int, size: int, now: float, shape: Shape) -> list[Run]:
        """
        A page of the list, newest first.
        """
        self.running(now)
        return list(islice(_known(reversed(self._all.values()), now, shape), (number - 1) * size, number * size))

    def view(self, run: Run, origin: str, now: float) -> View:
        """
        A task as it stands.
        """
        succeeded = run.status(now) == SUCCEED
        return View(
            task_id=run.task_id,
            external_task_id=run.creation.external_task_id,
            session_id=run.creation.session_id,
            status=run.status(now),
            reason=run.reason if run.ended_at is not None else None,
            created_at=run.created_at,
            updated_at=run.moved_at(now),
            units=None if run.ended_at is None else run.creation.units if succeeded else "0",
            watermark=run.creation.watermark,
            video_id=run.video_id,
            url=self.world.shelf.url(origin, f"{run.video_id}.mp4", now) if succeeded else None,
            seconds=run.film.result(timeout=0).seconds if succeeded and run.film else 0.0,
        )


def _known(runs: Iterable[Run], now: float, shape: Shape) -> Iterator[Run]:
    """
    Those that the host's index has caught up with.
    """
    return (run for run in runs if now - run.created_at >= shape.lag_seconds)


def _check_fit(creation: Creation, session: Session) -> None:
    least, most = SHORT if creation.seconds == 5 else LONG
    if not least <= session.footage.seconds <= most:
        raise RefusalError(
            1201, f"duration value '{creation.seconds}' is invalid for a video of {session.footage.seconds:g}s"
        )
    if creation.edit_mode != "addition" and not session.marks:
        raise RefusalError(1201, f"edit_mode '{creation.edit_mode}' needs a selection, and nothing is selected")
