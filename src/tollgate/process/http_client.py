"""The HTTP client of the process. There is one, since each has a TLS context, which is slow to make."""

from typing import TYPE_CHECKING

from tollgate import __version__

if TYPE_CHECKING:
    import httpx

USER_AGENT = f"tollgate/{__version__}"


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

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None
