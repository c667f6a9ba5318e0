"""
Switches that change what a host does: ids, the list, lost sessions, refusals, links, quota; and scripts.
"""

from urllib.parse import parse_qs, urlsplit

import anyio
import pytest

from kling_async._endpoints import GET, LIST
from kling_async._replies import read
from kling_async.errors import APIError, InvalidInputError, NotFoundError
from kling_async.simulator import Fault, Footage, Shape, Simulator
from tests.simulating import CLIP, FAMILY, HOST, Caller, calling, png, spots

DAY = 24 * 3600
HOUR = 3600


class Browser(Caller):
    """
    Fetches whole URLs, without a key.
    """

    async def fetch(self, url):
        reply = await Caller(self.transport, base="", key=None).send("GET", url)
        return reply.status, reply.response.headers["content-type"]


def browsing(**settings):
    simulator = Simulator(task_seconds=0, **settings)
    return simulator, Browser(simulator.transport())


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("found", [True, False])
async def test_uniqueness_and_finding_of_external_ids_are_two_switches(unique, found):
    """
    A host may refuse the second task of a name, and find the first by it, each with or without the other.
    """
    shape = Shape(external_ids="unique" if unique else "repeatable", finds_external_ids=found)
    simulator, caller = calling(shape=shape)
    session_id = await caller.marked()
    first = (await caller.create(session_id, external_task_id="job-1")).data
    second = await caller.create(session_id, external_task_id="job-1")
    assert (400 if unique else 200) == second.status
    assert {"job-1": 1 if unique else 2} == simulator.charges
    looked = await caller.get("job-1")
    if found:
        assert (first if unique else second.data)["task_id"] == looked.data["task_id"]
    else:
        assert (404, 1203) == looked.refusal[:2]
    assert {"external_task_id": "job-1"} == (await caller.get(first["task_id"])).data["task_info"]


async def test_the_index_may_lag_behind():
    """
    A new task is found by its own id at once; by its external id and in the list only after a while.
    """
    _, caller = calling(shape=Shape(lag_seconds=5, external_ids="repeatable"))
    session_id = await caller.marked()
    old = (await caller.create(session_id, external_task_id="a")).data["task_id"]
    await anyio.sleep(6)
    new = (await caller.create(session_id, external_task_id="a")).data["task_id"]
    await anyio.sleep(4)
    assert old == (await caller.get("a")).data["task_id"]
    assert [old] == [task["task_id"] for task in (await caller.list()).data]
    assert new == (await caller.get(new)).data["task_id"]
    await anyio.sleep(1)
    assert new == (await caller.get("a")).data["task_id"]
    assert [new, old] == [task["task_id"] for task in (await caller.list()).data]


async def test_a_host_may_have_no_list():
    """
    It is then a path like any that does not exist, in a gateway's words; one task is still found.
    """
    _, caller = calling(shape=Shape(lists=False))
    task_id = (await caller.create()).data["task_id"]
    reply = await caller.list()
    assert (404, "invalid_request_error") == (reply.status, reply.json["error"]["type"])
    with pytest.raises(NotFoundError):
        read(LIST, reply.response)
    assert 200 == (await caller.get(task_id)).status


@pytest.mark.parametrize("code, status", [(1203, 404), (1201, 400)])
async def test_a_lost_session_has_either_code(code, status):
    """
    Which of the two it is, is documented nowhere.
    """
    simulator, caller = calling(shape=Shape(lost_session=code))
    session_id = await caller.marked()
    simulator.expire(session_id)
    for call in ("clear", "preview", "create"):
        fields = {"session_id": session_id, "edit_mode": "removal", "prompt": "x"}
        assert (status, code) == (await caller.post(call, fields)).refusal[:2]


@pytest.mark.parametrize(
    "spelling, status, code",
    [("kling", 400, 1201), ("hidden", 200, 1201), ("nested", 400, 1201), ("gateway", 400, "comet_api_error")],
)
async def test_refusals_are_told_in_the_hosts_way(spelling, status, code):
    """
    The client reads each; a gateway keeps Kling's code to itself.
    """
    _, caller = calling(shape=Shape(refusal=spelling))
    reply = await caller.list("?pageNum=0")
    assert status == reply.status
    with pytest.raises(APIError, match="pageNum value '0' is invalid") as caught:
        read(LIST, reply.response)
    assert code == caught.value.code


async def test_a_session_may_live_shorter():
    """
    Whoever waits on a true clock sets its life.
    """
    _, caller = browsing(session_seconds=10)
    session_id = await caller.marked()
    await anyio.sleep(9)
    preview = (await caller.post("preview", session_id=session_id)).data["res"]["video"]
    await anyio.sleep(1)
    assert (404, 1203) == (await caller.post("preview", session_id=session_id)).refusal[:2]
    assert 200 == (await caller.fetch(preview))[0]
    await anyio.sleep(8)
    assert 200 == (await caller.fetch(preview))[0]
    await anyio.sleep(1)
    assert 403 == (await caller.fetch(preview))[0]


