"""Encrypts all secrets with the newest key of the vault, a page at a time."""

import secrets
from typing import Any, NamedTuple

from tollgate.core.errors import VaultLocked
from tollgate.database import Door
from tollgate.vault import store
from tollgate.vault.rules import NONCE_BYTES, Vault, place_of

PAGE = 200


class Rotated(NamedTuple):
    sealed: int
    """How many secrets are encrypted with the newest key now, and were not before."""
    unreadable: list[str]
    """The ids of secrets that no key of the vault can decrypt: they must be stored again."""


async def rotate(door: Door, vault: Vault) -> Rotated:
    """May be repeated, and may run while secrets are stored and used. Raises VaultLocked without a key."""
    sealed, unreadable, after_id = 0, list[str](), ""
    while page := (await store.to_seal(door, vault.newest, after_id, PAGE))["data"]:
        after_id = page[-1]["id"]
        items = []
        for found in page:
            try:
                items.append(_again(vault, found))
            except VaultLocked:
                unreadable.append(found["id"])
        sealed += (await store.seal_again(door, items))["sealed"]
    return Rotated(sealed, unreadable)


def _again(vault: Vault, found: dict[str, Any]) -> dict[str, str]:
    sealed = vault.seal(vault.open(found), place_of(found), secrets.token_bytes(NONCE_BYTES))
    return {
        "id": found["id"], "was": found["sealed"], "sealed": sealed["sealed"], "sealed_with": sealed["sealed_with"]
    }  # fmt: skip
