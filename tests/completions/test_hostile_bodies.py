"""What a client may send to hurt us: each is refused by design, in our shape, and moves nothing. What merely looks odd
is served and paid for."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from completions.asks import CALLS, MADE, asking, path_of
from completions.stage import Stage, before, erring, staged
from gateway import CHAT
from people import Person
from sandbox.serving import PATIENCE_SECONDS, a_chat
from tollgate.core.endpoints import BATCH_PATH, ENDPOINTS
from tollgate.core.errors import anthropic_type
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.core.request_body import FORBIDDEN

MOST_BYTES = 300_000
PLAIN = json.dumps(a_chat("hello")).encode()

Harmed = tuple[Stage, Person]


@pytest.fixture(scope="module")
async def stage(shared_database: str) -> AsyncIterator[Stage]:
    with erring([]) as sandbox, before(sandbox, shared_database, MAX_BODY_BYTES=str(MOST_BYTES)) as gateway:
        async with staged(gateway, shared_database) as made:
            yield made


@pytest.fixture(scope="module")
async def someone(stage: Stage) -> Person:
    """One for all: whoever moves something of theirs is seen by the next."""
    return await stage.customer()


def with_member(member: bytes) -> bytes:
    return PLAIN[:-1] + b"," + member + b"}"


def saying(content: bytes) -> bytes:
    return PLAIN.replace(b"hello", content)


DEEP = 100_000
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \r\n\t",
    "a list": b"[]",
    "a text": b'"hello"',
    "null": b"null",
    "no JSON": b"model=sandbox/echo",
    "cut off": PLAIN[:-1],
    "two documents": PLAIN + PLAIN,
    "something behind": PLAIN + b"\x00",
    "deep lists": with_member(b'"metadata":' + b"[" * DEEP),
    "deep lists that close": with_member(b'"metadata":' + b"[" * DEEP + b"]" * DEEP),
    "deep objects": with_member(b'"metadata":' + b'{"a":' * (DEEP // 2)),
    "one level too deep": with_member(b'"metadata":' + b"[" * 101 + b"]" * 101),
    "not a number": with_member(b'"temperature":NaN'),
    "infinity": with_member(b'"temperature":Infinity'),
    "less than all": with_member(b'"temperature":-Infinity'),
    "beyond a double": with_member(b'"temperature":1e400'),
    "beyond a double, below": with_member(b'"temperature":-1e400'),
    "an exponent without end": with_member(b'"temperature":1e999999999999'),
    "more digits than int() takes": with_member(b'"seed":' + b"9" * 5000),
    "another base": with_member(b'"seed":0x10'),
    "a model twice": with_member(b'"model":"sandbox/words"'),
    "a bound twice": with_member(b'"max_tokens":1,"max_tokens":100000'),
    "a role twice": PLAIN.replace(b'"role"', b'"role": "system", "role"'),
    "half a pair": saying(b"\\ud800"),
    "half a pair as a name": with_member(b'"\\udfff":1'),
    "half a pair in the model": PLAIN.replace(b"sandbox/echo", b"sandbox/echo\\ud800"),
    "a NUL in a text": saying(b"\x00"),
    "a line end in a text": saying(b"\n"),
    "no UTF-8": saying(b"\xff\xfe"),
    "overlong UTF-8": saying(b"\xc0\xaf"),
    "a surrogate in UTF-8": saying(b"\xed\xa0\x80"),
    "UTF-16": PLAIN.decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + PLAIN,
    "both bounds": with_member(b'"max_tokens":1,"max_completion_tokens":100'),
}
FIELDS: dict[str, list[Any]] = {
    "model": [None, "", 1, ["sandbox/echo"], {}, "x" * 257, "sandbox/ech\0o", "a\r\nX-Injected: 1", "a\u202eb", "a b"],
    "messages": [None, [], {}, "hello", ["hello"], [[]], [None]],
    "max_tokens": [0, -1, 1.5, True, "5.5", 10**12, 10**299, [], {}],
    "max_completion_tokens": [0, -1, 10**12, "five"],
    "n": [0, -1, 10**6, True, "2", 1.0],
    "best_of": [0, 10**6],
    "stream": ["true", 1, 0, []],
    "stream_options": [True, [], "include_usage", {"include_usage": 1}],
    "models": ["sandbox/echo", [1], ["sandbox/echo\n"], ["a"] * 33, {}],
    "provider": [[], "openai", {"max_price": "cheap"}],
    "tools": [{}, "web", [1]],
    "plugins": [{}, ["web"]],
    "usage": [True, []],
    "user": [1, [], "a\r\nb", "x" * 257, "\u202e"],
    **{name: [None, "http://169.254.169.254/", {}] for name in FORBIDDEN},
}
"""What a field may not hold. A null of ours is absent, but for what must not even be named."""
CASES = [pytest.param(name, value, id=f"{name}={value!r:.24}") for name, values in FIELDS.items() for value in values]


async def refused(answer: httpx.Response, stage: Stage, someone: Person, status: int, code: str) -> dict[str, Any]:
    """By design, in our shape, telling nothing; and nothing was moved."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    if "/messages" in str(answer.url.path):  # Anthropic's shape
        told = answer.json()
        assert (told["type"], error["code"], error["type"]) == ("error", code, anthropic_type(status))
        assert told["request_id"] == answer.headers["x-request-id"]
    elif str(answer.url.path).startswith("/api/v1/") and "/generate" not in answer.url.path:  # OpenRouter's shape
        assert (error["code"], error["metadata"]["error_type"]) == (status, code)
    else:
        assert error["code"] == code
        assert {"message", "type", "param"} <= set(error)
    assert len(answer.content) < 1000
    assert "Traceback" not in answer.text
    await nothing_moved(stage, someone)
    return error


