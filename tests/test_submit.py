"""
The rules of the paid create: what may follow what, what is a doubt, when to look, and when to send again.
"""

import hashlib
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from kling_async import (
    AccountError,
    APIError,
    DecodeError,
    Image,
    InvalidRequestError,
    KeyConflictError,
    LostReplyError,
    Marks,
    NotSentError,
    Removal,
    RetryPolicy,
    ServerError,
    SubmissionError,
    Swap,
    to_dict,
)
from kling_async._endpoints import host
from kling_async._submit import (
    DOUBTFUL,
    SENDABLE,
    SETTLED,
    Abilities,
    Intent,
    after,
    check_age,
    check_same,
    clip_digest,
    follows,
    in_doubt,
    is_taken,
    looks,
    may_resend,
    moved,
    session_digest,
)
from tests import strategies

BEGAN = datetime(2026, 11, 20, tzinfo=UTC)
EDIT = Removal.of("the stones")
ROW = Intent(
    external_task_id="order-1",
    payload="ab" * 32,
    base_url="https://api.cometapi.com/kling",
    session_id="8475",
    created_at=BEGAN,
    fence=1,
)
STATES = sorted(SENDABLE | DOUBTFUL | SETTLED)


def row(state, **more):
    return evolve(ROW, state=state, task_id="8781" if state in SETTLED else None, **more)


def refusal(message):
    return InvalidRequestError(message, code=1201, status=400)


def test_every_state_is_of_one_kind():
    """
    Nothing was created, something may have been, or its task is known.
    """
    assert 8 == len(STATES) == len(SENDABLE) + len(DOUBTFUL) + len(SETTLED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("intent", "sending"),
        ("sending", "intent"),
        ("sending", "refused"),
        ("sending", "unknown"),
        ("sending", "accepted"),
        ("refused", "sending"),
        ("unknown", "unknown"),
        ("unknown", "absent"),
        ("unknown", "accepted"),
        ("absent", "sending"),
        ("accepted", "succeeded"),
        ("accepted", "failed"),
        ("intent", "accepted"),
    ],
)
def test_a_row_moves_forward(old, new):
    """
    Each arrow of the drawing, and the evidence that a task exists.
    """
    assert follows(row(new), row(old))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sending", "sending"),
        ("unknown", "sending"),
        ("unknown", "intent"),
        ("unknown", "refused"),
        ("accepted", "sending"),
        ("accepted", "unknown"),
        ("accepted", "intent"),
        ("succeeded", "accepted"),
        ("failed", "sending"),
        ("refused", "unknown"),
        ("absent", "refused"),
    ],
)
def test_a_row_never_moves_back(old, new):
    """
    A doubt is not forgotten, and a known task stays known.
    """
    assert not follows(row(new), row(old))


@given(st.sampled_from(STATES), st.sampled_from(STATES), st.integers(0, 3))
def test_an_earlier_owner_can_only_tell_of_a_task(old, new, fence):
    """
    With another fencing number nothing is taken but the proof that a task exists.
    """
    if follows(row(new, fence=fence), row(old)) and fence != 1:
        assert new in SETTLED


def test_another_task_never_takes_the_place_of_the_known_one():
    """
    One id, one task: and none without its id.
    """
    assert not follows(evolve(row("succeeded"), task_id="8782"), row("accepted"))
    assert not follows(evolve(row("accepted"), task_id=None), row("unknown"))


@pytest.mark.parametrize(
    ("meant", "error"),
    [
        (evolve(ROW, base_url="https://api-singapore.klingai.com"), KeyConflictError),
        (evolve(ROW, payload="cd" * 32), KeyConflictError),
        (evolve(ROW, created_at=BEGAN + timedelta(days=29, seconds=1)), SubmissionError),
    ],
    ids=["host", "payload", "age"],
)
def test_an_id_stands_for_one_edit_on_one_host_for_29_days(meant, error):
    """
    Anything else is refused, and the error names the id.
    """
    with pytest.raises(error) as caught:
        check_same(row("accepted"), meant)
    assert error is type(caught.value)
    assert "order-1" == caught.value.external_task_id


def test_the_same_create_is_the_same_whichever_its_session():
    """
    Session, time and account do not count; and what was never sent has no age.
    """
    check_same(row("accepted"), evolve(ROW, session_id="8476", account="other", created_at=BEGAN + timedelta(days=28)))
    for state in SENDABLE:
        check_age(row(state), BEGAN + timedelta(days=300))


@pytest.mark.parametrize(
    ("error", "doubt", "state"),
    [
        (LostReplyError("cut"), True, "unknown"),
        (ServerError("5000", code=5000, status=500), True, "unknown"),
        (APIError("odd", code="task_failed", status=200), True, "unknown"),
        (DecodeError("no envelope", status=200), True, "unknown"),
        (DecodeError("too large"), True, "unknown"),
        (refusal("external_task_id order-1 already exists"), True, "unknown"),
        (DecodeError("a redirect", status=307), False, "refused"),
        (refusal("prompt is too long"), False, "refused"),
        (AccountError("empty", code=1101, status=429), False, "refused"),
        (NotSentError("refused"), False, "intent"),
    ],
    ids=str,
)
def test_what_a_failed_create_leaves_behind(error, doubt, state):
    """
    Only what proves that nothing was created is no doubt.
    """
    assert doubt is in_doubt(error, "order-1")
    assert state == after(row("sending"), error).state


