"""`deploy/check.py`, against a Tollgate that is as it should be, and against each way in which one is not."""

import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from completions.paid import given
from conftest import TEMPLATE
from gateway import Upstream
from people import Person
from sandbox.serving import PATIENCE_SECONDS, serving
from servers.postgres import Cluster
from servers.process import free_port, listens, running
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.credits import store as credits
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.process import clock
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

PROGRAM = Path(__file__).parents[2] / "deploy" / "check.py"
CRON_SECRET = "a-cron-secret-of-the-tests"
CALLER = "203.0.113.7"
Headers = list[tuple[str, str]]


def _loaded() -> Any:
    spec = importlib.util.spec_from_file_location("check", PROGRAM)
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


check = _loaded()


class Front:
    """What stands before a Tollgate on the internet: adds the caller's address, and distorts what it is told to."""

    def __init__(
        self,
        target: str,
        *,
        caller: str = CALLER,
        instead: Mapping[str, tuple[int, str]] | None = None,
        headers: Callable[[Headers], Headers] = lambda headers: headers,
        asked: Callable[[Headers], Headers] = lambda headers: headers,
        body: Callable[[bytes], bytes] = lambda body: body,
        buffers: bool = False,
    ) -> None:
        self._target = target
        self._caller = caller
        self._instead = instead or {}
        """By path: what is answered before Tollgate is asked."""
        self._headers = headers
        self._asked = asked
        self._body = body
        self._buffers = buffers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in self._instead:
            status, text = self._instead[scope["path"]]
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": text.encode()})
            return
        url = f"{self._target}{scope['path']}?{scope['query_string'].decode()}"
        sent = [(name.decode(), value.decode()) for name, value in scope["headers"]]
        sent = [*sent, ("x-forwarded-for", self._caller)] if self._caller else sent
        question = await _whole(receive)
        async with (
            httpx.AsyncClient(verify=False, timeout=PATIENCE_SECONDS) as http,  # noqa: S501  # plain HTTP
            http.stream(scope["method"], url, headers=self._asked(sent), content=question) as answer,
        ):
            headers = [(name.lower(), value) for name, value in answer.headers.multi_items()]
            headers = [(name, value) for name, value in self._headers(headers) if name != "content-length"]
            raw = [(name.encode(), value.encode()) for name, value in headers]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": raw})
            held = b""
            async for piece in answer.aiter_raw():
                if self._buffers:
                    held += piece
                else:
                    await send({"type": "http.response.body", "body": self._body(piece), "more_body": True})
            await send({"type": "http.response.body", "body": self._body(held)})


