"""Encrypts and decrypts secrets. Pure: nonces are arguments."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from pydantic import SecretStr

from tollgate.core.errors import VaultLocked

NONCE_BYTES: Final = 12
SHORTEST: Final = 16
LONGEST: Final = 1000

Kind = Literal["upstream_key", "hf_token", "channel"]


class Place(NamedTuple):
    """The row that a secret belongs to. Its encrypted value cannot be read in any other."""

    kind: Kind
    org_id: str | None
    name: str
    address: str | None
    """Where it may be sent."""


class Vault:
    """Secrets are encrypted with the first of the keys, and decrypted with the one that they name."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {fingerprint(key): key for key in keys}

    @property
    def newest(self) -> str:
        """The fingerprint of the key for new secrets. Raises VaultLocked where there is none."""
        if not self._keys:
            raise VaultLocked
        return next(iter(self._keys))

    def knows(self, sealed_with: str) -> bool:
        return sealed_with in self._keys

    def seal(self, secret: SecretStr, place: Place, nonce: bytes) -> dict[str, str]:
        """The fields of the row. Each needs a random nonce of its own. Raises VaultLocked."""
        text, key = secret.get_secret_value(), self.newest
        encrypted = _cipher(self._keys[key]).encrypt(nonce, text.encode(), _bound_to(place, key))
        return {"sealed": (nonce + encrypted).hex(), "sealed_with": key, "last_four": text[-4:]}

    def open(self, found: Mapping[str, Any]) -> SecretStr:
        """The secret of a row. Raises VaultLocked for one that was encrypted with another key, or for another row."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415  # as in _cipher()

        if found["sealed_with"] not in self._keys:
            raise VaultLocked
        sealed, bound_to = bytes.fromhex(found["sealed"]), _bound_to(place_of(found), found["sealed_with"])
        try:
            text = _cipher(self._keys[found["sealed_with"]]).decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to
            )
        except (InvalidTag, ValueError):
            raise VaultLocked from None
        return SecretStr(text.decode())


def place_of(found: Mapping[str, Any]) -> Place:
    return Place(found["kind"], found["org_id"], found["name"], found["address"])


def fingerprint(key: bytes) -> str:
    """Identifies a key without revealing it."""
    return hashlib.sha256(b"tollgate vault " + key).hexdigest()[:8]


def _bound_to(place: Place, key: str) -> bytes:
    return json.dumps([*place, key]).encode()


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  # 20 ms that few processes need

    return AESGCM(key)
