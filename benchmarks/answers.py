"""
What the server answers, built once: replies of this service, and those of the services that other libraries poll.

Each reply to a look at a task has some 640 to 800 bytes, as theirs have.
"""

import base64
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import count
from random import Random
from typing import Final

import orjson

from kling_async.masks import encode_runs

HEAD: Final = (
    b"HTTP/1.1 %s\r\nServer: bench\r\nDate: Fri, 20 Nov 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Connection: keep-alive\r\nVary: Origin\r\nX-Trace: 1\r\nContent-Length: %d\r\n\r\n"
)
ENVELOPE: Final = b'{"code":0,"message":"SUCCEED","request_id":"9ab376fc-0000-4000-8000-000000000000","data":%s}'
LINK: Final = "https://v15-kling.klingai.com/bs2/upload-ylab-stunt-sgp/se/ai_portal_queue_mmu_video/out.mp4"

ENDED: Final = (
    b'{"task_id":"%d","task_info":{"external_task_id":"ka1-abcdefghijklmnopqrstuvwxyz234567"},"created_at":'
    b'1777385361501,"updated_at":1777385363321,"task_result":{"videos":[{"id":"878106242831892488","session_id":'
    b'"878106242831892489","url":"https://v15-kling.klingai.com/bs2/upload-ylab-stunt-sgp/se/ai_portal_queue_mmu_'
    b'video/3a1f0f0e-7d6c-4f6e-9d3a-2f1c7c5b8e90/out.mp4?x-kcdn-pid=112372&pkey=made-up-0123456789abcdefghijklmnopqrst",'
    b'"duration":"5.04","watermark_url":""}]},"task_status":"succeed","final_unit_deduction":"3"}'
)
"""A task at its end."""
RUNNING: Final = ENDED.partition(b',"task_result"')[0] + b',"task_result":{},"task_status":"processing"}'
"""A task before."""
TASK: Final = ENVELOPE % (ENDED % 878106242831892487)
CREATED: Final = (
    b'{"task_id":"%d","task_status":"submitted","task_info":{},"created_at":1777385361501,"updated_at":1777385361501}'
)
OPENED: Final = (
    b'{"status":0,"session_id":"%d","fps":30,"width":1280,"height":720,"total_frame":150,"original_duration":5000,'
    b'"normalized_video":"https://v15-kling.klingai.com/bs2/upload/in.mp4"}'
)
CLEARED: Final = ENVELOPE % b'{"status":0}'
UNKNOWN: Final = b'{"code":1203,"message":"task not found","request_id":"9ab376fc-0000-4000-8000-000000000000"}'
OBJECTS: Final = 3
HEIGHT, WIDTH = 720, 1280

_ids: Iterator[int] = count(878106242831000000)

RIVALS: Final[dict[str, object]] = {
    "runwayml": {
        "id": "17f20503-6c24-4c16-946b-35dbbce2af2f",
        "status": "SUCCEEDED",
        "createdAt": "2026-11-20T00:00:00.000Z",
        "cost": {"credits": 25},
        "output": [f"https://dnznrvs05pmza.cloudfront.net/{LINK[-40:]}?_jwt={'x' * 440}"],
    },
    "openai": {
        "id": "batch_6745a1b0c8d08190a1b2c3d4e5f60718",
        "object": "batch",
        "endpoint": "/v1/responses",
        "errors": None,
        "input_file_id": "file-6745a1b0c8d08190a1b2c3d4",
        "completion_window": "24h",
        "status": "completed",
        "output_file_id": "file-6745a1b0c8d08190a1b2c3d5",
        "error_file_id": None,
        "created_at": 1777385361,
        "in_progress_at": 1777385365,
        "expires_at": 1777471761,
        "finalizing_at": 1777385465,
        "completed_at": 1777385470,
        "failed_at": None,
        "expired_at": None,
        "cancelling_at": None,
        "cancelled_at": None,
        "request_counts": {"total": 100, "completed": 95, "failed": 5},
        "metadata": {"customer_id": "user_123456789", "batch_description": "Nightly evaluation job"},
    },
    "fal": {
        "status": "COMPLETED",
        "request_id": "764cabcf-b745-4b3e-ae38-1200304cf45b",
        "response_url": "https://queue.fal.run/fal-ai/kling-video/requests/764cabcf-b745-4b3e-ae38-1200304cf45b",
        "status_url": "https://queue.fal.run/fal-ai/kling-video/requests/764cabcf-b745-4b3e-ae38-1200304cf45b/status",
        "cancel_url": "https://queue.fal.run/fal-ai/kling-video/requests/764cabcf-b745-4b3e-ae38-1200304cf45b/cancel",
        "logs": [{"message": "x" * 90, "level": "INFO", "source": "stdout", "timestamp": "2026-11-20T00:00:00Z"}],
        "metrics": {"inference_time": 61.4},
    },
    "replicate": {
        "id": "gm3qorzdhgbfurvjtvhg6dckhu",
        "model": "kwaivgi/kling-v2.1",
        "version": "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa",
        "input": {"prompt": "Delete the stones from the clip", "start_image": LINK},
        "logs": "",
        "error": None,
        "output": LINK,
        "status": "succeeded",
        "created_at": "2026-11-20T00:00:00.000Z",
        "started_at": "2026-11-20T00:00:01.000Z",
        "completed_at": "2026-11-20T00:01:01.000Z",
        "metrics": {"predict_time": 60.0},
        "urls": {
            "get": "https://api.replicate.com/v1/predictions/gm3qorzdhgbfurvjtvhg6dckhu",
            "cancel": "https://api.replicate.com/v1/predictions/gm3qorzdhgbfurvjtvhg6dckhu/cancel",
        },
    },
    "genai": {
        "name": "models/veo-3.1-generate-preview/operations/iepog0vmnfbs",
        "metadata": {"@type": "type.googleapis.com/google.ai.generativelanguage.v1main.PredictLongRunningMetadata"},
        "done": True,
        "response": {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1beta.PredictLongRunningResponse",
            "generateVideoResponse": {
                "generatedSamples": [
                    {"video": {"uri": f"https://generativelanguage.googleapis.com/v1beta/files/{'x' * 240}"}}
                ]
            },
        },
    },
}
"""By the first part of the path."""


