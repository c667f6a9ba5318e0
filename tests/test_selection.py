"""
SelectionSession: an id, its points, and the record of both.
"""

import pickle
from datetime import UTC, datetime, timedelta

import anyio
import orjson
import pytest
from attrs import evolve

from kling_async import (
    ApiKey,
    ClosedError,
    InvalidInputError,
    KlingClient,
    KlingError,
    LostReplyError,
    Marks,
    NotSentError,
    Point,
    Removal,
    RetryPolicy,
    SelectionDirtyError,
    SelectionError,
    SelectionExpiredError,
    SelectionRejectedError,
    SelectionSession,
    SelectionState,
    from_dict,
    to_dict,
)
from tests.doubles import KEY, Script, envelope, task_reply

CLIP = "https://example.com/clip.mp4"
A, B, C = Point(0.8, 0.53), Point(0.37, 0.6), Point(0.1 + 0.2, 1)
EDIT = Removal.of("the stones")


def opened(session_id="8475", **more):
    return envelope(
        {
            "status": 0,
            "session_id": session_id,
            "fps": 24.0,
            "total_frame": 96,
            "original_duration": 4000,
            "width": 1280,
            "height": 720,
            **more,
        }
    )


def marked(frame=40, size=(720, 1280)):
    mask = {"object_id": 0, "rle_mask": {"size": list(size), "counts": "ab"}}
    return envelope({"status": 0, "res": {"frame_index": frame, "rle_mask_list": [mask]}})


def client_of(*steps):
    return KlingClient(ApiKey(KEY), transport=Script(list(steps)), retry=RetryPolicy(attempts=1))


def script_of(client):
    return client._borrowed


def paths(client):
    return [path.rpartition("/")[2] for path in script_of(client).paths]


async def test_entering_opens_and_leaving_asks_nothing():
    """
    One request on the way in, none on the way out.
    """
    async with client_of(opened()) as client:
        async with SelectionSession(client, video_url=CLIP) as selection:
            assert "8475" == selection.session_id
            assert 4.0 == selection.info.duration
            assert Marks() == selection.marks
        assert ["init-selection"] == paths(client)
        assert "8475" == selection.state.session_id


async def test_the_record_follows_every_confirmed_change():
    """
    Points come, go, and come again, and the state says which are there.
    """
    async with (
        client_of(opened(), marked(), marked(7), marked(), envelope({"status": 0})) as client,
        SelectionSession(client, video_id="v-1") as selection,
    ):
        answer = await selection.add_points(40, [A, (B.x, B.y)])
        assert (720, 1280) == (answer.masks[0].height, answer.masks[0].width)
        await selection.add_points(7, [C])
        assert {40: (A, B), 7: (C,)} == dict(selection.marks)
        assert [7, 40] == list(selection.marks)
        await selection.delete_points(40, [A])
        assert {40: (B,), 7: (C,)} == dict(selection.marks)
        assert {40, 7} == set(selection.marked)
        await selection.clear()
        assert Marks() == selection.marks
        assert {} == selection.marked
        assert frozenset() == selection.state.uncertain


async def test_a_mask_is_read_with_the_clips_own_height_and_width():
    """
    Official samples have `size` the other way round; the provider's own code never reads it.
    """
    steps = [opened(), marked(size=(1280, 720))]
    async with client_of(*steps) as client, SelectionSession(client, video_url=CLIP) as selection:
        [mask] = (await selection.add_points(40, [A])).masks
    assert (720, 1280, (1280, 720)) == (mask.height, mask.width, mask.size)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: s.add_points(40, [A]), "already on frame 40"),
        (lambda s: s.add_points(40, [(n / 20, 0.5) for n in range(10)]), "11 points"),
        (lambda s: s.add_points(97, [B]), "96 frames"),
        (lambda s: s.add_points(True, [B]), "must be an int"),
        (lambda s: s.add_points(3, []), "at least one"),
        (lambda s: s.add_points(3, [B, B]), "twice"),
        (lambda s: s.delete_points(40, [B]), "not on frame 40"),
        (lambda s: s.delete_points(3, [A]), "not on frame 3"),
    ],
)
async def test_limits_are_counted_before_any_request(call, words):
    """
    What the service would refuse is told here, and nothing changes.
    """
    async with client_of(opened(), marked()) as client, SelectionSession(client, video_url=CLIP) as selection:
        await selection.add_points(40, [A])
        before = selection.state
        with pytest.raises(InvalidInputError, match=words):
            await call(selection)
        assert before == selection.state
        assert 2 == len(script_of(client).requests)


