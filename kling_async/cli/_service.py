"""
Which service a command speaks to, where the intents of paid creates are kept, and what still runs there.

The key comes from the environment alone: arguments can be read by everyone on the machine.
"""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from attrs import define, field, frozen
from cyclopts import Parameter

from kling_async._auth import Credentials, check_signing
from kling_async._environment import BASE_URL, credentials_from_env
from kling_async.client import KlingClient
from kling_async.errors import InvalidInputError
from kling_async.models import Task
from kling_async.policy import PollPolicy, RetryPolicy
from kling_async.stores import Intent, IntentStore, SqliteStore
from kling_async.transport import Transport

from ._codes import CredentialsError

STORE_NAME = "intents.sqlite"
APP = "kling-async"
NAMING = "--base-url"
"""The option that names a service."""


def state_folder() -> Path:
    """
    Where this user's programs keep what they must not forget.
    """
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / APP
    told = os.environ.get("XDG_STATE_HOME", "")
    # A relative one is to be ignored: https://specifications.freedesktop.org/basedir-spec/latest/
    return (Path(told) if told.startswith("/") else Path.home() / ".local" / "state") / APP


@frozen
class Address:
    """
    Where a service is, and who says so.
    """

    url: str
    """The base URL; empty where nothing names one."""
    origin: str
    """The option or the variable that it comes from: `--base-url`, `KLING_BASE_URL`, or the key's own."""

    @property
    def scheme(self) -> str:
        """
        As a rule https.
        """
        return urlsplit(self.url).scheme

    @property
    def host_name(self) -> str:
        """
        The host without its port.
        """
        return urlsplit(self.url).hostname or ""

    @property
    def given(self) -> bool:
        """
        Whether it was said, rather than being the one that the key belongs to.
        """
        return self.origin in {NAMING, BASE_URL}


@define
class Store(SqliteStore):
    """
    Intents on disk; it tells of a create just before that is sent, and when what became of it is not known.
    """

    told: Callable[[str], None] = field(default=lambda _name: None, kw_only=True, repr=False)
    """Called with the external id of a create that is about to be sent."""
    doubted: Callable[[str], None] = field(default=lambda _name: None, kw_only=True, repr=False)
    """Called with the external id of a create whose task is looked for, once for each."""
    _doubtful: set[str] = field(factory=set, init=False, repr=False)

    async def put(self, intent: Intent) -> bool:
        """
        Write an intent, if it follows what is kept, and wait until it is on disk.

        Raises:
            StoreError: It could not be written.
        """
        written = await super().put(intent)
        if written and intent.state == "sending" and intent.attempts == 1:
            self.told(intent.external_task_id)
        # Each look at a create in doubt is written down too.
        if written and intent.state == "unknown" and intent.external_task_id not in self._doubtful:
            self._doubtful.add(intent.external_task_id)
            self.doubted(intent.external_task_id)
        return written


@Parameter(name="*")
@frozen(kw_only=True)
class Service:
    """
    The options that every command against a service has.
    """

    base_url: str | None = None
    """The service; by default KLING_BASE_URL, else the key's own."""
    state: Path | None = None
    """Folder where paid creates are remembered; by default the user's state folder."""

    @property
    def store_path(self) -> Path:
        """
        The file of intents.
        """
        return (self.state or state_folder()) / STORE_NAME

    @property
    def address(self) -> Address:
        """
        Where commands go, as far as anything says so; it may be none that can be used.
        """
        if self.base_url:
            return Address(self.base_url, NAMING)
        told = os.environ.get(BASE_URL)
        if told:
            return Address(told, BASE_URL)
        try:
            credentials, url = credentials_from_env()
        except InvalidInputError:
            return Address("", BASE_URL)
        return Address(url, str(credentials.source))

    @property
    def host(self) -> str:
        """
        Its host and port, for messages.
        """
        return urlsplit(self.address.url).netloc

    def credentials(self) -> Credentials:
        """
        The environment's key.

        Raises:
            CredentialsError: There is none, none that can be one, or what signs with it is not installed.
        """
        try:
            credentials, _ = credentials_from_env()
            check_signing(credentials)
        except InvalidInputError as error:
            name = _variable(error.field)
            raise CredentialsError(f"{name} {error.reason}" if name else f"no usable key: {error.reason}") from error
        return credentials

    def client(self, *, poll: PollPolicy | None = None, retry: RetryPolicy | None = None) -> tuple[KlingClient, Store]:
        """
        A client with the environment's key, and the store that it will open.

        Args:
            poll: As of a client.
            retry: As of a client.

        Raises:
            CredentialsError: There is no usable key.
            InvalidInputError: The base URL makes no sense.
        """
        store = Store(self.store_path)
        return self.opening(self.credentials(), store=store, poll=poll, retry=retry), store

    def opening(
        self,
        credentials: Credentials,
        *,
        store: IntentStore | None = None,
        poll: PollPolicy | None = None,
        transport: Transport | None = None,
        retry: RetryPolicy | None = None,
    ) -> KlingClient:
        """
        A client of this service, not opened yet.

        Args:
            credentials: Its key.
            store: As of a client.
            poll: As of a client.
            transport: As of a client.
            retry: As of a client.

        Raises:
            InvalidInputError: The base URL makes no sense.
        """
        address = self.address
        try:
            return KlingClient(
                credentials, base_url=address.url, store=store, poll=poll, transport=transport, retry=retry
            )
        except InvalidInputError as error:
            raise InvalidInputError(address.origin, error.reason) from error

    def command(self, *words: str) -> str:
        """
        A command line of ours that speaks to the same service.

        Args:
            words: The command and its arguments.
        """
        options = {"--base-url": self.base_url, "--state": self.state}
        given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        return shlex.join([APP, *words, *given])


