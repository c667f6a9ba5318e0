"""
Documents and truth: the simulator against its own OpenAPI document and the three that CometAPI publishes, and every
request of the client against all four.
"""

import json
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import anyio
import orjson
import pytest
from attrs import define, field, frozen
from jsonschema import Draft202012Validator

from kling_async import COMETAPI_URL, KLING_GLOBAL_URL, Addition, ApiKey, Image, KlingClient, Removal, Swap
from kling_async._endpoints import ENDPOINTS
from kling_async.errors import KlingError
from kling_async.simulator import Fault, Simulator, _rules
from kling_async.simulator._answers import REFUSALS
from kling_async.transport import Request
from tests.simulating import CLIP, FAMILY, KEY, PATHS, Caller, calling, png, spots

SAMPLES = Path(__file__).parent / "samples" / "openapi"
PUBLISHED = {path.stem: json.loads(path.read_text()) for path in sorted(SAMPLES.glob("*.json"))}
OWN = Simulator().openapi()
SEED = "20261120"
UNDOCUMENTED = "status_code_conformance,positive_data_acceptance,negative_data_rejection"


@frozen
class Operation:
    """
    One call of a document, and what judges requests and replies by it.
    """

    document: dict
    method: str
    path: str

    @classmethod
    def of(cls, document, method, path):
        """
        The call that a request is for; None where the document has none.
        """
        for template, item in document["paths"].items():
            known = re.sub(r"\\\{\w+\\\}", "([^/]+)", re.escape(template))
            if method.lower() in item and re.fullmatch(known, path):
                return cls(document, method.lower(), template)
        return None

    @property
    def spec(self):
        return self.document["paths"][self.path][self.method]

    @property
    def parameters(self):
        return [*self.document["paths"][self.path].get("parameters", ()), *self.spec.get("parameters", ())]

    def problems(self, schema, value):
        whole = {"components": self.document.get("components", {}), **schema}
        return [f"{error.json_path}: {error.message[:200]}" for error in Draft202012Validator(whole).iter_errors(value)]

    def body_problems(self, body):
        return self.problems(self.spec["requestBody"]["content"]["application/json"]["schema"], body)

    def reply_problems(self, response):
        reply = self.spec["responses"].get(str(response.status), {})
        if "$ref" in reply:
            reply = self.document["components"]["responses"][reply["$ref"].rpartition("/")[2]]
        media = reply.get("content", {}).get(response.headers["content-type"])
        return ["undocumented"] if media is None else self.problems(media["schema"], orjson.loads(response.body))

    def request_problems(self, request):
        parts = urlsplit(request.url)
        given = dict(parse_qsl(parts.query)) | {"id": unquote(parts.path.rpartition("/")[2])}
        problems = [] if request.headers["Authorization"] == f"Bearer {KEY}" else ["no key"]
        for parameter in self.parameters:
            if parameter["name"] in given:
                value = given.pop(parameter["name"])
                whole = parameter["schema"]["type"] == "integer"
                problems += self.problems(parameter["schema"], int(value) if whole else value)
        if "requestBody" in self.spec:
            problems += [] if request.headers["Content-Type"] == "application/json" else ["no media type"]
            problems += self.body_problems(orjson.loads(request.body))
        return problems + [f"{name} is not documented" for name in given if name != "id"]


def judge(document, request):
    """
    The call of a document that a request is for, if it has that, and what is wrong with the request.
    """
    path = urlsplit(request.url).path.removeprefix("/kling")
    prefix = "/kling" if document in PUBLISHED.values() else ""
    operation = Operation.of(document, request.method, prefix + path)
    return (None, []) if operation is None else (operation.spec["operationId"], operation.request_problems(request))


@define
class Recorder:
    """
    A transport that remembers what it carried.
    """

    transport: object
    carried: list[Request] = field(factory=list)

    async def exchange(self, request):
        self.carried.append(request)
        return await self.transport.exchange(request)