async def test_a_result_is_cleared_after_thirty_days_and_a_preview_with_its_session():
    """
    A cleared file answers as a content network does; what users published stays.
    """
    simulator, caller = browsing()
    published = simulator.publish(b"....ftyp")
    session_id = await caller.marked(video_url=published)
    preview = (await caller.post("preview", session_id=session_id)).data["res"]["video_cover"]
    task_id = (await caller.create(session_id)).data["task_id"]
    result = (await caller.get(task_id)).data["task_result"]["videos"][0]["url"]
    await anyio.sleep(DAY - 1)
    assert (200, "image/png") == await caller.fetch(preview)
    await anyio.sleep(1)
    assert (403, "application/xml") == await caller.fetch(preview)
    await anyio.sleep(29 * DAY - 1)
    assert (200, "video/mp4") == await caller.fetch(result)
    await anyio.sleep(1)
    assert (403, "application/xml") == await caller.fetch(result)
    assert (200, "video/mp4") == await caller.fetch(published)


async def test_links_may_end_and_looking_again_gives_new_ones():
    """
    The query says until when and is signed; a link without it, or with another's, is dead.
    """
    _, caller = browsing(link_seconds=HOUR)
    task_id = (await caller.create(watermark_info={"enabled": True})).data["task_id"]

    async def look():
        return (await caller.get(task_id)).data["task_result"]["videos"][0]

    first = await look()
    assert {"until", "sign", "watermark"} == set(parse_qs(urlsplit(first["watermark_url"]).query))
    await anyio.sleep(HOUR - 1)
    second = await look()
    assert [200, 200] == [(await caller.fetch(first[name]))[0] for name in ("url", "watermark_url")]
    await anyio.sleep(1)
    assert [403, 403] == [(await caller.fetch(first[name]))[0] for name in ("url", "watermark_url")]
    assert 200 == (await caller.fetch(second["url"]))[0]
    bare, _, query = second["url"].partition("?")
    other = (await caller.post("init", video_url=CLIP)).data["normalized_video"]
    for tampered in (bare, f"{bare}?{query}0", f"{bare}?{urlsplit(other).query}"):
        assert 403 == (await caller.fetch(tampered))[0]


async def test_a_published_link_may_end_too():
    """
    A clip or a picture behind a dead link cannot be downloaded; url() gives another.
    """
    simulator, caller = browsing(link_seconds=60)
    clip, picture = simulator.publish(b"....ftyp"), simulator.publish(b"png", name="hat.png")
    session_id = await caller.marked(video_url=clip)
    await anyio.sleep(60)
    refused = await caller.post("init", video_url=clip)
    assert (400, 1201, f"video_url '{clip}' can not be downloaded") == refused.refusal
    swap = {"edit_mode": "swap", "image_list": [{"image": picture}]}
    assert (400, 1201, f"image '{picture}' can not be downloaded") == (await caller.create(session_id, **swap)).refusal
    assert 200 == (await caller.post("init", video_url=simulator.url("clip-1.mp4"))).status
    swap["image_list"] = [{"image": simulator.url("hat.png")}]
    assert 200 == (await caller.create(session_id, **swap)).status


async def test_the_quota_may_change_at_any_time():
    """
    A smaller one refuses new tasks and leaves the running ones alone.
    """
    simulator, caller = calling(quota=2, task_seconds=10)
    session_id = await caller.marked()
    assert [200, 200] == [(await caller.create(session_id)).status for _ in range(2)]
    simulator.quota = 3
    assert 200 == (await caller.create(session_id)).status
    simulator.quota = 1
    assert (1, 3) == (simulator.quota, simulator.running)
    assert 1303 == (await caller.create(session_id)).json["code"]
    await anyio.sleep(10)
    assert [200, 429] == [(await caller.create(session_id)).status for _ in range(2)]
    with pytest.raises(InvalidInputError, match="quota"):
        simulator.quota = 0


async def test_a_script_goes_on_from_where_it_is():
    """
    What is added later comes after what is still to come, and counts its own requests.
    """
    simulator, caller = calling(faults=[Fault("get", "code", code=5000)])
    simulator.script(Fault("get", "code", code=5001, after=1), Fault("list", "empty"))
    assert [5000, 1203, 5001, 1203] == [(await caller.get("a")).json["code"] for _ in range(4)]
    assert 429 == (await caller.list()).status
    with pytest.raises(InvalidInputError, match="faults"):
        simulator.script(Fault("list", "empty"), "lost")
    assert 200 == (await caller.list()).status


