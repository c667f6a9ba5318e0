"""
Which service a command speaks to, where the intents of paid creates are kept, and what still runs there.

The key comes from the environment alone: arguments can be read by everyone on the machine.
"""

import os
import shlex
import sys
from pathlib import Path

from attrs import define, field, frozen
from cyclopts import Parameter

from kling_async.client import KlingClient
from kling_async.errors import InvalidInputError
from kling_async.models import Task
from kling_async.policy import PollPolicy
from kling_async.stores import SqliteStore

from ._codes import CredentialsError

STORE_NAME = "intents.sqlite"
APP = "kling-async"


def state_folder() -> Path:
    """
    Where this user's programs keep what they must not forget.
    """
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / APP
    told = os.environ.get("XDG_STATE_HOME", "")
    # A relative one is to be ignored: https://specifications.freedesktop.org/basedir-spec/latest/
    return (Path(told) if told.startswith("/") else Path.home() / ".local" / "state") / APP


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

    def client(self, *, poll: PollPolicy | None = None) -> tuple[KlingClient, SqliteStore]:
        """
        A client with the environment's key, and the store that it will open.

        Raises:
            CredentialsError: There is no key, or none that can be one.
            InvalidInputError: The base URL makes no sense.
        """
        store = SqliteStore(self.store_path)
        try:
            return KlingClient.from_env(base_url=self.base_url, store=store, poll=poll), store
        except InvalidInputError as error:
            if error.field == "base_url":
                raise
            raise CredentialsError(str(error)) from error

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
            return self.service.command("tasks", "show", "--external", self.external_task_id)
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
            return f"Task {self.task.task_id}{named} is done; its link lives for 30 days.", f"Fetch it:  {self.take_up}"
        return f"Task {self.task.task_id}{named} goes on at the service and is paid.", f"Take it up:  {self.take_up}"

    @property
    def facts(self) -> dict[str, object]:
        """
        The same for programs.
        """
        task_id = self.task.task_id if self.task else None
        return {"task_id": task_id, "external_task_id": self.external_task_id, "take_up": self.take_up}


def result_name(task: Task) -> Path:
    """
    Where a result goes that was given no name; its id comes from the service, so that only plain letters are kept.

    Args:
        task: The task.
    """
    safe = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in task.task_id)
    return Path(f"kling-{safe[:64]}.mp4")
