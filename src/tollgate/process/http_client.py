"""The one HTTP client of the process, opened on first use: each further one would cost its own TLS context."""

from typing import TYPE_CHECKING

from tollgate import __version__

if TYPE_CHECKING:
    import httpx

USER_AGENT = f"tollgate/{__version__}"


class Http:
    """Opens when first asked, so that a cold start without outgoing calls does not pay for it."""

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
