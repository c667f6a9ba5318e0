"""
One call: signed, sent, read, replayed under licence.
"""

import gc
import logging
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime

import anyio
import jwt
import pytest

from kling_async import (
    COMETAPI_URL,
    KLING_CHINA_URL,
    KLING_GLOBAL_URL,
    ApiKey,
    AuthenticationError,
    DecodeError,
    DownloadError,
    InvalidRequestError,
    KeyPair,
    KlingClient,
    LostReplyError,
    NotFoundError,
    NotSentError,
    RetryPolicy,
    ServerError,
    ThrottledError,
    TLSError,
)
from kling_async._auth import Signer
from kling_async._budget import CAPACITY
from kling_async._endpoints import ADD, CLEAR, GET, LIST, host
from kling_async._exchange import _BUDGETS, Exchange, shared_budget
from kling_async.transport import Response
from tests.doubles import KEY, Script, envelope, task_reply


def exchange(*steps, credentials=None, retry=None, chance=1.0, now=1_000_000.0):
    script = Script(list(steps))
    made = Exchange(
        transport=script,
        host=host(COMETAPI_URL),
        signer=Signer(credentials or ApiKey(KEY)),
        retry=retry or RetryPolicy(),
        about="Check COMETAPI_KEY for api.cometapi.com.",
        chance=lambda: chance,
        now=lambda: now,
    )
    return made, script


async def test_a_call_carries_the_bearer_key_and_the_documented_type():
    """
    Every request names the key as bearer and JSON as its type, on GET as well.
    """
    made, script = exchange(task_reply())
    await made(GET, path=GET.at("8781"))
    [request] = script.requests
    assert {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"} == dict(request.headers)
    assert f"{COMETAPI_URL}/v1/videos/multi-elements/8781" == request.url
    assert b"" == request.body


async def test_a_query_is_encoded_into_the_url():
    """
    Parameters go into the query and nowhere else.
    """
    made, script = exchange(envelope([]))
    assert () == await made(LIST, params={"pageNum": 1, "pageSize": 30})
    assert script.requests[0].url.endswith("/v1/videos/multi-elements?pageNum=1&pageSize=30")


@pytest.mark.parametrize(
    "fault",
    [
        NotSentError("refused"),
        LostReplyError("cut"),
        envelope(code=5000, status=500),
        envelope(code=1302, status=429),
        Response(502, body=b"<html>bad gateway</html>"),
    ],
    ids=["unsent", "lost", "5000", "1302", "html"],
)
async def test_a_read_is_sent_again_after_a_passing_fault(fault):
    """
    A GET survives every fault that may pass.
    """
    made, script = exchange(fault, task_reply("processing"))
    assert "processing" == (await made(GET, path=GET.at("8781"))).status
    assert 2 == len(script.requests)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (LostReplyError("cut"), LostReplyError),
        (envelope(code=5000, status=500), ServerError),
        (TLSError("expired"), TLSError),
    ],
    ids=["lost", "5000", "tls"],
)
async def test_a_change_of_points_is_sent_once_when_it_may_have_been_done(fault, error):
    """
    Adding a point twice is not adding it once, so doubt ends the call.
    """
    made, script = exchange(fault, envelope({}))
    with pytest.raises(error):
        await made(ADD, body={"session_id": "1"})
    assert 1 == len(script.requests)


@pytest.mark.parametrize("fault", [NotSentError("refused"), envelope(code=1302, status=429)], ids=["unsent", "1302"])
async def test_a_change_of_points_is_sent_again_when_it_was_not_done(fault):
    """
    What was never sent, or refused for its rate, was not done.
    """
    made, script = exchange(fault, envelope({"status": 0, "res": {"frame_index": 3}}))
    assert 3 == (await made(ADD, body={"session_id": "1"})).frame_index
    assert 2 == len(script.requests)


async def test_the_last_fault_is_raised_when_the_attempts_are_spent():
    """
    Three attempts by default, then the service's own error.
    """
    made, script = exchange(*[envelope(code=5001, status=503)] * 3)
    with pytest.raises(ServerError):
        await made(CLEAR, body={"session_id": "1"})
    assert 3 == len(script.requests)


async def test_waits_between_attempts_grow_and_are_drawn():
    """
    With the highest chance the waits are half a second and one.
    """
    made, _ = exchange(NotSentError("a"), NotSentError("b"), task_reply())
    began = anyio.current_time()
    await made(GET, path=GET.at("1"))
    assert 1.5 == pytest.approx(anyio.current_time() - began)


