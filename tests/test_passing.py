"""
What passes and what does not: refusals, full quotas, faults between looks, odd ends, wrong clocks.

Where a server takes part, its own log and charges are the judge.
"""

import logging
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import count, pairwise
from random import Random

import anyio
import jwt
import orjson
import pytest
from attrs import define, field

from kling_async import (
    KLING_GLOBAL_URL,
    AccountError,
    ApiKey,
    AuthenticationError,
    ContentRejectedError,
    DecodeError,
    Edited,
    Job,
    KeyPair,
    KlingClient,
    PollPolicy,
    Removal,
    Slots,
    TaskFailedError,
    edit,
    edit_many,
)
from kling_async.events import Replayed
from kling_async.simulator import Fault, Simulator
from tests.doubles import Script, envelope, task_reply

CLIP = "https://example.com/clip.mp4"
EDIT = Removal.of("the stones")
KEY = ApiKey("any")
SECRET = "secret-of-more-than-thirty-two-chars"
PAIR = KeyPair("access-4711", SECRET)
STEADY = PollPolicy(jitter=0)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
ORDER = "order-1"


def job(number=0):
    return Job(f"https://example.com/{number}.mp4", marks={40: [(0.8, 0.53)]}, edit=EDIT, key=f"job-{number}")


def client_of(simulator, credentials=KEY, **named):
    return KlingClient(credentials, base_url=KLING_GLOBAL_URL, transport=simulator.transport(), poll=STEADY, **named)


def seen(simulator, endpoint):
    return [request for request in simulator.log if request.endpoint == endpoint]


def waits(requests):
    """
    Seconds between them, to the microsecond.
    """
    return [round(later.time - earlier.time, 6) for earlier, later in pairwise(requests)]


async def ordered(client):
    """
    A task of a selection, created under our id.
    """
    info = await client.init_selection(video_url=CLIP)
    await client.add_selection(info.session_id, 40, [(0.8, 0.53)])
    return await client.create_task(info.session_id, EDIT, external_task_id=ORDER)


async def test_f2_a_refused_connection_is_tried_three_times():
    """
    Twice no connection, then one: the third attempt is the first that arrives, after two waits within their bounds.
    """
    simulator, told = Simulator(faults=[Fault("create", "unsent", times=2)]), []
    async with client_of(simulator, observer=told.append) as client:
        assert ORDER == (await ordered(client)).external_task_id
    replayed = [event for event in told if isinstance(event, Replayed)]
    assert [2, 3] == [event.attempt for event in replayed]
    assert all(0 <= event.delay <= most for event, most in zip(replayed, (0.5, 1.0), strict=True))
    assert 1 == len(seen(simulator, "create"))
    assert {ORDER: 1} == dict(simulator.charges)


async def test_f12_a_create_refused_for_its_rate_waits_as_long_as_asked():
    """
    Chance would not wait at all; the service asked for two seconds and gets them, and is paid once.
    """
    simulator = Simulator(faults=[Fault("create", "code", code=1302, retry_after=2)])
    async with client_of(simulator) as client:
        client._exchange.chance = lambda: 0.0
        await ordered(client)
    assert [2.0] == waits(seen(simulator, "create"))
    assert {ORDER: 1} == dict(simulator.charges)


async def test_f13_a_full_quota_is_waited_for_and_makes_learned_slots_fewer():
    """
    Five refusals: a second at least before each next create of a job, fewer slots, and each job paid once.
    """
    simulator = Simulator(task_seconds=30, faults=[Fault("create", "code", code=1303, times=5)])
    slots = Slots.learned(start=8)
    async with client_of(simulator) as client:
        client._exchange.chance = lambda: 0.0
        async with edit_many(client, map(job, range(3)), slots=slots) as outcomes:
            done = [outcome async for outcome in outcomes]
    assert [Edited] * 3 == [type(outcome) for outcome in done]
    assert slots.limit < 8
    creates = seen(simulator, "create")
    assert 3 + 5 == len(creates)
    for key in simulator.charges:
        assert all(wait >= 1 for wait in waits([one for one in creates if one.json["external_task_id"] == key]))
    assert {job(number).external_task_id: 1 for number in range(3)} == dict(simulator.charges)


@pytest.mark.parametrize("code", [1100, 1101, 1102, 1103, 1304])
async def test_f14_money_rights_and_addresses_are_told_at_once(code):
    """
    One request and no wait, although most of them are HTTP 429 and this one even names a time.
    """
    simulator = Simulator(faults=[Fault("create", "code", code=code, retry_after=1, times=None)])
    async with client_of(simulator) as client:
        began = anyio.current_time()
        with pytest.raises(AccountError) as caught:
            await ordered(client)
        assert began == pytest.approx(anyio.current_time())
    assert code == caught.value.code
    assert 1 == len(seen(simulator, "create"))
    assert {} == dict(simulator.charges)


@define
class Overheard:
    """
    A way to a simulator on which each request's token is noted.
    """

    inner: object
    tokens: list = field(factory=list)

    async def exchange(self, request):
        self.tokens.append(request.headers["Authorization"])
        return await self.inner.exchange(request)


