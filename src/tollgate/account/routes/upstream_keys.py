"""/user/upstream-keys: keys of the org's own, for upstreams."""

from typing import Annotated

from fastapi import Depends

from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.vault.schemas import DeletedSecret, NewUpstreamKey, UpstreamKey, UpstreamKeys, UpstreamName
from tollgate.vault.upstream_keys import UpstreamKeyHandlers
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals


def router(gate: Gate, handlers: UpstreamKeyHandlers) -> Routes:
    routes = Routes(prefix="/user/upstream-keys")
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type

    @routes.get("", summary="List your org's own keys for upstreams", responses=refusals())
    async def upstream_keys(door: OpenDoor) -> UpstreamKeys:
        """Needs the scope `keys`."""
        return UpstreamKeys.model_validate(await handlers.listed(door))

    @routes.put(
        "/{upstream}",
        summary="Store your org's own key for an upstream",
        responses=refusals(errors.BadRequest, errors.NotFound, errors.VaultLocked),
    )
    async def put_upstream_key(door: OpenDoor, upstream: UpstreamName, body: NewUpstreamKey) -> UpstreamKey:
        """From the next request on, all of your org's calls to this upstream use the key and cost only the fee. It
        replaces the key that was stored before. Needs the scope `keys`."""
        return UpstreamKey.model_validate(await handlers.put(door, upstream, body.secret))

    @routes.delete(
        "/{upstream}",
        summary="Delete your org's own key for an upstream",
        responses=refusals(errors.BadRequest, errors.NotFound),
    )
    async def delete_upstream_key(door: OpenDoor, upstream: UpstreamName) -> DeletedSecret:
        """From the next request on, your org pays the usual price. Needs the scope `keys`."""
        return DeletedSecret.model_validate(await handlers.delete(door, upstream))

    return routes