async def _whole(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


class Deployment(NamedTuple):
    address: str
    someone: Person

    def site(self, address: str = "", *, key: str | None = None, model: str = "", may_buffer: bool = False) -> Any:
        secret = self.someone.secret if key is None else key
        return check.Site(address or self.address, secret, CRON_SECRET, model, may_buffer=may_buffer)


@pytest.fixture(scope="module")
def deployment(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder, port, name = tmp_path_factory.mktemp("check"), free_port(), f"tollgate_{secrets.token_hex(6)}"
    database = postgres.create(name, TEMPLATE)
    with serving(create_sandbox(Habits(list_faults=True))) as upstream:
        url = Upstream(create_sandbox(), upstream).url
        environ = {**given(url), "SANDBOX_BASE_URL": url, "DATABASE_URL": database, "CRON_SECRET": CRON_SECRET}
        environ |= {"PORT": str(port), "TRUSTED_PROXY": "proxy", "PATH": os.environ["PATH"]}
        command = [sys.executable, "-m", "tollgate", "serve"]
        with running(command, lambda: listens(port), folder / "log", env=environ, cwd=folder):
            yield Deployment(f"http://127.0.0.1:{port}", asyncio.run(_customer(database)))
    postgres.drop(name)


async def _customer(url: str) -> Person:
    door = PostgresDoor(url, pool_size=1, deadline_seconds=30)
    made = Person(door)
    await made.seed()
    operator = console(door, "tests")
    await credits.grant(operator, made.org_id, NANOS_PER_CREDIT, source="funding", reason="", reference=made.org_id)
    await door.close()
    return made


@contextlib.contextmanager
def fronted(deployment: Deployment, **distortions: Any) -> Iterator[str]:
    """The address of a front as another machine would see it: not one of this network."""
    with serving(Front(deployment.address, **distortions)) as address:
        yield address.replace("127.0.0.1", "127.1")


def found(lines: Any, ok: bool | None = False) -> set[str]:
    return {line.name for line in lines if line.ok is ok}


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """As an operator does, with nothing installed."""
    command = [sys.executable, "-I", "-S", str(PROGRAM), *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300)


def test_all_is_green_where_all_is_right(deployment: Deployment) -> None:
    with serving(Front(deployment.address)) as address:
        ran = run(address, TOLLGATE_KEY=deployment.someone.secret, CRON_SECRET=CRON_SECRET)
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout.splitlines()[-1] == "26 right, 0 wrong, 0 not looked at."
    assert deployment.someone.secret not in ran.stdout
    assert CRON_SECRET not in ran.stdout


def test_what_it_makes_to_look_it_takes_away_again(deployment: Deployment) -> None:
    with fronted(deployment) as address:
        assert found(check.addresses(deployment.site(address))) == set()
        listed = deployment.site(address).ask("GET", "/user/api-keys", key=deployment.someone.secret).document
    made = [key for key in listed["data"] if key["name"] == "deploy/check"]
    assert made
    assert {key["status"] for key in made} == {"revoked"}


def without(*names: str) -> Callable[[Headers], Headers]:
    return lambda headers: [(name, value) for name, value in headers if name not in names]


def changed(name: str, value: str) -> Callable[[Headers], Headers]:
    return lambda headers: [*without(name)(headers), (name, value)]


HTML = (200, "<html>Welcome</html>")
NOWHERE = (404, '{"error": {"code": "not_found"}}')
LONG_AGO = clock.now() - timedelta(minutes=1)
HEALTH = json.dumps({"timestamp": LONG_AGO.isoformat(), "openrouter": "connected"})

BROKEN: list[tuple[str, dict[str, Any], set[str]]] = [
    ("alive", {"instead": {"/healthz": HTML}}, {"alive", "security headers", "request id", "TLS"}),
    ("alive", {"headers": changed("date", format_datetime(LONG_AGO, usegmt=True))}, {"clock", "TLS"}),
    ("alive", {"headers": without("x-frame-options", "x-request-id")}, {"security headers", "request id", "TLS"}),
    ("ready", {"instead": {"/readyz": (503, '{"parts": {"database": "behind"}}')}}, {"ready"}),
    ("ready", {"body": lambda body: body.replace(b'"sandbox"', b'"error"')}, {"upstream"}),
    ("ready", {"body": lambda body: body.replace(b'"down":0', b'"down":1')}, {"own upstreams"}),
    ("ready", {"body": lambda body: body.replace(b'"sandbox"', b'"not_configured"')}, {"upstream"}),
    ("ready", {"instead": {"/health": (200, HEALTH)}}, {"clock inside"}),
    (
        "refusals",
        {"instead": {"/user/balance": (200, "{}")}},
        {"refuses no key", "refuses a misspelt key", "refuses an unknown key"},
    ),
    (
        "refusals",
        {"instead": dict.fromkeys(("/admin/monitor", "/v1/chat/completions", "/nothing/is/here"), HTML)},
        {"refuses a stranger at /admin", "refuses an unpaid completion", "refuses an unknown path"},
    ),
    ("closed", {"instead": {"/internal/sweep": (200, '{"settled": 1}')}}, {"/internal is closed"}),
    ("closed", {"instead": {"/internal/sweep": NOWHERE}}, {"sweep"}),
    ("closed", {"instead": {"/internal/": HTML}}, {"/internal is closed"}),
    ("closed", {"instead": {"/src/tollgate/app.py": (200, "import")}}, {"no source is public"}),
    ("paid", {"instead": {"/user/balance": (401, '{"error": {"code": "invalid_api_key"}}')}}, {"key"}),
    ("paid", {"instead": {"/v1/chat/completions": (402, '{"error": {"code": "no"}}')}}, {"completion"}),
    ("paid", {"headers": without("x-tollgate-charge-nanos")}, {"charge", "balance"}),
    ("paid", {"headers": changed("x-tollgate-balance-nanos", "5")}, {"balance"}),
    ("paid", {"headers": without("idempotency-replayed")}, {"paid once"}),
    ("paid", {"asked": without("idempotency-key")}, {"paid once"}),
    ("streamed", {"body": lambda body: body.replace(b"data: [DONE]\n\n", b"")}, {"stream"}),
    ("streamed", {"headers": changed("content-type", "text/html")}, {"stream"}),
    ("streamed", {"buffers": True}, {"arrives in pieces"}),
    ("addresses", {"caller": ""}, {"forged addresses", "client's address"}),
    ("addresses", {"caller": "10.1.2.3"}, {"client's address"}),
    ("addresses", {"caller": "nobody knows"}, {"client's address"}),
    ("addresses", {"asked": lambda headers: headers[:-1]}, {"forged addresses", "client's address"}),
]


@pytest.mark.parametrize(("name", "distortions", "red"), BROKEN)
def test_what_is_wrong_is_red(deployment: Deployment, name: str, distortions: dict[str, Any], red: set[str]) -> None:
    model = "sandbox/words" if name == "streamed" else ""
    with fronted(deployment, **distortions) as address:
        assert found(getattr(check, name)(deployment.site(address, model=model))) == red


def test_each_line_can_be_red() -> None:
    seen = {name.split(" ")[0] if name.startswith("refuses") else name for *_, red in BROKEN for name in red}
    elsewhere = {"reached", "production", "first byte"}
    assert seen | elsewhere == set(check.REMEDIES)


def test_a_first_byte_that_comes_late_is_red(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "SLOWEST_FIRST_BYTE_SECONDS", 0.0)
    assert found(check.streamed(deployment.site(model="sandbox/words"))) == {"first byte"}


def test_one_who_knows_that_streams_are_held_back_is_not_told_so(deployment: Deployment) -> None:
    with fronted(deployment, buffers=True) as address:
        lines = list(check.streamed(deployment.site(address, model="sandbox/words", may_buffer=True)))
    assert found(lines) == set()
    assert found(lines, None) == {"arrives in pieces"}


def test_a_stream_that_is_over_at_once_tells_nothing(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MOMENT_SECONDS", 60.0)
    monkeypatch.setattr(check, "TOO_SHORT_TO_TELL_SECONDS", 60.0)
    lines = list(check.streamed(deployment.site(model="sandbox/words")))
    assert found(lines, None) == {"arrives in pieces"}


def test_a_model_that_is_not_there_is_red(deployment: Deployment) -> None:
    assert found(check.paid(deployment.site(model="nobody/nothing"))) == {"completion"}


def test_where_nobody_is_nothing_else_is_asked() -> None:
    ran = run(f"http://127.0.0.1:{free_port()}", "--json", TOLLGATE_KEY="tg_live_x")
    assert ran.returncode == 1
    (line,) = json.loads(ran.stdout)["lines"]
    assert (line["name"], line["ok"]) == ("reached", False)
    assert line["remedy"]


def test_without_a_key_what_is_free_is_looked_at_and_the_rest_is_named(deployment: Deployment, tmp_path: Path) -> None:
    with serving(Front(deployment.address)) as address:
        told = json.loads(run(address, "--json").stdout)
        with_a_file = tmp_path / "key"
        with_a_file.write_text("no-such-key-but-long-enough\n")
        misled = json.loads(run(address, "--json", "--key-file", str(with_a_file)).stdout)
    assert told["wrong"] == 0
    assert [line["name"] for line in told["lines"] if line["ok"] is None] == ["sweep", "paid calls"]
    assert [line["name"] for line in misled["lines"] if line["ok"] is False] == ["key"]


def test_a_secret_that_is_sent_back_is_not_shown_and_nothing_plays_with_the_terminal(deployment: Deployment) -> None:
    secret = "a-key-that-comes-back"
    echo = {"/user/balance": (401, json.dumps({"error": {"code": f"you sent {secret}\x1b[2J"}}))}
    with serving(Front(deployment.address, instead=echo)) as address:
        plain, report = (run(address, *words, TOLLGATE_KEY=secret) for words in ((), ("--json",)))
    assert "you sent [hidden]?[2J" in plain.stdout
    assert "you sent [hidden]" in report.stdout
    assert secret not in plain.stdout + plain.stderr + report.stdout + report.stderr
    assert "\x1b" not in plain.stdout + report.stdout


def test_no_secret_goes_to_another_machine_in_the_clear(deployment: Deployment) -> None:
    seen: list[Headers] = []
    with fronted(deployment, asked=lambda headers: seen.append(headers) or headers) as address:
        site = deployment.site(address)
        names = {line.name for line in check.lines(site) if line.ok is None}
    assert names == {"sweep", "paid calls"}
    sent = str(seen)
    assert "authorization" in sent
    assert deployment.someone.secret not in sent
    assert CRON_SECRET not in sent


def test_what_speaks_another_language_is_red_and_the_rest_is_looked_at(deployment: Deployment) -> None:
    with serving(Front(deployment.address, instead={"/user/balance": (200, '{"credits": 1}')})) as address:
        lines = list(check.lines(deployment.site(address)))
    assert "paid" in found(lines)
    assert "forged addresses" in {line.name for line in lines}


@pytest.mark.parametrize(
    "words", [(), ("https://x.example", "--key-file", "no/such/file"), ("https://x.example", "--colour")]
)
def test_wrong_usage_ends_with_two(words: tuple[str, ...]) -> None:
    assert run(*words).returncode == 2


@pytest.mark.parametrize("secret", ["tg_live_with\nsomething", "tg_live_schlüssel"])
def test_what_no_header_can_carry_is_refused_and_not_shown(secret: str) -> None:
    for ran in run("http://127.0.0.1:1", TOLLGATE_KEY=secret), run("http://127.0.0.1:1", CRON_SECRET=secret):
        assert ran.returncode == 2
        assert "characters" in ran.stderr
        assert "tg_live" not in ran.stdout + ran.stderr


@contextlib.contextmanager
def over_tls(app: Any, folder: Path, days: int) -> Iterator[str]:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", str(days), "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", folder / "key.pem", "-out", folder / "certificate.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, lifespan="off", ws="none", log_config=None, ssl_keyfile=folder / "key.pem",
            ssl_certfile=folder / "certificate.pem", timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"https://localhost:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("days", "trusted", "headers", "red"),
    [
        (90, True, changed("strict-transport-security", "max-age=1"), set()),
        (90, True, without(), {"production"}),
        (7, True, without(), {"production", "TLS"}),
        (90, False, without(), {"reached"}),
    ],
)
def test_tls_is_looked_at(
    deployment: Deployment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    days: int,
    trusted: Literal[True, False],
    headers: Any,
    red: set[str],
) -> None:
    with over_tls(Front(deployment.address, headers=headers), tmp_path, days) as address:
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        site = deployment.site(address, key="")
        assert {line.name for line in check.lines(site) if line.ok is False} == red