@define(kw_only=True)
class Underway:
    """
    What still runs when a command ends early, and how to take it up.
    """

    service: Service = field(factory=Service)
    """Where it runs."""
    idle: str = ""
    """What to say as long as nothing runs."""
    endless: bool = False
    """Whether an interruption is how the command is meant to end."""
    out: Path | None = None
    """Where the result was to go."""
    force: bool = False
    """Whether it may replace a file."""
    external_task_id: str | None = None
    """Of the create that is on its way, or was."""
    sending: bool = False
    """Whether a create may have been seen without being answered."""
    task: Task | None = None
    """The task as last seen."""

    def creating(self, external_task_id: str) -> None:
        """
        A paid create is about to be sent.
        """
        self.external_task_id, self.sending = external_task_id, True

    def refused(self) -> None:
        """
        It is known that nothing was created.
        """
        self.sending = False

    def seen(self, task: Task) -> None:
        """
        The task was looked at.
        """
        self.task, self.sending = task, False
        self.external_task_id = task.external_task_id or self.external_task_id

    @property
    def take_up(self) -> str | None:
        """
        The command that takes it up; None where nothing runs.
        """
        if self.sending and self.external_task_id:
            return self.service.command("tasks", "reconcile")
        if self.task is None or self.task.status == "failed":
            return None
        verb = "download" if self.task.done else "wait"
        words = [self.task.task_id, "--out", str(self.out or result_name(self.task)), *["--force"][: self.force]]
        return self.service.command("tasks", verb, *words)

    @property
    def lines(self) -> tuple[str, ...]:
        """
        The same for people.
        """
        if self.sending:
            doubt = f"The paid create {self.external_task_id} was on its way: a task may exist and be charged."
            return doubt, f"Look for it:  {self.take_up}"
        if self.take_up is None or self.task is None:
            return (self.idle,) if self.idle else ()
        named = f" (external id {self.external_task_id})" if self.external_task_id else ""
        if self.task.done:
            done = f"Task {self.task.task_id}{named} is done; its result is kept for 30 days."
            return done, f"Fetch it:  {self.take_up}"
        return f"Task {self.task.task_id}{named} goes on at the service and is paid.", f"Take it up:  {self.take_up}"

    @property
    def facts(self) -> dict[str, object]:
        """
        The same for programs.
        """
        task_id = self.task.task_id if self.task else None
        return {"task_id": task_id, "external_task_id": self.external_task_id, "take_up": self.take_up}


def _variable(name: str) -> str:
    """The variable that a field of credentials comes from; empty for what is no such field."""
    key = "COMETAPI_KEY" if os.environ.get("COMETAPI_KEY") else "KLING_API_KEY"
    return {"api_key": key, "access_key": "KLING_ACCESS_KEY", "secret_key": "KLING_SECRET_KEY"}.get(name, "")


def result_name(task: Task) -> Path:
    """
    Where a result goes that was given no name; its id comes from the service, so that only plain letters are kept.

    Args:
        task: The task.
    """
    safe = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in task.task_id)
    return Path(f"kling-{safe[:64]}.mp4")
