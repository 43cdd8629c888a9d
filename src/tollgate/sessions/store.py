"""Sessions in the database."""

from typing import Any

from tollgate.database import Door, Json


async def sign_in_with_key(door: Door, digest: str) -> Json:
    return await door.call("tollgate_sign_in_with_key", digest=digest)


async def sign_in_with_link(door: Door, link: list[str], digest: str) -> Json:
    return await door.call("tollgate_sign_in_with_link", link=link, digest=digest)


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
