"""
The walk over a list without a total.
"""

from kling_async import Task
from kling_async._pages import PAGES_MOST, Pages


def listing(total):
    asked = []

    async def page(number, size):
        asked.append(number)
        names = range((number - 1) * size, min(number * size, total))
        return tuple(Task(task_id=str(name), status="submitted") for name in names)

    return page, asked


async def test_a_short_page_is_the_end():
    """
    Five tasks in pages of two are three requests.
    """
    page, asked = listing(5)
    assert ["0", "1", "2", "3", "4"] == [task.task_id async for task in Pages(page, 2)]
    assert [1, 2, 3] == asked


async def test_an_empty_page_is_the_end():
    """
    Four tasks in pages of two need a third look.
    """
    page, asked = listing(4)
    assert 4 == len([task async for task in Pages(page, 2)])
    assert [1, 2, 3] == asked


async def test_the_last_page_that_can_be_asked_for_is_the_end():
    """
    The service answers pages 1 to 1000 only.
    """
    page, asked = listing(PAGES_MOST + 5)
    assert PAGES_MOST == len([task async for task in Pages(page, 1)])
    assert PAGES_MOST == asked[-1]