async def test_the_eleventh_frame_is_refused():
    """
    Ten frames may be marked, and an eleventh only after one was emptied.
    """
    steps = [marked(n) for n in range(12)]
    async with client_of(opened(), *steps) as client, SelectionSession(client, video_url=CLIP) as selection:
        for frame in range(10):
            await selection.add_points(frame, [A])
        with pytest.raises(InvalidInputError, match="10 frames"):
            await selection.add_points(10, [A])
        await selection.delete_points(3, [A])
        await selection.add_points(10, [A])


@pytest.mark.parametrize(
    "fault",
    [LostReplyError("cut"), envelope(code=5000, status=500), envelope({"status": 2})],
    ids=["lost", "5000", "rejected"],
)
async def test_a_frame_in_doubt_blocks_the_paid_call_until_it_is_rebuilt(fault):
    """
    Nobody pays for a mask that nobody knows; rebuild clears and replays the very points.
    """
    steps = [opened(), marked(), fault, envelope({"status": 0}), marked(), task_reply()]
    async with client_of(*steps) as client, SelectionSession(client, video_url=CLIP) as selection:
        await selection.add_points(40, [C])
        with pytest.raises(KlingError):
            await selection.add_points(41, [A])
        assert frozenset({41}) == selection.state.uncertain
        assert {40: (C,)} == dict(selection.marks)
        with pytest.raises(SelectionDirtyError) as caught:
            await selection.create_task(EDIT)
        assert (41,) == caught.value.frames
        await selection.rebuild()
        await selection.create_task(EDIT)
        first, again = script_of(client).requests[1], script_of(client).requests[4]
        assert first.body == again.body
        assert frozenset() == selection.state.uncertain


@pytest.mark.parametrize("fault", [NotSentError("refused"), envelope(code=1201, status=400)], ids=["unsent", "refused"])
async def test_a_change_that_was_not_made_leaves_no_doubt(fault):
    """
    Never sent or plainly refused: the record stays as it was.
    """
    async with client_of(opened(), fault) as client, SelectionSession(client, video_url=CLIP) as selection:
        before = selection.state
        with pytest.raises(KlingError):
            await selection.add_points(40, [A])
        assert before == selection.state


async def test_a_cancelled_change_leaves_its_frame_in_doubt():
    """
    The points may be there or not, and the state says so from before the first byte.
    """
    async with client_of(opened(), anyio.Event()) as client, SelectionSession(client, video_url=CLIP) as selection:
        async with anyio.create_task_group() as group:
            group.start_soon(selection.add_points, 40, [A])
            await anyio.wait_all_tasks_blocked()
            assert frozenset({40}) == selection.state.uncertain
            group.cancel_scope.cancel()
        assert frozenset({40}) == selection.state.uncertain


async def test_calls_on_one_selection_go_one_after_another():
    """
    The second add is sent when the first has been answered.
    """
    go = anyio.Event()
    async with (
        client_of(opened(), go, marked(1), marked(2)) as client,
        SelectionSession(client, video_url=CLIP) as selection,
        anyio.create_task_group() as group,
    ):
        group.start_soon(selection.add_points, 1, [A])
        await anyio.wait_all_tasks_blocked()
        group.start_soon(selection.add_points, 2, [A])
        await anyio.wait_all_tasks_blocked()
        assert 2 == len(script_of(client).requests)
        go.set()
    assert [1, 2] == [body["frame_index"] for body in script_of(client).bodies[1:]]


async def test_another_process_goes_on_from_the_state():
    """
    As JSON or pickled, the state is all there is to carry, and entering with it asks nothing.
    """
    async with client_of(opened(), marked(), marked()) as client:
        async with SelectionSession(client, video_url=CLIP) as selection:
            await selection.add_points(40, [C])
        carried = from_dict(SelectionState, orjson.loads(orjson.dumps(to_dict(selection.state))))
        assert selection.state == carried == pickle.loads(pickle.dumps(carried))
        async with SelectionSession(client, state=carried) as again:
            await again.delete_points(40, [C])
        assert script_of(client).requests[1].body == script_of(client).requests[2].body


