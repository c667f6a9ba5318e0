"""
What `doctor` finds out by asking the service: one look at a task that cannot exist, which is free and changes nothing.

Decides what the answer, its time and its date say of host, key, region and clock. Sends nothing that could be paid,
and the key to no host that was not named, unless it was told to.
"""

import time
from collections.abc import Mapping
from typing import Self

from attrs import define, evolve, field

from kling_async._auth import Credentials, KeyPair
from kling_async._codec import finite
from kling_async._endpoints import COMETAPI_URL, GET, KLING_CHINA_URL, KLING_GLOBAL_URL, host
from kling_async._replies import read
from kling_async.client import KlingClient
from kling_async.errors import (
    AccountError,
    APIError,
    AuthenticationError,
    DecodeError,
    InvalidInputError,
    KlingError,
    NotSentError,
    ServerError,
    ThrottledError,
    TransportError,
)
from kling_async.policy import RetryPolicy
from kling_async.transport import Request

from ._codes import Exit
from ._findings import Finding, Verdict
from ._listening import Listening
from ._reach import Stage, reach
from ._service import Service
from ._words import NO_TASK, proxy_of, words, wrong_path

NO_SUCH_TASK = "kling-async-doctor"
"""An id that no service gives."""
REGIONS = {KLING_GLOBAL_URL: "Kling's global region", KLING_CHINA_URL: "Kling's region China"}
EARLY_MOST = 5.0
"""Seconds that a clock may be off for a key pair: its tokens are valid from five seconds before they are signed."""
ODD_MOST = 60.0
"""Seconds that a clock may be off otherwise."""
YEAR = 365 * 86_400

STAGES = {Stage.NAME: "name", Stage.CONNECTION: "connection", Stage.TLS: "TLS", Stage.REPLY: "service"}
COSTS = "/account/costs"
AFTER_HOST = ("name", "connection", "TLS", "service", "key", "region", "clock", "balance")
"""The checks that need an answer."""


def unchecked(why: str, *names: str) -> list[Finding]:
    """
    Checks that could not be made.

    Args:
        why: The reason.
        names: Theirs.
    """
    return [Finding(name, Verdict.UNCHECKED, why) for name in names]


def place(service: Service, credentials: Credentials | None) -> Finding:
    """
    The host, and how it was chosen.

    Args:
        service: What names it.
        credentials: The key that would go there.
    """
    address = service.address
    if not address.url:
        return Finding("host", Verdict.UNCHECKED, "without a key or --base-url there is none")
    try:
        host(address.url)
        if credentials is not None:
            service.opening(credentials)
    except InvalidInputError as error:
        return Finding("host", Verdict.FAILED, f"{address.origin}: {error.reason}", exit_code=Exit.USAGE)
    said = f"{address.url}, {'from' if address.given else 'the default for'} {address.origin}"
    odd = _misplaced(service, credentials)
    verdict = Verdict.WARNING if odd else Verdict.OK
    return Finding("host", verdict, said, advice=odd, facts={"base_url": address.url, "origin": address.origin})


def _misplaced(service: Service, credentials: Credentials | None) -> str:
    """What is odd about a key at a host; nothing where nothing is known of the host."""
    address = service.address
    name, source = address.host_name, (credentials and credentials.source) or ""
    if name.endswith("cometapi.com"):
        if not address.url.rstrip("/").endswith("/kling"):
            return f"CometAPI's address ends in /kling: {COMETAPI_URL}."
        return f"{source} is for Kling itself: set COMETAPI_KEY." if source.startswith("KLING_") else ""
    if name.endswith("klingai.com") and source == "COMETAPI_KEY":
        return f"COMETAPI_KEY is not for Kling itself: set KLING_API_KEY alone, or leave {address.origin} out."
    return ""