def framed(body: bytes, status: bytes = b"200 OK") -> bytes:
    """
    A whole answer.
    """
    return HEAD % (status, len(body)) + body


def columns(seed: int) -> list[list[int]]:
    """
    The runs of each column of a shape with a ragged edge and holes: zeros, ones, zeros, ones, zeros.
    """
    draw = Random(seed)
    middle, radius = draw.uniform(0.3, 0.7) * WIDTH, draw.uniform(0.36, 0.4) * WIDTH
    runs = []
    for x in range(WIDTH):
        half = max(0.0, 1 - ((x - middle) / radius) ** 2) ** 0.5 * HEIGHT * 0.45
        top, bottom = (round(HEIGHT / 2 + side * half + draw.gauss(0, 9)) for side in (-1, 1))
        if bottom - top < 40:
            runs.append([HEIGHT])
            continue
        hole = draw.randrange(top + 5, bottom - 20)
        top, bottom = max(top, 1), min(bottom, HEIGHT - 1)
        runs.append([top, hole - top, 3, bottom - hole - 3, HEIGHT - bottom])
    return runs


def joined(listed: list[list[int]]) -> list[int]:
    """
    The runs of a whole mask: the last one of a column and the first one of the next are one.
    """
    whole = [0]
    for runs in listed:
        whole[-1] += runs[0]
        whole += runs[1:]
    return whole


def png(listed: list[list[int]]) -> bytes:
    """
    The same mask as a picture.
    """
    pixels = b"".join(bytes([255 * (index % 2)]) * run for runs in listed for index, run in enumerate(runs))
    rows = b"".join(b"\0" + pixels[y::HEIGHT] for y in range(HEIGHT))
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 0, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + body


@cache
def marked() -> bytes:
    """
    The reply to points on a frame: three objects, each with run lengths and a picture.
    """
    masks = []
    for number in range(OBJECTS):
        listed = columns(number)
        rle = {"size": [HEIGHT, WIDTH], "counts": encode_runs(joined(listed))}
        picture = {"size": [HEIGHT, WIDTH], "base64": base64.b64encode(png(listed)).decode()}
        masks.append({"object_id": number, "rle_mask": rle, "png_mask": picture})
    return ENVELOPE % orjson.dumps({"status": 0, "res": {"frame_index": 0, "rle_mask_list": masks}})


@cache
def rival(name: str) -> bytes:
    """
    What another service answers.
    """
    return orjson.dumps(RIVALS[name])


def posted(last: str) -> bytes:
    """
    The body of the answer to a POST, by the last part of its path.
    """
    match last:
        case "init-selection":
            return ENVELOPE % (OPENED % next(_ids))
        case "add-selection" | "delete-selection":
            return marked()
        case "clear-selection":
            return CLEARED
        case _:
            return ENVELOPE % (CREATED % next(_ids))
