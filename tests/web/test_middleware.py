import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from tollgate.app import create_app
from tollgate.core.errors import PermissionDenied
from tollgate.process import logs
from tollgate.process.clock import monotonic
from tollgate.settings import read
from tollgate.web.error_responses import HANDLERS
from tollgate.web.middleware import CLIENT_GONE, RequestMiddleware

DEVELOPMENT = {"MAX_ADMIN_BODY_BYTES": "2048"}
PRODUCTION = DEVELOPMENT | {
    "TOLLGATE_ENV": "production",
    "KEY_PEPPER": "p" * 32,
    "DATABASE_URL": "postgresql://db.example/tollgate",
}
OURS = re.compile(r"req_[0-9a-f]{28}")


class FakeDoor:
    async def call(self, function: str, **arguments: Any) -> Any:
        return {"schema_version": "99999999999999", "user_count": 1, "caller": {}}

    async def close(self) -> None: ...


class Payment(BaseModel):
    amount: int = Field(le=100)
    note: str = ""


class Site:
    """The app with some routes of its own, its log, and what its handlers saw."""

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        chosen = read(environ or DEVELOPMENT)
        self.app = create_app(chosen, door=FakeDoor())
        self.log = io.StringIO()
        self.handled: list[Any] = []
        self.reached = asyncio.Event()
        self.together = asyncio.Barrier(50)
        self.app.include_router(self.routes(), prefix="/v1")
        logs.configure("info", chosen.secrets(), self.log)

    def routes(self) -> APIRouter:
        router = APIRouter(prefix="/probe")

        @router.get("/things/{thing_id}/parts/{part_id}")
        async def part(thing_id: str, part_id: int) -> dict[str, Any]:
            return {"thing": thing_id, "part": part_id}

        @router.post("/payments")
        async def pay(payment: Payment) -> dict[str, int]:
            self.handled.append(payment)
            return {"amount": payment.amount}

        @router.get("/defect")
        async def defect() -> None:
            raise RuntimeError("hunter2 was in the cause")

        @router.get("/late")
        async def late() -> StreamingResponse:
            return StreamingResponse(breaking())

        @router.get("/refusal")
        async def refusal() -> None:
            raise PermissionDenied(scope="admin")

        @router.get("/together/{name}")
        async def together(name: str) -> None:
            logs.note(note=name)
            await self.together.wait()
            logs.source("application").info("inside", name=name)
            await self.together.wait()

        @router.get("/waiting")
        async def waiting() -> None:
            self.reached.set()
            await asyncio.Event().wait()

        return router

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, client=("192.0.2.1", 50000))
        return httpx.AsyncClient(transport=transport, base_url="http://tollgate.test")

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async with self.client() as http:
            return await http.request(method, path, **more)

    def lines(self, event: str = "request") -> list[dict[str, Any]]:
        return [line for text in self.log.getvalue().splitlines() if (line := json.loads(text))["event"] == event]


async def breaking() -> AsyncIterator[bytes]:
    yield b"first"
    raise RuntimeError("hunter2 was in the cause")