async def test_of_a_bare_id_the_marks_are_not_known_until_cleared():
    """
    Nothing is checked against what is not known, rebuild cannot know, and clear starts afresh.
    """
    async with (
        client_of(marked(), marked(), envelope()) as client,
        SelectionSession(client, session_id="8475") as selection,
    ):
        assert selection.marks is None
        assert selection.info is None
        await selection.add_points(999, [A])
        await selection.delete_points(999, [B])
        with pytest.raises(SelectionError, match="not known"):
            await selection.rebuild()
        await selection.clear()
        assert Marks() == selection.marks
        with pytest.raises(InvalidInputError, match="needs marked points"):
            await selection.create_task(EDIT)


async def test_create_of_unknown_marks_is_the_callers_word():
    """
    With a bare id nothing is known, so nothing is refused.
    """
    async with client_of(task_reply()) as client, SelectionSession(client, session_id="8475") as selection:
        assert "8781" == (await selection.create_task(EDIT)).task_id


@pytest.mark.parametrize(
    ("length", "asked", "sent"), [(4000, None, "5"), (9000, None, "10"), (9000, 5, "5"), (None, 10, "10")]
)
async def test_the_duration_is_what_the_clip_allows(length, asked, sent):
    """
    Five seconds for a short clip, ten for a long one, and the caller's word before that.
    """
    info = opened(original_duration=length, total_frame=None)
    async with client_of(info, marked(), task_reply()) as client:
        async with SelectionSession(client, video_url=CLIP) as selection:
            await selection.add_points(0, [A])
            await selection.create_task(evolve(EDIT, duration=asked))
        assert sent == script_of(client).bodies[2]["duration"]


async def test_ten_seconds_of_a_short_clip_are_refused_here():
    """
    The service would refuse them after the queue.
    """
    async with client_of(opened(), marked()) as client, SelectionSession(client, video_url=CLIP) as selection:
        await selection.add_points(0, [A])
        with pytest.raises(InvalidInputError, match="duration"):
            await selection.create_task(evolve(EDIT, duration=10))


def aged(hours, **more):
    then = datetime.now(UTC) - timedelta(hours=hours)
    return SelectionState(session_id="8475", opened_at=then, marks={40: [A], 7: [C]}, **more)


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.add_points(1, [A]),
        lambda s: s.delete_points(40, [A]),
        lambda s: s.clear(),
        lambda s: s.preview(),
        lambda s: s.create_task(EDIT),
    ],
)
async def test_an_expired_selection_is_told_before_any_request(call):
    """
    After 24 hours nothing is sent any more.
    """
    async with client_of() as client, SelectionSession(client, state=aged(24.1)) as selection:
        with pytest.raises(SelectionExpiredError, match="rebuild"):
            await call(selection)
        assert [] == script_of(client).requests


async def test_half_an_hour_before_its_end_a_selection_is_not_paid_for():
    """
    A queue could outlast the session.
    """
    async with client_of() as client, SelectionSession(client, state=aged(23.6)) as selection:
        with pytest.raises(SelectionExpiredError, match=r"23\.5"):
            await selection.create_task(EDIT)


async def test_an_expired_selection_is_opened_anew_by_rebuild():
    """
    A new session on the same source holds the very same points.
    """
    async with client_of(opened("8476"), marked(7), marked(40)) as client:
        async with SelectionSession(client, state=aged(25, video_url=CLIP)) as selection:
            await selection.rebuild()
            assert "8476" == selection.session_id
            assert {40: (A,), 7: (C,)} == dict(selection.marks)
            assert frozenset() == selection.state.uncertain
        assert ["init-selection", "add-selection", "add-selection"] == paths(client)


async def test_a_session_that_the_service_forgot_is_opened_anew_too():
    """
    1203 for the session means the same as 24 hours.
    """
    gone = envelope(code=1203, status=404)
    steps = [gone, gone, opened("8476"), marked(7), marked(40)]
    state = aged(1, video_id="v-1")
    async with client_of(*steps) as client, SelectionSession(client, state=state) as selection:
        with pytest.raises(SelectionExpiredError, match="does not know"):
            await selection.add_points(1, [A])
        assert frozenset() == selection.state.uncertain
        await selection.rebuild()
        assert "8476" == selection.session_id


