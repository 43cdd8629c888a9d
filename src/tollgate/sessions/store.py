"""Sessions in the database."""

from typing import Any

from tollgate.database import Door, Json


async def sign_in_with_key(door: Door, digest: str) -> Json:
    return await door.call("tollgate_sign_in_with_key", digest=digest)


async def sign_in_with_link(door: Door, link: list[str], digest: str) -> Json:
    return await door.call("tollgate_sign_in_with_link", link=link, digest=digest)


async def begin_password_sign_in(door: Door, email: str, address: str) -> str | None:
    """The hash of the password that the account has. Counts as a failure until it was right."""
    answer = await door.call("tollgate_begin_password_sign_in", email=email, address=address)
    stored: str | None = answer["hash"]
    return stored


async def sign_in_with_password(door: Door, email: str, checked: str | None, address: str, digest: str) -> Json:
    return await door.call("tollgate_sign_in_with_password", email=email, hash=checked, address=address, digest=digest)


async def begin_password_change(door: Door, address: str, *, has_current: bool) -> str | None:
    """The hash of the current password, if it must be right. Counts as a failure until it was."""
    answer = await door.call("tollgate_begin_password_change", has_current=has_current, address=address)
    stored: str | None = answer["hash"]
    return stored


async def set_password(door: Door, new: str, checked: str | None, address: str) -> Json:
    """Sets it to a hash, if the password is still the one whose hash was checked."""
    return await door.call("tollgate_set_password", hash=new, checked=checked, address=address)


async def remove_password(door: Door, user_id: str) -> Json:
    return await door.call("tollgate_remove_password", user_id=user_id)


async def sign_in_with_supabase(door: Door, email: str, digest: str) -> Json:
    return await door.call("tollgate_sign_in_with_supabase", email=email, digest=digest)


async def create_link(door: Door, person: dict[str, Any], digest: str) -> Json:
    return await door.call("tollgate_create_sign_in_link", person=person, digest=digest)


async def signed_in(door: Door) -> Json:
    return await door.call("tollgate_signed_in")


async def sessions(door: Door, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_sessions", filters=filters, page_size=page_size)


async def end(door: Door, session_id: str | None) -> Json:
    return await door.call("tollgate_end_session", session_id=session_id)


async def end_all(door: Door) -> Json:
    return await door.call("tollgate_end_sessions")
