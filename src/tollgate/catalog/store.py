"""Models in the database: the snapshot of OpenRouter's list, and the routes to our own upstreams."""

from collections.abc import Sequence
from typing import Any

from tollgate.database import Door, Json


async def catalog(door: Door, source: str, names: Sequence[str] | None, within_seconds: int) -> Json:
    """The models of these names, or all. Models of the snapshot only if it is not older than `within_seconds`."""
    return await door.call(
        "tollgate_catalog",
        source=source,
        names=list(names) if names is not None else None,
        within_seconds=within_seconds,
    )


async def keep(door: Door, source: str, models: list[dict[str, Any]], age_ms: int) -> Json:
    return await door.call("tollgate_keep_catalog", source=source, models=models, age_ms=age_ms)


async def put_route(door: Door, route: dict[str, Any]) -> Json:
    return await door.call("tollgate_put_route", route=route)


async def model_access(door: Door) -> Json:
    """The environment of the caller's key, its markup and the models that it may use."""
    return await door.call("tollgate_catalog_caller")


async def default_model(door: Door) -> Json:
    """That of the caller's org; null where it has none."""
    return await door.call("tollgate_default_model")


async def put_alias(door: Door, alias: dict[str, Any]) -> Json:
    return await door.call("tollgate_put_alias", alias=alias)


async def aliases(door: Door, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_aliases", filters=filters, page_size=page_size)


async def alias(door: Door, name: str) -> Json:
    return await door.call("tollgate_alias", name=name)


async def delete_alias(door: Door, name: str) -> Json:
    return await door.call("tollgate_delete_alias", name=name)


async def for_operator(door: Door, org_id: str | None, plan: str | None) -> Json:
    """The markup of the org or plan, and the health of our own upstreams."""
    return await door.call("tollgate_catalog_operator", org_id=org_id, plan=plan)


async def routes(door: Door, filters: dict[str, Any], page_size: int) -> Json:
    return await door.call("tollgate_routes", filters=filters, page_size=page_size)


async def route(door: Door, route_id: str) -> Json:
    return await door.call("tollgate_route", route_id=route_id)


async def delete_route(door: Door, route_id: str) -> Json:
    return await door.call("tollgate_delete_route", route_id=route_id)


async def snapshot(door: Door, source: str) -> Json:
    """The state of the snapshot, for operators."""
    return await door.call("tollgate_snapshot", source=source)


async def note_refresh(door: Door, source: str, digest: str | None) -> Json:
    """Records the refresh, and returns whether the snapshot differs from the digest."""
    return await door.call("tollgate_note_refresh", source=source, digest=digest)
