"""/admin/cache."""

from typing import Annotated

from fastapi import Body, Depends, Query

from tollgate.admin.schemas.cache import CacheLimits, CacheQuery, CacheStats, Cleared, ClearQuery, Warmed, Warming
from tollgate.cache import store
from tollgate.cache.lookups import Cache
from tollgate.core.errors import BadRequest
from tollgate.core.prices import PPM
from tollgate.database import Door
from tollgate.keys import store as keys
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals


def router(gate: Gate, cache: Cache) -> Routes:
    routes = Routes(prefix="/admin/cache")
    bounds = cache.bounds

    @routes.get("", summary="Get size and hit rates of the completion cache", responses=refusals(BadRequest))
    async def stats(door: Annotated[Door, Depends(gate.open)], query: Annotated[CacheQuery, Query()]) -> CacheStats:
        found = await store.stats(door, query.filters())
        settings = CacheLimits(
            ttl_seconds=bounds.ttl_seconds,
            max_ttl_seconds=bounds.most_ttl_seconds,
            max_answer_bytes=bounds.most_answer_bytes,
            max_org_bytes=bounds.most_org_bytes,
            hit_share=bounds.hit_share_ppm / PPM,
            wait_seconds=bounds.wait_seconds,
        )
        return CacheStats.model_validate(found | {"redis": cache.redis_state, "settings": settings})

    @routes.delete("", summary="Clear the completion cache", responses=refusals(BadRequest))
    async def clear(door: Annotated[Door, Depends(gate.open)], query: Annotated[ClearQuery, Query()]) -> Cleared:
        """Takes effect at once, on all instances. The answer to a request that is under way is not stored either."""
        return Cleared.model_validate(await store.clear(door, query.filters()))

    @routes.post("/warm", summary="Copy stored answers into Redis", responses=refusals(BadRequest))
    async def warm(
        door: Annotated[Door, Depends(gate.open)], body: Annotated[Warming, Body(default_factory=Warming)]
    ) -> Warmed:
        """After a restart of Redis. Nothing goes upstream. Without REDIS_URL, nothing is copied."""
        await keys.identify_operator(door)
        warmed = await cache.warm(door, body.model_dump(exclude={"limit"}, exclude_none=True), body.limit)
        return Warmed(warmed=warmed, redis=cache.redis_state)

    return routes
