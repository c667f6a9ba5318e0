"""
What may go wrong: each kind of fault, in the same process; over sockets it is test_simulator_http.py's.
"""

import anyio
import pytest

from kling_async._endpoints import ADD, CREATE, GET, INIT
from kling_async._replies import read
from kling_async.errors import (
    AccountError,
    APIError,
    AuthenticationError,
    DecodeError,
    InvalidInputError,
    InvalidRequestError,
    LostReplyError,
    NotFoundError,
    NotSentError,
    QuotaFullError,
    SelectionRejectedError,
    ServerError,
    ThrottledError,
)
from kling_async.simulator import Fault, Shape
from kling_async.simulator._answers import REFUSALS
from tests.simulating import CLIP, calling, spots


async def test_an_unsent_request_leaves_no_trace():
    """
    It fails provably before the service, so neither log nor bill knows it; the next one passes.
    """
    simulator, caller = calling(faults=[Fault("create", "unsent")])
    session_id = await caller.marked()
    before = simulator.log
    with pytest.raises(NotSentError):
        await caller.create(session_id, external_task_id="a")
    assert (before, {}) == (simulator.log, simulator.charges)
    assert 200 == (await caller.create(session_id, external_task_id="a")).status


@pytest.mark.parametrize("kind, charges", [("lost", {"a": 1}), ("cut", {})])
async def test_a_cut_reply_may_hide_a_charge(kind, charges):
    """
    A lost reply was handled, a cut request was not; the client cannot tell them apart.
    """
    simulator, caller = calling(faults=[Fault("create", kind)])
    session_id = await caller.marked()
    with pytest.raises(LostReplyError):
        await caller.create(session_id, external_task_id="a")
    assert charges == simulator.charges
    assert (kind, None) == (simulator.log[-1].fault, simulator.log[-1].status)
    assert (200 if charges else 404) == (await caller.get("a")).status


@pytest.mark.parametrize("handled", [True, False])
async def test_a_hanging_request_waits_until_it_is_cancelled(handled):
    """
    It is in the log while it hangs, and takes effect only if told so.
    """
    simulator, caller = calling(faults=[Fault("create", "hang", handled=handled)])
    session_id = await caller.marked()
    with anyio.move_on_after(3600) as scope:
        await caller.create(session_id, external_task_id="a")
    assert scope.cancelled_caught
    assert ("hang", None) == (simulator.log[-1].fault, simulator.log[-1].status)
    assert ({"a": 1} if handled else {}) == simulator.charges


@pytest.mark.parametrize("handled", [True, False])
async def test_an_answer_may_be_replaced_before_or_after_it_is_done(handled):
    """
    Any status and body stand in for the real answer, which may have taken effect.
    """
    fault = Fault("create", "status", status=504, body=b"<html>gone</html>", handled=handled, retry_after=7)
    simulator, caller = calling(faults=[fault])
    reply = await caller.create(external_task_id="a")
    assert (504, b"<html>gone</html>", "7") == (
        reply.status,
        reply.response.body,
        reply.response.headers["retry-after"],
    )
    assert ({"a": 1} if handled else {}) == simulator.charges
    assert 504 == simulator.log[-1].status


async def test_a_status_alone_is_a_server_error_without_a_body():
    """
    Nothing else said, it is an empty 500.
    """
    _, caller = calling(faults=[Fault("get", "status")])
    reply = await caller.get("a")
    assert (500, b"", {}) == (reply.status, reply.response.body, reply.response.headers)


@pytest.mark.parametrize("code", sorted(REFUSALS))
async def test_every_documented_code_has_its_status(code):
    """
    A refusal by code is answered with the HTTP status of the table.
    """
    _, caller = calling(faults=[Fault("create", "code", code=code)])
    reply = await caller.create()
    assert (*(REFUSALS[code][0], code), REFUSALS[code][1]) == reply.refusal
    with pytest.raises(APIError) as caught:
        read(CREATE, reply.response)
    assert code == caught.value.code


