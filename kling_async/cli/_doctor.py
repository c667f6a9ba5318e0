"""
`doctor`: whether an edit could be made from here, as far as that can be told without paying for one.

Decides the order of the checks and what is said of those that cannot be made. What each finds is `_inventory.py`'s
and `_inquiry.py`'s.
"""

from kling_async._auth import Credentials
from kling_async._open import open_transport

from ._codes import Exit
from ._findings import Chart, Verdict
from ._inquiry import AFTER_HOST, Inquiry, place, unchecked
from ._inventory import extras, key, proxy, state, variables, versions
from ._listening import Listening
from ._service import Service
from ._show import Show

PATIENCE = 30.0
"""Seconds for one exchange."""
BEYOND = "whether the account may create edits and how many at once, which only a paid call tells"
"""What stays open even if all is well."""


async def doctor(*, service: Service, others: bool, show: Show) -> Exit:
    """
    Check everything that an edit needs.

    Args:
        service: Where it would go.
        others: Whether a key that Kling refuses may be sent to its other region.
        show: The command's voice.
    """
    chart = Chart(show)
    chart.add(*versions(), *extras())
    credentials, found = key(service)
    chart.add(variables(credentials), found)
    where = place(service, credentials)
    chart.add(where)
    if where.verdict in {Verdict.FAILED, Verdict.UNCHECKED}:
        chart.add(*unchecked("there is no host to ask", "proxy", *AFTER_HOST))
    else:
        await _asked(service, credentials, others=others, chart=chart)
    chart.add(await state(service))
    _summed_up(chart)
    return chart.exit_code


async def _asked(service: Service, credentials: Credentials | None, *, others: bool, chart: Chart) -> None:
    through = proxy(service)
    chart.add(through)
    if through.verdict is Verdict.FAILED:
        chart.add(*unchecked("the proxy cannot be used", *AFTER_HOST))
        return
    listening = Listening(await open_transport(connections=1, total=PATIENCE))
    try:
        inquiry = await Inquiry(service, credentials, listening).ask()
        chart.add(*inquiry.way(), inquiry.key(), await inquiry.region(others=others))
        chart.add(inquiry.clock(), await inquiry.balance())
    finally:
        await listening.aclose()


def _summed_up(chart: Chart) -> None:
    names = {verdict: [found.name for found in chart.of(verdict)] for verdict in Verdict}
    reasons: dict[str, list[str]] = {}
    for found in chart.of(Verdict.UNCHECKED):
        reasons.setdefault(found.said, []).append(found.name)
    missing = [f"{', '.join(checks)} ({reason})" for reason, checks in reasons.items()]
    chart.show.line()
    chart.show.line(f"Not checked: {'; '.join((*missing, BEYOND))}.")
    facts = {
        "exit_code": chart.exit_code,
        "failed": names[Verdict.FAILED],
        "warnings": names[Verdict.WARNING],
        "not_checked": names[Verdict.UNCHECKED],
        "beyond": BEYOND,
    }
    chart.show.event("done", facts)
