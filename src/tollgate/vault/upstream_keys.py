"""An org's own keys for upstreams: list, store, delete. For the org itself, and for operators."""

import secrets
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from tollgate.core.models import OPENROUTER, OPENROUTER_NAME
from tollgate.database import Door, Json
from tollgate.vault import store
from tollgate.vault.rules import NONCE_BYTES, Place, Vault


class UpstreamKeyHandlers:
    """`org_id` is None for the caller's own org."""

    def __init__(self, vault: Vault, openrouter_address: str) -> None:
        self._vault = vault
        self._openrouter_address = openrouter_address

    async def listed(self, door: Door, org_id: str | None = None) -> dict[str, Any]:
        found = await store.secrets(door, "upstream_key", org_id)
        addresses = {row["id"]: row["base_url"] for row in found["upstreams"]} | {OPENROUTER: self._openrouter_address}
        named = [{"upstream": row["id"], "name": row["name"]} for row in found["upstreams"]]
        return {
            "data": [self._shown(row, addresses) for row in found["data"]],
            "available": [{"upstream": OPENROUTER, "name": OPENROUTER_NAME}, *named],
        }

    async def put(self, door: Door, upstream: str, secret: SecretStr, org_id: str | None = None) -> dict[str, Any]:
        known = await store.upstream_for_keys(door, org_id, upstream)
        address = self._openrouter_address if upstream == OPENROUTER else known["address"]
        place = Place("upstream_key", known["org_id"], upstream, address)
        sealed = self._vault.seal(secret, place, secrets.token_bytes(NONCE_BYTES))
        kept = await store.put(door, "upstream_key", org_id, {"name": upstream, "address": address, **sealed})
        return self._shown({**kept["secret"], "upstream_name": known["name"]}, {upstream: address})

    async def delete(self, door: Door, upstream: str, org_id: str | None = None) -> Json:
        return await store.delete(door, "upstream_key", org_id, upstream)

    def _shown(self, row: Mapping[str, Any], addresses: Mapping[str, str]) -> dict[str, Any]:
        is_current = addresses.get(row["name"]) == row["address"]
        state = "outdated" if not is_current else "active" if self._vault.knows(row["sealed_with"]) else "locked"
        name = OPENROUTER_NAME if row["name"] == OPENROUTER else row["upstream_name"] or row["name"]
        return {**row, "upstream": row["name"], "upstream_name": name, "state": state}
