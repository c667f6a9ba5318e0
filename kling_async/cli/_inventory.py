"""
What `doctor` finds on this machine alone: versions, extras, variables, the proxy, and what is kept of paid creates.

Decides what of it is worth a word. Sends nothing, and never reads the value of a variable aloud.
"""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import kling_async
from kling_async._auth import ApiKey, Credentials
from kling_async._environment import BASE_URL
from kling_async._routes import find_proxy
from kling_async._submit import DOUBTFUL
from kling_async.errors import InvalidInputError, StoreError
from kling_async.stores import Intent, SqliteStore

from ._codes import CredentialsError, Exit
from ._findings import Finding, Verdict
from ._service import Service
from ._tasks import INTENTS_MOST

PACKAGES = ("aiohttp", "anyio", "attrs", "cattrs", "orjson", "trio")
EXTRAS = {
    "cli": (("cyclopts", "rich"), "this command line"),
    "demo": (("av", "cv2", "numpy", "PIL"), "the demo, and a simulator that really sees and edits clips"),
    "kling": (("jwt",), "access and secret key of Kling itself"),
    "masks": (("numpy", "PIL"), "masks as arrays and pictures"),
    "trio": (("trio",), "running on trio"),
}
"""Modules of each extra, and what it is for."""

_PAIR = ("KLING_ACCESS_KEY", "KLING_SECRET_KEY")
_KEYS = ("COMETAPI_KEY", "KLING_API_KEY", *_PAIR)
_OTHERS = (BASE_URL, "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")


def versions() -> list[Finding]:
    """
    Python, this package and what it is built on.
    """
    python = platform.python_version()
    found = {"kling_async": kling_async.__version__, **{name: _version(name) for name in PACKAGES}}
    listed = ", ".join(f"{name} {number or 'is not installed'}" for name, number in found.items())
    where = f"{platform.python_implementation()} {python} on {platform.system()}, {sys.executable}"
    return [
        Finding("python", Verdict.OK, where, facts={"version": python}),
        Finding("packages", Verdict.OK, listed, facts={"versions": found}),
    ]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def extras() -> list[Finding]:
    """
    Which extras are there, and what each is for.
    """
    found = []
    for name, (modules, purpose) in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        said = f"not installed, for {purpose}: pip install 'kling-async[{name}]'" if missing else f"for {purpose}"
        found.append(Finding(f"extra {name}", Verdict.OK, said, facts={"installed": not missing}))
    return found


def variables(credentials: Credentials | None) -> Finding:
    """
    Which variables are set, by name alone, and which of them count.

    Args:
        credentials: The key that is used, if any.
    """
    known = [name for name in (*_KEYS, *_OTHERS) if os.environ.get(name)]
    empty = [name for name in _KEYS if os.environ.get(name) == ""]
    used = (credentials and credentials.source) or ""
    unused = [name for name in known if name in _KEYS and name not in used]
    listed = ", ".join(f"{name} (not used)" if name in unused else name for name in known) or "nothing that counts here"
    wins = f"; {used} wins" if used and unused else ""
    facts = {"set": known, "used": used or None}
    lone = [name for name in _PAIR if name in known]
    if len(lone) == 1:
        other = next(name for name in _PAIR if name not in lone)
        return Finding("environment", Verdict.WARNING, listed + wins, advice=f"{lone[0]} needs {other}.", facts=facts)
    if empty:
        advice = f"{', '.join(empty)} is empty, which counts as not set."
        return Finding("environment", Verdict.WARNING, listed + wins, advice=advice, facts=facts)
    return Finding("environment", Verdict.OK, listed + wins, facts=facts)


def key(service: Service) -> tuple[Credentials | None, Finding]:
    """
    The key, and what kind it is.

    Args:
        service: Whom it is for.
    """
    try:
        found = service.credentials()
    except CredentialsError as error:
        return None, Finding("credentials", Verdict.FAILED, str(error), exit_code=Exit.CREDENTIALS)
    kind = "an API key" if isinstance(found, ApiKey) else "an access key with its secret key"
    return found, Finding("credentials", Verdict.OK, f"{found.source}, {kind}", facts={"source": found.source})


def proxy(service: Service) -> Finding:
    """
    What stands between here and the service.

    Args:
        service: Where requests would go.
    """
    try:
        found = find_proxy(None)
    except InvalidInputError as error:
        return Finding("proxy", Verdict.FAILED, f"{error.field} {error.reason}", exit_code=Exit.USAGE)
    if found is None:
        return Finding("proxy", Verdict.OK, "none")
    login = ", with user and password" if found.headers else ""
    address = service.address
    used = bool(address.url) and found.serves(address.scheme, address.host_name)
    said = f"{found.url}{login}" if used else f"{found.url} is set, and not used for this host"
    return Finding("proxy", Verdict.OK, said, facts={"url": found.url, "used": used})


async def state(service: Service) -> Finding:
    """
    Where paid creates are remembered, and how many are in doubt.

    Args:
        service: Whose options name the folder.
    """
    path = service.store_path
    if not path.exists():
        return _absent(path)
    store = SqliteStore(path)
    try:
        await store.open()
        try:
            intents = await store.recent(INTENTS_MOST)
        finally:
            await store.aclose()
    except StoreError as error:
        return Finding("state", Verdict.FAILED, str(error), advice="Repair it, or name another folder with --state.")
    return _kept(path, intents, service)


def _absent(path: Path) -> Finding:
    folder = next(folder for folder in path.parents if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        advice = "Make it writable, or name another folder with --state."
        return Finding("state", Verdict.FAILED, f"{path} cannot be made: {folder} is not writable", advice=advice)
    facts = {"path": path, "intents": 0, "in_doubt": 0}
    return Finding("state", Verdict.OK, f"{path} is made with the first command that needs it", facts=facts)


def _kept(path: Path, intents: tuple[Intent, ...], service: Service) -> Finding:
    doubtful = [intent for intent in intents if intent.state in DOUBTFUL]
    facts = {"path": path, "intents": len(intents), "in_doubt": len(doubtful)}
    said = f"{path}, {len(intents)} paid creates kept, {len(doubtful)} of them in doubt"
    if not doubtful:
        return Finding("state", Verdict.OK, said, facts=facts)
    hosts = dict.fromkeys(intent.base_url for intent in doubtful)
    settle = [Service(base_url=url, state=service.state).command("tasks", "reconcile") for url in hosts]
    return Finding("state", Verdict.WARNING, said, advice=f"Look for them:  {'; '.join(settle)}", facts=facts)