async def test_the_service_may_ask_for_a_longer_wait():
    """
    Retry-After is waited at least.
    """
    refused = envelope(code=1302, status=429, headers={"retry-after": "7"})
    made, _ = exchange(refused, task_reply())
    began = anyio.current_time()
    await made(GET, path=GET.at("1"))
    assert 7 == pytest.approx(anyio.current_time() - began)


async def test_a_wait_of_over_a_minute_is_an_error():
    """
    A service that asks for more than a minute is not waited for.
    """
    made, script = exchange(envelope(code=1302, status=429, headers={"retry-after": "61"}))
    with pytest.raises(ThrottledError) as caught:
        await made(GET, path=GET.at("1"))
    assert 61 == caught.value.retry_after
    assert 1 == len(script.requests)


async def test_a_refused_key_names_host_and_variable():
    """
    The commonest cause of 1002 is a key of another service.
    """
    made, _ = exchange(envelope(code=1002, status=401, message=f"bad key {KEY}"))
    with pytest.raises(AuthenticationError, match=r"COMETAPI_KEY.*api\.cometapi\.com") as caught:
        await made(GET, path=GET.at("1"))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("code", [1003, 1004])
async def test_a_token_is_signed_again_once(code):
    """
    A token that is too early or too late is replaced once, and the call goes on.
    """
    made, script = exchange(envelope(code=code, status=401), task_reply(), credentials=KeyPair("access", "secret-" * 6))
    await made(GET, path=GET.at("1"))
    assert 2 == len(script.requests)
    made, script = exchange(
        *[envelope(code=code, status=401)] * 2, task_reply(), credentials=KeyPair("access", "secret-" * 6)
    )
    with pytest.raises(AuthenticationError):
        await made(GET, path=GET.at("1"))
    assert 2 == len(script.requests)


async def test_a_redirect_is_refused():
    """
    API calls are never redirected: the key would go where the server says.
    """
    made, script = exchange(Response(307, {"location": "https://elsewhere.example"}))
    with pytest.raises(DecodeError, match="redirects"):
        await made(GET, path=GET.at("1"))
    assert 1 == len(script.requests)


async def test_only_get_is_replayed_on_other_routes():
    """
    A POST to a route that we do not know is sent once.
    """
    made, script = exchange(LostReplyError("cut"), envelope({"a": 1}))
    assert {"a": 1} == await made.plain("GET", "/account/costs", params={"start_time": 1})
    assert 2 == len(script.requests)
    made, script = exchange(LostReplyError("cut"), envelope({"a": 1}))
    with pytest.raises(LostReplyError):
        await made.plain("POST", "/v1/videos/text2video", body={"prompt": "x"})
    assert 1 == len(script.requests)


async def test_the_log_tells_of_exchanges_and_replays_but_never_of_keys(caplog):
    """
    DEBUG for an exchange, INFO for a replay, and no secret in either.
    """
    caplog.set_level(logging.DEBUG, "kling_async")
    made, _ = exchange(NotSentError("refused"), task_reply())
    await made(GET, path=GET.at("1"))
    assert [("INFO", "attempt 2" in caplog.text), ("DEBUG", "HTTP 200" in caplog.text)] == [
        (record.levelname, True) for record in caplog.records
    ]
    assert KEY not in caplog.text


@pytest.mark.parametrize("credentials", [ApiKey("no-known-shape-4711"), KeyPair("access-4711", "secret-4711" * 3)])
async def test_a_key_that_is_echoed_is_struck_out_whatever_its_shape(credentials):
    """
    A gateway's refusal may quote the key or the token; the error does not.
    """
    echoed = b'{"code": 1201, "message": "bad no-known-shape-4711 access-4711 %s"}' % (b"secret-4711" * 3)
    made, _ = exchange(Response(400, body=echoed), credentials=credentials)
    with pytest.raises(InvalidRequestError, match=r"\*\*\*") as caught:
        await made(GET, path=GET.at("1"))
    own = [credentials.key] if isinstance(credentials, ApiKey) else [credentials.access_key, credentials.secret_key]
    assert not any(secret in str(caught.value) for secret in own)