def test_an_id_is_taken_when_the_refusal_names_it():
    """
    1201 alone is any bad parameter.
    """
    assert is_taken(refusal("external_task_id order-1 already exists"), "order-1")
    assert not is_taken(refusal("order-2 already exists"), "order-1")
    assert not is_taken(None, "order-1")


def test_looks_come_soon_then_every_eight_seconds():
    """
    At 0.5, 1, 2 and 4 seconds, then every 8, and at the end.
    """
    assert (0.5, 1.0, 2.0, 4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 60.0, 68.0, 76.0, 84.0, 90.0) == looks(90.0, 0.0)
    assert (0.5, 1.0, 2.0, 4.0, 5.0) == looks(5.0, 0.0)
    assert (0.25, 0.5, 1.0) == looks(1.0, 0.0)


def test_a_create_of_long_ago_is_looked_for_three_times_in_two_seconds():
    """
    No index lags behind it; but clocks that differ by ten minutes do not make it old.
    """
    assert (0.0, 0.5, 1.5) == looks(90.0, 691.0)
    assert 90.0 == looks(90.0, 690.0)[-1]
    assert 90.0 == looks(90.0, -3600.0)[-1]


@given(st.floats(0.01, 10_000), st.floats(-1e6, 1e6))
def test_there_are_three_looks_at_least_and_the_last_ends_the_doubt(doubt, age):
    """
    In rising order, whatever the policy.
    """
    times = looks(doubt, age)
    assert 3 <= len(times) == len(set(times))
    assert sorted(times) == list(times)
    assert age > doubt or doubt == times[-1]


@pytest.mark.parametrize(
    ("url", "policy", "able", "leave"),
    [
        ("https://api-singapore.klingai.com", "raise", Abilities(finds=True), False),
        ("https://api-singapore.klingai.com", "raise", Abilities(finds=True, enforces=True), True),
        ("https://api.cometapi.com/kling", "raise", Abilities(finds=True, enforces=True), False),
        ("https://gateway.example/kling", "raise", Abilities(finds=True, enforces=True), False),
        ("http://127.0.0.1:8080/kling", "raise", Abilities(finds=True, enforces=True), True),
        ("https://api.cometapi.com/kling", "resend", Abilities(finds=True), True),
        ("https://api.cometapi.com/kling", "resend", Abilities(finds=True, echoes=False), False),
        ("https://api-singapore.klingai.com", "raise", Abilities(enforces=True, echoes=False), False),
    ],
)
def test_leave_to_resend(url, policy, able, leave):
    """
    The caller's, or a host's that enforces ids and has one account a key; never where tasks do not tell their ids.
    """
    assert leave is may_resend(RetryPolicy(on_unknown=policy), able, host(url))


def test_a_payload_is_clip_marks_and_edit_in_whichever_session():
    """
    The query of a signed link, the order of points and the session do not count; everything else does.
    """
    marks = Marks({1: [(0.1, 0.2), (0.3, 0.4)]})
    digest = clip_digest("https://example.com/a.mp4?signature=1", marks, EDIT)
    assert digest == clip_digest("https://example.com/a.mp4", Marks({1: [(0.3, 0.4), (0.1, 0.2)]}), EDIT)
    others = {
        clip_digest("https://example.com/b.mp4", marks, EDIT),
        clip_digest("https://example.com/a.mp4", Marks({2: [(0.1, 0.2), (0.3, 0.4)]}), EDIT),
        clip_digest("https://example.com/a.mp4", marks, Removal.of("the bird")),
        clip_digest("https://example.com/a.mp4", marks, Swap.of("a", "b", Image.from_url("https://example.com/a.png"))),
        clip_digest("https://example.com/a.mp4", marks, Swap.of("a", "b", Image.from_url("https://example.com/b.png"))),
        session_digest("8475", EDIT),
    }
    assert 6 == len(others - {digest})


@given(edit=strategies.edits)
def test_the_digest_covers_all_that_is_stored_of_an_edit(edit):
    """
    It is made of every field that `to_dict` writes, pictures by their own digests, so that rows of any version match.
    """
    said = {name: value for name, value in to_dict(edit).items() if name not in {"image", "images"}}
    said["pictures"] = [picture.digest for picture in edit.pictures]
    plain = orjson.dumps({"edit": said, "session_id": "8475"}, option=orjson.OPT_SORT_KEYS)
    assert hashlib.sha256(plain).hexdigest() == session_digest("8475", edit)


@given(
    state=st.sampled_from(STATES),
    fence=st.none() | st.integers(1, 9),
    sent_at=st.none() | st.just(BEGAN),
    task_id=st.none() | st.just("8781"),
)
def test_a_move_changes_what_it_names_and_nothing_else(state, fence, sent_at, task_id):
    """
    It does what `evolve` does, and counts an attempt wherever something is sent.
    """
    for kept in (ROW, evolve(ROW, attempts=2, first_sent_at=BEGAN - timedelta(days=1), account="a", looked_at=BEGAN)):
        named = {"fence": fence, "sent_at": sent_at, "task_id": task_id}
        changes = {name: value for name, value in named.items() if value is not None}
        if sent_at is not None:
            changes |= {"attempts": kept.attempts + 1, "first_sent_at": kept.first_sent_at or sent_at}
        assert evolve(kept, state=state, **changes) == moved(kept, state, **named)