async def in_chunks(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def error_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert {"message", "type", "code", "param"} <= set(error)
    return error


async def test_a_host_that_gives_no_state_is_served_too() -> None:
    # Servers without a lifespan leave it out of the scope: AWS Lambda's and Vercel's adapters, httpx's transport.
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/healthz", "headers": [], "query_string": b"", "client": None}
    await Site().app(scope | {"asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "https"}, receive, send)
    assert sent[0]["status"] == 200


@pytest.mark.parametrize("sane", ["a", "req-1", "0123456789abcdef", "A.b_c-9", "x" * 128])
async def test_a_sane_request_id_is_echoed_and_logged(sane: str) -> None:
    site = Site()
    answer = await site.ask("GET", "/healthz", headers={"x-request-id": sane})
    assert answer.headers.get_list("x-request-id") == [sane]
    assert site.lines()[0]["request_id"] == sane


@pytest.mark.parametrize(
    "odd", ["", " ", "x" * 129, "a b", "a\tb", "<script>", "a,b", "é", "a\nb", "id\r\nset-cookie: a=b"]
)
async def test_any_other_request_id_is_replaced(odd: str) -> None:
    site = Site()
    answer = await site.ask("GET", "/healthz", headers=[(b"x-request-id", odd.encode("latin-1"))])
    (told,) = answer.headers.get_list("x-request-id")
    assert OURS.fullmatch(told)
    assert site.lines()[0]["request_id"] == told
    assert "set-cookie" not in answer.headers


async def test_each_request_without_an_id_gets_one_of_its_own() -> None:
    site = Site()
    told = {(await site.ask("GET", "/healthz")).headers["x-request-id"] for _ in range(5)}
    assert len(told) == 5


EVERY_KIND: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/healthz", {}, 200),
    ("POST", "/v1/probe/payments", {"json": {"amount": "many"}}, 400),
    ("GET", "/user/balance", {}, 401),
    ("GET", "/v1/probe/refusal", {}, 403),
    ("GET", "/nothing/here", {}, 404),
    ("DELETE", "/healthz", {}, 405),
    ("POST", "/v1/probe/payments", {"content": b"x" * 2049}, 413),
    ("GET", "/v1/probe/defect", {}, 500),
]


@pytest.mark.parametrize(("method", "path", "more", "status"), EVERY_KIND)
async def test_every_kind_of_answer_has_the_security_headers(
    method: str, path: str, more: dict[str, Any], status: int
) -> None:
    answer = await Site().ask(method, path, **more)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert OURS.fullmatch(answer.headers["x-request-id"])
    assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize(("method", "path", "more", "status"), EVERY_KIND)
async def test_production_asks_browsers_to_stay_with_tls(
    method: str, path: str, more: dict[str, Any], status: int
) -> None:
    answer = await Site(PRODUCTION).ask(method, path, **more)
    assert answer.status_code == status
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize(("method", "path", "more", "status"), EVERY_KIND[1:])
async def test_every_refusal_has_our_shape_and_its_code_in_the_log(
    method: str, path: str, more: dict[str, Any], status: int
) -> None:
    site = Site()
    error = error_of(await site.ask(method, path, **more))
    (line,) = site.lines()
    assert (line["status"], line["error_code"]) == (status, error["code"])


EVERY_KIND_UNDER_ONE_PATH: list[tuple[str, str, dict[str, Any], int]] = [
    ("POST", "/v1/probe/payments", {"json": {"amount": "many"}}, 400),
    ("GET", "/v1/probe/refusal", {}, 403),
    ("GET", "/v1/nothing/here", {}, 404),
    ("DELETE", "/v1/probe/refusal", {}, 405),
    ("POST", "/v1/probe/payments", {"content": b"x" * 2049}, 413),
    ("GET", "/v1/probe/defect", {}, 500),
]


@pytest.mark.parametrize(("method", "path", "more", "status"), EVERY_KIND_UNDER_ONE_PATH)
async def test_under_openrouter_s_paths_every_refusal_has_its_shape_and_the_same_headers(
    method: str, path: str, more: dict[str, Any], status: int
) -> None:
    site = Site()
    site.app.include_router(site.routes(), prefix="/api/v1")
    answer, own = await site.ask(method, f"/api{path}", **more), await site.ask(method, path, **more)
    error, ours = answer.json()["error"], error_of(own)
    assert (answer.status_code, own.status_code) == (status, status)
    assert (error["code"], error["message"].replace("/api/v1", "/v1")) == (status, ours["message"])
    named = {"message", "type", "code", "param"}
    facts = {name: fact for name, fact in ours.items() if name not in named}
    assert error["metadata"] == {"error_type": ours["code"]} | facts
    assert error.get("param") == ours["param"]
    varying = {"x-request-id", "content-length"}
    assert {name: value for name, value in answer.headers.items() if name not in varying} == {
        name: value for name, value in own.headers.items() if name not in varying
    }
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize("path", ["/api/v1", "/api/v10/models", "/v1/api/v1/models", "/api"])
async def test_other_paths_have_openai_s_shape(path: str) -> None:
    assert error_of(await Site().ask("GET", path))["code"] == "not_found"


async def test_a_body_announced_too_large_is_refused_before_the_handler_runs() -> None:
    site = Site()
    read_on: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        read_on.append(1)
        yield b'{"amount": 1}'

    answer = await site.ask("POST", "/v1/probe/payments", content=body(), headers={"content-length": "2049"})
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["limit_bytes"]) == (413, "body_too_large", 2048)
    assert answer.headers["connection"] == "close"
    assert site.handled == []
    assert read_on == []


@pytest.mark.parametrize("announced", [{}, {"content-length": "13"}], ids=["chunked", "lying"])
async def test_a_body_that_turns_out_too_large_is_refused_in_our_shape(announced: dict[str, str]) -> None:
    site = Site()
    json_then_spaces = [b'{"amount": 1}', *[b" " * 500] * 5]
    answer = await site.ask("POST", "/v1/probe/payments", content=in_chunks(json_then_spaces), headers=announced)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["limit_bytes"]) == (413, "body_too_large", 2048)
    assert site.handled == []


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_of_exactly_the_limit_is_taken(chunked: bool) -> None:
    body = b'{"amount": 1}'.ljust(2048)
    content = in_chunks([body[:1000], body[1000:]]) if chunked else body
    answer = await Site().ask(
        "POST", "/v1/probe/payments", content=content, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()) == (200, {"amount": 1})