def test_clients_of_one_host_and_one_key_share_a_budget():
    """
    Wherever in the process they are; another key, or another host, has its own.
    """
    shared = shared_budget(host(KLING_GLOBAL_URL), ApiKey("sk-one-key"))
    assert shared is shared_budget(host(f"{KLING_GLOBAL_URL}/"), ApiKey("sk-one-key", source="KLING_API_KEY"))
    others = {
        id(shared_budget(host(KLING_CHINA_URL), ApiKey("sk-one-key"))),
        id(shared_budget(host(KLING_GLOBAL_URL), ApiKey("sk-other-key"))),
        id(shared_budget(host(KLING_GLOBAL_URL), KeyPair("sk-one-key-pair", "secret"))),
    }
    assert id(shared) not in others


async def test_what_one_client_spends_the_other_does_not_have():
    """
    Two clients of one host and key; the second is refused the replay that the first has used up.
    """
    scripts = [Script([NotSentError("refused"), NotSentError("refused")]), Script([NotSentError("refused")])]
    first, second = (KlingClient(ApiKey("sk-shared-4711"), transport=script) for script in scripts)
    async with first, second:
        first._exchange.budget.left = 9
        for client in (first, second):
            with pytest.raises(NotSentError) as caught:
                await client.get_task("8781")
            [note] = caught.value.__notes__
            assert "not sent again: too many calls to api.cometapi.com failed of late (4 tokens" in note
        assert 4 == second._exchange.budget.left
    assert [2, 1] == [len(script.requests) for script in scripts]


def test_budgets_are_kept_without_keys_and_forgotten_with_their_clients():
    """
    The registry holds fingerprints, and nothing once the last client is gone.
    """
    gc.collect()
    before = len(_BUDGETS)
    kept = [shared_budget(host(COMETAPI_URL), ApiKey(f"sk-canary-{number}")) for number in range(100)]
    assert before + 100 == len(_BUDGETS)
    assert "canary" not in repr(list(_BUDGETS.items()))
    assert {CAPACITY} == {budget.left for budget in kept}
    kept.clear()
    gc.collect()
    assert before >= len(_BUDGETS)


async def test_a_call_is_not_paid_for_by_another():
    """
    A first attempt that succeeds while another call waits for its replay earns one token, and the replay its own price.
    """
    made, script = exchange(LostReplyError("cut"), task_reply(), task_reply())
    made.budget.left = 100
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: made(GET, path=GET.at("1")))
        await anyio.wait_all_tasks_blocked()
        assert 90 == made.budget.left
        await made(GET, path=GET.at("2"))
        assert 91 == made.budget.left
    assert 101 == made.budget.left
    assert 3 == len(script.requests)


@pytest.mark.parametrize("end", [task_reply(), envelope(code=1203, status=404)], ids=["answered", "refused"])
async def test_what_a_replay_has_paid_is_earned_by_no_later_call(end):
    """
    However the replay ends, the next call of the same task earns what a first attempt does.
    """
    made, _ = exchange(LostReplyError("cut"), end, task_reply())
    made.budget.left = 100
    with suppress(NotFoundError):
        await made(GET, path=GET.at("1"))
    before = made.budget.left
    await made(GET, path=GET.at("2"))
    assert 1 == made.budget.left - before


def test_a_download_is_tried_again_whatever_the_budget():
    """
    Its host is another, and nothing of ours is at stake there.
    """
    made, _ = exchange()
    made.budget.left = 0
    assert 0.5 == made.delay(1, DownloadError("cut"))
    assert 0 == made.budget.left


NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


async def signed_at(date, *, now):
    """
    For when the second token is signed, after the first was refused in a reply of this date.
    """
    pair, headers = KeyPair("access", "secret-" * 6), {} if date is None else {"date": date}
    made, script = exchange(envelope(code=1004, status=401, headers=headers), task_reply(), credentials=pair, now=now)
    await made(GET, path=GET.at("1"))
    token = script.requests[1].headers["Authorization"].removeprefix("Bearer ")
    return jwt.decode(token, options={"verify_signature": False})["exp"] - 1800


@pytest.mark.parametrize("off", [-3600, -86_000, 3600, 86_000])
async def test_a_wrong_clock_goes_by_the_services(off):
    """
    A refused token is signed anew for the time that the refusal told.
    """
    now = NOON.timestamp()
    assert now == await signed_at(format_datetime(NOON, usegmt=True), now=now + off)


@pytest.mark.parametrize("date", [None, "", "noon", "Fri, 20 Nov 2015 12:00:00 GMT", "Fri, 20 Nov 0000 12:00:00 GMT"])
async def test_a_date_that_cannot_be_is_not_believed(date):
    """
    None, no date, or one more than a day away: our own clock is all there is.
    """
    assert int(NOON.timestamp()) == await signed_at(date, now=NOON.timestamp())
