"""What is done to keys over HTTP, the same for owners and operators. Who may do it to which, the database decides."""

import secrets
from typing import Annotated, Any

from fastapi import Depends, Path, Response

from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys import rules, store
from tollgate.keys.authentication import Gate
from tollgate.keys.rules import PREFIXES, RANDOM_BYTES, Environment
from tollgate.keys.schemas import PLAIN, KeyChanges, NewKey, OwnKeysAsked, Rotation
from tollgate.keys.shown import ApiKey, NewSecret, Rotated
from tollgate.keys.store import Scope
from tollgate.web.routing import Routes
from tollgate.web.schemas import Page, refusals

STABLE = {"x-stability": "stable"}
KeyId = Annotated[str, Path(max_length=200, pattern=PLAIN, description="The id of the key.")]


class Desk:
    """Where keys are handed out: at the owners' desk each gets their own, at the operators' anybody's."""

    def __init__(self, pepper: str, scope: Scope) -> None:
        self.scope = scope
        self._pepper = pepper

    async def create(self, door: Door, asked: NewKey, user_id: str | None, response: Response) -> NewSecret:
        secret, imprint = self._strike(asked.environment)
        made = await store.create_key(door, user_id, asked.terms() | imprint, self.scope)
        response.headers["cache-control"] = "no-store"
        return NewSecret.of(made["key"], key=secret)

    async def rotate(self, door: Door, key_id: str, asked: Rotation, response: Response) -> Rotated:
        """One secret for each environment, since only the database knows the key's: one call, not two."""
        struck = {environment: self._strike(environment) for environment in PREFIXES}
        imprints: dict[str, Any] = {environment: imprint for environment, (_, imprint) in struck.items()}
        found = await store.rotate_key(door, key_id, asked.grace_hours, imprints, self.scope)
        secret, _ = struck[found["key"]["environment"]]
        response.headers["cache-control"] = "no-store"
        return Rotated.of(found["key"], key=secret, old_valid_until=found["old_valid_until"])

    async def page(self, door: Door, asked: OwnKeysAsked) -> Page[ApiKey]:
        found = await store.keys(door, asked.filters(), asked.limit, self.scope)
        return Page[ApiKey].of(found | {"data": [ApiKey.of(key) for key in found["data"]]})

    async def set_state(self, door: Door, key_id: str, state: str) -> ApiKey:
        return ApiKey.of((await store.set_key_state(door, key_id, state, self.scope))["key"])

    def _strike(self, environment: Environment) -> tuple[str, dict[str, Any]]:
        secret = rules.mint(environment, secrets.token_bytes(RANDOM_BYTES))
        return secret, rules.imprint(secret, self._pepper)


def of_one_key(gate: Gate, desk: Desk) -> Routes:
    """The routes under one key's id."""
    routes = Routes()
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type
    unknown = refusals(errors.NotFound)
    final = refusals(errors.NotFound, errors.KeyIsFinal)
    at_odds = refusals(errors.NotFound, errors.KeyIsFinal, errors.Conflict)

    @routes.get("/{key_id}", summary="One key", responses=unknown, openapi_extra=STABLE)
    async def api_key(door: OpenDoor, key_id: KeyId) -> ApiKey:
        return ApiKey.of((await store.key(door, key_id, desk.scope))["key"])

    @routes.patch("/{key_id}", summary="Change a key", responses=at_odds, openapi_extra=STABLE)
    async def change_api_key(door: OpenDoor, key_id: KeyId, changes: KeyChanges) -> ApiKey:
        """What is left out stays, null clears. Keys in grace that it took the place of change with it."""
        return ApiKey.of((await store.change_key(door, key_id, changes.changes(), desk.scope))["key"])

    @routes.delete("/{key_id}", summary="Revoke a key for good", responses=unknown, openapi_extra=STABLE)
    async def revoke_api_key(door: OpenDoor, key_id: KeyId) -> ApiKey:
        """Its history stays. Keys in grace that it took the place of end with it."""
        return await desk.set_state(door, key_id, "revoked")

    @routes.post("/{key_id}/disable", summary="Disable a key", responses=final, openapi_extra=STABLE)
    async def disable_api_key(door: OpenDoor, key_id: KeyId) -> ApiKey:
        return await desk.set_state(door, key_id, "disabled")

    @routes.post("/{key_id}/enable", summary="Enable a key again", responses=final, openapi_extra=STABLE)
    async def enable_api_key(door: OpenDoor, key_id: KeyId) -> ApiKey:
        return await desk.set_state(door, key_id, "active")

    @routes.post(
        "/{key_id}/rotate", summary="Give a key a new secret", status_code=201, responses=at_odds, openapi_extra=STABLE
    )
    async def rotate_api_key(
        door: OpenDoor, key_id: KeyId, response: Response, asked: Rotation | None = None
    ) -> Rotated:
        """A new key with a new secret takes the place of this one, which still opens for the hours of grace."""
        return await desk.rotate(door, key_id, asked or Rotation(), response)

    return routes
