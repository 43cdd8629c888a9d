"""The ways to sign in: each starts a session, or refuses."""

from collections.abc import Callable
from dataclasses import dataclass

from tollgate.core.errors import SignInFailed
from tollgate.database import Door, Json
from tollgate.process import logs
from tollgate.sessions import rules, store
from tollgate.sessions.passwords import Passwords
from tollgate.sessions.supabase_auth import SupabaseAuth


@dataclass(frozen=True, slots=True)
class NewSession:
    """Whom a session is started for, as the request says."""

    door: Door
    address: str
    """Where it comes from, as failures are counted."""
    digest: str
    """Of the token of the session."""


@dataclass(frozen=True, slots=True)
class Ways:
    passwords: Passwords
    supabase: SupabaseAuth | None
    digests: Callable[[str], list[str]]

    async def with_key(self, new: NewSession) -> Json:
        return await store.sign_in_with_key(new.door, new.digest)

    async def with_link(self, new: NewSession, link: str) -> Json:
        return await store.sign_in_with_link(new.door, self.digests(link), new.digest)

    async def with_password(self, new: NewSession, email: str, password: str) -> Json:
        logs.note(account=self.digests(email.strip().lower())[0][:16])  # the email stays out of logs
        stored = await store.begin_password_sign_in(new.door, email, new.address)
        if not await self.passwords.is_right(password, stored):
            raise SignInFailed
        return await store.sign_in_with_password(new.door, email, stored, new.address, new.digest)

    async def with_supabase(self, new: NewSession, access_token: str) -> Json:
        if self.supabase is None:
            raise SignInFailed("Supabase Auth is not set up here. Sign in another way: see GET /auth/ways.")
        email = await self.supabase.email_of(access_token)
        return await store.sign_in_with_supabase(new.door, email, new.digest)

    async def change_password(self, door: Door, address: str, new: str, current: str | None) -> Json:
        user = await store.signed_in(door)
        rules.check_password(rules.normal(new), user["email"], user["name"])
        checked = await store.begin_password_change(door, address, has_current=current is not None)
        if checked is not None and not await self.passwords.is_right(current or "", checked):
            raise SignInFailed("The current password is wrong. Correct it, or ask an operator for a sign-in link.")
        return await store.set_password(door, await self.passwords.hash(new), checked, address)
