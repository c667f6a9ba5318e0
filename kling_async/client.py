"""
KlingClient: one pool, one key, a coroutine for each endpoint.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import anyio

from ._auth import ApiKey, Credentials, KeyPair, Signer, check_signing, fingerprint
from ._calls import Calls
from ._create import Creates
from ._doubt import Doubts
from ._endpoints import (
    COMETAPI_URL,
    KLING_CHINA_URL,
    KLING_GLOBAL_URL,
    LIST,
    host,
)
from ._environment import credentials_from_env
from ._exchange import Exchange, log
from ._ids import check_external_task_id, check_id
from ._inbox import Eyes, Inbox
from ._lease import Owner
from ._open import open_own
from ._pages import Pages
from ._poller import Poller
from ._reconcile import Reconciliation
from ._search import Search
from ._shelter import parting
from ._urls import URL_LIMIT, check_callback_url, check_url
from ._watch import Looks, Watch
from .errors import DownloadError, InvalidInputError
from .events import Downloaded, Event, Looked
from .models import Reconciled, Task, Video
from .policy import PollPolicy, RetryPolicy, check_count
from .stores import IntentStore, MemoryStore
from .transport import Progress, Saved, Transport

__all__ = ("KlingClient",)

T = TypeVar("T")

OWN_PATH = 100
"""Characters at most of a task's own path below the callback URL."""


