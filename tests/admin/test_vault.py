"""Orgs' own upstream keys and tokens of Hugging Face, as operators store them."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from admin.api_client import ApiClient, admin_api
from gateway import Upstream
from people import Person
from tollgate.database import Door

VALUE = "hf_a-token-of-the-tests-never-shown-wxyz"
LISTED = {"name", "created_at", "updated_at"}


@pytest.fixture
async def api(postgres_door: Door, sandbox: Upstream) -> AsyncIterator[ApiClient]:
    admin = Person(postgres_door, "admin")
    await admin.seed()
    async with admin_api(postgres_door, sandbox, admin, VAULT_KEY="a1" * 32) as made:
        yield made


async def test_an_operator_keeps_the_keys_of_an_org(api: ApiClient, postgres_door: Door) -> None:
    someone = Person(postgres_door)
    await someone.seed()
    path = f"/admin/orgs/{someone.org_id}/upstream-keys"
    stored = await api.ask("PUT", f"{path}/openrouter", json={"key": VALUE})
    assert (stored["upstream"], stored["last_four"], stored["state"]) == ("openrouter", "wxyz", "active")
    assert set(stored) == {"upstream", "upstream_name", "last_four", "state", "created_at", "updated_at"}
    assert stored["upstream_name"] == "OpenRouter"
    assert (await api.ask("GET", path))["data"] == [stored]
    own = api.of(someone)
    found = await own.ask("GET", "/user/upstream-keys")
    assert found["data"] == [stored]
    assert {"upstream": "openrouter", "name": "OpenRouter"} in found["available"]
    assert (await own.refused("GET", path, 403))["code"] == "permission_denied"
    gone = await own.ask("DELETE", "/user/upstream-keys/openrouter")
    assert [action for action, _ in await api.events(gone["id"])] == ["secret.stored", "secret.deleted"]
    assert VALUE not in str(await api.events(gone["id"]))
    assert (await api.refused("DELETE", f"{path}/openrouter", 404))["code"] == "not_found"
    assert (await api.refused("PUT", "/admin/orgs/org_nobody/upstream-keys/openrouter", 404, json={"key": VALUE}))[
        "kind"
    ] == "org"


@pytest.mark.parametrize(
    "value",
    ["too-short", "with a space in the middle", "line\nend-of-a-value-", "x" * 1001, "ключ-не-ascii-0123456789"],
)
async def test_a_value_that_no_header_could_carry_is_refused_and_not_repeated(api: ApiClient, value: str) -> None:
    for method, path, field in (
        ("PUT", "/user/upstream-keys/openrouter", "key"),
        ("PUT", "/admin/hf-tokens", "token"),
    ):
        error = await api.refused(method, path, 400, json={field: value})
        assert (error["code"], error["param"]) == ("invalid_request", field)
        assert value not in str(error)


async def test_tokens_are_listed_replaced_and_deleted_and_never_shown(api: ApiClient) -> None:
    name = f"token-{secrets.token_hex(6)}"
    stored = await api.ask("PUT", "/admin/hf-tokens", json={"name": name, "token": VALUE})
    assert (stored["name"], stored["last_four"]) == (name, "wxyz")
    await api.ask("PUT", "/admin/hf-tokens", json={"name": name, "token": "hf_another-token-of-the-tests-1234"})
    listed = (await api.ask("GET", "/admin/hf-tokens"))["data"]
    assert [token["last_four"] for token in listed if token["name"] == name] == ["1234"]
    assert VALUE not in str(listed)
    assert (await api.ask("DELETE", f"/admin/hf-tokens/{name}"))["deleted"]
    assert (await api.refused("DELETE", f"/admin/hf-tokens/{name}", 404))["kind"] == "hf_token"


async def test_the_older_path_answers_in_the_older_shape(api: ApiClient) -> None:
    headers = {"authorization": f"Bearer {api.someone.secret}"}
    path = "/admin/api/hf-tokens"
    stored = await api.http.put(path, headers=headers, json={"token": VALUE})
    assert (stored.status_code, stored.content) == (204, b"")
    listed = (await api.http.get(path, headers=headers)).json()
    (token,) = [token for token in listed if token["name"] == "default"]
    assert set(token) == LISTED
    gone = await api.http.delete(f"{path}/default", headers=headers)
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await api.http.delete(f"{path}/default", headers=headers)).status_code == 404


async def test_without_the_vaults_key_nothing_is_stored(postgres_door: Door, sandbox: Upstream, api: ApiClient) -> None:
    async with admin_api(postgres_door, sandbox, api.someone) as locked:
        for path, body in (
            ("/admin/hf-tokens", {"token": VALUE}),
            ("/user/upstream-keys/openrouter", {"key": VALUE}),
        ):
            error: Any = await locked.refused("PUT", path, 503, json=body)
            assert error["code"] == "vault_locked"
            assert "VAULT_KEY" in error["message"]
        assert await locked.ask("GET", "/user/upstream-keys")