@define
class Inquiry:
    """
    One service, asked once.
    """

    service: Service
    """Whom it asks."""
    credentials: Credentials | None
    """With which key; without one it is asked all the same, for that shows the way."""
    listening: Listening
    """What carries the requests."""
    error: KlingError | None = field(default=None, init=False)
    """How the service answered; None if it showed a task."""

    async def ask(self) -> Self:
        """
        Look at a task that cannot exist.
        """
        try:
            if self.credentials is None:
                url = f"{host(self.service.address.url).base_url}{GET.at(NO_SUCH_TASK)}"
                read(GET, await self.listening.exchange(Request("GET", url)))
            else:
                async with self._client(self.credentials) as client:
                    await client.get_task(NO_SUCH_TASK)
        except InvalidInputError as error:
            self.error = NotSentError(error.reason)
        except KlingError as error:
            self.error = error
        return self

    def _client(self, credentials: Credentials) -> KlingClient:
        return self.service.opening(credentials, transport=self.listening, retry=RetryPolicy(attempts=1))

    @property
    def trouble(self) -> KlingError | None:
        """
        What shows that no service answered, or one that is not well; None where one did, whatever it said.
        """
        match self.error:
            case DecodeError(status=None):
                return None  # a success all the same, whatever it holds
            case TransportError() | DecodeError() | ServerError():
                return self.error
            case APIError() if wrong_path(self.error):
                return self.error
        return None

    def way(self) -> list[Finding]:
        """
        Name, connection, TLS, and whether it is the service that answers.
        """
        if not isinstance(self.error, TransportError):
            return [*(self._passed(stage) for stage in Stage if stage < Stage.REPLY), self._answer()]
        ended, told = reach(self.error), words(self.error, self.service)
        name = STAGES[ended.stage]
        failed = Finding(name, Verdict.FAILED, told.what, advice=told.advice, exit_code=Exit.UNREACHABLE)
        later = (STAGES[stage] for stage in Stage if stage > ended.stage)
        return [
            *(self._passed(stage) for stage in Stage if stage < ended.stage),
            failed,
            *unchecked(f"the {name} failed before it", *later),
        ]

    def _passed(self, stage: Stage) -> Finding:
        address = self.service.address
        proxy = proxy_of(address)
        if stage is Stage.NAME and proxy:
            return Finding(STAGES[stage], Verdict.UNCHECKED, "it is the proxy that looks it up")
        said = {
            Stage.NAME: f"{address.host_name} is found",
            Stage.CONNECTION: f"to {self.service.host}" + (f" through {proxy}" if proxy else ""),
            Stage.TLS: "the certificate verifies" if address.scheme == "https" else "none: http stays on this machine",
        }
        return Finding(STAGES[stage], Verdict.OK, said[stage])

    def _answer(self) -> Finding:
        if self.trouble is not None:
            told = words(self.trouble, self.service)
            return Finding("service", Verdict.FAILED, told.what, advice=told.advice, facts=told.facts)
        heard = self.listening.heard
        assert heard is not None
        facts = {"status": heard.reply.status, "seconds": round(heard.took, 3)}
        return Finding("service", Verdict.OK, f"answers in {heard.took:.2f} s, HTTP {heard.reply.status}", facts=facts)

    def key(self) -> Finding:
        """
        Whether the key is accepted, as far as the answer says so.
        """
        if self.credentials is None or self.trouble is not None:
            why = "there is no usable key" if self.credentials is None else "the service did not answer"
            return Finding("key", Verdict.UNCHECKED, why)
        source = self.credentials.source
        if accepts(self.error):
            return Finding("key", Verdict.OK, f"{source} is accepted")
        assert self.error is not None
        told = words(self.error, self.service)
        match self.error:
            case AuthenticationError():
                code = Exit.CREDENTIALS
                return Finding("key", Verdict.FAILED, told.what, advice=told.advice, exit_code=code, facts=told.facts)
            case AccountError():
                said = f"{source} is accepted, but {told.what}"
                return Finding("key", Verdict.FAILED, said, advice=told.advice, facts=told.facts)
        return Finding("key", Verdict.UNCHECKED, f"the answer does not say: {told.what}", facts=told.facts)

    def clock(self) -> Finding:
        """
        How far this machine's clock is from the service's.
        """
        heard = self.listening.heard
        ahead = heard.ahead if heard else None
        if ahead is None:
            return Finding("clock", Verdict.UNCHECKED, "no answer told the time")
        pair = isinstance(self.credentials, KeyPair)
        facts = {"ahead_seconds": round(ahead, 1)}
        way = "ahead of" if ahead > 0 else "behind"
        said = f"{abs(ahead):.0f} s {way} the service's" if ahead else "as the service's"
        if abs(ahead) <= (EARLY_MOST if pair else ODD_MOST):
            return Finding("clock", Verdict.OK, said, facts=facts)
        why = ", for the tokens of a key pair are refused then" if pair else ""
        return Finding("clock", Verdict.WARNING, said, advice=f"Set this machine's clock{why}.", facts=facts)

    async def region(self, *, others: bool) -> Finding:
        """
        Whether the key may belong to the other region of Kling.

        Args:
            others: Whether the key may be sent there to see.
        """
        settled = self._settled()
        if settled is not None or self.credentials is None:
            return settled or Finding("region", Verdict.UNCHECKED, "there is no usable key")
        there = next(url for url in REGIONS if url != self._here)
        if not others:
            ask = self.service.command("doctor", "--try-regions")
            advice = f"Set KLING_BASE_URL={there}, or have it asked:  {ask}"
            return Finding("region", Verdict.UNCHECKED, f"a key of {REGIONS[there]} is refused just so", advice=advice)
        other = Inquiry(evolve(self.service, base_url=there), self.credentials, self.listening)
        return _compared(await other.ask(), there)

    @property
    def _here(self) -> str:
        return self.service.address.url.rstrip("/")

    def _settled(self) -> Finding | None:
        """The region, where another one is out of the question; None where a key was refused that may be of another."""
        if self._here not in REGIONS:
            if self.service.address.host_name.endswith("klingai.com"):
                why = f"of Kling's hosts only {' and '.join(REGIONS)} are documented"
                return Finding("region", Verdict.UNCHECKED, why)
            return Finding("region", Verdict.OK, "this host has none")
        if accepts(self.error) or isinstance(self.error, AccountError):
            return Finding("region", Verdict.OK, REGIONS[self._here])
        if not isinstance(self.error, AuthenticationError):
            return Finding("region", Verdict.UNCHECKED, "the key was not judged")
        if self.credentials is not None and self.credentials.source == "COMETAPI_KEY":
            return Finding("region", Verdict.UNCHECKED, "the key is CometAPI's")
        return None

    async def balance(self) -> Finding:
        """
        What is left of the account's packs, which Kling alone tells.
        """
        if self._here not in REGIONS:
            why = "only Kling's own hosts tell it, others have it in their console"
            return Finding("balance", Verdict.UNCHECKED, why)
        if self.credentials is None or self.key().verdict is not Verdict.OK:
            return Finding("balance", Verdict.UNCHECKED, "the key is not known to be accepted")
        now = time.time()
        period = {"start_time": int((now - YEAR) * 1000), "end_time": int(now * 1000)}
        try:
            async with self._client(self.credentials) as client:
                return balance_of(await client.request("GET", COSTS, params=period))
        except KlingError as error:
            return Finding("balance", Verdict.UNCHECKED, words(error, self.service).what)


