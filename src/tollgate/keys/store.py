"""Keys in the database."""

from typing import Any

from tollgate.runtime.database import Door, Json


async def create_key(door: Door, user_id: str, key: dict[str, Any]) -> Json:
    return await door.call("tollgate_create_key", user_id=user_id, key=key)


async def set_key_state(door: Door, key_id: str, state: str) -> Json:
    return await door.call("tollgate_set_key_state", key_id=key_id, state=state)


async def seed(door: Door, org: dict[str, Any], owner: dict[str, Any], key: dict[str, Any]) -> Json:
    return await door.call("tollgate_seed", org=org, owner=owner, key=key)