async def ordered_by_pair(*faults):
    """
    What came of a create with a key pair, on a clock that goes on at every look; with the simulator and the tokens.
    """
    simulator, clock = Simulator(faults=faults), count(NOON, 7)
    transport = Overheard(simulator.transport())
    async with KlingClient(PAIR, transport=transport) as client:
        client._exchange.now = lambda: next(clock)
        try:
            return await ordered(client), simulator, transport.tokens
        except AuthenticationError as error:
            return error, simulator, transport.tokens


@pytest.mark.parametrize("credentials", [KEY, PAIR], ids=["key", "pair"])
async def test_f15_a_key_that_is_not_accepted_is_told_at_once(credentials):
    """
    1002 is no matter of time: one request, and nothing is paid.
    """
    simulator = Simulator(faults=[Fault("create", "code", code=1002, times=None)])
    async with client_of(simulator, credentials) as client:
        with pytest.raises(AuthenticationError, match="1002"):
            await ordered(client)
    assert 1 == len(seen(simulator, "create"))
    assert {} == dict(simulator.charges)


async def test_f15_a_token_that_has_expired_is_signed_anew():
    """
    1004 in the middle of a run: the same create once more with another token, paid once.
    """
    task, simulator, tokens = await ordered_by_pair(Fault("create", "code", code=1004))
    assert ORDER == task.external_task_id
    assert 2 == len(seen(simulator, "create"))
    assert 2 == len(set(tokens))
    assert tokens[-2] != tokens[-1]
    assert {ORDER: 1} == dict(simulator.charges)


async def test_f15_a_token_is_signed_anew_once():
    """
    If the new one has expired as well, something else is wrong.
    """
    error, simulator, _ = await ordered_by_pair(Fault("create", "code", code=1004, times=None))
    assert 1004 == error.code
    assert 2 == len(seen(simulator, "create"))
    assert {} == dict(simulator.charges)


@pytest.mark.parametrize("endpoint", ["init", "create"])
async def test_f16_refused_content_is_not_sent_again(endpoint):
    """
    The same content would be refused again: one request, and nothing is paid.
    """
    simulator = Simulator(faults=[Fault(endpoint, "code", code=1301, times=None)])
    async with client_of(simulator) as client:
        with pytest.raises(ContentRejectedError):
            await ordered(client)
    assert 1 == len(seen(simulator, endpoint))
    assert {} == dict(simulator.charges)


def weather(rng):
    """
    Of each hundred looks five meet a 5xx, three of them in a row, and two a cut connection.
    """
    faults, calm = [], 0
    for _ in range(5):
        hundred = [None] * 93 + [5000, 5002, "lost", "lost"]
        rng.shuffle(hundred)
        place = rng.randrange(len(hundred))
        for met in hundred[:place] + [5001] * 3 + hundred[place:]:
            if met is None:
                calm += 1
                continue
            how = {"kind": "lost"} if met == "lost" else {"kind": "code", "code": met}
            faults.append(Fault("get", after=calm, **how))
            calm = 0
    return faults


@pytest.mark.parametrize("seed", range(3))
async def test_f35_faults_between_looks_neither_end_a_wait_nor_make_it_ask_much_more(seed):
    """
    Half an hour with 5 % of 5xx and 2 % of cut connections: the result comes, for a tenth more requests at most.
    """
    looks = []
    for faults in ([], weather(Random(seed))):
        simulator = Simulator(task_seconds=1800, faults=faults)
        async with client_of(simulator) as client:
            began = anyio.current_time()
            task = await client.wait(await ordered(client))
            assert "succeed" == task.status
            assert 1800 <= anyio.current_time() - began <= 1815
        looks.append(sum(request.endpoint == "get" for request in simulator.log))
        assert {ORDER: 1} == dict(simulator.charges)
    plan, asked = looks
    met = [request.fault for request in simulator.log if request.endpoint == "get"]
    assert 0.06 <= sum(fault is not None for fault in met) / asked <= 0.08
    assert asked <= plan * 1.1


ODD = ["submitted", "processing", "submitted", "unknown_new", "succeed"]


async def test_f36_a_status_that_steps_back_or_is_new_is_no_end(caplog):
    """
    Waited through with one warning for the word that nobody knows.
    """
    script = Script([task_reply(status) for status in ODD])
    async with KlingClient(KEY, transport=script, poll=STEADY) as client:
        assert "succeed" == (await client.wait("8781")).status
    assert 5 == len(script.requests)
    [record] = caplog.records
    assert ("WARNING", True) == (record.levelname, "'unknown_new'" in record.getMessage())


async def test_f36_a_step_back_is_not_told():
    """
    Watching tells the states in the order in which tasks go through them, the new one among them.
    """
    script = Script([task_reply(status) for status in ODD])
    async with KlingClient(KEY, transport=script, poll=STEADY) as client:
        told = [task.status async for task in client.watch("8781")]
    assert ["submitted", "processing", "unknown_new", "succeed"] == told