async def nothing_moved(stage: Stage, someone: Person) -> None:
    assert await stage.rows(someone) == []
    assert await stage.money(someone) == (NANOS_PER_CREDIT, 0)
    assert await stage.sql("select counters from tollgate.orgs where id = $1", someone.org_id) is None
    assert stage.gateway.upstream.generations() == []


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_two_parsers_could_read_differently_is_refused(
    stage: Stage, someone: Person, name: str
) -> None:
    answer = await stage.post(someone, BODIES[name])
    await refused(answer, stage, someone, 400, "invalid_request")


@pytest.mark.parametrize(("name", "value"), CASES)
async def test_a_field_that_makes_no_sense_is_refused_by_name(
    stage: Stage, someone: Person, name: str, value: Any
) -> None:
    body = a_chat("hello")
    body[name] = value
    answer = await stage.post(someone, json.dumps(body).encode())
    error = await refused(answer, stage, someone, 400, "invalid_request")
    assert error["param"].split(".")[0] == name


TYPED_FIELDS: dict[str, dict[str, list[Any]]] = {
    "/v1/responses": {
        "input": [None, [], {}, 7, [7], [[]], [None]],
        "max_output_tokens": [0, -1, 1.5, True, "5.5", 10**12, [], {}],
        "max_tokens": [5, 0, "5"],
        "max_completion_tokens": [5],
        "stream": ["true", 1],
        "previous_response_id": ["resp_1", 1],
        "conversation": ["conv_1", {"id": "conv_1"}],
        "prompt": [{"id": "pmpt_1"}, "hello"],
        "background": [True],
        "store": [True],
        "tools": [{}, "web", [1]],
        "api_key": ["sk-mine"],
    },
    "/v1/messages": {
        "messages": [None, [], {}, "hello", ["hello"], [None]],
        "max_tokens": [0, -1, 1.5, True, "5.5", 10**12, []],
        "max_completion_tokens": [5],
        "max_output_tokens": [5],
        "fallbacks": [[{"model": "sandbox/words"}]],
        "tools": [{}, "web", [1], [{"type": "web_search_20250305"}] * 2],
        "base_url": ["https://example.com"],
    },
}
MADE_FIELDS: dict[str, dict[str, list[Any]]] = {
    "/v1/images/generations": {
        "prompt": [None, "", 7, ["a"], {}],
        "n": [0, -1, 129, 10**12, True, "2", 1.5],
        "num_images": [4],
        "batch_size": [4],
        "stream": ["true"],
        "input_references": ["https://example.com/a.png"],
        "provider": [[]],
        "api_base": ["https://example.com"],
    },
    "/api/v1/images": {"prompt": [None], "n": [0], "models": ["sandbox/painter"]},
    "/v1/audio/speech": {
        "input": [None, "", [], ["x"], 7],
        "instructions": [7, ""],
        "stream_format": ["sse", 1],
        "model": [None, 7],
    },
    "/v1/rerank": {
        "query": [None, "", 7, {}],
        "documents": [None, [], "x", [7], [["x"]], ["x"] * 10_001],
        "extra_headers": [{}],
    },
    "/v1/moderations": {"input": [None, [], [7], {}]},
}
MADE_BODIES: dict[str, dict[str, Any]] = {
    **{path_of(name): CALLS[name] for name in ("images", "speech", "rerank", "moderations")},
    "/api/v1/images": MADE["images"][1],
}
TYPED_CASES = [
    pytest.param(path, name, value, id=f"{path[4:]} {name}={value!r:.24}")
    for path, fields in (TYPED_FIELDS | MADE_FIELDS).items()
    for name, values in fields.items()
    for value in values
]
STORED: list[tuple[str, Any]] = [
    ("/v1/responses", [{"type": "item_reference", "id": "msg_1"}]),
    ("/v1/responses", [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]),
    ("/v1/responses", [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]),
    ("/v1/responses", [{"type": "function_call_output", "output": [{"type": "input_image", "file_id": "file-1"}]}]),
    ("/v1/messages", [{"role": "user", "content": [{"type": "container_upload", "file_id": "file_1"}]}]),
    ("/v1/messages", [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}]),
    (
        "/v1/messages",
        [
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}],
                    }
                ],
            }
        ],
    ),
]
"""What only an upstream has: its size is not known."""


