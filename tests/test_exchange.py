"""
One call: signed, sent, read, replayed under licence.
"""

import logging

import anyio
import pytest

from kling_async import (
    ApiKey,
    AuthenticationError,
    DecodeError,
    InvalidRequestError,
    KeyPair,
    LostReplyError,
    NotSentError,
    RetryPolicy,
    ServerError,
    ThrottledError,
    TLSError,
)
from kling_async._auth import Signer
from kling_async._endpoints import ADD, CLEAR, COMETAPI_URL, GET, LIST, host
from kling_async._exchange import Exchange
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
