"""
kling_async: the asyncio-first client for Kling's multi-elements video editing.

Add, swap or remove an object in a clip, through CometAPI or Kling itself, from asyncio or trio::

    async with KlingClient.from_env() as client:
        async with SelectionSession(client, video_url=VIDEO) as selection:
            marked = await selection.add_points(0, [Point(0.42, 0.61)])
            task = await selection.create_task(Removal.of("the bird"))
        task = await client.wait(task)
        await client.download(task.video, "out.mp4")
"""

# typing would be most of what importing this package costs; type checkers know the name wherever it stands.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from ._auth import ApiKey as ApiKey
    from ._auth import KeyPair as KeyPair
    from ._codec import from_dict as from_dict
    from ._codec import to_dict as to_dict
    from ._endpoints import COMETAPI_URL as COMETAPI_URL
    from ._endpoints import KLING_CHINA_URL as KLING_CHINA_URL
    from ._endpoints import KLING_GLOBAL_URL as KLING_GLOBAL_URL
    from ._inbox import Inbox as Inbox
    from ._open import open_transport as open_transport
    from ._warm import warm_up as warm_up
    from .batch import edit as edit
    from .batch import edit_many as edit_many
    from .client import KlingClient as KlingClient
    from .costs import estimate_units as estimate_units
    from .edits import Addition as Addition
    from .edits import Removal as Removal
    from .edits import Swap as Swap
    from .errors import AccountError as AccountError
    from .errors import APIError as APIError
    from .errors import AuthenticationError as AuthenticationError
    from .errors import ClosedError as ClosedError
    from .errors import ContentRejectedError as ContentRejectedError
    from .errors import DeclinedError as DeclinedError
    from .errors import DecodeError as DecodeError
    from .errors import DownloadError as DownloadError
    from .errors import InvalidInputError as InvalidInputError
    from .errors import InvalidRequestError as InvalidRequestError
    from .errors import KeyConflictError as KeyConflictError
    from .errors import KlingError as KlingError
    from .errors import KlingWarning as KlingWarning
    from .errors import LostReplyError as LostReplyError
    from .errors import ManifestError as ManifestError
    from .errors import NotFoundError as NotFoundError
    from .errors import NotSentError as NotSentError
    from .errors import QuotaFullError as QuotaFullError
    from .errors import SelectionDirtyError as SelectionDirtyError
    from .errors import SelectionError as SelectionError
    from .errors import SelectionExpiredError as SelectionExpiredError
    from .errors import SelectionRejectedError as SelectionRejectedError
    from .errors import ServerError as ServerError
    from .errors import SignatureError as SignatureError
    from .errors import StoreError as StoreError
    from .errors import SubmissionError as SubmissionError
    from .errors import TaskFailedError as TaskFailedError
    from .errors import ThrottledError as ThrottledError
    from .errors import TLSError as TLSError
    from .errors import TransportError as TransportError
    from .errors import UnknownOutcomeError as UnknownOutcomeError
    from .errors import UnsupportedError as UnsupportedError
    from .errors import WebhookError as WebhookError
    from .jobs import Edited as Edited
    from .jobs import Failed as Failed
    from .jobs import Job as Job
    from .jobs import Outcome as Outcome
    from .masks import Mask as Mask
    from .models import Marked as Marked
    from .models import Marks as Marks
    from .models import Preview as Preview
    from .models import Reconciled as Reconciled
    from .models import SelectionInfo as SelectionInfo
    from .models import SelectionState as SelectionState
    from .models import Task as Task
    from .models import Video as Video
    from .pictures import Image as Image
    from .points import Point as Point
    from .policy import PollPolicy as PollPolicy
    from .policy import RetryPolicy as RetryPolicy
    from .selection import SelectionSession as SelectionSession
    from .slots import Slots as Slots
    from .stores import MemoryStore as MemoryStore
    from .stores import PostgresStore as PostgresStore
    from .stores import SqliteStore as SqliteStore
