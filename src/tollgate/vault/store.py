"""Encrypted secrets in the database."""

from typing import Any

from tollgate.database import Door, Json
from tollgate.vault.rules import Kind


async def secrets(door: Door, kind: Kind, org_id: str | None = None) -> Json:
    """Of the caller's own org, unless one is named."""
    return await door.call("tollgate_secrets", kind=kind, org_id=org_id)


async def upstream_for_keys(door: Door, org_id: str | None, upstream_id: str) -> Json:
    return await door.call("tollgate_upstream_for_keys", org_id=org_id, upstream_id=upstream_id)


async def put(door: Door, kind: Kind, org_id: str | None, secret: dict[str, Any]) -> Json:
    return await door.call("tollgate_put_secret", kind=kind, org_id=org_id, secret=secret)


async def delete(door: Door, kind: Kind, org_id: str | None, name: str) -> Json:
    return await door.call("tollgate_delete_secret", kind=kind, org_id=org_id, name=name)


async def read(door: Door, kind: Kind, name: str) -> Json:
    return await door.call("tollgate_read_secret", kind=kind, name=name)


async def to_seal(door: Door, sealed_with: str, after_id: str, page_size: int) -> Json:
    return await door.call("tollgate_secrets_to_seal", sealed_with=sealed_with, after_id=after_id, page_size=page_size)


async def seal_again(door: Door, items: list[dict[str, Any]]) -> Json:
    return await door.call("tollgate_seal_again", items=items)