class KlingClient(Calls):
    """
    The service, as coroutines: opens its pool with the `async with` block and closes it at the end.

    One client serves any number of tasks of one event loop, asyncio's or trio's. It opens once.

    Args:
        credentials: An `ApiKey`, or a `KeyPair` for Kling itself.
        base_url: The service with its prefix. By default CometAPI for an ApiKey, Kling's global host for a
            KeyPair. A loopback one may be http, and then loopback media are fine too.
        transport: What carries the requests; borrowed, never closed. By default a pool of its own.
        store: Where intents of paid creates are written; opened and closed with the client. By default memory.
        callback_url: Where the service posts changes of each task, unless a create names another. With an inbox,
            each task gets a path of its own below it, for `kling_async.webhooks` to receive.
        inbox: What hands on such posts. Waiting looks at once when one comes, and goes on polling, slower, beneath.
        observer: Told of exchanges, replays, creates and changes of tasks (`kling_async.events`), in the client's own
            task; it must not block.
        retry: When calls are sent again.
        poll: When running tasks are looked at.
        connections: Connections of its own pool at most.

    Example:
        >>> KlingClient(ApiKey("sk-made-up"))
        <KlingClient api.cometapi.com, an ApiKey, not opened yet>

    Raises:
        InvalidInputError: A value makes no sense; a KeyPair was given for CometAPI.
    """

    def __init__(
        self,
        credentials: ApiKey | KeyPair,
        *,
        base_url: str | None = None,
        transport: Transport | None = None,
        store: IntentStore | None = None,
        callback_url: str | None = None,
        inbox: Inbox | None = None,
        observer: Callable[[Event], None] | None = None,
        retry: RetryPolicy | None = None,
        poll: PollPolicy | None = None,
        connections: int = 100,
    ) -> None:
        """Check and keep; nothing is opened before the `async with` block."""
        self._credentials = _checked(credentials)
        default = COMETAPI_URL if isinstance(credentials, ApiKey) else KLING_GLOBAL_URL
        self._host = host(default if base_url is None else base_url)
        if isinstance(credentials, KeyPair) and self._host.base_url == COMETAPI_URL:
            reason = f"a KeyPair belongs to Kling itself: {KLING_GLOBAL_URL} or {KLING_CHINA_URL}"
            raise InvalidInputError("base_url", f"{reason}; for CometAPI give an ApiKey")
        check_signing(credentials)
        self._borrowed = transport
        self._store = MemoryStore() if store is None else store
        self._callback_url = None if callback_url is None else check_callback_url(callback_url, local=self._host.local)
        self._inbox = None if inbox is None else _fitting(inbox, callback_url)
        self._observer = observer
        self._retry = RetryPolicy() if retry is None else retry
        self._poller = Poller(lambda: self._exchange, PollPolicy() if poll is None else poll, self._inbox)
        self._connections = check_count("connections", connections)
        self._owner = Owner(type(self).__name__)
        self._own: Transport | None = None
        self._eyes: Eyes | None = None

    @classmethod
    def from_env(
        cls,
        *,
        base_url: str | None = None,
        transport: Transport | None = None,
        store: IntentStore | None = None,
        callback_url: str | None = None,
        inbox: Inbox | None = None,
        observer: Callable[[Event], None] | None = None,
        retry: RetryPolicy | None = None,
        poll: PollPolicy | None = None,
        connections: int = 100,
    ) -> Self:
        """
        A client with the key that the environment names.

        `COMETAPI_KEY` for CometAPI; else `KLING_API_KEY`, else `KLING_ACCESS_KEY` with `KLING_SECRET_KEY`, for
        Kling's global host. `KLING_BASE_URL` names another host.

        Raises:
            InvalidInputError: None of them is set, or one makes no sense.
        """
        credentials, default = credentials_from_env()
        return cls(
            credentials,
            base_url=base_url or default,
            transport=transport,
            store=store,
            callback_url=callback_url,
            inbox=inbox,
            observer=observer,
            retry=retry,
            poll=poll,
            connections=connections,
        )

    def __repr__(self) -> str:
        key = self._credentials.source or f"an {type(self._credentials).__name__}".replace("an K", "a K")
        return f"<KlingClient {self._host.name}, {key}, {self._owner.state}>"

    @property
    def base_url(self) -> str:
        """
        The service that it speaks to, without a slash at the end.
        """
        return self._host.base_url

    async def __aenter__(self) -> Self:
        own = self._borrowed is None
        self._owner.open(ours=own and type(self._store) is MemoryStore, cuts=own)
        try:
            await self._store.open()
            if self._borrowed is None:
                self._own = await open_own(self._connections, digest=self._observer is not None)
            self._begin()
        except BaseException:
            self._owner.closing()
            await self._release()
            raise
        return self

    def _begin(self) -> None:
        key = self._credentials.source or type(self._credentials).__name__
        self._exchange = Exchange(
            transport=self._borrowed or self._transport,
            host=self._host,
            signer=Signer(self._credentials),
            retry=self._retry,
            about=f"Check {key} for {self._host.name}: a key of another service or region fails just so.",
            observer=self._observer,
            pause=self._pause,
        )
        search = Search(self._exchange, self._store, fingerprint(self._credentials))
        doubts = Doubts(self._exchange, self._store, search)
        self._creates = Creates(self._exchange, self._store, doubts, self._lease, self._callback_url_of)
        if self._inbox is not None:
            eyes = Eyes(self._credentials, self._lease, self._store, self._exchange)
            self._inbox.attach(eyes)
            self._eyes = eyes

    def _callback_url_of(self, external_task_id: str) -> str | None:
        if self._callback_url is None or self._eyes is None:
            return self._callback_url
        key = check_external_task_id(external_task_id)
        return f"{self._callback_url.rstrip('/')}/{key}.{self._eyes.token(key)}"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.closing()
        try:
            with anyio.CancelScope(shield=True), anyio.move_on_after(5):
                await self._owner.drained()
        finally:
            await self._release()

    @property
    def _transport(self) -> Transport:
        assert self._own is not None
        return self._own

    async def _release(self) -> None:
        if self._inbox is not None and self._eyes is not None:
            self._inbox.detach()
        own, self._own = self._own, None
        try:
            if own is not None:
                await parting(own.aclose)
        finally:
            await parting(self._store.aclose)

    def iter_tasks(self, *, page_size: int = 500) -> AsyncIterator[Task]:
        """
        Every task of the account, page by page.

        Raises:
            KlingError: While iterating: as `list_tasks`.
        """
        return Pages(self.list_tasks, page_size)

    async def wait(self, task: Task | str) -> Task:
        """
        The task at its end. It has no end of its own: put it under `anyio.fail_after` or your loop's scope.

        Passing faults cost a look; an unknown status waits on. Cancelling it neither stops nor refunds the
        task: wait again with its id.

        Args:
            task: A Task, or a task id.

        Raises:
            TaskFailedError: It failed.
            DecodeError: It succeeded without a video, again and again.
            APIError: The service refused to show it.
        """
        with self._lease("wait"):
            looks, key = self._looks(task), task.external_task_id if isinstance(task, Task) else None
            final = looks.seen if looks.seen is not None and looks.seen.settled else None
            try:
                while final is None or not final.done:
                    final = await looks.next(at_once=looks.seen is None)
                await self._creates.ended(final, key)
            except anyio.get_cancelled_exc_class():
                log.warning("stopped waiting for task %s: it goes on, wait(%r) takes it up", *[looks.task_id] * 2)
                raise
            final.video  # noqa: B018 - raises what the status stands for
            return final

    async def reconcile(self) -> Reconciled:
        """
        Settle what a crash or a lost reply left open: look for each create of this host that is in doubt.

        Nothing is sent again from here. One that is over `RetryPolicy.doubt` seconds old takes two seconds, a
        younger one as long as its own create would have looked. Creates underway, here or in another process, are
        left to themselves.

        Returns:
            The tasks that were found, the ids that are proven absent, and those that stay in doubt.

        Raises:
            StoreError: The intents could not be read or written.
            APIError: A task that was found could not be shown.
        """
        with self._lease("reconcile"):
            return await Reconciliation(self._creates).run()

    def watch(self, task: Task | str) -> AsyncIterator[Task]:
        """
        The task's states: the present one at once, each change of status, the final one, a failed one too.

        Args:
            task: A Task, or a task id.

        Raises:
            InvalidInputError: It is neither.
            APIError: While iterating: the service refused to show it.
        """
        return Watch(self._looks(task), self._watched)

    async def _watched(self, step: Callable[[], Awaitable[Task]]) -> Task:
        with self._lease("watch"):
            return await step()

    def _tell(self, task: Task) -> None:
        if self._observer is not None:
            known = task.external_task_id
            self._observer(Looked(task_id=task.task_id, external_task_id=known, status=task.status))

    def _looks(self, task: Task | str) -> Looks:
        seen = task if isinstance(task, Task) else None
        task_id = seen.task_id if seen else check_id("task", task)
        return Looks(self._poller, self._poller.seat(task_id, seen), self._tell)

    async def download(
        self, source: Video | str, path: str | Path, *, overwrite: bool = False, progress: Progress | None = None
    ) -> Path:
        """
        Fetch a result, or any media URL that the API gave, into a file. Our key never goes there.

        The file appears under its name only when it is whole; until then it is `<name>.part`. What breaks off, and a
        link that is not there yet, is tried again. A part that its server can go on with stays, for the next try and
        for the next call; any other is removed. Links of results are cleared after 30 days.

        Args:
            source: A Video, or a URL.
            path: Where to; its folder must exist.
            overwrite: Whether a file that is there may be replaced.
            progress: Called with bytes done and bytes in all, None where these are not known.

        Raises:
            DownloadError: It could not be had whole; `.status` 403 means that the link has expired.
            InvalidInputError: The path cannot be written, or the source has no link.
        """
        with self._lease("download"):
            url = source.url if isinstance(source, Video) else source
            if not url:
                raise InvalidInputError("source", "has no link: give a Video that has one, or a URL")
            check_url("source", url, local=self._host.local)
            attempt = 1
            while True:
                try:
                    carrier = self._exchange.transport
                    saved: object = await carrier.download(str(url), Path(path), overwrite=overwrite, progress=progress)
                except DownloadError as error:
                    delay = self._exchange.delay(attempt, error)
                    if delay is None or error.final:
                        raise
                else:
                    # A transport of the user's own may return anything.
                    if self._observer is not None and isinstance(saved, Saved):
                        self._observer(Downloaded(path=Path(path), size=saved.size, sha256=saved.sha256))
                    return Path(path)
                await anyio.sleep(delay)
                attempt += 1

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, object] | None = None,
        params: Mapping[str, int | str] | None = None,
    ) -> object:
        """
        Any other route of the host, with this client's key and errors; only GET is sent again.

        Args:
            method: HTTP method.
            path: From the slash after the base URL on, such as `/v1/videos/text2video`.
            json: The body.
            params: The query.

        Returns:
            The reply's `data` as plain JSON types.

        Raises:
            InvalidInputError: The path does not begin with a slash, or the paid create is meant.
            APIError: The service refused.
            TransportError: No usable reply came.
        """
        with self._lease("request"):
            verb = method.upper()
            if not path.startswith("/") or "?" in path or "#" in path:
                raise InvalidInputError("path", "must begin with a slash and hold no query: use params")
            if verb == "POST" and path.rstrip("/") == LIST.path:
                raise InvalidInputError("path", "the paid create goes through create_task alone")
            return await self._exchange.plain(verb, path, body=json, params=params)


def _checked(credentials: Credentials) -> Credentials:
    given: object = credentials
    if not isinstance(given, ApiKey | KeyPair):
        raise InvalidInputError("credentials", "must be an ApiKey or a KeyPair")
    return credentials


def _fitting(inbox: object, callback_url: str | None) -> Inbox:
    if not isinstance(inbox, Inbox):
        raise InvalidInputError("inbox", f"must be an Inbox, not {type(inbox).__name__}")
    if callback_url is not None and ("?" in callback_url or len(callback_url) > URL_LIMIT - OWN_PATH):
        reason = (
            f"must have no query and {URL_LIMIT - OWN_PATH} characters at most: with an inbox, each task's path follows"
        )
        raise InvalidInputError("callback_url", reason)
    return inbox