@pytest.mark.parametrize(("path", "name", "value"), TYPED_CASES)
async def test_a_field_of_another_endpoint_that_makes_no_sense_is_refused_by_name(
    stage: Stage, someone: Person, path: str, name: str, value: Any
) -> None:
    body = MADE_BODIES[path] if path in MADE_BODIES else asking(path, "hello")
    error = await refused(await stage.post(someone, body | {name: value}, path), stage, someone, 400, "invalid_request")
    assert error["param"] == name


@pytest.mark.parametrize(("path", "asked"), STORED)
async def test_what_an_upstream_keeps_is_not_asked_for(stage: Stage, someone: Person, path: str, asked: Any) -> None:
    body = asking(path, "hello") | {"input" if "responses" in path else "messages": asked}
    await refused(await stage.post(someone, body, path), stage, someone, 400, "invalid_request")


@pytest.mark.parametrize(
    "path",
    [*map(path_of, ENDPOINTS), *(f"/api{path_of(name)}" for name in ("chat", "responses", "messages", "images")),
     f"/api/v1{BATCH_PATH}"],
)  # fmt: skip
async def test_every_paid_path_refuses_alike(stage: Stage, someone: Person, path: str) -> None:
    for body in (b"", b"[" * DEEP, b'{"model":NaN}', b'{"model":"sandbox/echo"}', b'{"model":"a","model":"b"}'):
        await refused(await stage.post(someone, body, path), stage, someone, 400, "invalid_request")


@pytest.mark.parametrize("name", ["sаndbox/echo", "sandbox/e\u0301cho", "SANDBOX/ECHO", "sandbox/echo%00", "../echo"])
async def test_a_name_that_only_looks_like_a_models_is_none(stage: Stage, someone: Person, name: str) -> None:
    answer = await stage.post(someone, a_chat("hello", name))
    await refused(answer, stage, someone, 404, "model_not_found")


@pytest.mark.parametrize("key", ["", "a" * 256, "a\tb", "schlüssel"])
async def test_an_idempotency_key_is_short_and_plain(stage: Stage, someone: Person, key: str) -> None:
    sent = [(b"authorization", f"Bearer {someone.secret}".encode()), (b"idempotency-key", key.encode())]
    answer = await stage.http.post(stage.gateway.address + CHAT, content=PLAIN, headers=sent)
    error = await refused(answer, stage, someone, 400, "invalid_request")
    assert error["param"] == "Idempotency-Key"
    assert error["message"] == "Idempotency-Key: must be 1 to 255 characters of printable ASCII."


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
async def test_a_paid_path_is_for_post_alone(stage: Stage, someone: Person, method: str) -> None:
    headers = {"authorization": f"Bearer {someone.secret}", "x-http-method-override": "POST"}
    answer = await stage.http.request(method, stage.gateway.address + CHAT, content=PLAIN, headers=headers)
    await refused(answer, stage, someone, 405, "method_not_allowed")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/", "/v1//chat/completions", "//v1/chat/completions", "/V1/chat/completions",
        "/v1/chat/Completions", "/v1/chat/completions%00", "/v1/chat%2fcompletions/", "/v1/chat/completions;x=1",
        "/v1/chat/completions%0d%0aX:1", "/v2/chat/completions", "/api/chat/completions", "/v1/chat", "/v1/response",
    ],
)  # fmt: skip
async def test_no_spelling_of_a_path_leads_past_the_gate(stage: Stage, someone: Person, path: str) -> None:
    answer = await stage.post(someone, PLAIN, path, **{"x-original-url": CHAT, "x-rewrite-url": CHAT})
    await refused(answer, stage, someone, 404, "not_found")


