"""Fetches the list of models from OpenRouter, or from a server with the same API."""

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollgate.catalog import entries
from tollgate.catalog.entries import Entry
from tollgate.core import strict_json
from tollgate.core.strict_json import NotJson
from tollgate.process.http_client import Http

if TYPE_CHECKING:
    import httpx

PATHS: Final = ("/models?output_modalities=all", "/embeddings/models")
"""The first lists all models; if it leaves embedding models out, the second has them."""

NO_SUCH_PAGE: Final = 404
PAGE_SECONDS: Final = 10
MOST_PAGES: Final = 50
MOST_BYTES: Final = 32 * 1024 * 1024


class SourceFailed(Exception):
    """Why there is no list. The message quotes neither the request nor the response."""


class Fetched(NamedTuple):
    entries: list[Entry]
    skipped: int
    """How many entries could not be used."""


class Source:
    """A server with a list of models."""

    def __init__(self, http: Http, base_url: str, key: str | None) -> None:
        self.base_url = base_url
        self._http = http
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    async def fetch(self) -> Fetched:
        """The whole list. Refuses a list that is empty or mostly unusable, because it must not replace a good one."""
        listed = await self._pages(PATHS[0])
        if not listed:
            raise SourceFailed("an empty list")
        listed += await self._pages(PATHS[1], optional=True)
        usable, skipped = await asyncio.to_thread(entries.intake, listed)
        if skipped > len(usable):
            raise SourceFailed(f"{skipped} of {len(listed)} entries broken")
        return Fetched(usable, skipped)

    async def _pages(self, path: str, *, optional: bool = False) -> list[Any]:
        import httpx  # noqa: PLC0415  # a cold start need not pay for it

        listed: list[Any] = []
        url: httpx.URL | None = httpx.URL(f"{self.base_url}{path}")
        for _ in range(MOST_PAGES):
            if url is None:
                return listed
            page = await self._page(url, optional=optional)
            listed += page.get("data") or []
            url = _following(page, url)
        raise SourceFailed(f"more than {MOST_PAGES} pages")

    async def _page(self, url: "httpx.URL", *, optional: bool) -> dict[str, Any]:
        import httpx  # noqa: PLC0415

        try:
            async with asyncio.timeout(PAGE_SECONDS):
                status, body = await self._get(url)
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            raise SourceFailed(type(error).__name__) from error
        if optional and status == NO_SUCH_PAGE:
            return {"data": []}
        if status != httpx.codes.OK:
            raise SourceFailed(f"HTTP {status}")
        return await asyncio.to_thread(_read, body)

    async def _get(self, url: "httpx.URL") -> tuple[int, bytes]:
        body = bytearray()
        async with self._http.client().stream("GET", url, headers=self._headers, follow_redirects=False) as answer:
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > MOST_BYTES:
                    raise SourceFailed(f"more than {MOST_BYTES} bytes")
            return answer.status_code, bytes(body)


def _read(body: bytes) -> dict[str, Any]:
    try:
        page = strict_json.from_upstream(body)
    except NotJson as error:
        raise SourceFailed("not JSON") from error
    if not isinstance(page.get("data"), list):
        raise SourceFailed("no list")
    return page


def _following(page: dict[str, Any], url: "httpx.URL") -> "httpx.URL | None":
    """The next page, if it is on the same server: our key must not be sent elsewhere."""
    import httpx  # noqa: PLC0415

    links = page.get("links")
    following = links.get("next") if isinstance(links, dict) else None
    if not following:
        return None
    try:
        joined = url.join(str(following))
    except (httpx.InvalidURL, ValueError) as error:
        raise SourceFailed("a next page without a valid address") from error
    if (joined.scheme, joined.host, joined.port) != (url.scheme, url.host, url.port):
        raise SourceFailed("a next page on another server")
    return joined


class OwnServersOnly(Source):
    """Where no OpenRouter key is set: no model but those of our own routes."""

    def __init__(self, http: Http) -> None:
        super().__init__(http, "own servers only", None)

    async def fetch(self) -> Fetched:
        return Fetched([], 0)
