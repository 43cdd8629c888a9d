"""Asks Supabase Auth whose access token it is. Roles always come from our own tables."""

import asyncio
from typing import TYPE_CHECKING

from tollgate.core.errors import SignInFailed, SupabaseUnavailable
from tollgate.process.http_client import Http
from tollgate.sessions.rules import verified_email

if TYPE_CHECKING:
    import httpx
    from supabase import AsyncClient

DEADLINE_SECONDS = 5.0
REFUSED = (400, 401, 403, 404)
"""What Supabase Auth answers for a token that is forged or expired, or whose user or session is gone."""


class SupabaseAuth:
    def __init__(self, url: str, secret_key: str, http: Http) -> None:
        self._url = url
        self._secret_key = secret_key
        self._http = http
        self._client: AsyncClient | None = None

    async def email_of(self, access_token: str) -> str:
        """The email that the user of the token has verified."""
        email = verified_email(await self._user_of(access_token))
        if email is None:
            raise SignInFailed("This Supabase account has no verified email. Verify it, or sign in another way.")
        return email

    async def _user_of(self, access_token: str) -> dict[str, object]:
        client = await self._opened()
        from supabase import AuthApiError, AuthError  # noqa: PLC0415

        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                answer = await client.auth.get_user(access_token)
        except AuthApiError as error:
            if error.status in REFUSED:
                raise SignInFailed("Supabase does not accept the access token. Sign in to Supabase again.") from None
            raise SupabaseUnavailable from error
        except (AuthError, OSError, TimeoutError, ValueError) as error:
            raise SupabaseUnavailable from error
        if answer is None:
            raise SupabaseUnavailable
        return answer.user.model_dump()

    async def _opened(self) -> "AsyncClient":
        """In a thread, since importing `supabase` takes a quarter of a second."""
        if self._client is None:
            self._client = await asyncio.to_thread(_client, self._url, self._secret_key, self._http.client())
        return self._client


def _client(url: str, secret_key: str, http: "httpx.AsyncClient") -> "AsyncClient":
    from supabase import AsyncClient, AsyncClientOptions  # noqa: PLC0415  # only this way to sign in needs it

    options = AsyncClientOptions(auto_refresh_token=False, persist_session=False, httpx_client=http)
    return AsyncClient(url, secret_key, options)
