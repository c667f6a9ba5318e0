"""
Looking for a create whose reply never came, and what a look proves.
"""

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from kling_async import ApiKey, KlingClient, LostReplyError, MemoryStore, StoreError
from kling_async._search import PAGE_SIZE, PAGES_MOST, Sign
from kling_async.events import Duplicated
from kling_async.stores import Abilities, Intent
from tests.doubles import KEY, Script, envelope, task_reply

KLING = "https://api-singapore.klingai.com"
COMET = "https://api.cometapi.com/kling"
MISSING = envelope(code=1203, status=404)


def now():
    return datetime.now(UTC)


def row(key="order-1", **more):
    named = {"payload": "ab", "base_url": COMET, "session_id": "s-1", "created_at": now(), **more}
    return Intent(external_task_id=key, **named)


def known(key="order-0", task_id="8780", *, age=3600, **more):
    """
    A create of ours whose task is known.
    """
    sent = now() - timedelta(seconds=age)
    return row(key, state="accepted", task_id=task_id, first_sent_at=sent, **more)


def told(key="order-1", task_id="8781", status="processing"):
    return task_reply(status, task_id=task_id, task_info={"external_task_id": key})


def page(*replies, more=0):
    """
    A page of the list: these, and so many others of an hour ago.
    """
    hour_ago = int((now().timestamp() - 3600) * 1000)
    other = {"task_id": "1", "task_status": "succeed", "created_at": hour_ago, "task_info": {}}
    return envelope([*replies, *[other] * more])


def listed(key, task_id="8781", *, ago=0):
    at = int((now().timestamp() - ago) * 1000)
    return {"task_id": task_id, "task_status": "processing", "created_at": at, "task_info": {"external_task_id": key}}


async def search(*steps, base_url=COMET, rows=(), able=None, observer=None, store=None, how="again", intent=None):
    """
    One look, with what it found, what was asked, and what is now known of the host.
    """
    script, store = Script(list(steps)), store or MemoryStore()
    if able is not None:
        await store.learn(base_url, able)
    client = KlingClient(ApiKey(KEY), transport=script, store=store, base_url=base_url, observer=observer)
    async with client:
        looking = client.creates.doubts.search
        for one in rows:
            await store.put(one if one.account else evolve(one, account=looking.account))
        found = await getattr(looking, how)(intent or row(base_url=base_url, account=looking.account))
        return found, [path.removeprefix("GET videos/multi-elements") for path in script.paths], await looking.able()


async def test_what_answers_with_our_id_is_ours():
    """
    It is found by its external id, which proves that the host finds these and tells them.
    """
    task, asked, able = await search(told())
    assert "8781" == task.task_id
    assert ["/order-1"] == asked
    assert Abilities(finds=True, echoes=True) == able


async def test_not_found_proves_nothing_on_a_host_that_never_found_one():
    """
    It may not look by our ids at all.
    """
    found, asked, able = await search(MISSING)
    assert Sign.SILENT is found
    assert ["/order-1"] == asked
    assert Abilities() == able


async def test_not_found_is_a_proof_where_a_known_task_is_found():
    """
    The latest known one is looked for first; after that the host is believed.
    """
    found, asked, able = await search(MISSING, told("order-0", "8780"), rows=[known()])
    assert Sign.ABSENT is found
    assert ["/order-1", "/order-0"] == asked
    assert Abilities(finds=True, echoes=True) == able
    again, asked, _ = await search(MISSING, able=able, rows=[known()])
    assert Sign.ABSENT is again
    assert ["/order-1"] == asked


@pytest.mark.parametrize(("age", "finds"), [(3600, False), (10, None)])
async def test_a_known_task_that_is_not_found(age, finds):
    """
    The host does not find by external ids, unless it may still be indexing.
    """
    found, asked, able = await search(MISSING, MISSING, rows=[known(age=age)])
    assert Sign.SILENT is found
    assert ["/order-1", "/order-0"] == asked
    assert finds is able.finds


async def test_another_task_under_a_known_id_teaches_nothing():
    """
    A gateway may answer with anything.
    """
    found, _, able = await search(MISSING, told("order-0", "9999"), rows=[known()])
    assert Sign.SILENT is found
    assert Abilities() == able


async def test_only_tasks_of_this_host_and_key_are_known_ones():
    """
    Another account's may well not be found.
    """
    rows = [known("order-8", account="other"), known("order-9", base_url=KLING)]
    found, asked, _ = await search(MISSING, rows=rows)
    assert Sign.SILENT is found
    assert ["/order-1"] == asked


async def test_a_create_of_another_key_is_never_proven_absent():
    """
    This key may belong to another account, which does not see it.
    """
    found, _, _ = await search(MISSING, able=Abilities(finds=True), intent=row(account="other"))
    assert Sign.SILENT is found