async def use(client, clip):
    """
    Everything that the client can ask for, in every spelling that it has.
    """
    info = await client.init_selection(video_url=clip)
    await client.init_selection(video_id="876543210987654321")
    await client.add_selection(info.session_id, 3, [(0, 1), (0.1 + 0.2, 5e-324)])
    await client.add_selection(info.session_id, 4, [(n / 10, 0.5) for n in range(10)])
    await client.delete_selection(info.session_id, 3, [(0.0, 1.0)])
    await client.preview_selection(info.session_id)
    url, picture = Image.from_url("https://example.com/hat.png?width=300"), Image(png())
    edits = [
        Removal.of("the bird"),
        Removal(
            prompt="<<<video_1>>>" + "x" * 2487, negative_prompt="y" * 2500, mode="pro", duration=5, watermark=False
        ),
        Swap.of("the bird", "a hat", url, watermark=True),
        Addition.of("a hat", picture, url, extra={"model_name": "kling-v1-6"}),
        Addition.of("a hat", url, extra={"of later": [None]}),
    ]
    for number, edit in enumerate(edits):
        callback_url = "https://me.example/kling?order=1" if number else None
        task = await client.create_task(info.session_id, edit, callback_url=callback_url)
        assert "succeed" == (await client.get_task(task.task_id)).status
    await client.create_task(info.session_id, edits[0], external_task_id="order-1.a_b")
    await client.get_task(external_task_id="order-1.a_b")
    await client.clear_selection(info.session_id)
    with pytest.raises(KlingError):
        await client.preview_selection(info.session_id)


@pytest.mark.parametrize("base_url", [COMETAPI_URL, KLING_GLOBAL_URL, "http://127.0.0.1:8080/kling"])
@pytest.mark.filterwarnings("ignore:the prompt does not name")
async def test_every_request_of_the_client_fits_every_document(base_url):
    """
    All eight calls as the client makes them, by the simulator's document and by the published ones.
    """
    recorder = Recorder(Simulator(task_seconds=0).transport())
    async with KlingClient(ApiKey(KEY), transport=recorder, base_url=base_url) as client:
        await use(client, CLIP)
        if base_url != COMETAPI_URL:
            await client.list_tasks()
            await client.list_tasks(page=1000, page_size=500)
    for document, calls in ((OWN, {*PATHS, "get"}), *((each, set(ids(each))) for each in PUBLISHED.values())):
        judged = [judge(document, request) for request in recorder.carried]
        assert calls <= {name for name, _ in judged}
        assert [] == [(name, problem) for name, problems in judged for problem in problems]


def ids(document):
    return re.findall(r'"operationId": "(\w+)"', json.dumps(document))


def test_the_documents_are_documents():
    """
    Each schema is one, every call has its place, and no reference leads nowhere.
    """
    for schema in OWN["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    assert {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS} == {
        (method.upper(), path) for path, item in OWN["paths"].items() for method in item if method != "parameters"
    }
    references = set(re.findall(r'"#/components/(\w+)/(\w+)"', json.dumps(OWN)))
    assert references == {(kind, name) for kind in ("schemas", "responses") for name in OWN["components"][kind]} | {
        ("schemas", "TaskData")
    }
    assert {"init-selection", "delete-selection", "preview-selection"} == set(PUBLISHED)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: f"{endpoint.method} {endpoint.path}")
@pytest.mark.parametrize("code", sorted(REFUSALS))
async def test_every_refusal_is_documented(endpoint, code):
    """
    Each code at each call, under the HTTP status that goes with it.
    """
    operation = Operation.of(OWN, endpoint.method, endpoint.path)
    _, caller = calling(faults=[Fault(operation.spec["operationId"], "code", code=code, retry_after=1)])
    reply = await caller.send(endpoint.method, endpoint.at("1"))
    assert (REFUSALS[code][0], code) == reply.refusal[:2]
    assert [] == operation.reply_problems(reply.response)


@frozen
class Asking:
    """
    Asks, and holds each reply to the document.
    """

    caller: Caller
    statuses: list = field(factory=list)

    async def __call__(self, method, path, **fields):
        path = f"{FAMILY}{path}"
        reply = await self.caller.send(method, path, orjson.dumps(fields) if fields else b"")
        assert [] == Operation.of(OWN, method, path).reply_problems(reply.response), (path, reply.json)
        self.statuses.append(reply.status)
        return reply.json