async def test_a_code_may_come_with_other_words_and_a_time_to_wait():
    """
    Message, header and even the status are free: a 200 may hide a refusal.
    """
    faults = [
        Fault("create", "code", code=1302, message="slow down", retry_after=2),
        Fault("create", "code", code=1301, status=200),
        Fault("create", "code", code=4242),
    ]
    _, caller = calling(faults=faults)
    session_id = await caller.marked()
    first = await caller.create(session_id)
    assert (429, 1302, "slow down") == first.refusal
    with pytest.raises(ThrottledError) as caught:
        read(CREATE, first.response)
    assert 2.0 == caught.value.retry_after
    assert (200, 1301) == (await caller.create(session_id)).refusal[:2]
    assert (400, 4242, "refused") == (await caller.create(session_id)).refusal


async def test_a_rejected_selection_marks_nothing():
    """
    Code 0 with a data.status that is not 0 is a refusal all the same.
    """
    _, caller = calling(faults=[Fault("add", "rejected"), Fault("add", "rejected", code=7), Fault("init", "rejected")])
    with pytest.raises(SelectionRejectedError):
        read(INIT, (await caller.post("init", video_url=CLIP)).response)
    session_id = await caller.opened()
    for status in (1, 7):
        reply = await caller.post("add", session_id=session_id, frame_index=0, points=spots((0.5, 0.5)))
        assert (200, 0) == (reply.status, reply.json["code"])
        with pytest.raises(SelectionRejectedError) as caught:
            read(ADD, reply.response)
        assert status == caught.value.selection_status
    assert 1201 == (await caller.post("preview", session_id=session_id)).json["code"]


@pytest.mark.parametrize("envelope", ["raw", "wrapped1"])
async def test_a_task_may_be_missing_for_a_while(envelope):
    """
    After a create the first looks may find nothing.
    """
    _, caller = calling(faults=[Fault("get", "missing", times=2)], shape=Shape(envelope=envelope))
    task_id = (await caller.create()).data["task_id"]
    for _ in range(2):
        with pytest.raises(NotFoundError):
            read(GET, (await caller.get(task_id)).response)
    assert task_id == read(GET, (await caller.get(task_id)).response).task_id


async def test_a_success_may_lack_its_video_at_first():
    """
    The looks at a finished task are counted, not those before.
    """
    _, caller = calling(faults=[Fault("video", "missing", times=2)], task_seconds=10)
    task_id = (await caller.create()).data["task_id"]
    assert "submitted" == (await caller.get(task_id)).data["task_status"]
    await anyio.sleep(10)
    seen = [(await caller.get(task_id)).data for _ in range(3)]
    assert ["succeed"] * 3 == [data["task_status"] for data in seen]
    assert [{}, {}] == [data["task_result"] for data in seen[:2]]
    assert 1 == len(seen[2]["task_result"]["videos"])


async def test_a_failed_task_is_charged_back():
    """
    It holds its slot to the end, then tells why; a refused create does not use the fault up.
    """
    simulator, caller = calling(quota=1, task_seconds=10, faults=[Fault("task", "failed", after=1)])
    session_id = await caller.marked()
    await caller.create(session_id, external_task_id="a")
    assert 1303 == (await caller.create(session_id, external_task_id="b")).json["code"]
    await anyio.sleep(10)
    await caller.create(session_id, external_task_id="b")
    assert ({"a": 1, "b": 1}, 1) == (simulator.charges, simulator.running)
    await anyio.sleep(10)
    data = (await caller.get("b")).data
    assert ("failed", "Failure to pass the risk control system") == (data["task_status"], data["task_status_msg"])
    assert ({}, "0") == (data["task_result"], data["final_unit_deduction"])
    assert ({"a": 1, "b": 0}, 0) == (simulator.charges, simulator.running)
    assert "task_status_msg" not in (await caller.get("a")).data