async def test_a_task_that_does_not_tell_our_id_is_not_ours(caplog):
    """
    And where even a known one does not, that is said once and remembered.
    """
    nameless = task_reply("processing", task_id="8780")
    found, _, able = await search(task_reply("processing"), nameless, rows=[known()])
    assert Sign.MASKED is found
    assert Abilities(finds=True, echoes=False) == able
    assert "drops external ids" in caplog.text


async def test_a_look_that_fails_says_nothing():
    """
    It costs its attempts, and the next one is made all the same.
    """
    found, asked, _ = await search(*[LostReplyError("cut")] * 3)
    assert Sign.SILENT is found
    assert ["/order-1"] * 3 == asked


async def test_the_list_is_searched_where_there_is_one():
    """
    The host does not find it by its id, but shows it among its tasks.
    """
    task, asked, _ = await search(MISSING, page(listed("order-1")), base_url=KLING)
    assert "8781" == task.task_id
    assert ["/order-1", f"?pageNum=1&pageSize={PAGE_SIZE}"] == asked


async def test_the_list_is_searched_back_to_ten_minutes_before_the_intent():
    """
    A full page whose last task is older ends it.
    """
    found, asked, _ = await search(MISSING, page(more=PAGE_SIZE), base_url=KLING)
    assert Sign.SILENT is found
    assert 2 == len(asked)


async def test_the_list_is_not_searched_for_ever():
    """
    Twenty pages at most.
    """
    full = envelope([listed(None, "1")] * PAGE_SIZE)
    found, asked, _ = await search(MISSING, *[full] * PAGES_MOST, base_url=KLING)
    assert Sign.SILENT is found
    assert 1 + PAGES_MOST == len(asked)


@pytest.mark.parametrize("answer", [MISSING, task_reply()], ids=["a wrong path", "something else"])
async def test_a_host_without_its_list_is_no_fault(answer):
    """
    A wrong path where the list should be ends that way of looking.
    """
    found, _, _ = await search(MISSING, answer, base_url=KLING)
    assert Sign.SILENT is found


@pytest.mark.parametrize(
    ("ago", "answer", "finds", "sign"),
    [
        (3600, told("order-7", "8777"), True, Sign.ABSENT),
        (3600, MISSING, False, Sign.SILENT),
        (0, MISSING, None, Sign.SILENT),
    ],
)
async def test_a_task_of_the_list_shows_what_the_host_can(ago, answer, finds, sign):
    """
    Where this client knows no task, another's in the list is looked for by its external id.
    """
    found, asked, able = await search(MISSING, page(listed("order-7", "8777", ago=ago)), answer, base_url=KLING)
    assert sign is found
    assert "/order-7" == asked[-1]
    assert finds is able.finds


async def test_one_create_that_is_there_twice_is_told(caplog):
    """
    Only a relay can do that: the first is gone on with, and both are named.
    """
    events = []
    twice = page(listed("order-1", "8782"), listed("order-1", "8781"))
    task, _, _ = await search(MISSING, twice, base_url=KLING, observer=events.append)
    assert "8781" == task.task_id
    assert [Duplicated(external_task_id="order-1", task_ids=("8781", "8782"))] == [
        event for event in events if isinstance(event, Duplicated)
    ]
    assert "8781, 8782" in caplog.text
    await search(MISSING, twice, base_url=KLING)


async def test_an_id_that_was_given_is_looked_for_once():
    """
    Not found is enough where nothing can be proven, for else nothing could ever be sent.
    """
    found, asked, _ = await search(MISSING, how="first")
    assert Sign.SILENT is found
    assert ["/order-1"] == asked


async def test_an_id_that_was_given_is_looked_for_in_the_list():
    """
    As long as it is not known that the host finds by external ids.
    """
    task, asked, _ = await search(MISSING, page(listed("order-1")), base_url=KLING, how="first")
    assert "8781" == task.task_id
    found, asked, _ = await search(MISSING, page(), base_url=KLING, how="first")
    assert Sign.SILENT is found
    found, asked, _ = await search(MISSING, base_url=KLING, able=Abilities(finds=True), how="first")
    assert Sign.SILENT is found
    assert ["/order-1"] == asked


async def test_the_first_look_learns_from_a_known_task():
    """
    So that the list is not searched for each of a thousand jobs.
    """
    _, asked, able = await search(
        MISSING, told("order-0", "8780"), base_url=KLING, rows=[known(base_url=KLING)], how="first"
    )
    assert ["/order-1", "/order-0"] == asked
    assert able.finds is True


class Forgetful(MemoryStore):
    """
    A store that cannot learn.
    """

    async def learn(self, base_url, abilities):
        raise StoreError("disk full")


async def test_what_cannot_be_written_down_is_known_all_the_same(caplog):
    """
    A failing store only forgets what was learned.
    """
    _, _, able = await search(told(), store=Forgetful())
    assert able.finds is True
    assert "disk full" in caplog.text
