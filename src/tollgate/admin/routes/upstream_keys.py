"""/admin/orgs/{org_id}/upstream-keys: an org's own keys for upstreams."""

from typing import Annotated

from fastapi import Depends

from tollgate.admin.routes.orgs import OrgId
from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.vault.schemas import DeletedSecret, NewUpstreamKey, UpstreamKey, UpstreamKeys, UpstreamName
from tollgate.vault.upstream_keys import UpstreamKeyHandlers
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals


def router(gate: Gate, handlers: UpstreamKeyHandlers) -> Routes:
    routes = Routes(prefix="/admin/orgs/{org_id}/upstream-keys")
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type
    one = refusals(errors.BadRequest, errors.NotFound)

    @routes.get("", summary="List an org's own keys for upstreams", responses=one)
    async def upstream_keys_of_org(door: OpenDoor, org_id: OrgId) -> UpstreamKeys:
        return UpstreamKeys.model_validate(await handlers.listed(door, org_id))

    @routes.put(
        "/{upstream}",
        summary="Store an org's own key for an upstream",
        responses=refusals(errors.BadRequest, errors.NotFound, errors.VaultLocked),
    )
    async def put_upstream_key_of_org(
        door: OpenDoor, org_id: OrgId, upstream: UpstreamName, body: NewUpstreamKey
    ) -> UpstreamKey:
        """From the next request on, all of the org's calls to this upstream use the key and cost only the fee. It
        replaces the key that was stored before."""
        return UpstreamKey.model_validate(await handlers.put(door, upstream, body.secret, org_id))

    @routes.delete("/{upstream}", summary="Delete an org's own key for an upstream", responses=one)
    async def delete_upstream_key_of_org(door: OpenDoor, org_id: OrgId, upstream: UpstreamName) -> DeletedSecret:
        """From the next request on, the org pays the usual price."""
        return DeletedSecret.model_validate(await handlers.delete(door, upstream, org_id))

    return routes
