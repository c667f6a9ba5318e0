"""
Deliveries: the body alone, signed here as a sender would; or request line, headers, an empty line and the body.
"""

import asyncio
import hmac
import json
from base64 import b64decode, b64encode
from contextlib import contextmanager

from attrs import frozen

from kling_async import ApiKey, Inbox, SignatureError, WebhookError
from kling_async._auth import webhook_token
from kling_async._endpoints import GET
from kling_async._hints import TEXT_MOST
from kling_async.webhooks import parse_webhook, webhook_app
from tests.fuzz.common import NAMES, STATES, VALUES, Target, fine, headers_of

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
OTHER = "whsec_b3RoZXI="
MOMENT = b"1781080794"
OWN = ApiKey("made-up-key")
NAME = f"order-17.{webhook_token(OWN, 'order-17')}"
SIGNED = (b"webhook-id: ", b"webhook-timestamp: ", b"webhook-signature: ", b"v1,", b" v1,", MOMENT, b"POST ", b"\n\n")


def mac(body, delivery, moment):
    """
    A signature, as the standard describes it.
    """
    key = b64decode(SECRET.removeprefix("whsec_"))
    return b"v1," + b64encode(hmac.new(key, b".".join([delivery, moment, body]), "sha256").digest())


@contextmanager
def webhook_body():
    """
    Any body under good headers: a hint that leads nowhere else, or a refusal; the same with a signature as without.
    """
    inbox = Inbox()

    def run(body):
        signed = {"Webhook-Id": "msg-1", "Webhook-Timestamp": MOMENT.decode()}
        signed["Webhook-Signature"] = mac(body, b"msg-1", MOMENT).decode()
        ends = []
        for headers, secret in ((signed, SECRET), ({}, None)):
            try:
                ends.append(parse_webhook(body, headers, secret=secret, now=int(MOMENT)))
            except WebhookError as error:
                fine(error)
                ends.append((type(error), str(error)))
        hint, other = ends
        assert hint == other
        if not isinstance(hint, tuple):
            said = [hint.task_id, hint.status, hint.external_task_id or "x"]
            assert all(0 < len(text) <= TEXT_MOST and text.isprintable() for text in said)
            assert GET.at(hint.task_id).count("/") == GET.path.count("/")
            assert isinstance(json.loads(body), dict)
            inbox.put(hint)

    yield run


@frozen
class Reader:
    """
    What an open client would lend the inbox.
    """

    def token(self, external_task_id):
        return webhook_token(OWN, external_task_id)

    def check(self):
        """
        Any loop will do.
        """


@contextmanager
def webhook_headers():
    """
    Any request: taken where an independent check of token and signature says so, else refused with a known status.
    """
    inbox = Inbox()
    inbox.attach(Reader())
    plain, signed = webhook_app(inbox), webhook_app(inbox, secret=SECRET)
    with asyncio.Runner() as runner:

        def run(data):
            head, _, body = data.partition(b"\n\n")
            line, *lines = head.split(b"\n")
            check_signed(body, headers_of(lines))
            method, _, path = line.decode(errors="surrogateescape").partition(" ")
            pairs = [(name, value.strip()) for name, _, value in (each.partition(b":") for each in lines)]
            scope = {"type": "http", "method": method, "path": path, "root_path": "/kling", "headers": pairs}
            status = runner.run(asked(plain, scope, body))
            assert status in {200, 400, 404, 405, 413, 415}
            ours = method == "POST" and path.removeprefix("/kling").removeprefix("/") == NAME
            assert ours == (status not in {404, 405})
            # What it was signed with, if at all, was signed long ago.
            assert runner.run(asked(signed, scope, body)) in ({401, 413, 415} if ours else {404, 405})

        yield run


def check_signed(body, headers):
    """
    Whether a signature is taken exactly where it is good.
    """
    try:
        parse_webhook(body, headers, secret=[OTHER, SECRET], now=int(MOMENT))
    except SignatureError as error:
        fine(error)
        return
    except WebhookError as error:
        fine(error)
        if "bytes" in str(error):
            return
    lowered = {name.lower(): value.encode(errors="surrogateescape") for name, value in headers.items()}
    delivery, moment, given = (lowered[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    assert mac(body, delivery, moment) in given.split(b" ")
    assert abs(int(moment) - int(MOMENT)) <= 300


async def asked(app, scope, body):
    """
    The status that an application answers.
    """
    told = []

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        told.append(message)

    await app(scope, receive, send)
    assert ["http.response.start", "http.response.body"] == [message["type"] for message in told]
    return told[0]["status"]


BODIES = (
    b'{"task_id":"8781","task_status":"succeed","task_info":{"external_task_id":"order-17"},"task_result":{}}',
    b'{"id":"1234567890","status":"succeeded","message":"","external_id":"order-17","outputs":[]}',
    b'{"code":0,"data":{"task_id":878106242831892487,"task_status":"failed","task_status_msg":"x"}}',
    b'{"a":' * 20 + b"1" + b"}" * 20,
    b'{"task_id":' + b"9" * 300 + b',"task_status":"x","x":[1e999,"\\ud800"]}',
)


def requests():
    """
    Good requests, and each with something left out.
    """
    for body in BODIES:
        lines = [
            b"POST /kling/" + NAME.encode(),
            b"content-type: application/json; charset=utf-8",
            b"webhook-id: msg-1",
            b"webhook-timestamp: " + MOMENT,
            b"webhook-signature: v1,xxxx " + mac(body, b"msg-1", MOMENT),
        ]
        yield b"\n".join(lines) + b"\n\n" + body
        for left_out in range(len(lines)):
            yield b"\n".join(line for place, line in enumerate(lines) if place != left_out) + b"\n\n" + body


BODY = Target(webhook_body, BODIES, (*VALUES, *NAMES, *STATES))
HEADERS = Target(webhook_headers, tuple(requests()), (*SIGNED, *VALUES, NAME.encode(), b"/kling/"))
