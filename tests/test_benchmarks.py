"""
The service that whole edits are measured against, both ways of doing them, the soak, and the million edits.
"""

import asyncio

import pytest

from benchmarks import life, scale, shift, soak
from benchmarks.service import SMALL, Shop, serving
from kling_async import ApiKey, KlingClient, PollPolicy, Removal, SelectionSession
from kling_async.points import Point

pytestmark = pytest.mark.real_clock
CLIP = "https://example.com/clip.mp4"
EDIT = Removal.of("the bird")
OFTEN = PollPolicy(first=0.05, ceiling=0.1)


async def test_an_edit_is_done_as_at_the_service_itself(tmp_path):
    """
    Opened, marked, created, shown by both ids and newest first, ended, saved whole, and charged once.
    """
    with serving(0.2, 0.2) as url:
        async with (
            KlingClient(ApiKey("any"), base_url=url, poll=OFTEN) as client,
            SelectionSession(client, video_url=CLIP) as selection,
        ):
            (mask,) = (await selection.add_points(0, [life.POINT])).masks
            assert mask.contains(Point(*life.POINT))
            tasks = [await selection.create_task(EDIT, external_task_id=f"order-{number}") for number in range(2)]
            assert [task.task_id for task in reversed(tasks)] == [task.task_id async for task in client.iter_tasks()]
            assert tasks[0].task_id == (await client.get_task("order-0")).task_id
            final = await client.wait(tasks[0])
            await client.download(final.video, tmp_path / "out.mp4")
            told = await client.request("GET", "/truth")
    assert SMALL == (tmp_path / "out.mp4").stat().st_size
    assert (2, 2, 0) == (told["creates"], told["once"], told["twice"])


@pytest.mark.parametrize("way", [life.ours, life.script])
def test_both_ways_do_all_edits_and_pay_once_for_each(tmp_path, way):
    """
    Every result is saved, every end is noted, and nothing else is created.
    """
    notes = life.Notes()
    with serving(0.1, 0.2) as url:
        asyncio.run(way(life.Plan("", 5, 2, interval=0.1, url=url, folder=str(tmp_path)), notes))
    assert (5, 5) == (len(notes.late), len(list(tmp_path.glob("*.mp4"))))
    assert min(notes.late) > -0.01


async def test_a_soak_at_a_service_without_faults_fails_nowhere(tmp_path):
    """
    All edits of a wave come to their end, and the service knows of no others.
    """
    one = soak.Soak(tmp_path)
    with serving(0.0, 0.1) as url:
        async with KlingClient(ApiKey("any"), base_url=url, store=one.store, poll=OFTEN) as client:
            await one.run(client, one.wave(6))
            truth = await client.request("GET", "/truth")
    assert [0, 0, 0, 0] == [row.value for row in soak.charged(one, truth)]
    assert {} == one.failures


@pytest.mark.parametrize("name", ["init", "add", "create", "get", "list", "media"])
def test_a_service_with_faults_spoils_every_call_in_every_way(name):
    """
    Some are done all the same and some are not, and no kind is left out.
    """
    shop = Shop(rate=1.0)
    harms = [shop.harm(name) for _ in range(500)]
    kinds = {"reset", "hang", "500", "502", "slow", "garbage", "half", "503", "1302"}
    kinds |= {"1303", "fails"} if name == "create" else set()
    assert kinds == {harm.kind for harm in harms}
    assert {True, False} == {harm.handled for harm in harms}
    assert 500 == shop.harmed.total()


def small_scale():
    """
    A few hundred edits with more faults and deaths than a million would have, in this process.
    """
    plans = scale.plans(300, accounts=3, workers=2, faults=0.05, life=400.0)
    return scale.Sums([shift.done(plan) for plan in plans])


def test_edits_at_scale_are_all_done_and_paid_once_whoever_dies():
    """
    Workers die and others take over, nothing is charged twice or lost, and the simulation repeats itself exactly.
    """
    found, again = small_scale(), small_scale()
    assert [0, 0, 0] == [row.value for row in list(scale.money(found))[1:]]
    assert (300, 300) == (found(scale.edits), found(lambda tally: tally.charges))
    assert found.deaths > 0
    assert found(lambda tally: tally.counts["moved"]) > 0
    assert 300 == found(lambda tally: len(tally.late) + len(tally.late_moved))
    assert all(min(tally.late) > 0 for tally in found.tallies)
    assert all(0 < tally.share <= 1 for tally in found.tallies)
    assert (found.requests, found.store) == (again.requests, again.store)
    assert [tally.late for tally in found.tallies] == [tally.late for tally in again.tallies]


def test_the_judge_of_edits_at_scale_sees_what_is_charged_twice(monkeypatch):
    """
    Where the host's index lags behind for longer than creates are looked for, sending again is paid for twice.
    """
    monkeypatch.setattr(shift, "LAG", 500.0)
    row = list(scale.money(small_scale()))[1]
    assert row.value > 0
    assert row.missed


def test_a_million_edits_are_split_over_accounts_by_their_quotas():
    """
    All edits are planned, each account has workers of its own, and larger quotas get more.
    """
    plans = scale.plans()
    assert (1_000_000, 200) == (sum(plan.edits for plan in plans), len(plans))
    assert set(range(50)) == {worker for plan in plans for worker in plan.workers}
    assert {2} == {len(set(plan.workers)) for plan in plans}
    least, most = min(plans, key=lambda plan: max(plan.quotas)), max(plans, key=lambda plan: min(plan.quotas))
    assert least.edits < most.edits
