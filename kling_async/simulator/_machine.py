"""
The API as a state machine, without a clock and without sockets: a request and a time go in, a reply comes out.

Decides who is let in, which fault a request meets, and who answers it; the answers are `_selections.py`'s and
`_tasks.py`'s. It must be driven by one thread at a time.
Source: https://klingai.com/document-api/api/video/multi-elements.md
"""

from functools import partial
from random import Random

from attrs import define, evolve, field

from kling_async.transport import Request, Response

from . import _rules
from ._answers import RefusalError, accepted, created, looked, no_task, refusal, reply, task, wrong_path
from ._faults import Broken, Fault, Outcome, Script
from ._log import Seen
from ._openapi import document
from ._ranges import handed_out
from ._routes import Call
from ._scenes import Sight
from ._selections import Data, Selections
from ._shape import Shape
from ._shelf import Link, Shelf, contents, kind_of
from ._tasks import Render, Run, Tasks
from ._world import Steps, World

_EXPIRED = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
"""What content networks answer to a link whose time is over."""


@define(kw_only=True)
class Machine:
    """
    The whole service.
    """

    quota: int
    """How many tasks may run at once."""
    task_seconds: float
    """How long a task runs."""
    session_seconds: float
    """How long a session lives."""
    seed: int
    """Of all ids."""
    api_key: str | None = field(repr=False)
    """The only key that is let in; None for any."""
    shape: Shape
    """How replies are spelled."""
    script: Script
    """What goes wrong."""
    sight: Sight
    """What looks at clips."""
    render: Render
    """How rendering is begun."""
    shelf: Shelf
    """Files."""
    now: float = field(init=False, default=0.0)
    """The latest time that was seen."""
    log: list[Seen] = field(init=False, factory=list)
    """Every request, in the order of arrival."""
    world: World = field(init=False)
    """What sessions and tasks share."""
    selections: Selections = field(init=False)
    """All sessions."""
    tasks: Tasks = field(init=False)
    """All tasks."""

    def __attrs_post_init__(self) -> None:
        self.world = World(rng=Random(self.seed), sight=self.sight, shelf=self.shelf)
        self.selections = Selections(self.world, self.session_seconds)
        self.tasks = Tasks(world=self.world, quota=self.quota, seconds=self.task_seconds, render=self.render)

    def handle(self, request: Request, now: float, origin: str) -> Steps[Outcome]:
        """
        Answer one request.

        Args:
            request: It, whole.
            now: Seconds on the simulator's clock, which never goes back.
            origin: Scheme and host by which the caller knows the simulator.

        Returns:
            A generator: it yields work that takes long, to be run anywhere before it is asked to go on, and
            returns the reply. It may be closed at any time.
        """
        self.now = max(self.now, now)
        self.shelf.origins.add(origin)
        call = Call.of(request, origin, self.shape)
        fault = self.script.take(call.name) if call.name else None
        if fault is not None and fault.kind == "unsent":
            return Broken("unsent")
        if fault is not None and fault.shape is not None:
            call = evolve(call, shape=fault.shape)
        place = len(self.log)
        self.log.append(self._seen(call, fault))
        outcome = yield from self._outcome(call, fault)
        response = outcome if isinstance(outcome, Response) else outcome.response
        if response is not None:
            self.log[place] = evolve(self.log[place], status=response.status)
        return outcome

    def _seen(self, call: Call, fault: Fault | None) -> Seen:
        return Seen(
            time=self.now,
            method=call.method,
            path=call.path,
            query=call.query,
            json=call.body,
            endpoint=call.name,
            with_key=call.key is not None,
            range=call.range,
            fault=fault.kind if fault else None,
        )

    def _outcome(self, call: Call, fault: Fault | None) -> Steps[Outcome]:
        if fault is None or fault.kind == "shape":
            return (yield from self._answer(call))
        request_id = self.world.new_request_id()
        answer = (yield from self._answer(call)) if fault.handled else None
        match fault.kind:
            case "cut" | "lost":
                return Broken("cut")
            case "hang":
                return Broken("hang")
            case "truncated":
                return Broken("truncated", answer)
            case _:
                return fault.answer(call.shape, request_id)

    def _answer(self, call: Call) -> Steps[Response]:
        request_id = self.world.new_request_id()
        try:
            if call.name == "media":
                return self._media(call)
            if call.name == "openapi":
                return reply(200, document())
            self._admit(call)
            return (yield from self._called(call, request_id))
        except RefusalError as error:
            if error.code == 1203 and call.name == "get":
                return no_task(call.shape, request_id, str(error))
            return refusal(call.shape, request_id, error)

    def _admit(self, call: Call) -> None:
        scheme, _, key = (call.key or "").partition(" ")
        if not scheme:
            raise RefusalError(1001)
        if scheme.lower() != "bearer" or not key.strip() or (self.api_key is not None and key.strip() != self.api_key):
            raise RefusalError(1002)
        if call.name is None:
            raise RefusalError(1202, f"{call.method} {call.path:.120} does not exist", allowed=call.allowed)

    def _called(self, call: Call, request_id: str) -> Steps[Response]:
        match call.name:
            case "create":
                return created(call.shape, request_id, self.tasks.view(self._create(call), call.origin, self.now))
            case "get":
                return self._looked(call, request_id)
            case "list":
                return self._listed(call, request_id)
        data = yield from self._selected(call)
        bare = call.shape.bare and call.name in {"delete", "clear", "preview"}
        return accepted(call.shape, request_id, None if bare else data)

    def _listed(self, call: Call, request_id: str) -> Response:
        if not call.shape.lists:
            return wrong_path()
        page = self.tasks.page(*_rules.page(call.query), self.now, call.shape)
        views = [self.tasks.view(run, call.origin, self.now) for run in page]
        return accepted(call.shape, request_id, [task(call.shape, view) for view in views])

    def _selected(self, call: Call) -> Steps[Data]:
        match call.name:
            case "init":
                return (yield from self.selections.open(call, self.now))
            case "add":
                return (yield from self.selections.add(call, self.now))
            case "delete":
                return (yield from self.selections.delete(call, self.now))
            case "preview":
                return (yield from self.selections.preview(call, self.now))
            case _:
                return self.selections.clear(call, self.now)

    def _create(self, call: Call) -> Run:
        creation = _rules.creation(_rules.as_object(call.body))
        session = self.selections.get(creation.session_id, call, self.now)
        _rules.check_pictures(creation.images)
        fault = partial(self.script.take, "task")
        return self.tasks.create(creation, session, self.now, shape=call.shape, fault=fault)

    def _looked(self, call: Call, request_id: str) -> Response:
        run = self.tasks.get(call.item, self.now, call.shape)
        if run is None:
            raise RefusalError(1203, f"task '{call.item:.80}' does not exist")
        view = self.tasks.view(run, call.origin, self.now)
        if view.url is not None and self.script.take("video"):
            view = evolve(view, url=None)
        return looked(call.shape, request_id, view)

    def _media(self, call: Call) -> Response:
        file = self.shelf.find(call.item)
        if file is None:
            return Response(404, {"content-type": "text/plain"}, b"no such file")
        if self.shelf.dead(file, Link(call.item, call.query), self.now):
            return Response(403, {"content-type": "application/xml"}, _EXPIRED)
        body = contents(file.content)
        return handed_out(body, kind_of(call.item), wanted=call.range, if_range=call.if_range)
