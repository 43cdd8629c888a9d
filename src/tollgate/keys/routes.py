"""What the routes of keys share, for owners and for operators. The database decides who may change which key."""

import secrets
from typing import Annotated, Any

from fastapi import Depends, Path, Response

from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys import rules, store
from tollgate.keys.authentication import Gate
from tollgate.keys.rules import PREFIXES, RANDOM_BYTES, Environment
from tollgate.keys.schemas import ApiKey, CreatedKey, KeyChanges, NewKey, OwnKeyFilters, RotatedKey, Rotation
from tollgate.keys.store import Scope
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, Line, refusals

KeyId = Annotated[Line, Path(description="The id of the key.")]


class KeyHandlers:
    """`scope` is `keys` for the caller's own keys, or `admin` for all keys."""

    def __init__(self, pepper: str, scope: Scope) -> None:
        self.scope = scope
        self._pepper = pepper

    async def create(self, door: Door, body: NewKey, user_id: str | None, response: Response) -> CreatedKey:
        secret, imprint = self._new_secret(body.environment)
        made = await store.create_key(door, user_id, body.terms() | imprint, self.scope)
        if made.get("replayed"):
            raise errors.SecretShownOnce(key_id=made["id"])
        response.headers["cache-control"] = "no-store"
        return CreatedKey.of(made["key"], key=secret)

    async def rotate(self, door: Door, key_id: str, body: Rotation, response: Response) -> RotatedKey:
        """In one call: makes a secret for each environment, because only the database knows which one the key has."""
        made = {environment: self._new_secret(environment) for environment in PREFIXES}
        imprints: dict[str, Any] = {environment: imprint for environment, (_, imprint) in made.items()}
        found = await store.rotate_key(door, key_id, body.grace_hours, imprints, self.scope)
        secret, _ = made[found["key"]["environment"]]
        response.headers["cache-control"] = "no-store"
        return RotatedKey.of(found["key"], key=secret, old_valid_until=found["old_valid_until"])

    async def page(self, door: Door, query: OwnKeyFilters) -> CountedPage[ApiKey]:
        listed = store.keys_with_usage if query.include else store.keys
        found = await listed(door, query.filters(), query.limit, self.scope)
        return CountedPage[ApiKey].of(found | {"data": [ApiKey.of(key) for key in found["data"]]})

    async def change(self, door: Door, key_id: str, body: KeyChanges) -> ApiKey:
        terms = body.changes()
        if body.active is None or terms:
            found = await store.change_key(door, key_id, terms, self.scope)
        if body.active is not None:
            found = await store.set_key_state(door, key_id, "active" if body.active else "disabled", self.scope)
        return ApiKey.of(found["key"])

    async def set_state(self, door: Door, key_id: str, state: str) -> ApiKey:
        return ApiKey.of((await store.set_key_state(door, key_id, state, self.scope))["key"])

    def _new_secret(self, environment: Environment) -> tuple[str, dict[str, Any]]:
        secret = rules.mint(environment, secrets.token_bytes(RANDOM_BYTES))
        return secret, rules.imprint(secret, self._pepper)


def of_one_key(gate: Gate, handlers: KeyHandlers) -> Routes:
    """The routes below the id of a key."""
    routes = Routes()
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type
    unknown = refusals(errors.NotFound)
    ending = refusals(errors.NotFound, errors.Conflict)
    final = refusals(errors.NotFound, errors.KeyIsFinal)
    conflicting = refusals(errors.NotFound, errors.KeyIsFinal, errors.Conflict)

    @routes.get("/{key_id}", summary="Get a key", responses=unknown)
    async def api_key(door: OpenDoor, key_id: KeyId) -> ApiKey:
        return ApiKey.of((await store.key(door, key_id, handlers.scope))["key"])

    @routes.patch("/{key_id}", summary="Change a key", responses=conflicting)
    async def change_api_key(door: OpenDoor, key_id: KeyId, changes: KeyChanges) -> ApiKey:
        """A field that is left out stays as it is; null removes the value. Replaced keys that are still valid change
        too."""
        return await handlers.change(door, key_id, changes)

    @routes.delete("/{key_id}", summary="Revoke a key permanently", responses=ending)
    async def revoke_api_key(door: OpenDoor, key_id: KeyId) -> ApiKey:
        """The history of the key is kept. Replaced keys that are still valid end too. A key may end itself, unless no
        operator would have a working key."""
        return await handlers.set_state(door, key_id, "revoked")

    @routes.post("/{key_id}/disable", summary="Disable a key", responses=conflicting)
    async def disable_api_key(door: OpenDoor, key_id: KeyId) -> ApiKey:
        return await handlers.set_state(door, key_id, "disabled")

    @routes.post("/{key_id}/enable", summary="Enable a key again", responses=final)
    async def enable_api_key(door: OpenDoor, key_id: KeyId) -> ApiKey:
        return await handlers.set_state(door, key_id, "active")

    @routes.post("/{key_id}/rotate", summary="Rotate a key", status_code=201, responses=conflicting)
    async def rotate_api_key(
        door: OpenDoor, key_id: KeyId, response: Response, body: Rotation | None = None
    ) -> RotatedKey:
        """A new key with a new secret replaces this one. The old secret stays valid for `grace_hours`."""
        return await handlers.rotate(door, key_id, body or Rotation(), response)

    return routes