def accepts(error: KlingError | None) -> bool:
    """
    Whether an answer proves that the key is accepted.

    Args:
        error: The answer to a look at a task that cannot exist; None if a task was shown.
    """
    match error:
        case AuthenticationError() | AccountError() | ThrottledError():
            return False
        case APIError(code=int(code)):
            return 1200 <= code < 1400  # Kling looks at the key before it looks at anything else
        case APIError():
            return error.code in NO_TASK or error.status == 200  # the latter from a success without data
    return error is None or isinstance(error, DecodeError)


def _compared(other: Inquiry, there: str) -> Finding:
    found = other.key()
    if found.verdict is Verdict.OK:
        said = f"the key belongs to {REGIONS[there]}"
        advice = f"Set KLING_BASE_URL={there}."
        return Finding("region", Verdict.FAILED, said, advice=advice, exit_code=Exit.CREDENTIALS)
    if isinstance(other.error, AuthenticationError):
        advice = "Look at the key in Kling's console."
        return Finding("region", Verdict.OK, f"not the cause, for {there} refuses the key as well", advice=advice)
    return Finding("region", Verdict.UNCHECKED, f"{there} did not answer the question: {found.said}")


def balance_of(data: object) -> Finding:
    """
    What is left, of a reply about packs. The numbers are about twelve hours old.

    Source: https://klingai.com/document-api (query resource package)

    Args:
        data: The reply's data.
    """
    listed = data.get("resource_pack_subscribe_infos") if isinstance(data, Mapping) else None
    if not isinstance(listed, list):
        return Finding("balance", Verdict.UNCHECKED, "the answer lists no packs")
    packs = [pack for pack in listed if isinstance(pack, Mapping) and pack.get("status") == "online"]
    left = sum(finite(pack.get("remaining_quantity")) or 0.0 for pack in packs)
    facts = {"packs": len(packs), "remaining": left}
    said = f"{left:g} units left in {'1 pack' if len(packs) == 1 else f'{len(packs)} packs'}, as of half a day ago"
    if not left:
        return Finding("balance", Verdict.WARNING, said, advice="Buy a pack in Kling's console.", facts=facts)
    return Finding("balance", Verdict.OK, said, facts=facts)
