"""Keys in the database. Calls with the scope `admin` are for operators only."""

from typing import Any, Literal

from tollgate.database import Door, Json

Scope = Literal["keys", "admin"]


async def create_key(door: Door, user_id: str | None, key: dict[str, Any], scope: Scope = "keys") -> Json:
    return await door.call("tollgate_create_key", user_id=user_id, key=key, scope=scope)


async def keys(door: Door, filters: dict[str, Any], page_size: int, scope: Scope = "keys") -> Json:
    return await door.call("tollgate_keys", filters=filters, page_size=page_size, scope=scope)


async def keys_with_usage(door: Door, filters: dict[str, Any], page_size: int, scope: Scope = "keys") -> Json:
    return await door.call("tollgate_keys_with_usage", filters=filters, page_size=page_size, scope=scope)


async def key(door: Door, key_id: str, scope: Scope = "keys") -> Json:
    return await door.call("tollgate_key", key_id=key_id, scope=scope)


async def change_key(door: Door, key_id: str, changes: dict[str, Any], scope: Scope = "keys") -> Json:
    return await door.call("tollgate_change_key", key_id=key_id, changes=changes, scope=scope)


async def set_key_state(door: Door, key_id: str, state: str, scope: Scope = "keys") -> Json:
    return await door.call("tollgate_set_key_state", key_id=key_id, state=state, scope=scope)


async def rotate_key(
    door: Door, key_id: str, grace_hours: int, imprints: dict[str, Any], scope: Scope = "keys"
) -> Json:
    return await door.call(
        "tollgate_rotate_key", key_id=key_id, grace_hours=grace_hours, imprints=imprints, scope=scope
    )


async def key_events(door: Door, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_key_events", filters=filters, page_size=page_size)


async def identify(door: Door) -> Json:
    return await door.call("tollgate_identify")


async def identify_operator(door: Door) -> Json:
    return await door.call("tollgate_operator")


async def seed(
    door: Door,
    org: dict[str, Any],
    owner: dict[str, Any],
    key: dict[str, Any] | None,
    peppers: list[str] | None = None,
) -> Json:
    """`peppers` are fingerprints. Where there are keys, one must have been made with one of these."""
    return await door.call("tollgate_seed", org=org, owner=owner, key=key, peppers=peppers)