async def test_every_reply_is_documented_to_its_last_field():
    """
    Successes of all calls, a rejected selection, refusals, and tasks in every state.
    """
    faults = [Fault("add", "rejected", after=1), Fault("task", "failed", after=1), Fault("video", "missing")]
    _, caller = calling(task_seconds=10, quota=3, faults=faults)
    ask = Asking(caller)
    session = {"session_id": (await ask("POST", "/init-selection", video_url=CLIP))["data"]["session_id"]}
    where = {**session, "frame_index": 0, "points": spots((0.5, 0.5))}
    order = {**session, "edit_mode": "removal", "prompt": "x"}
    for action in ("add", "add", "delete", "delete"):
        await ask("POST", f"/{action}-selection", **where)
    await ask("POST", "", **order)
    await ask("POST", "/add-selection", **where)
    await ask("POST", "/preview-selection", **session)
    assert [200, 200, 200, 200, 400, 400, 200, 200] == ask.statuses
    varied = ({"model_name": "x"}, {}, {"external_task_id": "a"}, {"watermark_info": {"enabled": True}}, {})
    tasks = [await ask("POST", "", **order, **more) for more in varied]
    assert [404, 200, 200, 200, 429] == ask.statuses[8:]
    seen = []
    for _ in range(4):
        seen += [await ask("GET", f"/{task['data']['task_id']}") for task in tasks if task["code"] == 0]
        assert [0, 1203, 1202] == [(await ask("GET", path))["code"] for path in ("", "/none", "/init-selection")]
        await anyio.sleep(4)
    assert {"submitted", "processing", "succeed", "failed"} == {reply["data"]["task_status"] for reply in seen}
    await ask("POST", "/clear-selection", **session)
    await ask("POST", "/preview-selection", **session)
    assert [200, 400] == ask.statuses[-2:]


TOUCHED = {"session_id": "847570360458960960"}
MARKED = {**TOUCHED, "frame_index": 0, "points": spots((0, 1))}
ORDERED = {**TOUCHED, "edit_mode": "removal", "prompt": "x"}
PICTURE = {"image": "https://example.com/hat.png"}


@pytest.mark.parametrize(
    "name, body, fits",
    [
        ("init", {"video_url": CLIP, "video_id": ""}, True),
        ("init", {"video_url": None, "video_id": "1"}, True),
        ("init", {"video_url": CLIP, "video_id": "1"}, False),
        ("init", {"video_url": f"{CLIP}?{'x' * 2019}"}, True),
        ("init", {"video_url": f"{CLIP}?{'x' * 2020}"}, False),
        ("init", {"video_url": "https://example.com/clip.Mkv#t=1"}, False),
        ("init", {}, False),
        ("add", MARKED, True),
        ("add", {**MARKED, "frame_index": 2**31 - 1}, True),
        ("add", {**MARKED, "frame_index": 2**31}, False),
        ("add", {**MARKED, "frame_index": 2.0}, True),
        ("add", {**MARKED, "points": spots(*((n / 10, 0) for n in range(10)))}, True),
        ("add", {**MARKED, "points": spots(*((n / 11, 0) for n in range(11)))}, False),
        ("add", {**MARKED, "points": []}, False),
        ("add", {**MARKED, "points": spots((1.01, 0))}, False),
        ("delete", {**MARKED, "frame_index": True}, False),
        ("clear", TOUCHED | {"more": 1}, True),
        ("preview", {"session_id": ""}, False),
        ("create", ORDERED, True),
        ("create", {**ORDERED, "prompt": "\U0001f3ac" * 2500, "image_list": []}, True),
        ("create", {**ORDERED, "prompt": "x" * 2501}, False),
        ("create", {**ORDERED, "negative_prompt": "x" * 2501}, False),
        ("create", {**ORDERED, "image_list": [PICTURE]}, False),
        ("create", {**ORDERED, "edit_mode": "swap", "image_list": [PICTURE]}, True),
        ("create", {**ORDERED, "edit_mode": "swap", "image_list": [PICTURE, PICTURE]}, False),
        ("create", {**ORDERED, "edit_mode": "addition", "image_list": [PICTURE, {"image": "AAAA"}]}, True),
        ("create", {**ORDERED, "edit_mode": "addition", "image_list": [{"image": "AAA"}]}, False),
        ("create", {**ORDERED, "edit_mode": "addition"}, False),
        ("create", {**ORDERED, "duration": 5}, False),
        ("create", {**ORDERED, "duration": "", "mode": None, "model_name": "kling-v1-6"}, True),
        ("create", {**ORDERED, "callback_url": "me.example"}, False),
        ("create", {**ORDERED, "watermark_info": {"enabled": None}}, True),
        ("create", {**ORDERED, "watermark_info": True}, False),
    ],
)
async def test_the_document_and_the_simulator_draw_the_same_line(name, body, fits):
    """
    At each bound, what the schema allows is looked at, and what it does not is refused.
    """
    _, caller = calling()
    assert fits == (not Operation.of(OWN, "POST", f"{FAMILY}{PATHS[name]}").body_problems(body))
    assert fits == (400 != (await caller.post(name, body)).status)