@pytest.mark.parametrize(
    "fault, status, error",
    [
        (Fault("get", "gateway"), 500, InvalidRequestError),
        (Fault("get", "gateway", status=503, word="model_not_found"), 503, NotFoundError),
        (Fault("get", "gateway", status=403, word="insufficient_user_quota", message="no"), 403, AccountError),
        (Fault("get", "nested", code=1303), 429, QuotaFullError),
        (Fault("get", "nested", code=1102, depth=2, message="empty"), 429, AccountError),
        (Fault("get", "nested", code=5001, depth=3, status=200), 200, ServerError),
        (Fault("get", "nested", code=4242), 400, APIError),
        (Fault("get", "empty"), 429, ThrottledError),
        (Fault("get", "empty", status=500), 500, ServerError),
        (Fault("get", "account"), 401, AuthenticationError),
        (Fault("get", "html"), 502, ServerError),
        (Fault("get", "html", status=200), 200, DecodeError),
        (Fault("get", "redirect", location="https://elsewhere.example/"), 307, DecodeError),
        (Fault("get", "redirect", status=301), 301, DecodeError),
    ],
    ids=lambda value: repr(value) if isinstance(value, int) else getattr(value, "kind", None),
)
async def test_gateways_fail_in_shapes_of_their_own(fault, status, error):
    """
    Each shape that was seen is answered once, and the client's reader knows it.
    """
    _, caller = calling(faults=[fault], task_seconds=0)
    task_id = (await caller.create()).data["task_id"]
    reply = await caller.get(task_id)
    assert status == reply.status
    with pytest.raises(error):
        read(GET, reply.response)
    assert 200 == (await caller.get(task_id)).status


async def test_a_wrong_path_is_told_in_the_gateways_way():
    """
    A host without the list answers it like any wrong path.
    """
    _, caller = calling(faults=[Fault("list", "wrong_path", times=None)])
    for _ in range(3):
        reply = await caller.list()
        assert (404, "invalid_request_error") == (reply.status, reply.json["error"]["type"])


async def test_faults_of_one_place_are_used_up_in_order():
    """
    `after` lets requests pass, `times` repeats, other places are not touched.
    """
    faults = [
        Fault("get", "code", code=5000, after=1, times=2),
        Fault("list", "code", code=5002),
        Fault("get", "code", code=5001),
    ]
    _, caller = calling(faults=faults)
    codes = [(await caller.get("a")).json["code"] for _ in range(5)]
    assert [1203, 5000, 5000, 5001, 1203] == codes
    assert 5002 == (await caller.list()).json["code"]


async def test_a_fault_meets_only_calls_that_exist():
    """
    A path that is none uses nothing up.
    """
    _, caller = calling(faults=[Fault("list", "cut")])
    assert 1202 == (await caller.send("GET", "/v1/nothing")).json["code"]
    with pytest.raises(LostReplyError):
        await caller.list()


@pytest.mark.parametrize(
    "given, field",
    [
        ({"endpoint": "upload", "kind": "cut"}, "fault.endpoint"),
        ({"endpoint": "get", "kind": "explode"}, "fault.kind"),
        ({"endpoint": "get", "kind": "rejected"}, "fault.kind"),
        ({"endpoint": "create", "kind": "failed"}, "fault.kind"),
        ({"endpoint": "get", "kind": "truncated"}, "fault.kind"),
        ({"endpoint": "get", "kind": "cut", "status": 500}, "fault.status"),
        ({"endpoint": "get", "kind": "cut", "handled": True}, "fault.handled"),
        ({"endpoint": "get", "kind": "lost", "handled": False}, "fault.handled"),
        ({"endpoint": "get", "kind": "html", "body": b""}, "fault.body"),
        ({"endpoint": "get", "kind": "code"}, "fault.code"),
        ({"endpoint": "get", "kind": "nested"}, "fault.code"),
        ({"endpoint": "get", "kind": "nested", "code": 1303, "depth": 4}, "fault.depth"),
        ({"endpoint": "get", "kind": "cut", "times": 0}, "fault.times"),
        ({"endpoint": "get", "kind": "cut", "after": -1}, "fault.after"),
        ({"endpoint": "get", "kind": "cut", "after": True}, "fault.after"),
        ({"endpoint": "get", "kind": "status", "status": 99}, "fault.status"),
        ({"endpoint": "get", "kind": "status", "retry_after": 0.5}, "fault.retry_after"),
    ],
)
def test_faults_are_a_closed_vocabulary(given, field):
    """
    A fault that means nothing is refused where it is written.
    """
    with pytest.raises(InvalidInputError) as caught:
        Fault(**given)
    assert field == caught.value.field


def test_faults_are_values():
    """
    They compare and hash, so the same script may serve many simulators.
    """
    assert Fault("create", "lost") == Fault("create", "lost", times=1)
    assert 1 == len({Fault("create", "lost"), Fault("create", "lost")})
