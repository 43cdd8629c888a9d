"""The vault in the database: who may change it, what is recorded, and rotation."""

import os
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from gateway import BOTH_DOORS
from people import Person, refused
from tollgate.core.errors import NotFound, PermissionDenied, VaultLocked
from tollgate.database import Door
from tollgate.keys.authentication import console
from tollgate.upstreams import store as upstreams
from tollgate.vault import rotation, store
from tollgate.vault.rules import NONCE_BYTES, Place, Vault, place_of
from tollgate.vault.upstream_keys import UpstreamKeyHandlers

pytestmark = BOTH_DOORS

People = Callable[..., Awaitable[Person]]
Sql = Callable[..., Awaitable[Any]]
VAULT = Vault([os.urandom(32)])
SECRET = SecretStr("sk-or-v1-of-an-org-wxyz")
OPENROUTER = "https://openrouter.test/api/v1"


@pytest.fixture
def handlers() -> UpstreamKeyHandlers:
    return UpstreamKeyHandlers(VAULT, OPENROUTER)


async def a_token(operator: Door, vault: Vault, name: str, secret: str) -> str:
    place = Place("hf_token", None, name, None)
    sealed = vault.seal(SecretStr(secret), place, os.urandom(NONCE_BYTES))
    return str((await store.put(operator, "hf_token", None, {"name": name, **sealed}))["secret"]["id"])


async def test_an_org_stores_replaces_and_deletes_its_key(
    door: Door, person: People, handlers: UpstreamKeyHandlers, shared_database: str, sql: Sql
) -> None:
    someone = await person()
    own = someone.at_the_door()
    assert (await handlers.listed(own))["data"] == []
    stored = await handlers.put(own, "openrouter", SECRET)
    assert (stored["upstream"], stored["last_four"], stored["state"]) == ("openrouter", "wxyz", "active")
    again = await handlers.put(own, "openrouter", SecretStr("sk-or-v1-of-an-org-1234"))
    assert (again["id"], again["last_four"]) == (stored["id"], "1234")
    (listed,) = (await handlers.listed(own))["data"]
    assert listed == again
    assert (await handlers.delete(own, "openrouter"))["deleted"]
    assert (await handlers.listed(own))["data"] == []
    assert isinstance(await refused(handlers.delete(own, "openrouter")), NotFound)
    found = await sql(
        shared_database,
        "select json_agg(json_build_array(action, org_id, actor_user_id, details -> 'replaced') order by occurred_at)"
        "::text from tollgate.audit_events where target_id = $1",
        stored["id"],
    )
    by = f'"{someone.org_id}", "{someone.user_id}"'
    assert found == (f'[["secret.stored", {by}, false], ["secret.stored", {by}, true], ["secret.deleted", {by}, null]]')


async def test_nobody_touches_the_keys_of_another_org(postgres_door: Door, handlers: UpstreamKeyHandlers) -> None:
    one, other, narrow = Person(postgres_door), Person(postgres_door), Person(postgres_door, scopes=["chat", "usage"])
    for someone in (one, other, narrow):
        await someone.seed()
    await handlers.put(one.at_the_door(), "openrouter", SECRET)
    assert (await handlers.listed(other.at_the_door()))["data"] == []
    assert isinstance(await refused(handlers.delete(other.at_the_door(), "openrouter")), NotFound)
    for work in (
        handlers.listed(other.at_the_door(), one.org_id),
        handlers.put(other.at_the_door(), "openrouter", SECRET, one.org_id),
        handlers.delete(other.at_the_door(), "openrouter", one.org_id),
        handlers.put(narrow.at_the_door(), "openrouter", SECRET),
        handlers.listed(narrow.at_the_door()),
        store.secrets(other.at_the_door(), "hf_token"),
        a_token(other.at_the_door(), VAULT, "default", "hf_of-the-installation"),
    ):
        assert isinstance(await refused(work), PermissionDenied)
    operator = console(postgres_door, "tests")
    assert len((await handlers.listed(operator, one.org_id))["data"]) == 1
    assert isinstance(await refused(handlers.put(operator, "openrouter", SECRET, "org_nobody")), NotFound)
    assert (await handlers.delete(operator, "openrouter", one.org_id))["deleted"]


async def test_an_upstream_must_take_keys_and_a_key_is_for_its_address(
    postgres_door: Door, handlers: UpstreamKeyHandlers
) -> None:
    someone, operator = Person(postgres_door), console(postgres_door, "tests")
    await someone.seed()
    own = someone.at_the_door()
    server = {"name": "theirs", "base_url": "https://api.theirs.test/v1", "dialect": "openai"}
    made = await upstreams.make(operator, server)
    for name in (made["id"], "ups_nobody", "sandbox"):
        assert isinstance(await refused(handlers.put(own, name, SECRET)), NotFound)
    await upstreams.change(operator, made["id"], {"takes_org_keys": True})
    assert {"upstream": made["id"], "name": "theirs"} in (await handlers.listed(own))["available"]
    assert (await handlers.put(own, made["id"], SECRET))["upstream_name"] == "theirs"

    async def shown() -> tuple[str, str]:
        (found,) = (await handlers.listed(own))["data"]
        return found["state"], found["upstream_name"]

    assert await shown() == ("active", "theirs")
    for change in ({"base_url": "https://elsewhere.test/v1"}, {"takes_org_keys": False}):
        await upstreams.change(operator, made["id"], change)
        assert await shown() == ("outdated", "theirs")
        await upstreams.change(operator, made["id"], {"base_url": server["base_url"], "takes_org_keys": True})
        assert await shown() == ("active", "theirs")
    await upstreams.delete(operator, made["id"], with_routes=True)
    assert await shown() == ("outdated", made["id"])
    assert (await handlers.delete(own, made["id"]))["deleted"]


