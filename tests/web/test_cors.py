"""Which web pages may call the API from a browser."""

import httpx
import pytest

from tollgate.app import create_app
from tollgate.settings import read
from web.test_middleware import FakeDoor

APP, OTHER = "https://app.example.com", "https://other.example.com"
OPEN = ["/v1/models", "/api/v1/models", "/v1/chat/completions", "/api/v1/embeddings", "/user/balance", "/v1/me/usage"]
CLOSED = ["/admin/keys", "/v1/admin/keys", "/metrics", "/internal/sweep", "/healthz", "/"]


class NoDoor(FakeDoor):
    async def call(self, function: str, **arguments: object) -> object:
        raise AssertionError("the database was asked")


async def ask(method: str, path: str, origins: str = f"{APP}, http://localhost:5173", **headers: str) -> httpx.Response:
    app = create_app(read({"CORS_ORIGINS": origins}), door=NoDoor())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate.test") as http:
        return await http.request(
            method, path, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )


async def preflight(path: str, origin: str) -> httpx.Response:
    wanted = "authorization,content-type,x-stainless-lang"
    return await ask(
        "OPTIONS", path, origin=origin, access_control_request_method="POST", access_control_request_headers=wanted
    )


@pytest.mark.parametrize("path", OPEN)
async def test_a_browser_on_a_named_origin_may_call_what_is_for_customers(path: str) -> None:
    answer = await preflight(path, APP)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-lang"
    assert {"GET", "POST", "PATCH", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("path", [*OPEN, "/v1/nothing"])
async def test_refusals_can_be_read_by_the_page_too(path: str) -> None:
    answer = await ask("POST", path, origin=APP)
    assert answer.status_code in (401, 404, 405)
    assert answer.headers["access-control-allow-origin"] == APP
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("path", CLOSED)
async def test_the_rest_is_closed_to_all_other_origins(path: str) -> None:
    for answer in (await preflight(path, APP), await ask("DELETE", path, origin=APP)):
        assert answer.status_code in (401, 404, 405)
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origin", [OTHER, "null", "https://app.example.com.evil.test", "http://app.example.com", "*"])
async def test_an_origin_that_is_not_named_gets_no_header(origin: str) -> None:
    for answer in (await preflight("/v1/models", origin), await ask("POST", "/v1/chat/completions", origin=origin)):
        assert answer.is_error
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("origins", ["", APP])
async def test_a_preflight_of_another_origin_is_refused_and_names_the_setting(origins: str) -> None:
    answer = await ask("OPTIONS", "/v1/models", origins, origin=OTHER, access_control_request_method="GET")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (403, "origin_not_allowed")
    assert "CORS_ORIGINS" in error["message"]


async def test_without_the_setting_nothing_is_open() -> None:
    answer = await ask("POST", "/v1/chat/completions", "", origin=APP)
    assert not [name for name in answer.headers if name.startswith("access-control") or name == "vary"]