async def test_a_single_request_may_meet_another_host():
    """
    Every spelling can be had for one request, with its effect as usual.
    """
    wrapped, brief = Shape(envelope="wrapped1", timestamps="s"), Shape(bare=True, size="wh")
    faults = [
        Fault("get", "shape", shape=wrapped),
        Fault("create", "shape", shape=Shape(external_ids="repeatable"), after=1),
        Fault("clear", "shape", shape=brief),
        Fault("add", "shape", shape=brief, after=1),
    ]
    simulator, caller = calling(faults=faults)
    session_id = await caller.marked()
    await caller.create(session_id, external_task_id="a")
    newest = (await caller.create(session_id, external_task_id="a")).data["task_id"]
    assert 400 == (await caller.create(session_id, external_task_id="a")).status
    first, second = await caller.get("a"), await caller.get("a")
    assert ["success", 0] == [first.json["code"], second.json["code"]]
    assert newest == read(GET, first.response).task_id == read(GET, second.response).task_id
    assert "data" not in (await caller.post("clear", session_id=session_id)).json
    marked = await caller.post("add", session_id=session_id, frame_index=0, points=spots((0.5, 0.5)))
    assert [1280, 720] == marked.data["res"]["rle_mask_list"][0]["rle_mask"]["size"]
    assert {"shape", None} == {seen.fault for seen in simulator.log}


async def test_a_gateway_may_miss_a_task_in_its_own_words():
    """
    `task_not_exist` comes from hosts that otherwise answer as Kling does.
    """
    _, caller = calling(faults=[Fault("get", "missing", word="task_not_exist")])
    task_id = (await caller.create()).data["task_id"]
    assert (400, "task_not_exist") == (await caller.get(task_id)).refusal[:2]
    assert 200 == (await caller.get(task_id)).status


async def test_pictures_are_looked_at_once_the_session_is_known():
    """
    Their spelling comes before it, their content after it.
    """
    _, caller = calling()
    fields = {"edit_mode": "swap", "prompt": "x"}
    for image, code in (("A", 1201), ("AAAA", 1203), (png(), 1203)):
        reply = await caller.post("create", {**fields, "session_id": "nope", "image_list": [{"image": image}]})
        assert code == reply.json["code"]


async def test_the_document_is_served_without_a_key():
    """
    With and without the prefix, and the same as by hand.
    """
    simulator = Simulator(api_key="sk-right")
    for base in (HOST, HOST.removesuffix("/kling")):
        assert (
            simulator.openapi() == (await Caller(simulator.transport(), base, None).send("GET", "/openapi.json")).json
        )
    assert ["openapi"] * 2 == [seen.endpoint for seen in simulator.log]
    assert f"{FAMILY}/{{id}}" in simulator.openapi()["paths"]


@pytest.mark.parametrize(
    "make, field",
    [
        (lambda: Shape(finds_external_ids=0), "shape.finds_external_ids"),
        (lambda: Shape(lists=None), "shape.lists"),
        (lambda: Shape(lag_seconds=-1), "shape.lag_seconds"),
        (lambda: Shape(lag_seconds=float("inf")), "shape.lag_seconds"),
        (lambda: Shape(lag_seconds=True), "shape.lag_seconds"),
        (lambda: Shape(lag_seconds="5"), "shape.lag_seconds"),
        (lambda: Shape(lost_session=1202), "shape.lost_session"),
        (lambda: Shape(refusal="loud"), "shape.refusal"),
        (lambda: Fault("get", "shape"), "fault.shape"),
        (lambda: Fault("get", "shape", shape="raw"), "fault.shape"),
        (lambda: Fault("get", "cut", shape=Shape()), "fault.shape"),
        (lambda: Fault("get", "shape", shape=Shape(), handled=False), "fault.handled"),
        (lambda: Simulator(session_seconds=-1), "session_seconds"),
        (lambda: Simulator(link_seconds="60"), "link_seconds"),
        (lambda: Simulator(link_seconds=float("nan")), "link_seconds"),
    ],
)
def test_switches_are_checked(make, field):
    """
    A switch in no known position is named.
    """
    with pytest.raises(InvalidInputError) as caught:
        make()
    assert field == caught.value.field


def test_footage_goes_with_what_is_published():
    """
    A link that ends says the same of its clip as one that does not.
    """
    simulator = Simulator(link_seconds=1)
    url = simulator.publish(b"x", footage=Footage(fps=30))
    assert 30 == simulator._desk.machine.shelf.find(urlsplit(url).path.rpartition("/")[2]).footage.fps
