"""What the database tells a key's owner."""

from tollgate.runtime.database import Door, Json


async def balance(door: Door) -> Json:
    return await door.call("tollgate_balance")