def test_base64_is_the_same_by_pattern_and_by_rule():
    """
    The document's pattern is too dear for whole pictures, so the simulator has another that says the same.
    """
    for text in map("".join, (text for length in range(10) for text in product("Ay+=", repeat=length))):
        by_rule = len(text) % 4 == 0 and re.fullmatch(_rules._BASE64_LIKE, text)
        assert bool(by_rule) == bool(re.fullmatch(_rules.BASE64, text)), text


@pytest.fixture
def served():
    """
    A simulator that lets one key in, and where it is served.
    """
    simulator = Simulator(api_key=KEY, task_seconds=0, quota=1000)
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(simulator.serve()) as base_url,
    ):
        yield simulator, base_url


def schemathesis(folder, *arguments, examples=25):
    """
    Run all of its phases, from a folder of its own.
    """
    command = [sys.executable, "-m", "schemathesis.cli", "run", *arguments, "--seed", SEED, "-n", str(examples)]
    command += ["-H", f"Authorization: Bearer {KEY}", "--generation-database", "none", "--no-color"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | {"NO_PROXY": "127.0.0.1"}
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_every_check_passes_on_the_simulators_own_document(served, tmp_path):
    """
    All checks, all calls, fetched from the server itself, which has a key set.
    """
    simulator, base_url = served
    said = schemathesis(tmp_path, f"{base_url}/openapi.json", "--checks", "all")
    assert "8 selected / 8 total" in said
    assert {*PATHS, "get", "list", None, "openapi"} == {seen.endpoint for seen in simulator.log}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_checks_pass_with_sessions_and_tasks_at_hand(served, tmp_path):
    """
    Where ids are known the calls do their work, and whether a session can take a point is beyond a schema.
    """
    simulator, base_url = served

    async def prepare():
        caller = Caller(simulator.transport())
        sessions = [await caller.marked() for _ in range(3)]
        return sessions, [(await caller.create(session)).data["task_id"] for session in sessions]

    sessions, tasks = anyio.run(prepare)
    (tmp_path / "schemathesis.toml").write_text(
        f"dictionaries = {{ sessions = {{ values = {sessions} }}, tasks = {{ values = {tasks} }} }}\n"
        "[parameters]\n"
        '"body.session_id" = { dictionary = "sessions", probability = 0.9 }\n'
        '"path.id" = { dictionary = "tasks", probability = 0.9 }\n'
    )
    beyond = ("--exclude-checks", "positive_data_acceptance", "--exclude-operation-id", "clear")
    schemathesis(tmp_path, f"{base_url}/openapi.json", "--checks", "all", *beyond)
    worked = {seen.endpoint for seen in simulator.log if seen.status == 200}
    assert {"init", "add", "preview", "create", "get", "list"} <= worked


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", PUBLISHED)
def test_all_but_three_checks_pass_on_the_published_documents(name, served, tmp_path):
    """
    These document HTTP 200 alone and few bounds, so three checks would ask for what no service can keep.
    """
    _, base_url = served
    document = ("--url", base_url.removesuffix("/kling"), str(SAMPLES / f"{name}.json"))
    schemathesis(tmp_path, *document, "--checks", "all", "--exclude-checks", UNDOCUMENTED)