async def test_nothing_below_limits_a_body_to_less_than_the_setting() -> None:
    site = Site({"TOLLGATE_ENV": "development"})
    answer = await site.ask("POST", "/v1/probe/payments", json={"amount": 1, "note": "x" * (255 * 1024)})
    assert answer.status_code == 200


@pytest.mark.parametrize("nonsense", [b"\xb2", b"9" * 5000, b"-1", b"1e9", b"+1", b"", b"0x10", b"1, 2"])
async def test_a_content_length_that_is_no_number_is_no_defect_of_ours(nonsense: bytes) -> None:
    site = Site()
    headers = [(b"content-length", nonsense), (b"content-type", b"application/json")]
    answer = await site.ask("POST", "/v1/probe/payments", content=in_chunks([b'{"amount": 1}']), headers=headers)
    assert answer.status_code in (200, 400, 413)
    assert "x-request-id" in answer.headers


async def test_an_unexpected_exception_is_an_internal_error_that_leaks_nothing() -> None:
    site = Site()
    answer = await site.ask("GET", "/v1/probe/defect")
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["type"]) == (500, "internal_error", "server_error")
    assert set(error) == {"message", "type", "code", "param"}
    for trace in ("hunter2", "RuntimeError", "Traceback", "test_edge"):
        assert trace not in answer.text


async def test_an_unexpected_exception_is_logged_once_with_its_traceback() -> None:
    site = Site()
    answer = await site.ask("GET", "/v1/probe/defect")
    (line,) = site.lines("unexpected_error")
    assert "RuntimeError: hunter2 was in the cause" in line["exception"]
    assert (line["level"], line["request_id"]) == ("error", answer.headers["x-request-id"])
    assert site.log.getvalue().count("RuntimeError: hunter2") == 1


async def test_an_answer_under_way_is_broken_off_and_the_cause_is_logged_once() -> None:
    site = Site()
    with pytest.raises(RuntimeError):
        await site.ask("GET", "/v1/probe/late")
    assert len(site.lines("unexpected_error")) == 1
    assert [line["status"] for line in site.lines()] == [200]


async def test_each_request_has_one_line_in_the_log() -> None:
    site = Site()
    answer = await site.ask("GET", "/v1/probe/things/th_1/parts/7?key=value")
    assert answer.json() == {"thing": "th_1", "part": 7}
    (line,) = site.lines()
    assert line.pop("timestamp")
    assert 0 <= line.pop("duration_ms") < 60_000
    assert line == {
        "event": "request",
        "source": "application",
        "level": "info",
        "request_id": answer.headers["x-request-id"],
        "method": "GET",
        "route": "/v1/probe/things/{thing_id}/parts/{part_id}",
        "status": 200,
    }
    assert len(site.log.getvalue().splitlines()) == 1


