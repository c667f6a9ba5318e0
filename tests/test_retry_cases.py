"""
When a call is sent again, as data: `retry_cases.json`, which any other client of this API may be held to as well.

A case names its endpoint, what is in the bucket, what the server answers in turn and, where it matters, the chances
that are drawn, the credentials, and what the policy has other than by default. It expects so many requests, these
seconds between them, an outcome (`ok` or the error's class) and a bucket. An answer is `ok`, `unsent`, `lost`,
`timeout` (while connecting), `tls`, or an HTTP status with a code, or with a body as it is. `spent` says that the
error must tell of the empty bucket.
"""

import json
from collections import Counter
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field

from kling_async import (
    KLING_GLOBAL_URL,
    ApiKey,
    KeyPair,
    KlingClient,
    KlingError,
    LostReplyError,
    NotSentError,
    Removal,
    RetryPolicy,
    TLSError,
)
from kling_async._endpoints import ENDPOINTS, Replay
from kling_async._refusals import CODES
from kling_async.transport import Response
from tests.doubles import KEY, envelope, task_reply

CASES = json.loads((Path(__file__).parent / "retry_cases.json").read_text())
CREDENTIALS = {"key": ApiKey(KEY), "pair": KeyPair("access-4711", "secret-" * 6)}
MARKED = {"status": 0, "res": {"frame_index": 0, "rle_mask_list": []}}
FINE = {
    "create": task_reply(),
    "get": task_reply(),
    "init": envelope({"status": 0, "session_id": "8475"}),
    "add": envelope(MARKED),
    "delete": envelope(MARKED),
    "clear": envelope({"status": 0}),
    "preview": envelope({"status": 0, "res": {"video": "https://cdn.example.com/mask.mp4"}}),
    "list": envelope([]),
}
CALLS = {
    "create": lambda client: client.create_task("8475", Removal.of("the stones")),
    "get": lambda client: client.get_task("8781"),
    "init": lambda client: client.init_selection(video_url="https://example.com/clip.mp4"),
    "add": lambda client: client.add_selection("8475", 0, [(0.5, 0.5)]),
    "delete": lambda client: client.delete_selection("8475", 0, [(0.5, 0.5)]),
    "clear": lambda client: client.clear_selection("8475"),
    "preview": lambda client: client.preview_selection("8475"),
    "list": lambda client: client.list_tasks(),
}
NAMES = ("init", "add", "delete", "clear", "preview", "create", "get", "list")
LICENCES = {name: endpoint.replay for name, endpoint in zip(NAMES, ENDPOINTS, strict=True)}
UNKNOWN_TASK = envelope(code=1203, status=404)
DOUBT = 0.2
"""Seconds for which a create in doubt is looked for, where the case says nothing else."""


KINDS = {"unsent": NotSentError, "lost": LostReplyError, "timeout": NotSentError, "tls": TLSError}


def fault(word):
    """
    The error that a transport raises, and what it came from.
    """
    error = KINDS[word](word)
    error.__cause__ = TimeoutError() if word == "timeout" else None
    return error


def answered(answer):
    """
    The reply that an answer of a case stands for.
    """
    headers = answer.get("headers", {})
    if "body" in answer:
        return Response(answer["status"], headers, answer["body"].encode())
    return envelope(code=answer["code"], message="no", status=answer["status"], headers=headers)


@define
class Server:
    """
    Answers as a case says and notes when it was asked; it knows no task that a create in doubt looks for.
    """

    endpoint: str
    answers: list
    times: list = field(factory=list)

    async def exchange(self, request):
        await anyio.lowlevel.checkpoint()
        if self.endpoint == "create" and request.method == "GET":
            return UNKNOWN_TASK
        self.times.append(anyio.current_time())
        answer = self.answers.pop(0)
        if answer == "ok":
            return FINE[self.endpoint]
        if isinstance(answer, str):
            raise fault(answer)
        return answered(answer)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
async def test_a_call_is_sent_as_often_and_as_late_as_the_case_says(case):
    """
    Requests, the seconds between them, the outcome and the budget afterwards.
    """
    server, chances = Server(case["endpoint"], list(case["answers"])), list(case.get("chances", []))
    client = KlingClient(
        CREDENTIALS[case.get("credentials", "key")],
        base_url=KLING_GLOBAL_URL,
        transport=server,
        retry=RetryPolicy(**{"doubt": DOUBT, **case.get("policy", {})}),
    )
    error = None
    async with client:
        client._exchange.chance = lambda: chances.pop(0) if chances else 1.0
        client._exchange.budget.left = case["bucket"]
        try:
            await CALLS[case["endpoint"]](client)
        except KlingError as raised:
            error = raised
        left = client._exchange.budget.left
    assert case["outcome"] == ("ok" if error is None else type(error).__name__)
    assert case["requests"] == len(server.times)
    assert [] == server.answers
    waits = [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]
    assert case["delays"] == pytest.approx(waits, abs=1e-6)
    assert case["bucket_after"] == left
    assert case.get("spent", False) == any("not sent again" in note for note in getattr(error, "__notes__", []))


def test_every_code_has_a_case_under_every_licence():
    """
    The provider's whole table, each code for a read, a change of points and the paid create.
    """
    seen = {licence: set() for licence in Replay}
    for case in CASES:
        answers = case["answers"]
        codes = {answer["code"] for answer in answers if isinstance(answer, dict) and "code" in answer}
        seen[LICENCES[case["endpoint"]]] |= codes | ({0} if "ok" in answers else set())
    seen[Replay.SAFE] |= seen.pop(Replay.TWICE)
    assert all(set(CODES) | {0} <= codes for codes in seen.values())
    assert len(CASES) >= 60


def test_every_endpoint_has_its_cases_and_every_case_its_name():
    """
    All eight, and no name twice.
    """
    assert set(CALLS) == {case["endpoint"] for case in CASES}
    assert [] == [name for name, count in Counter(case["name"] for case in CASES).items() if count > 1]


def test_every_case_says_what_it_expects_and_nothing_else():
    """
    No key is misspelt: what is not read would hold of nothing.
    """
    needed = {"name", "endpoint", "bucket", "answers", "requests", "delays", "outcome", "bucket_after"}
    for case in CASES:
        assert needed <= case.keys() <= needed | {"credentials", "policy", "chances", "spent"}, case["name"]
        assert case["requests"] == len(case["answers"]) == len(case["delays"]) + 1, case["name"]