async def test_an_expired_selection_of_unknown_source_cannot_be_rebuilt():
    """
    Its marks stay in doubt, and the error says why.
    """
    async with client_of() as client, SelectionSession(client, state=aged(25)) as selection:
        with pytest.raises(SelectionExpiredError, match="source is not known"):
            await selection.rebuild()
        assert frozenset({7, 40}) == selection.state.uncertain


async def test_a_rebuild_stopped_midway_goes_on_from_the_start():
    """
    What was not replayed is in doubt, and rebuilding again ends it.
    """
    steps = [envelope(), marked(7), LostReplyError("cut"), envelope(), marked(7), marked(40)]
    async with client_of(*steps) as client, SelectionSession(client, state=aged(1)) as selection:
        with pytest.raises(LostReplyError):
            await selection.rebuild()
        assert frozenset({40}) == selection.state.uncertain
        await selection.rebuild()
        assert frozenset() == selection.state.uncertain


async def test_a_left_selection_refuses_use_and_keeps_its_state():
    """
    The error names the method; the state may still be read and stored.
    """
    async with client_of(opened()) as client:
        selection = SelectionSession(client, video_url=CLIP)
        with pytest.raises(ClosedError, match=r"SelectionSession\.state"):
            _ = selection.state
        async with selection:
            pass
        with pytest.raises(ClosedError, match=r"SelectionSession\.preview\(\).*is closed"):
            await selection.preview()
        with pytest.raises(ClosedError):
            await selection.__aenter__()


async def test_a_selection_that_does_not_open_is_closed():
    """
    The error is the service's own.
    """
    async with client_of(envelope({"status": 5})) as client:
        selection = SelectionSession(client, video_url=CLIP)
        with pytest.raises(SelectionRejectedError):
            await selection.__aenter__()
        with pytest.raises(ClosedError):
            await selection.clear()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"video_url": ""},
        {"video_url": CLIP, "session_id": "1"},
        {"video_url": CLIP, "video_id": "1"},
        {"video_url": "file:///clip.mp4"},
        {"video_url": "clip.mp4"},
    ],
)
def test_exactly_one_source_is_given(given):
    """
    Decided by the constructor, before any block.
    """
    with pytest.raises(InvalidInputError):
        SelectionSession(client_of(), **given)


async def test_a_repr_names_the_clip_or_the_session_without_its_query():
    """
    A signed URL's signature does not end in a log.
    """
    client = client_of()
    assert "clip.mp4, not" in repr(SelectionSession(client, video_url=f"{CLIP}?signature=1"))
    assert "<SelectionSession of 8475, not opened yet>" == repr(SelectionSession(client, session_id="8475"))


async def test_a_later_success_does_not_end_an_earlier_doubt():
    """
    A lost add and then another on the same frame: what the service holds is still not known.
    """
    steps = [opened(), LostReplyError("cut"), marked(), envelope(), marked()]
    async with client_of(*steps) as client, SelectionSession(client, video_url=CLIP) as selection:
        with pytest.raises(LostReplyError):
            await selection.add_points(40, [A])
        await selection.add_points(40, [B])
        assert {40: (B,)} == dict(selection.marks)
        with pytest.raises(SelectionDirtyError):
            await selection.create_task(EDIT)
        await selection.rebuild()
        assert frozenset() == selection.state.uncertain


async def test_rebuild_opens_anew_what_is_too_old_to_pay_for():
    """
    In its last half hour a session is rebuilt into a new one, which can then be paid for.
    """
    steps = [opened("8476"), marked(7), marked(40), task_reply()]
    async with client_of(*steps) as client, SelectionSession(client, state=aged(23.6, video_url=CLIP)) as selection:
        await selection.rebuild()
        assert "8476" == selection.session_id
        await selection.create_task(EDIT)


@pytest.mark.parametrize(
    ("fault", "doubt"), [(LostReplyError("cut"), {40}), (NotSentError("refused"), set())], ids=["lost", "unsent"]
)
async def test_a_lost_clear_leaves_every_frame_in_doubt(fault, doubt):
    """
    Cleared or not: only a rebuild can tell. What was never sent leaves no doubt.
    """
    async with client_of(opened(), marked(), fault) as client:
        async with SelectionSession(client, video_url=CLIP) as selection:
            await selection.add_points(40, [A])
            with pytest.raises(KlingError):
                await selection.clear()
        assert doubt == selection.state.uncertain
        assert {40: (A,)} == dict(selection.state.marks)
