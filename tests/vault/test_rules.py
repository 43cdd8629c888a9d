"""What is encrypted can be read with its key and in its row, and in no other way."""

import os
from typing import Any

import pytest
from pydantic import SecretStr

from tollgate.core.errors import VaultLocked
from tollgate.vault import rules
from tollgate.vault.rules import NONCE_BYTES, Place, Vault

KEY, OTHER = os.urandom(32), os.urandom(32)
PLACE = Place("upstream_key", "org_1", "openrouter", "https://openrouter.ai/api/v1")
SECRET = SecretStr("sk-or-v1-of-an-org-wxyz")
ELSEWHERE = [
    PLACE._replace(kind="hf_token"),
    PLACE._replace(org_id="org_2"),
    PLACE._replace(org_id=None),
    PLACE._replace(name="ups_1"),
    PLACE._replace(address="https://elsewhere.example/v1"),
    PLACE._replace(address=None),
    # What ends in one field and begins in the next is not the same.
    PLACE._replace(org_id="org_1openrouter", name=""),
]


def row(vault: Vault, place: Place = PLACE, secret: SecretStr = SECRET) -> dict[str, Any]:
    return {**place._asdict(), **vault.seal(secret, place, os.urandom(NONCE_BYTES))}


def test_a_secret_can_be_read_again_and_shows_its_last_four_alone() -> None:
    sealed = row(Vault([KEY]))
    assert Vault([KEY]).open(sealed) == SECRET
    assert sealed["last_four"] == "wxyz"
    assert SECRET.get_secret_value() not in str(sealed)
    assert SECRET.get_secret_value().encode().hex() not in sealed["sealed"]
    assert SECRET.get_secret_value() not in repr(Vault([KEY]).open(sealed))


def test_two_of_the_same_look_different() -> None:
    vault = Vault([KEY])
    assert row(vault)["sealed"] != row(vault)["sealed"]


@pytest.mark.parametrize("place", ELSEWHERE)
def test_it_cannot_be_read_in_another_row(place: Place) -> None:
    sealed = row(Vault([KEY])) | place._asdict()
    with pytest.raises(VaultLocked):
        Vault([KEY]).open(sealed)


def test_no_byte_of_it_can_be_changed() -> None:
    vault = Vault([KEY])
    sealed = row(vault)
    whole = bytes.fromhex(sealed["sealed"])
    for place in range(len(whole)):
        forged = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        with pytest.raises(VaultLocked):
            vault.open(sealed | {"sealed": forged.hex()})
    for shorter in (b"", whole[:NONCE_BYTES], whole[:-1]):
        with pytest.raises(VaultLocked):
            vault.open(sealed | {"sealed": shorter.hex()})


def test_another_key_cannot_read_it_even_under_its_name() -> None:
    sealed = row(Vault([KEY]))
    for vault in (Vault([OTHER]), Vault([])):
        with pytest.raises(VaultLocked):
            vault.open(sealed)
    with pytest.raises(VaultLocked):
        Vault([KEY, OTHER]).open(sealed | {"sealed_with": rules.fingerprint(OTHER)})


def test_during_a_rotation_both_keys_read_and_the_new_one_writes() -> None:
    before, during, after = Vault([KEY]), Vault([OTHER, KEY]), Vault([OTHER])
    old, new = row(before), row(during)
    assert during.open(old) == during.open(new) == after.open(new) == SECRET
    assert (old["sealed_with"], new["sealed_with"]) == (before.newest, after.newest)
    assert during.knows(before.newest)
    assert not after.knows(before.newest)


def test_without_a_key_nothing_is_stored() -> None:
    with pytest.raises(VaultLocked) as caught:
        Vault([]).seal(SECRET, PLACE, os.urandom(NONCE_BYTES))
    assert "VAULT_KEY" in caught.value.message


def test_a_fingerprint_does_not_reveal_its_key() -> None:
    assert rules.fingerprint(KEY) not in KEY.hex()
    assert len(rules.fingerprint(KEY)) == 8
