"""
One order with each library: the call that its users pay for, with the retries that it comes with.

Each coroutine opens a client at a URL on this machine, places one order and closes the client. Seconds replace the
client's own timeout, by the option that it documents for it; None leaves it alone.
"""

from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from attrs import field, frozen

from kling_async import ApiKey, KlingClient, Removal, RetryPolicy, open_transport

KEY = "sk-made-up"
PROMPT = "Delete the stones"
CLIP = "https://example.com/clip.mp4"

Place = Callable[[str, float | None], Awaitable[object]]
"""Places one order at the URL, with this timeout."""


async def runwayml(url: str, seconds: float | None) -> object:
    """`video_to_video.create`, which edits a clip."""
    from runwayml import AsyncRunwayML

    given = {} if seconds is None else {"timeout": seconds}
    async with AsyncRunwayML(api_key=KEY, base_url=url, **given) as client:
        return await client.video_to_video.create(model="aleph2", video_uri=CLIP, prompt_text=PROMPT)


async def openai(url: str, seconds: float | None) -> object:
    """`images.generate`: the video calls were shut down in September 2026."""
    from openai import AsyncOpenAI

    given = {} if seconds is None else {"timeout": seconds}
    async with AsyncOpenAI(api_key=KEY, base_url=url, **given) as client:
        return await client.images.generate(model="gpt-image-1", prompt=PROMPT)


async def fal(url: str, seconds: float | None) -> object:
    """`submit`, which `subscribe` calls first; no option names a host, so a constant of the module is set."""
    import fal_client

    root, _, fault = url.rpartition("/")
    fal_client.client.QUEUE_URL_FORMAT = f"{root}/"
    given = {} if seconds is None else {"default_timeout": seconds}
    client = fal_client.AsyncClient(key=KEY, **given)
    return await client.submit(f"{fault}/fal-ai/kling-video/edit", {"prompt": PROMPT, "video_url": CLIP})


async def replicate(url: str, seconds: float | None) -> object:
    """`async_run`; `wait` is what bounds it, while the client's own timeout is not used for predictions."""
    from replicate import Client

    given = {} if seconds is None else {"wait": seconds}
    client = Client(api_token=KEY, base_url=url)
    return await client.async_run("kwaivgi/kling-v2.1", {"prompt": PROMPT}, **given)


async def genai(url: str, seconds: float | None, *, aiohttp: bool = True) -> object:
    """`models.generate_videos`, which has an enterprise form only; it takes aiohttp wherever that is installed."""
    from google.genai import Client
    from google.genai.types import GenerateVideosSource, HttpOptions
    from httpx2 import AsyncHTTPTransport

    options = HttpOptions(
        base_url=url,
        timeout=None if seconds is None else round(seconds * 1000),
        async_client_args=None if aiohttp else {"transport": AsyncHTTPTransport()},
    )
    async with Client(enterprise=True, api_key=KEY, http_options=options).aio as client:
        return await client.models.generate_videos(
            model="veo-3.1-generate-preview", source=GenerateVideosSource(prompt=PROMPT)
        )


async def genai_httpx(url: str, seconds: float | None) -> object:
    """The same through httpx, as where aiohttp is not installed."""
    return await genai(url, seconds, aiohttp=False)


async def kling(url: str, seconds: float | None, *, retry: RetryPolicy | None = None) -> object:
    """`create_task`."""
    transport = None if seconds is None else await open_transport(total=seconds)
    try:
        async with KlingClient(ApiKey(KEY), base_url=url, transport=transport, retry=retry) as client:
            return await client.create_task("878106242831892489", Removal.of("the stones"))
    finally:
        if transport is not None:
            await transport.aclose()


@frozen
class Peer:
    """
    A row of the table.
    """

    who: str
    """Its part of the path."""
    distribution: str
    """What pip calls it."""
    module: str
    """What Python calls it."""
    place: Place
    """Its paid call."""
    how: str = ""
    """What sets the row apart from another of the same library."""
    version: str | None = field(init=False)
    """The one installed, if any."""

    @version.default
    def _installed(self) -> str | None:
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return None

    @property
    def title(self) -> str:
        """
        Name, version and what sets it apart.
        """
        return " ".join(filter(None, (self.distribution, self.version, self.how and f"({self.how})")))

    def load(self) -> None:
        """Import it, so that no call has to wait for another library's import."""
        if self.version is not None:
            import_module(self.module)


PEERS = (
    Peer("runwayml", "runwayml", "runwayml", runwayml),
    Peer("openai", "openai", "openai", openai),
    Peer("fal-client", "fal-client", "fal_client", fal),
    Peer("replicate", "replicate", "replicate", replicate),
    Peer("google-genai", "google-genai", "google.genai", genai, "aiohttp"),
    Peer("google-genai-httpx", "google-genai", "google.genai", genai_httpx, "httpx"),
)