async def test_a_body_beyond_the_limit_is_refused_however_it_comes(stage: Stage, someone: Person) -> None:
    large = saying(b"x" * MOST_BYTES)

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 10_000):
            yield large[start : start + 10_000]

    headers = {"authorization": f"Bearer {someone.secret}"}
    whole = await stage.http.post(stage.gateway.address + CHAT, content=large, headers=headers)
    await refused(whole, stage, someone, 413, "body_too_large")
    chunked = await stage.http.post(stage.gateway.address + CHAT, content=in_pieces(), headers=headers)
    await refused(chunked, stage, someone, 413, "body_too_large")


class Raw:
    """A connection on which anything may be said."""

    def __init__(self, stage: Stage, someone: Person) -> None:
        self._host, port = stage.gateway.address.removeprefix("http://").split(":")
        self._port = int(port)
        self._key = someone.secret

    def head(self, *lines: str, target: str = CHAT) -> bytes:
        first = [f"POST {target} HTTP/1.1", f"Host: {self._host}", f"Authorization: Bearer {self._key}"]
        return ("\r\n".join([*first, "Content-Type: application/json", *lines]) + "\r\n\r\n").encode("latin-1")

    async def says(self, *pieces: bytes, hangs_up: bool = False) -> bytes:
        """The error that comes back, or what comes before the server closes."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        heard = b""
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if hangs_up:
                writer.write_eof()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while b"}}" not in heard and (piece := await reader.read(65_536)):
                    heard += piece
        except OSError:  # it may have closed already; a timeout is one too
            pass
        finally:
            writer.transport.abort()  # to close would wait for what a server that has answered no longer reads
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return heard


@pytest.fixture
def raw(stage: Stage, someone: Person) -> Raw:
    return Raw(stage, someone)


async def test_a_body_without_end_is_ended(stage: Stage, someone: Person, raw: Raw) -> None:
    """Nothing is sent behind the piece that is too much: a server that closes with bytes unread resets the connection,
    and its answer may be lost."""
    piece = b"2710\r\n" + b" " * 10_000 + b"\r\n"
    heard = await raw.says(raw.head("Transfer-Encoding: chunked"), *[piece] * (MOST_BYTES // 10_000 + 1))
    assert heard.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in heard
    await nothing_moved(stage, someone)


LYING = {
    "less than was announced": (["Content-Length: 5000"], PLAIN),
    "a length and chunks": (["Content-Length: 5", "Transfer-Encoding: chunked"], b"0\r\n\r\n"),
    "two lengths": (["Content-Length: 5", "Content-Length: 500"], PLAIN),
    "a length below nothing": (["Content-Length: -1"], PLAIN),
    "a length in words": (["Content-Length: all"], PLAIN),
    "chunks of no size": (["Transfer-Encoding: chunked"], b"zz\r\n" + PLAIN),
    "chunks that do not end": (["Transfer-Encoding: chunked"], b"5\r\nhello"),
    "an encoding that nobody knows": (["Transfer-Encoding: x"], PLAIN),
    "a header that is folded": ([f"Content-Length: {len(PLAIN)}", "X-Title: a", " X-Injected: 1"], PLAIN[:-1] + b","),
    "a header without a name": ([f"Content-Length: {len(PLAIN)}", ": x"], PLAIN[:-1] + b","),
    "a header with a NUL": ([f"Content-Length: {len(PLAIN)}", "X-Title: a\0b"], PLAIN[:-1] + b","),
}


@pytest.mark.parametrize("how", LYING)
async def test_a_lie_about_the_bodys_length_moves_nothing(stage: Stage, someone: Person, raw: Raw, how: str) -> None:
    headers, body = LYING[how]
    heard = await raw.says(raw.head(*headers), body, hangs_up=True)
    assert b" 500 " not in heard[:15]
    assert b" 200 " not in heard[:15]
    assert b"Traceback" not in heard
    await nothing_moved(stage, someone)
    assert (await stage.http.get(stage.gateway.address + "/healthz")).status_code == 200


async def test_what_follows_a_body_is_a_request_of_its_own_and_needs_a_key(
    stage: Stage, someone: Person, raw: Raw
) -> None:
    """No smuggling: the second request is not carried by the first one's key."""
    smuggled = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PLAIN)}\r\n\r\n".encode() + PLAIN
    heard = await raw.says(raw.head("Content-Length: 2"), b"{}" + smuggled)
    assert heard.startswith(b"HTTP/1.1 400 ")
    assert b" 200 " not in heard
    await nothing_moved(stage, someone)


