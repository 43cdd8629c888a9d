"""What the database tells a key's owner, and takes from them."""

from typing import Any

from tollgate.database import Door, Json


async def balance(door: Door) -> Json:
    return await door.call("tollgate_balance")


async def profile(door: Door) -> Json:
    return await door.call("tollgate_own_profile")


async def change_profile(door: Door, changes: dict[str, Any]) -> Json:
    return await door.call("tollgate_change_own_profile", changes=changes)


async def plan(door: Door, markup_ppm: int) -> Json:
    return await door.call("tollgate_own_plan", markup_ppm=markup_ppm)


async def limits(door: Door) -> Json:
    return await door.call("tollgate_own_limits")
