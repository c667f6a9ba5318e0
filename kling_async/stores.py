"""
Where the intents of paid creates are written before anything is sent.

A store remembers, across crashes if it is on disk, which create was meant, sent, accepted or is in doubt, and who
sees to it. It knows no protocol: what may follow what is `_submit.py`'s, and when to write what is `_create.py`'s.
"""

from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING, Final, Protocol

from attrs import define, field

from ._submit import SETTLED, Abilities, Intent, State, follows, moved

if TYPE_CHECKING:
    from ._postgres import PostgresStore
    from ._sqlite import SqliteStore
else:
    # Hidden from type checkers, as in the package.
    def __getattr__(name: str) -> object:
        """
        A store in a database when it is asked for: every client needs this module, and most of them no database.
        """
        from importlib import import_module

        homes = {"PostgresStore": "._postgres", "SqliteStore": "._sqlite"}
        if name not in homes:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = getattr(import_module(homes[name], __package__), name)
        return found


__all__ = ("Abilities", "Intent", "IntentStore", "MemoryStore", "PostgresStore", "SqliteStore")

KEPT: Final = 10_000
"""Intents whose task is known that a MemoryStore remembers; an older id is asked of the host again."""


class IntentStore(Protocol):
    """
    What keeps intents, for any number of clients and processes.

    An intent has one owner at a time. `claim` makes the caller its owner and gives it the next fencing number
    (`Intent.fence`); from then on what an earlier owner puts is not taken. A row whose task is known needs no owner.
    Each change is atomic, and whether it may stand is decided by `kling_async._submit.follows` alone. Every coroutine
    raises StoreError where the store cannot be used, and returns once the change would survive a crash, as far as
    the store can promise it.
    """

    async def open(self) -> None:
        """
        Make it ready; a client opens its own store.
        """
        ...

    async def aclose(self) -> None:
        """
        Let go of it; calling it again does nothing.
        """
        ...

    async def claim(self, intent: Intent) -> Intent | None:
        """
        Own the intent with this id, which is written if there is none.

        Returns:
            The intent as it stands, with a new fencing number; as it is where its task is known; None while
            another owner is at it.
        """
        ...

    async def put(self, intent: Intent) -> bool:
        """
        Write an intent over its earlier state, if there is one, and stay its owner for a while longer.

        Returns:
            Whether it was written: not if another owner has taken over or its task is known by now.
        """
        ...

    async def release(self, intent: Intent) -> None:
        """
        Let others claim it, if this fencing number is still the owner's.
        """
        ...

    async def get(self, external_task_id: str) -> Intent | None:
        """
        The intent with this id.
        """
        ...

    async def recent(self, most: int = 100, *, states: Collection[State] | None = None) -> tuple[Intent, ...]:
        """
        The latest intents, newest first; those in these states alone, where any are named.
        """
        ...

    async def abilities(self, base_url: str) -> Abilities:
        """
        What was learned of a host; nothing for one that was never met.
        """
        ...

    async def learn(self, base_url: str, abilities: Abilities) -> None:
        """
        Remember what was learned of a host.
        """
        ...


@define
class MemoryStore:
    """
    Intents for as long as the process lives; of those whose task is known, the last 10,000.

    Example:
        >>> MemoryStore()
        MemoryStore(0 intents)
    """

    _intents: dict[str, Intent] = field(factory=dict, init=False)
    _owned: set[str] = field(factory=set, init=False)
    _settled: deque[str] = field(factory=deque, init=False)
    _abilities: dict[str, Abilities] = field(factory=dict, init=False)

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._intents)} intents)"

    async def open(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to close: what it holds stays readable."""

    async def claim(self, intent: Intent) -> Intent | None:
        """Own the intent with this id; it stays owned until it is released or its task is known."""
        key = intent.external_task_id
        kept = self._intents.get(key, intent)
        if kept.state in SETTLED:
            return kept
        if key in self._owned:
            return None
        self._owned.add(key)
        self._intents[key] = claimed = moved(kept, kept.state, fence=kept.fence + 1)
        return claimed

    async def put(self, intent: Intent) -> bool:
        """Keep an intent, if it follows what is kept."""
        key = intent.external_task_id
        kept = self._intents.get(key)
        if kept is not None and not follows(intent, kept):
            return False
        self._intents[key] = intent
        if intent.state in SETTLED and (kept is None or kept.state not in SETTLED):
            self._owned.discard(key)
            self._settled.append(key)
            if len(self._settled) > KEPT:
                del self._intents[self._settled.popleft()]
        return True

    async def release(self, intent: Intent) -> None:
        """Let others claim it."""
        kept = self._intents.get(intent.external_task_id)
        if kept is not None and kept.fence == intent.fence:
            self._owned.discard(intent.external_task_id)

    async def get(self, external_task_id: str) -> Intent | None:
        """The intent with this id."""
        return self._intents.get(external_task_id)

    async def recent(self, most: int = 100, *, states: Collection[State] | None = None) -> tuple[Intent, ...]:
        """The latest intents, newest first."""
        latest = reversed(self._intents.values())
        return tuple(kept for kept in latest if states is None or kept.state in states)[:most]

    async def abilities(self, base_url: str) -> Abilities:
        """What was learned of a host."""
        return self._abilities.get(base_url, Abilities())

    async def learn(self, base_url: str, abilities: Abilities) -> None:
        """Remember what was learned of a host."""
        self._abilities[base_url] = abilities
