"""
Replies: a byte for the endpoint, two for the status, lines of headers, an empty line, the body.
"""

import json
from contextlib import contextmanager

import orjson

from kling_async import KlingError, RetryPolicy, from_dict, to_dict
from kling_async._endpoints import ENDPOINTS
from kling_async._replies import read, unwrap
from kling_async.transport import Response
from tests.fuzz.common import NAMES, SAMPLES, STATES, VALUES, Target, fine, headers_of

ORDER = ("init", "add", "delete", "clear", "preview", "create", "get", "list")
"""What the samples call the endpoints, as these are numbered."""
HEADERS = (b"retry-after: ", b"date: ", b"Tue, 28 Apr 2026 14:09:21 +0000", b"\n\n", b"x-oneapi-request-id: ")


@contextmanager
def envelope():
    """
    Any reply, for any endpoint: a model that survives its plain form, or an error that a policy can judge.
    """

    def run(data):
        head, _, body = data[3:].partition(b"\n\n")
        headers = {name.lower(): value for name, value in headers_of(head.splitlines()).items()}
        response = Response(100 + int.from_bytes(data[1:3]) % 500, headers, body)
        endpoint = ENDPOINTS[data[0] % len(ENDPOINTS) if data else 0]
        try:
            unwrap(response, about="Check KEY.")
        except KlingError as error:
            fine(error)
        try:
            result = read(endpoint, response, about="Check KEY.")
        except KlingError as error:
            fine(error)
            delay = RetryPolicy().delay(1, chance=0.5, retry_after=getattr(error, "retry_after", None))
            assert delay is None or 0 <= delay <= 60
        else:
            assert isinstance(result, endpoint.result)
            for value in result if isinstance(result, tuple) else filter(None, [result]):
                plain = json.dumps(to_dict(value), allow_nan=False)
                assert value == from_dict(type(value), json.loads(plain))
                assert repr(value)

    yield run


def seeds():
    """
    Every sample, and bodies nested as deep as a parser goes.
    """
    for path in sorted(SAMPLES.glob("*/*.json")):
        sample = json.loads(path.read_text("utf-8"))
        body = sample["text"].encode() if "text" in sample else orjson.dumps(sample["body"])
        head = "\n".join(f"{name}: {value}" for name, value in sample.get("headers", {}).items()).encode()
        number = ORDER.index(sample["endpoint"])
        yield bytes([number]) + (sample["status"] - 100).to_bytes(2) + head + b"\n\n" + body
    for opened, closed in ((b"[", b"]"), (b'{"data":', b"}")):
        nested = opened * 1015 + b"0" + closed * 1015
        for place in (b'"code":1201,"message"', b'"error"', b'"data"', b'"task_status":"x","task_id"'):
            yield b"\6\0\x64\n\n{" + place + b":" + nested + b"}"


ENVELOPE = Target(envelope, tuple(seeds()), (*VALUES, *NAMES, *STATES, *HEADERS))