async def test_a_thousand_refusals_change_nothing_for_the_next(stage: Stage, someone: Person) -> None:
    bodies = [BODIES[name] for name in ("no JSON", "half a pair", "a model twice", "cut off")] * 25
    answers = await asyncio.gather(*(stage.post(someone, body) for body in bodies))
    assert {answer.status_code for answer in answers} == {400}
    await nothing_moved(stage, someone)


ODD: dict[str, bytes] = {
    "a NUL that is escaped": saying(b"\\u0000"),
    "right to left": saying("\u202e\u200b\ufeffשלום".encode()),
    "a whole pair": saying(b"\\ud83d\\ude00"),
    "composed in two ways": saying("é e\u0301".encode()),
    "as deep as may be": with_member(b'"metadata":' + b"[" * 99 + b"]" * 99),
    "names of nobody's": with_member(b'"\\u0000":1,"__proto__":{},"":2,"constructor":3'),
    "a number of 300 digits": with_member(b'"seed":' + b"9" * 300),
    "less than nothing": with_member(b'"temperature":-0.0'),
    "line ends that are escaped": saying(b"\\r\\nX-Injected: 1"),
    "a price of one's own": with_member(b'"cost":0,"price":"0","balance":9,"org_id":"org_other","charge_nanos":0'),
    "many words to stop at": with_member(b'"stop":[' + b",".join(b'"%d"' % n for n in range(2000)) + b"]"),
    "many tools": with_member(b'"tools":[' + b",".join([b'{"type":"function","function":{"name":"f"}}'] * 2000) + b"]"),
    "blanks all over": json.dumps(a_chat("hello"), indent=9).encode() + b"\r\n" * 100,
}


@pytest.fixture
async def spender(stage: Stage) -> Person:
    return await stage.customer()


@pytest.mark.parametrize("name", ODD)
async def test_what_is_merely_odd_is_served_and_paid_for_once(stage: Stage, spender: Person, name: str) -> None:
    owed = stage.gateway.upstream.owed_nanos
    answer = await stage.post(spender, ODD[name])
    assert answer.status_code == 200, answer.text
    row = await stage.row(spender)
    assert (row["state"], row["charge_nanos"]) == ("settled", stage.gateway.upstream.owed_nanos - owed)
    assert row["org_id"] == spender.org_id
    assert "x-injected" not in answer.headers
    stage.gateway.upstream.app.ledger.forget()


HEADERS = {
    "x-title": "<script>alert(1)</script>",
    "http-referer": "javascript:alert(1)",
    "x-forwarded-for": "127.0.0.1, 10.0.0.1",
    "x-forwarded-host": "evil.example",
    "x-original-url": "/admin/keys",
    "x-request-id": "a b; DROP TABLE",
    "user-agent": "x" * 5000,
    "cookie": "session=stolen",
    "x-api-key": "tg_live_somebody_elses",
    "accept-encoding": "gzip, br, zstd",
    "expect": "100-continue",
    "origin": "https://evil.example",
    "content-type": "text/plain; charset=utf-7",
}


async def test_headers_of_ones_own_change_neither_who_pays_nor_what(stage: Stage, spender: Person) -> None:
    answer = await stage.post(spender, PLAIN, **HEADERS)
    assert answer.status_code == 200, answer.text
    row = await stage.row(spender)
    assert row["org_id"] == spender.org_id
    assert answer.headers["x-request-id"] == row["id"]
    assert not any(name.startswith("access-control-") for name in answer.headers)
    (generation,) = stage.gateway.upstream.generations()
    assert generation["headers"].get("cookie") is None
    stage.gateway.upstream.app.ledger.forget()
