"""
The simulator as users hold it: what they may set, what they may look at, and the two ways in.

Decides what the parameters may be and who owns threads. How requests are answered is `_machine.py`'s.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from math import isfinite
from pathlib import Path
from threading import Event
from types import MappingProxyType, TracebackType
from typing import Self

import anyio
from anyio import to_thread

from kling_async.errors import InvalidInputError
from kling_async.policy import check_count
from kling_async.transport import Transport

from ._blind import Blind
from ._desk import Desk
from ._faults import Fault, Script
from ._halt import haltable
from ._local import LocalTransport
from ._log import Seen
from ._machine import Machine
from ._openapi import document
from ._scenes import Film, Footage, Sight
from ._shape import Shape
from ._shelf import ORIGIN, Shelf, fit
from ._tasks import at_once

__all__ = ("Simulator",)

_DAY = 24 * 3600.0
_RENDERERS = 2
"""Threads that render; one clip already keeps a core busy."""


class Simulator:
    """
    The service without its pictures: all eight calls, its limits, its refusals, its faults, and none of its bills.

    It is as strict as the documents and refuses with the documented codes. Tasks move on as time passes: on the
    clock of the event loop, so that under a clock that jumps an hour of polling takes no time. Masks are discs
    around the points, results the clip itself, or a grey one where the clip is somewhere else; a watermarked copy is
    the same file. As it cannot know what else an account holds, any `video_id` opens a session.

    With eyes, clips are fetched and must be what the documents ask for, and only the simulator's own results have a
    `video_id`. The file behind a preview's `tracking_url` is documented nowhere; here it is JSON, a list of
    `{frame_index, rle_mask_list}` for every frame, with masks as add-selection has them: a guess.

    Args:
        quota: How many tasks may run at once.
        task_seconds: How long a task runs; 0 ends it at its next look.
        session_seconds: How long a selection session lives, and the files of its previews.
        link_seconds: How long a link to a file lives from the moment it is given; looking at a task again gives a
            new one. None lets links live as long as their file: a result's 30 days, for ever what was published.
        seed: Of all ids: the same requests in the same order get the same answers.
        api_key: The only key that is let in; None lets any in that is not empty.
        eyes: See, segment, follow and edit real clips: masks are objects, results are edited clips. It takes the
            time that it takes, so it wants a true clock, and the extra `demo`.
        faults: What goes wrong.
        shape: The ways of the host: how replies are spelled, what becomes of external ids.
        footage: What a clip is taken for of which nothing is known; without eyes, that is any clip.

    Example:
        >>> simulator = Simulator(quota=2, faults=[Fault("create", "lost")])
        >>> simulator.charges
        mappingproxy({})

    Raises:
        InvalidInputError: A parameter makes no sense, or eyes are asked for without the extra.
    """

    def __init__(
        self,
        *,
        quota: int = 5,
        task_seconds: float = 1.0,
        session_seconds: float = _DAY,
        link_seconds: float | None = None,
        seed: int = 0,
        api_key: str | None = None,
        eyes: bool = False,
        faults: Iterable[Fault] = (),
        shape: Shape | None = None,
        footage: Footage | None = None,
    ) -> None:
        """
        Check and keep; no thread is started before it is needed.
        """
        _check_seconds("task_seconds", task_seconds)
        _check_seconds("session_seconds", session_seconds)
        if link_seconds is not None:
            _check_seconds("link_seconds", link_seconds)
        _check(seed, api_key)
        for name, value, kind in (("shape", shape, Shape), ("footage", footage, Footage)):
            if value is not None and not isinstance(value, kind):
                raise InvalidInputError(name, f"must be a {kind.__name__}, not {value!r}")
        sight: Sight = _eyes() if eyes else Blind(footage or Footage())
        machine = Machine(
            quota=check_count("quota", quota),
            task_seconds=task_seconds,
            session_seconds=session_seconds,
            seed=seed,
            api_key=api_key,
            shape=shape or Shape(),
            script=Script(tuple(faults)),
            sight=sight,
            render=self._render if sight.heavy else at_once,
            shelf=Shelf(link_seconds=link_seconds),
        )
        self._desk = Desk(machine)
        self._executor: ThreadPoolExecutor | None = None
        self._halt = Event()
        self._origins: list[str] = []

    def __repr__(self) -> str:
        return f"<Simulator, {len(self.log)} requests seen>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """
        Give up what is rendered or still to be, and end the threads that render; needed with eyes only.

        It waits for no more than a frame, and the simulator can be used on.
        """
        executor, self._executor = self._executor, None
        if executor is not None:
            self._halt.set()
            executor.shutdown(cancel_futures=True)

    def _render(self, work: Callable[[], Film]) -> "Future[Film]":
        if self._executor is None:
            self._executor = ThreadPoolExecutor(_RENDERERS, thread_name_prefix="kling-simulator-render")
            self._halt = Event()
        return self._executor.submit(haltable, self._halt, work)

    def transport(self) -> Transport:
        """
        A transport for a client in this process: no sockets, either event loop, that loop's clock.
        """
        return LocalTransport(self._desk)

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """
        Serve real sockets while the block lasts, from a thread of its own; several servers may run at once.

        Args:
            host: Where to listen.
            port: On which port; 0 takes a free one.

        Yields:
            The base URL, which ends in `/kling`; the same paths without that prefix are served too.

        Raises:
            InvalidInputError: The address cannot be listened on.
        """
        given: object = port
        if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= 65535:
            raise InvalidInputError("port", f"must be a number from 0 to 65535, not {port!r}")
        from ._http import Server

        server = Server(self._desk, host, port)
        try:
            await to_thread.run_sync(server.start)
            with self._desk.lock:
                self._desk.machine.shelf.origins.add(server.origin)
                self._origins.append(server.origin)
            yield f"{server.origin}/kling"
        finally:
            if server.origin in self._origins:
                self._origins.remove(server.origin)
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(server.stop)

    def publish(self, source: bytes | Path, *, name: str | None = None, footage: Footage | None = None) -> str:
        """
        Host a clip or a picture, so that it can be edited, and return its URL.

        Args:
            source: The file's bytes, or where it is.
            name: Its name in the URL; by default the file's own, made fit for a URL, or `clip-1.mp4` and so on.
            footage: What the clip is, where there are no eyes to see that.

        Raises:
            InvalidInputError: The name cannot stand in a URL or is taken, or there is no such file.
        """
        shelf = self._desk.machine.shelf
        with self._desk.lock:
            own = fit(source.name) if isinstance(source, Path) else f"clip-{shelf.published + 1}.mp4"
            chosen = own if name is None else name
            shelf.publish(chosen, source, footage)
        return self.url(chosen)

    def url(self, name: str) -> str:
        """
        The URL of a published file: on the server that runs, else under `https://simulator.invalid`.

        The simulator itself knows its files by either, whenever the URL was made; but only the URL of a running
        server can be fetched by others, so a browser wants what this returns inside of `serve`. Where links end,
        it lives from the last request on that was seen.
        """
        machine = self._desk.machine
        return machine.shelf.url(self._origins[-1] if self._origins else ORIGIN, name, machine.now)

    def script(self, *faults: Fault) -> None:
        """
        Let more go wrong from here on, after what is still to come.

        Raises:
            InvalidInputError: One of them is no Fault.
        """
        with self._desk.lock:
            self._desk.machine.script.extend(faults)

    def openapi(self) -> dict[str, object]:
        """
        The simulator's own OpenAPI 3.1 document, which every server serves as `/openapi.json`.

        It holds for a simulator as it comes: a `shape` and some faults are there to differ from what is documented.
        """
        return document()

    def expire(self, session_id: str) -> None:
        """
        End a selection session before its 24 hours are over.
        """
        with self._desk.lock:
            self._desk.machine.selections.sessions.pop(session_id, None)

    @property
    def quota(self) -> int:
        """
        How many tasks may run at once; it may be set at any time.
        """
        return self._desk.machine.tasks.quota

    @quota.setter
    def quota(self, quota: int) -> None:
        """
        Change it; what runs already runs on.

        Raises:
            InvalidInputError: It is no whole number from 1.
        """
        with self._desk.lock:
            self._desk.machine.tasks.quota = check_count("quota", quota)

    @property
    def log(self) -> tuple[Seen, ...]:
        """
        Every request that was seen, in the order of arrival.
        """
        with self._desk.lock:
            return tuple(self._desk.machine.log)

    @property
    def charges(self) -> Mapping[str, int]:
        """
        How often each external_task_id, or task_id where there was none, was charged.

        An accepted create is charged at once; a task that fails is charged back, to 0.
        """
        with self._desk.lock:
            return MappingProxyType(dict(self._desk.machine.tasks.charges))

    @property
    def running(self) -> int:
        """
        How many tasks ran when a request was last seen.
        """
        machine = self._desk.machine
        with self._desk.lock:
            return machine.tasks.running(machine.now)

    @property
    def most_running(self) -> int:
        """
        How many tasks ever ran at once.
        """
        return self._desk.machine.tasks.most


def _check_seconds(name: str, seconds: object) -> None:
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise InvalidInputError(name, f"must be a number of seconds, not {seconds!r}")
    if not isfinite(seconds) or seconds < 0:
        raise InvalidInputError(name, f"must be 0 or more, not {seconds!r}")


def _check(seed: object, api_key: object) -> None:
    if not isinstance(seed, int):
        raise InvalidInputError("seed", f"must be an int, not {seed!r}")
    if api_key is not None and (not isinstance(api_key, str) or not api_key.strip()):
        raise InvalidInputError("api_key", "must be text that is not empty, or None for any key")


def _eyes() -> Sight:
    try:
        from ._sight import Eyes
    except ImportError as error:
        raise InvalidInputError("eyes", "seeing needs more: pip install 'kling-async[demo]'") from error
    return Eyes()