async def test_the_duration_is_what_the_clock_says() -> None:
    ticks = iter([10.0, 10.0125])

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    site = Site()
    site.app = RequestMiddleware(answering, production=False, max_body_bytes=2048, clock=lambda: next(ticks))
    await site.ask("GET", "/")
    assert site.lines()[0]["duration_ms"] == 12.5


@pytest.mark.parametrize("path", ["/nothing", "/healthz/", "//healthz", "/v1//probe/refusal", "/v1/probe/refusal/"])
async def test_a_path_that_is_not_there_is_a_404_and_no_redirect(path: str) -> None:
    site = Site()
    answer = await site.ask("GET", f"http://tollgate.test{path}")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
    assert "location" not in answer.headers
    assert site.lines()[0]["route"] is None


@pytest.mark.parametrize(
    "path", ["/../etc/passwd", "/%00", "/%ff%fe", "/healthz%2f", "/%0d%0aset-cookie:a", "/" + "x" * 8000]
)
async def test_an_odd_path_is_a_404_and_one_line_in_the_log(path: str) -> None:
    site = Site()
    answer = await site.ask("GET", path)
    assert answer.status_code == 404
    assert [line["route"] for line in site.lines()] == [None]


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"])
async def test_a_method_that_a_path_does_not_know_is_a_405_that_names_the_others(method: str) -> None:
    site = Site()
    answer = await site.ask(method, "/healthz")
    assert answer.status_code == 405
    error = error_of(answer)
    assert error["code"] == "method_not_allowed"
    assert error["allow"] == answer.headers["allow"] == "GET, HEAD"
    assert error["message"] == f"This path does not support {method}. It supports GET, HEAD."
    assert (site.lines()[0]["method"], site.lines()[0]["status"]) == (method, 405)


async def test_all_methods_of_a_path_are_named_not_those_of_its_first_route_alone() -> None:
    answer = await Site().ask("PUT", "/user/api-keys/key_1", headers={"authorization": "Bearer chosen-by-an-operator"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, HEAD, PATCH")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/health", 200), ("/user/balance", 401), ("/docs", 200), ("/openapi.json", 200), ("/nothing", 404),
     ("/admin/usage/export", 401), ("/v1/chat/completions", 405)],
)  # fmt: skip
async def test_head_is_answered_as_get_without_the_body(path: str, status: int) -> None:
    site = Site()
    got = await site.ask("GET", path)
    headers, body = await sent_for_head(site, path)
    assert got.status_code == status
    assert body == b""
    varying = {"x-request-id"}
    assert [one for one in headers if one[0] not in varying] == [
        one for one in got.headers.multi_items() if one[0] not in varying
    ]
    assert site.lines()[1]["method"] == "HEAD"


