"""The HTTP client of the process. There is one, since each has a TLS context, which is slow to make."""

import asyncio
from typing import TYPE_CHECKING, Any

from tollgate import __version__

if TYPE_CHECKING:
    import httpx

USER_AGENT = f"tollgate/{__version__}"


class NoAnswer(Exception):
    """None came in time. The message is the kind of failure."""


class Http:
    """Imports httpx and opens the client on first use, so that a cold start without outgoing calls is shorter."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    def client(self) -> "httpx.AsyncClient":
        if self._client is None:
            import httpx

            self._client = httpx.AsyncClient(
                headers={"user-agent": USER_AGENT},
                timeout=httpx.Timeout(30, connect=3),
                limits=httpx.Limits(max_connections=200, max_keepalive_connections=50, keepalive_expiry=30),
                follow_redirects=False,
            )
        return self._client

    async def ask(self, method: str, url: str, seconds: float, **options: Any) -> "httpx.Response":
        """One request, and its answer as a whole. Raises NoAnswer."""
        import httpx

        try:
            async with asyncio.timeout(seconds):
                return await self.client().request(method, url, **options)
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            raise NoAnswer(type(error).__name__) from error

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None
