"""
What `doctor` finds: one fact with a verdict, and all of them as they come.

Decides how findings are said and which exit code they add up to. Finds nothing itself.
"""

from collections.abc import Mapping
from enum import StrEnum

from attrs import define, field, frozen

from ._codes import Exit
from ._show import Show


class Verdict(StrEnum):
    """
    How a check came out.
    """

    OK = "ok"
    """As it should be."""
    WARNING = "warning"
    """It works, or may work, but is likely not what was meant."""
    FAILED = "failed"
    """Edits cannot work like this."""
    UNCHECKED = "not checked"
    """Nothing is known, and it is said why."""


@frozen
class Finding:
    """
    One check.
    """

    name: str
    """A word or two."""
    verdict: Verdict
    """How it came out."""
    said: str
    """What was found, or why nothing was, without a full stop."""
    advice: str = field(default="", kw_only=True)
    """What to do, where not all is well, as a sentence."""
    exit_code: Exit = field(default=Exit.FAILED, kw_only=True)
    """What the command ends with if it failed."""
    facts: Mapping[str, object] = field(factory=dict, kw_only=True)
    """More for programs."""


_WORST = (Exit.USAGE, Exit.CREDENTIALS, Exit.UNREACHABLE, Exit.FAILED)
"""Exit codes in the order in which their causes come before each other."""


@define
class Chart:
    """
    All findings, said as they come.
    """

    show: Show
    """Who says them."""
    findings: list[Finding] = field(factory=list, init=False)
    """In their order."""

    def add(self, *findings: Finding) -> None:
        """
        Say findings, and keep them.
        """
        for found in findings:
            told = {"check": found.name, "verdict": found.verdict, "message": found.said, "advice": found.advice}
            self.show.event("check", told | dict(found.facts))
            self.show.verdict(found.verdict, found.name, ". ".join(filter(None, (found.said, found.advice))))
            self.findings.append(found)

    def of(self, verdict: Verdict) -> list[Finding]:
        """
        Those that came out like this.
        """
        return [found for found in self.findings if found.verdict is verdict]

    @property
    def exit_code(self) -> Exit:
        """
        What the command ends with; warnings are no reason to fail.
        """
        failed = {found.exit_code for found in self.of(Verdict.FAILED)}
        return next((code for code in _WORST if code in failed), Exit.DONE)