async def test_a_key_that_this_server_cannot_read_is_shown_as_locked(
    postgres_door: Door, handlers: UpstreamKeyHandlers
) -> None:
    someone = Person(postgres_door)
    await someone.seed()
    await handlers.put(someone.at_the_door(), "openrouter", SECRET)
    without = UpstreamKeyHandlers(Vault([]), OPENROUTER)
    (found,) = (await without.listed(someone.at_the_door()))["data"]
    assert found["state"] == "locked"
    assert isinstance(await refused(without.put(someone.at_the_door(), "openrouter", SECRET)), VaultLocked)


async def test_a_token_of_the_installation_is_read_at_the_console_alone(
    door: Door, person: People, shared_database: str, sql: Sql
) -> None:
    operator, name = console(door, "hf-token"), f"token-{secrets.token_hex(6)}"
    token_id = await a_token(operator, VAULT, name, "hf_of-the-installation")
    found = (await store.read(operator, "hf_token", name))["secret"]
    assert VAULT.open(found).get_secret_value() == "hf_of-the-installation"
    admin = await person("admin")
    assert isinstance(await refused(store.read(admin.at_the_door(), "hf_token", name)), NotFound)
    read = "select count(*) from tollgate.audit_events where target_id = $1 and action = 'secret.read'"
    assert await sql(shared_database, read, token_id) == 1
    await store.delete(operator, "hf_token", None, name)


async def test_after_a_rotation_the_former_key_is_not_needed(own_database: str, postgres: Any) -> None:
    from tollgate.database.postgres import PostgresDoor  # noqa: PLC0415

    door = PostgresDoor(own_database, pool_size=2, deadline_seconds=30)
    old, new, lost = os.urandom(32), os.urandom(32), os.urandom(32)
    operator = console(door, "rotate-vault")
    for number in range(rotation.PAGE + 3):
        await a_token(operator, Vault([old]), f"token-{number}", f"hf_number-{number:010}")
    gone = await a_token(operator, Vault([lost]), "lost", "hf_sealed-with-a-lost-key")
    current = await a_token(operator, Vault([new]), "new", "hf_sealed-with-the-new-key")

    done = await rotation.rotate(operator, Vault([new, old]))
    assert (done.sealed, done.unreadable) == (rotation.PAGE + 3, [gone])
    assert await rotation.rotate(operator, Vault([new, old])) == (0, [gone])
    rows = (await store.secrets(operator, "hf_token"))["data"]
    sealed_with = {row["id"]: row["sealed_with"] for row in rows}
    assert sealed_with.pop(gone) == Vault([lost]).newest
    assert set(sealed_with.values()) == {Vault([new]).newest}
    assert current in sealed_with
    found = (await store.read(operator, "hf_token", "token-7"))["secret"]
    assert Vault([new]).open(found).get_secret_value() == "hf_number-0000000007"
    await door.close()


async def test_a_rotation_does_not_undo_what_is_stored_meanwhile(postgres_door: Door) -> None:
    operator, name = console(postgres_door, "rotate-vault"), f"token-{secrets.token_hex(6)}"
    await a_token(operator, VAULT, name, "hf_the-former-value")
    before = (await store.read(operator, "hf_token", name))["secret"]
    await a_token(operator, VAULT, name, "hf_the-newer-value")
    again = VAULT.seal(VAULT.open(before), place_of(before), os.urandom(NONCE_BYTES))
    item = {"id": before["id"], "was": before["sealed"]} | {name: again[name] for name in ("sealed", "sealed_with")}
    assert (await store.seal_again(operator, [item]))["sealed"] == 0
    now = (await store.read(operator, "hf_token", name))["secret"]
    assert VAULT.open(now).get_secret_value() == "hf_the-newer-value"
    await store.delete(operator, "hf_token", None, name)


async def test_the_keys_of_a_deleted_org_are_deleted(
    postgres_door: Door, handlers: UpstreamKeyHandlers, shared_database: str
) -> None:
    someone = Person(postgres_door)
    await someone.seed()
    await handlers.put(someone.at_the_door(), "openrouter", SECRET)
    connection = await asyncpg.connect(shared_database)
    deleting = connection.transaction()
    await deleting.start()
    for table in ("api_keys", "users"):
        await connection.execute(f"delete from tollgate.{table} where org_id = $1", someone.org_id)
    await connection.execute("delete from tollgate.orgs where id = $1", someone.org_id)
    left = await connection.fetchval("select count(*) from tollgate.secrets where org_id = $1", someone.org_id)
    await deleting.rollback()
    await connection.close()
    assert left == 0
