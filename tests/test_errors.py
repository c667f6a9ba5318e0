"""
The tree of errors: one root, data that travels, texts that say what to do.
"""

import copy
import inspect
import pickle
import re
from datetime import UTC, datetime

import pytest

from kling_async import (
    AccountError,
    APIError,
    AuthenticationError,
    ClosedError,
    ContentRejectedError,
    DeclinedError,
    DecodeError,
    DownloadError,
    InvalidInputError,
    InvalidRequestError,
    KeyConflictError,
    KlingError,
    KlingWarning,
    LostReplyError,
    ManifestError,
    NotFoundError,
    NotSentError,
    QuotaFullError,
    SelectionDirtyError,
    SelectionError,
    SelectionExpiredError,
    SelectionRejectedError,
    ServerError,
    SignatureError,
    StoreError,
    SubmissionError,
    Task,
    TaskFailedError,
    ThrottledError,
    TLSError,
    TransportError,
    UnknownOutcomeError,
    UnsupportedError,
    WebhookError,
    errors,
)
from kling_async.manifest import Fault

FAILED = Task(task_id="8781", status="failed", status_message="Image pixel is invalid", external_task_id="order-1")
REFUSAL = {"code": 1303, "status": 429, "request_id": "r-1", "retry_after": 2.0, "about": "Wait."}
EXAMPLES = [
    KlingError("a"),
    InvalidInputError("prompt", "is empty"),
    ManifestError("clips.csv", [Fault(3, "prompt", "is empty")]),
    ClosedError("add_points: closed"),
    UnsupportedError("no list"),
    TransportError("a"),
    NotSentError("a"),
    TLSError("a"),
    LostReplyError("a"),
    DecodeError("not JSON", problems=["missing @ $.data"], status=200),
    *(
        kind("refused", **REFUSAL)
        for kind in (
            APIError,
            AuthenticationError,
            AccountError,
            InvalidRequestError,
            NotFoundError,
            ContentRejectedError,
            ThrottledError,
            QuotaFullError,
            ServerError,
        )
    ),
    SubmissionError("a", external_task_id="order-1"),
    UnknownOutcomeError(external_task_id="order-1", attempts=2, first_sent_at=datetime(2026, 11, 20, 5, tzinfo=UTC)),
    KeyConflictError("a", external_task_id="order-1"),
    SelectionError("a"),
    SelectionRejectedError("a", selection_status=3, request_id="r-1"),
    SelectionDirtyError([7, 0]),
    SelectionExpiredError("a"),
    StoreError("a"),
    DeclinedError("only looking"),
    TaskFailedError(FAILED),
    DownloadError("a", status=403),
    WebhookError("a"),
    SignatureError("a"),
]
CLASSES = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, KlingError)]


def drawn():
    """
    Name and parent of each class, as the module's docstring draws them.
    """
    path = []
    for line in errors.__doc__.splitlines():
        if found := re.match(r"    ([ │├└─]*)(\w+Error)\b", line):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            yield found[2], path[depth - 1] if depth else None


def test_the_tree_is_as_its_docstring_draws_it():
    """
    Each class once, under the parent that the drawing gives it.
    """
    tree = dict(drawn())
    assert {kind.__name__ for kind in CLASSES} == tree.keys()
    assert {kind.__name__: kind.__mro__[1].__name__ for kind in CLASSES if kind is not KlingError} == {
        name: parent for name, parent in tree.items() if parent
    }


def test_every_error_is_exported():
    """
    What can be raised can be caught by name.
    """
    assert {*(kind.__name__ for kind in CLASSES), "KlingWarning"} == set(errors.__all__)


def test_every_error_has_an_example_here():
    """
    The tables below leave none out.
    """
    assert set(CLASSES) == {type(error) for error in EXAMPLES}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_says_what_it_is(kind):
    """
    One root, one docstring each.
    """
    assert issubclass(kind, KlingError)
    assert vars(kind)["__doc__"].strip()


@pytest.mark.parametrize("travelled", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_travels_with_its_data(error, travelled):
    """
    Through a pickle or a copy it keeps class, text and attributes, notes too.
    """
    error.add_note("while selecting")
    again = travelled(error)
    assert type(error) is type(again)
    assert str(error) == str(again)
    assert vars(error) == vars(again)


def test_wrong_input_is_a_value_error():
    """
    Callers who know nothing of this package can catch it, and it names field and reason.
    """
    error = InvalidInputError("prompt", "is empty")
    assert isinstance(error, ValueError)
    assert ("prompt", "is empty", "prompt: is empty") == (error.field, error.reason, str(error))


def test_a_warning_is_no_error():
    """
    KlingWarning stands outside of the tree, among the warnings.
    """
    assert issubclass(KlingWarning, UserWarning)
    assert not issubclass(KlingWarning, KlingError)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_can_be_asked_for_the_create_it_belongs_to(error):
    """
    `external_task_id` is always there, and None where no create is concerned.
    """
    about_creates = SubmissionError | TaskFailedError
    assert ("order-1" if isinstance(error, about_creates) else None) == error.external_task_id


def test_an_unknown_outcome_says_when_and_how_to_look():
    """
    Somebody reads this with money at stake.
    """
    error = next(error for error in EXAMPLES if isinstance(error, UnknownOutcomeError))
    assert "2026-11-20T05:00:00+00:00" in str(error)
    assert "'order-1'" in str(error)
    assert "client.reconcile()" in str(error)
    assert 2 == error.attempts
    assert datetime(2026, 11, 20, 5, tzinfo=UTC) == error.first_sent_at


def test_a_dirty_selection_names_its_frames_in_order():
    """
    And the cure.
    """
    error = SelectionDirtyError({40, 7})
    assert (7, 40) == error.frames
    assert "what the service holds for frame 7, 40 is not known: call rebuild() first" == str(error)


def test_a_decode_error_tells_three_problems_and_keeps_all():
    """
    A reply with a thousand faults makes no text of a thousand lines.
    """
    error = DecodeError("bad", problems=[f"missing @ $.data[{index}]" for index in range(5)])
    assert "bad; missing @ $.data[0]; missing @ $.data[1]; missing @ $.data[2]; and 2 more" == str(error)
    assert 5 == len(error.problems)
    assert "bad" == str(DecodeError("bad"))


@pytest.mark.parametrize(
    "reason, rejected",
    [
        ("Failure to pass the risk control system", True),
        ("Content policy triggered", True),
        ("SENSITIVE words", True),
        ("Image pixel is invalid", False),
        (None, False),
    ],
)
def test_a_content_refusal_is_told_by_the_reason_of_a_failed_task(reason, rejected):
    """
    Risk control arrives as a failed task, not as code 1301.
    """
    assert rejected == TaskFailedError(Task(task_id="1", status="failed", status_message=reason)).content_rejected


def test_a_failed_task_quotes_its_reason_with_care():
    """
    The reason is foreign text; where there is none, that is said.
    """
    leaky = Task(task_id="8781", status="failed", status_message="key sk-canary-4711 " + "x" * 500)
    assert "task 8781 failed: Image pixel is invalid" == str(TaskFailedError(FAILED))
    assert "canary" not in str(TaskFailedError(leaky))
    assert 230 > len(str(TaskFailedError(leaky)))
    assert "task 1 failed: the service gave no reason" == str(TaskFailedError(Task(task_id="1", status="failed")))


def test_a_gates_answer_is_kept():
    """
    The text says that nothing was paid.
    """
    error = DeclinedError("only looking")
    assert ("only looking", "declined before the paid call: only looking") == (error.reason, str(error))