async def sent_for_head(site: Site, path: str) -> tuple[list[tuple[str, str]], bytes]:
    """As the server would have to send it. httpx drops the body of an answer to HEAD."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        messages.append(message)

    asked = {"type": "http", "method": "HEAD", "path": path, "headers": [(b"host", b"a")], "query_string": b""}
    await site.app(asked | {"client": None, "http_version": "1.1", "scheme": "http"}, receive, send)
    headers = [(name.decode(), value.decode()) for name, value in messages[0]["headers"]]
    return headers, b"".join(message["body"] for message in messages[1:])


async def test_the_front_page_links_to_the_rest() -> None:
    site = Site()
    answer = await site.ask("GET", "/")
    assert answer.json()["name"] == "Tollgate"
    for link in ("docs", "openapi", "health"):
        assert (await site.ask("GET", answer.json()["links"][link])).status_code == 200
    page = await site.ask("GET", "/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["vary"] == page.headers["vary"] == "Accept"
    links = re.findall('href="([^"]+)"', page.text)
    assert links == ["account", "ui", "admin", "docs", "openapi.json", "health"], "relative, for a path prefix"


@pytest.mark.parametrize(
    ("path", "meant"),
    [("/v1/models/", "/v1/models"), ("//healthz", "/healthz"), ("/v1/v1/models", "/v1/models"),
     ("/chat/completions", "/v1/chat/completions"), ("/v1/user/balance", "/user/balance"), ("/Health", "/health"),
     ("/v1/me/usage/", "/v1/me/usage"), ("/v1/chat/completion", "/v1/chat/completions"),
     ("/v1/credits", "/api/v1/credits"), ("/v1/generation", "/api/v1/generation")],
)  # fmt: skip
async def test_an_unknown_path_is_told_which_one_was_probably_meant(path: str, meant: str) -> None:
    error = error_of(await Site().ask("GET", f"http://tollgate.test{path}"))
    assert error["message"] == f"Nothing is at {path}. Did you mean {meant}?"


@pytest.mark.parametrize(
    ("path", "instead"),
    [("/v1/images/edits", "images/generations"), ("/api/v1/files", "audio/transcriptions"),
     ("/v1/responses/resp_1", "responses"), ("/v1/messages/batches", "messages")],
)  # fmt: skip
async def test_an_endpoint_that_is_not_supported_is_told_what_is(path: str, instead: str) -> None:
    answer = await Site().ask("POST", f"http://tollgate.test{path}")
    assert answer.status_code == 404
    assert "is not supported here" in answer.text
    assert instead in answer.text


async def test_an_unknown_path_is_a_404_whatever_the_method() -> None:
    for method in ("HEAD", "OPTIONS", "BREW"):
        assert (await Site().ask(method, "/nothing")).status_code == 404


BAD_REQUESTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("GET", "/v1/probe/things/th_1/parts/hunter2", {}, "part_id"),
    ("GET", "/admin/audit-logs?limit=hunter2", {}, "limit"),
    ("GET", "/admin/audit-logs?limit=1001", {}, "limit"),
    ("GET", "/admin/audit-logs?outcome=hunter2", {}, "outcome"),
    ("GET", "/admin/audit-logs?from=hunter2", {}, "from"),
    ("GET", "/admin/audit-logs?unheard_of=hunter2", {}, "unheard_of"),
    ("POST", "/v1/probe/payments", {"json": {"amount": "hunter2"}}, "amount"),
    ("POST", "/v1/probe/payments", {"json": {"amount": 1, "note": ["hunter2"]}}, "note"),
    ("POST", "/v1/probe/payments", {"json": {"note": "hunter2"}}, "amount"),
    ("POST", "/v1/probe/payments", {"json": "hunter2"}, "body"),
    ("POST", "/v1/probe/payments", {}, "body"),
]


@pytest.mark.parametrize(("method", "path", "more", "param"), BAD_REQUESTS)
async def test_a_request_that_does_not_fit_is_a_400_that_names_the_parameter_and_tells_no_value(
    method: str, path: str, more: dict[str, Any], param: str
) -> None:
    site = Site()
    answer = await site.ask(method, path, headers={"authorization": "Bearer chosen-by-an-operator"}, **more)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_request", param)
    assert error["message"].startswith(f"{param}: ")
    assert "hunter2" not in answer.text
    assert "hunter2" not in site.log.getvalue()


@pytest.mark.parametrize(
    ("method", "path", "more", "message"),
    [
        ("GET", "/user/balance?detail=1", {}, "detail: is not known here. Known: none."),
        ("GET", "/admin/limit?organisation=o", {}, "organisation: is not known here. Known: "),
        ("GET", "/admin/audit-logs?order=id", {}, "order: is not known here. Known: "),
        ("POST", "/admin/orgs", {"json": {"name": "A", "label": "B"}}, "label: is not known here. Known: name, "),
        (
            "POST", "/admin/orgs", {"content": b'{"name": "A"}'},
            "body: is not JSON. Send it with 'Content-Type: application/json'.",
        ),
    ],
)  # fmt: skip
async def test_a_refusal_names_what_could_be_sent_instead(
    method: str, path: str, more: dict[str, Any], message: str
) -> None:
    answer = await Site().ask(method, path, headers={"authorization": "Bearer chosen-by-an-operator"}, **more)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (400, "invalid_request")
    assert error["message"].startswith(message), error["message"]


async def test_all_faults_of_a_request_are_told_at_once() -> None:
    answer = await Site().ask("POST", "/v1/probe/payments", json={"amount": 101, "note": 5})
    assert [fault["param"] for fault in error_of(answer)["faults"]] == ["amount", "note"]


@pytest.mark.parametrize(
    "body", [b'{"amount": hunter2', b"\xff\xfe hunter2", b"[" * 2000, b'{"amount": ' + b"9" * 1900 + b"}", b"NaN"]
)
async def test_a_body_that_is_not_json_is_a_400_in_our_shape(body: bytes) -> None:
    site = Site()
    answer = await site.ask("POST", "/v1/probe/payments", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request")
    assert "hunter2" not in answer.text
    assert site.lines("unexpected_error") == []


@given(body=st.binary(max_size=2048))
async def test_no_body_at_all_is_a_defect_of_ours(body: bytes) -> None:
    answer = await Site().ask("POST", "/v1/probe/payments", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400)


async def test_requests_at_the_same_time_do_not_mix_their_ids() -> None:
    site = Site()
    async with site.client() as http:
        await asyncio.gather(
            *(
                http.get(f"/v1/probe/together/n{number}", headers={"x-request-id": f"id-n{number}"})
                for number in range(50)
            )
        )
    inside, done = site.lines("inside"), site.lines()
    assert len(inside) == len(done) == 50
    assert all(line["request_id"] == f"id-{line['name']}" and line["note"] == line["name"] for line in inside)
    assert {line["request_id"] for line in done} == {f"id-n{number}" for number in range(50)}
    assert all(line["request_id"] == f"id-{line['note']}" for line in done)


async def test_what_one_request_noted_is_not_on_the_next_one_s_line() -> None:
    site = Site()
    await site.ask("GET", "/v1/probe/refusal")
    await site.ask("GET", "/healthz")
    first, second = site.lines()
    assert first["error_code"] == "permission_denied"
    assert "error_code" not in second


async def test_a_caller_who_leaves_before_the_answer_is_logged_as_gone() -> None:
    site = Site()
    asking = asyncio.create_task(site.ask("GET", "/v1/probe/waiting"))
    async with asyncio.timeout(60):
        await site.reached.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [line["status"] for line in site.lines()] == [CLIENT_GONE]


async def test_a_header_that_the_answer_chose_itself_is_left() -> None:
    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
        await send({"type": "http.response.body"})

    site = Site()
    site.app = RequestMiddleware(answering, production=False, max_body_bytes=2048, clock=monotonic)
    assert (await site.ask("GET", "/")).headers.get_list("cache-control") == ["max-age=60"]


async def test_what_is_not_http_passes_untouched() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def nothing(*messages: Any) -> Any:
        raise AssertionError

    await RequestMiddleware(app, production=False, max_body_bytes=2048, clock=monotonic)(
        {"type": "lifespan"}, nothing, nothing
    )
    assert seen == [{"type": "lifespan"}]


@pytest.mark.parametrize(
    ("status", "code"), [(400, "invalid_request"), (418, "invalid_request"), (503, "internal_error")]
)
async def test_what_the_framework_refuses_by_itself_has_our_shape(status: int, code: str) -> None:
    from_starlette = FastAPI(exception_handlers=HANDLERS)

    @from_starlette.get("/")
    async def refusing() -> None:
        raise HTTPException(status, "its own words", {"x-own": "kept"})

    site = Site()
    site.app = from_starlette
    answer = await site.ask("GET", "/")
    assert error_of(answer)["code"] == code
    assert answer.headers["x-own"] == "kept"
    assert ("its own words" in answer.text) == (status < 500)