else:
    # Hidden from type checkers, which would take any misspelt name for one that this finds.
    def __getattr__(name: str) -> object:
        """
        A name that has not been asked for yet; from then on it is a global like any other.

        Threads that ask at once get the same object: a module is loaded once, and whoever comes second waits for it.
        """
        from importlib import import_module

        if name in _HOMES:
            found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        elif name in _MODULES:
            found = import_module(f"{__name__}.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        """
        What there is, whether it has been asked for or not.
        """
        return sorted({*globals(), *__all__, *_MODULES})


del TYPE_CHECKING

__version__ = "0.4.0"

__all__ = (
    "COMETAPI_URL",
    "KLING_CHINA_URL",
    "KLING_GLOBAL_URL",
    "APIError",
    "AccountError",
    "Addition",
    "ApiKey",
    "AuthenticationError",
    "ClosedError",
    "ContentRejectedError",
    "DeclinedError",
    "DecodeError",
    "DownloadError",
    "Edited",
    "Failed",
    "Image",
    "Inbox",
    "InvalidInputError",
    "InvalidRequestError",
    "Job",
    "KeyConflictError",
    "KeyPair",
    "KlingClient",
    "KlingError",
    "KlingWarning",
    "LostReplyError",
    "ManifestError",
    "Marked",
    "Marks",
    "Mask",
    "MemoryStore",
    "NotFoundError",
    "NotSentError",
    "Outcome",
    "Point",
    "PollPolicy",
    "PostgresStore",
    "Preview",
    "QuotaFullError",
    "Reconciled",
    "Removal",
    "RetryPolicy",
    "SelectionDirtyError",
    "SelectionError",
    "SelectionExpiredError",
    "SelectionInfo",
    "SelectionRejectedError",
    "SelectionSession",
    "SelectionState",
    "ServerError",
    "SignatureError",
    "Slots",
    "SqliteStore",
    "StoreError",
    "SubmissionError",
    "Swap",
    "TLSError",
    "Task",
    "TaskFailedError",
    "ThrottledError",
    "TransportError",
    "UnknownOutcomeError",
    "UnsupportedError",
    "Video",
    "WebhookError",
    "__version__",
    "edit",
    "edit_many",
    "estimate_units",
    "from_dict",
    "open_transport",
    "to_dict",
    "warm_up",
)

_HOMES = {
    "COMETAPI_URL": "_endpoints",
    "KLING_CHINA_URL": "_endpoints",
    "KLING_GLOBAL_URL": "_endpoints",
    "APIError": "errors",
    "AccountError": "errors",
    "Addition": "edits",
    "ApiKey": "_auth",
    "AuthenticationError": "errors",
    "ClosedError": "errors",
    "ContentRejectedError": "errors",
    "DeclinedError": "errors",
    "DecodeError": "errors",
    "DownloadError": "errors",
    "Edited": "jobs",
    "Failed": "jobs",
    "Image": "pictures",
    "Inbox": "_inbox",
    "InvalidInputError": "errors",
    "InvalidRequestError": "errors",
    "Job": "jobs",
    "KeyConflictError": "errors",
    "KeyPair": "_auth",
    "KlingClient": "client",
    "KlingError": "errors",
    "KlingWarning": "errors",
    "LostReplyError": "errors",
    "ManifestError": "errors",
    "Marked": "models",
    "Marks": "models",
    "Mask": "masks",
    "MemoryStore": "stores",
    "NotFoundError": "errors",
    "NotSentError": "errors",
    "Outcome": "jobs",
    "Point": "points",
    "PollPolicy": "policy",
    "PostgresStore": "stores",
    "Preview": "models",
    "QuotaFullError": "errors",
    "Reconciled": "models",
    "Removal": "edits",
    "RetryPolicy": "policy",
    "SelectionDirtyError": "errors",
    "SelectionError": "errors",
    "SelectionExpiredError": "errors",
    "SelectionInfo": "models",
    "SelectionRejectedError": "errors",
    "SelectionSession": "selection",
    "SelectionState": "models",
    "ServerError": "errors",
    "SignatureError": "errors",
    "Slots": "slots",
    "SqliteStore": "stores",
    "StoreError": "errors",
    "SubmissionError": "errors",
    "Swap": "edits",
    "TLSError": "errors",
    "Task": "models",
    "TaskFailedError": "errors",
    "ThrottledError": "errors",
    "TransportError": "errors",
    "UnknownOutcomeError": "errors",
    "UnsupportedError": "errors",
    "Video": "models",
    "WebhookError": "errors",
    "edit": "batch",
    "edit_many": "batch",
    "estimate_units": "costs",
    "from_dict": "_codec",
    "open_transport": "_open",
    "to_dict": "_codec",
    "warm_up": "_warm",
}
"""Where each name stands. It is loaded when it is first asked for, so that a program pays for what it uses."""

_MODULES = frozenset(
    (
        "batch",
        "client",
        "costs",
        "edits",
        "errors",
        "events",
        "jobs",
        "masks",
        "models",
        "pictures",
        "points",
        "policy",
        "selection",
        "slots",
        "stores",
        "transport",
    )
)
"""Modules that are there as attributes without an import of their own."""