async def test_f37_a_wait_without_end_is_ended_by_its_caller_and_taken_up_by_id(caplog):
    """
    The caller's scope cuts it, one WARNING names the task, and another client waits on for the same paid task.
    """
    simulator = Simulator(task_seconds=7200)
    async with client_of(simulator) as client:
        task = await ordered(client)
        with anyio.move_on_after(3600) as scope:
            await client.wait(task)
        assert scope.cancelled_caught
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert ("WARNING", True) == (record.levelname, f"wait({task.task_id!r})" in record.getMessage())
    async with client_of(simulator) as elsewhere:
        assert "succeed" == (await elsewhere.wait(task.task_id)).status
    assert 1 == len(seen(simulator, "create"))
    assert {ORDER: 1} == dict(simulator.charges)


async def test_f38_a_failed_task_is_not_ordered_again():
    """
    Its reason is raised, by the same key once more; nothing is created or charged a second time, now or later.
    """
    simulator = Simulator(task_seconds=30, faults=[Fault("task", "failed", message="Image pixel is invalid")])
    async with client_of(simulator) as client:
        for _ in range(2):
            with pytest.raises(TaskFailedError, match="Image pixel is invalid") as caught:
                await edit(client, job())
            assert "failed" == caught.value.task.status
        await anyio.sleep(3600)
    assert [1, 1] == [len(seen(simulator, endpoint)) for endpoint in ("init", "create")]
    assert {job().external_task_id: 0} == dict(simulator.charges)


def missing(task, kind, times):
    """
    The fault that a finished task names no video, or one without a link.
    """
    if kind == "videos":
        return Fault("video", "missing", times=times)
    result = {"videos": [{"id": "v-1", "url": ""}]}
    data = {"task_id": task.task_id, "task_status": "succeed", "task_result": result}
    body = orjson.dumps({"code": 0, "message": "SUCCEED", "data": data})
    return Fault("get", "status", status=200, body=body, times=times)


@pytest.mark.parametrize("kind", ["videos", "url"])
async def test_f39_a_success_without_its_video_is_looked_at_three_more_times(kind):
    """
    It may come a little later; else the error names the task, which is paid and not created again.
    """
    for times in (3, None):
        simulator = Simulator(task_seconds=0)
        async with client_of(simulator) as client:
            task = await ordered(client)
            before = len(seen(simulator, "get"))
            simulator.script(missing(task, kind, times))
            if times is None:
                with pytest.raises(DecodeError, match=task.task_id):
                    await client.wait(task)
            else:
                assert (await client.wait(task)).video.url
        assert 4 == len(seen(simulator, "get")) - before
        assert {ORDER: 1} == dict(simulator.charges)


@define
class Doorkeeper:
    """
    A way to a simulator whose tokens are checked by a clock of its own.
    """

    inner: object
    ahead: float = 0.0
    dated: bool = True
    refused: list = field(factory=list)

    async def exchange(self, request):
        token = request.headers["Authorization"].removeprefix("Bearer ")
        claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_nbf": False})
        now = NOON + anyio.current_time() + self.ahead
        if claims["nbf"] <= now < claims["exp"]:
            return await self.inner.exchange(request)
        self.refused.append(1003 if now < claims["nbf"] else 1004)
        date = format_datetime(datetime.fromtimestamp(now, UTC), usegmt=True)
        return envelope(code=self.refused[-1], status=401, headers={"date": date} if self.dated else {})


async def half_an_hour(*, ours=0.0, theirs=0.0, **skew):
    """
    The codes with which tokens were refused in a run whose clocks jump so far, ours or theirs, in its middle.
    """
    simulator = Simulator(task_seconds=1800)
    doorkeeper, jumped = Doorkeeper(simulator.transport(), **skew), 0.0

    async def jump():
        nonlocal jumped
        await anyio.sleep(900)
        jumped = ours
        doorkeeper.ahead += theirs

    async with KlingClient(PAIR, transport=doorkeeper, poll=STEADY) as client:
        client._exchange.now = lambda: NOON + anyio.current_time() + jumped
        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(jump)
            task = await client.wait(await ordered(client))
        assert 1800 <= anyio.current_time() - began <= 1815
    assert "succeed" == task.status
    assert {ORDER: 1} == dict(simulator.charges)
    return doorkeeper.refused


@pytest.mark.parametrize("jump, refused", [(3600, [1003]), (-3600, [1004])])
async def test_f41_a_clock_that_goes_wrong_by_an_hour_ends_nothing(jump, refused):
    """
    One token is refused, the next goes by the service's clock, and no wait is cut short.
    """
    assert refused == await half_an_hour(ours=jump)


@pytest.mark.parametrize("jump", [3600, -3600])
async def test_f41_a_clock_that_is_set_right_by_an_hour_ends_nothing(jump):
    """
    A token from before is not sent any more: none is refused, and no wait is cut short.
    """
    assert [] == await half_an_hour(ours=jump, theirs=jump)


@pytest.mark.parametrize("ahead, refused", [(-4, []), (200, []), (-200, [1003])])
async def test_f41_clocks_a_little_apart_are_allowed_for(ahead, refused):
    """
    A token is valid from before it was signed: from seconds ago, and from minutes once it came too early.
    """
    assert refused == await half_an_hour(ahead=ahead, dated=False)
