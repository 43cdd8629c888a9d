"""The door for serverless hosts: Supabase's HTTP API, which has a connection pool of its own."""

import asyncio
from typing import TYPE_CHECKING

from tollgate.database import failures
from tollgate.database.door import Json
from tollgate.process.http_client import USER_AGENT, Http

if TYPE_CHECKING:
    from postgrest import AsyncPostgrestClient


class SupabaseDoor:
    def __init__(self, url: str, secret_key: str, *, http: Http, deadline_seconds: float) -> None:
        self._url = f"{url}/rest/v1"
        self._headers = _headers(secret_key)
        self._http = http
        self._deadline_seconds = deadline_seconds
        self._client: AsyncPostgrestClient | None = None

    async def call(self, function: str, **arguments: Json) -> Json:
        import httpx
        from postgrest import APIError

        try:
            async with asyncio.timeout(self._deadline_seconds):
                answer = await self._open().rpc(function, arguments).execute()
        except APIError as error:
            raise failures.of_state(error.code or "", error.message or "", error.details) from error
        except (httpx.HTTPError, OSError, TimeoutError, ValueError, RecursionError) as error:
            raise failures.unavailable(type(error).__name__, str(error)) from error
        if not isinstance(answer.data, dict):
            raise failures.unavailable("not_json", "the answer is not one of our functions'")
        return answer.data

    async def close(self) -> None:
        self._client = None  # the HTTP client belongs to the process

    def _open(self) -> "AsyncPostgrestClient":
        if self._client is None:
            from postgrest import AsyncPostgrestClient

            self._client = AsyncPostgrestClient(
                self._url, headers=self._headers, http_client=self._http.client(), retry_enabled=False
            )
        return self._client


def _headers(secret_key: str) -> dict[str, str]:
    """A secret key (sb_…) goes in `apikey` only; a service_role token must be in `authorization` too.

    Supabase refuses a secret key from a browser, by its User-Agent.
    """
    headers = {"apikey": secret_key, "user-agent": USER_AGENT, "x-client-info": USER_AGENT}
    if not secret_key.startswith("sb_"):
        headers["authorization"] = f"Bearer {secret_key}"
    return headers
