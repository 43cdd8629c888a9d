"""What the pictures of the console show: orgs with names of all kinds, a month of requests, servers, aliases, secrets,
and events."""

import random
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg
import httpx

from gateway import CHAT
from people import Person
from sandbox.serving import a_chat
from tollgate.credits import store as credits
from tollgate.database import Door
from tollgate.keys.authentication import console
from usage import past

LONGEST = 60
OWING = "Owes more than anybody, and has quite a long name as well"
SCRIPT = "<script>alert(1)</script> 🦊"
MODELS = [
    "openai/gpt-4o-mini",
    "anthropic/claude-sonnet-4",
    "meta-llama/llama-3.3-70b-instruct",
    "google/gemini-2.5-flash",
]


class Names(NamedTuple):
    """What people named: as they usually do, or as oddly as they can."""

    orgs: Sequence[str]
    last_model: str
    upstream: str
    alias: str
    token: str
    host: str
    deployment: str
    function: str


PLAIN = Names(
    orgs=["Acme", "Borealis Research", "Halcyon Labs", "Delta Robotics", "Zeta Ltd", "Northwind"],
    last_model="qwen/qwen3-32b",
    upstream="Lab, 2 × L40S",
    alias="best",
    token="research",  # noqa: S106  # its name
    host="Old rack",
    deployment="our/qwen-2.5-72b",
    function="fn-5e1c:4",
)
ODD = Names(
    orgs=["Acme", "Borealis Research", SCRIPT, "x" * LONGEST, "Delta Robotics", "Zeta Ltd", OWING],
    last_model="qwen/" + "m" * 55,
    upstream=SCRIPT,
    alias="best/" + "m" * 55,
    token="x" * LONGEST,
    host="Old rack <script>alert(1)</script> " + "m" * LONGEST,
    deployment="our/qwen-" + "m" * LONGEST,
    function="fn-" + "m" * LONGEST + ":4",
)
PRICES = {"prompt": "0.0000001", "completion": "0.0000004"}
REQUESTS = 2000


async def fill(url: str, door: Door, address: str, operator: Person, names: Names) -> Person:
    """Returns the owner of the busiest org."""
    people = [await _named(url, door, name) for name in names.orgs]
    await _call(url, operator, "Robin Vale", "robin@tollgate.example", "Operations")
    models = [*MODELS, names.last_model]
    largest = [_largest(people[-1], names.last_model)] if names is ODD else []
    await past.keep(url, [*_requests(people, models), *largest])
    async with client(address, operator) as http:
        await _servers(http, address, names.upstream)
        await _aliases(http, names)
        await _secrets(http, people[0].org_id, names)
    async with client(address, people[0]) as http:
        for text in ("hello", "<script>alert(2)</script>", "hello again"):
            for _ in range(2):
                await http.post(CHAT, json=a_chat(text, cache=True))
    async with httpx.AsyncClient(base_url=address, headers={"authorization": "Bearer tg_live_wrong"}) as http:
        for _ in range(5):
            await http.get("/user/balance")
    return people[0]


def client(address: str, someone: Person) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=address, headers={"authorization": f"Bearer {someone.secret}"}, timeout=30)


async def _named(url: str, door: Door, name: str) -> Person:
    someone = Person(door)
    await someone.seed()
    org = someone.org_id
    amount = 10**15 if len(name) == LONGEST else 10**13
    await credits.grant(console(door, "pictures"), org, amount, source="funding", reason="", reference=org)
    connection = await asyncpg.connect(url)
    await connection.execute("update tollgate.orgs set name = $1 where id = $2", name, org)
    await connection.close()
    email = f"lin@{re.sub('[^a-z]+', '-', name.lower()).strip('-')}.example"
    await _call(url, someone, "", email, f"Key of {name}")
    return someone


async def _call(url: str, someone: Person, name: str, email: str, key: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "update tollgate.users set name = $1, email = $2 where id = $3", name, email, someone.user_id
    )
    await connection.execute("update tollgate.api_keys set name = $1 where id = $2", key, someone.key_id)
    await connection.close()


def _requests(people: list[Person], models: list[str]) -> Iterator[Any]:
    chance = random.Random(3)  # noqa: S311
    for _ in range(REQUESTS):
        at = datetime.now(UTC) - timedelta(hours=chance.expovariate(1 / 90) % 700, minutes=3)
        someone = people[min(int(chance.expovariate(0.6)), len(people) - 2)]
        model = models[min(int(chance.expovariate(0.5)), len(models) - 1)]
        outcome = _failed(chance) if chance.random() < 0.05 else _succeeded(chance)
        yield past.of(someone, at, **{**outcome, "model": model, "upstream": "openrouter"})


def _largest(someone: Person, model: str) -> Any:
    """So long ago that the charts of a week do not show it."""
    at = datetime.now(UTC) - timedelta(days=25)
    return past.of(someone, at, model=model, upstream="openrouter", cost_nanos=10**15, charge_nanos=2 * 10**15)


def _failed(chance: random.Random) -> dict[str, Any]:
    return dict(past.failed(status=chance.choice([502, 504]), error_code="upstream_unavailable"))


def _succeeded(chance: random.Random) -> dict[str, Any]:
    cost = int(chance.lognormvariate(16, 1.5))
    return {
        "cost_nanos": cost,
        "charge_nanos": cost * 112 // 100,
        "prompt_tokens": chance.randrange(5000),
        "completion_tokens": chance.randrange(900),
        "duration_ms": int(chance.lognormvariate(7.5, 0.7)),
        "first_token_ms": int(chance.lognormvariate(5.5, 0.6)),
        "streamed": chance.random() < 0.6,
    }


async def _servers(http: httpx.AsyncClient, address: str, other: str) -> None:
    """Two that answer, and between them one that is down."""
    for name, port in (("Frankfurt, 8 × H100", address), ("Old rack", "http://127.0.0.1:9"), (other, address)):
        server = {"name": name, "dialect": "vllm", "base_url": f"{port}/v1", "health_path": "/healthz"}
        made = (await http.post("/admin/upstreams", json=server)).raise_for_status().json()
        route = {"model": f"our/model-{made['id'][-4:]}", "upstream_id": made["id"], "pricing": PRICES}
        (await http.post("/admin/models/registry", json=route)).raise_for_status()
    await http.post("/admin/upstreams/refresh-health", json={})


async def _aliases(http: httpx.AsyncClient, names: Names) -> None:
    weights = [{"model": MODELS[0], "weight": 9}, {"model": "sandbox/echo", "upstream_id": "openrouter"}]
    fast = {
        "name": "fast",
        "description": "The quick one for drafts.",
        "targets": weights,
        "fallbacks": [MODELS[2], MODELS[3]],
        "deprecated_on": "2027-01-01",
        "retires_on": "2027-06-30",
        "replacement": MODELS[3],
    }
    for alias in (fast, {"name": names.alias, "targets": [{"model": names.last_model}], "state": "disabled"}):
        (await http.post("/admin/models/aliases", json=alias)).raise_for_status()


async def _secrets(http: httpx.AsyncClient, org_id: str, names: Names) -> None:
    upstreams = (await http.get("/admin/upstreams")).raise_for_status().json()["data"]
    own = next(one["id"] for one in upstreams if one["name"] == names.upstream)
    (await http.patch(f"/admin/upstreams/{own}", json={"takes_org_keys": True})).raise_for_status()
    for upstream in ("openrouter", own):
        path = f"/admin/orgs/{org_id}/upstream-keys/{upstream}"
        (await http.put(path, json={"key": "sk-of-the-pictures-0123"})).raise_for_status()
    (await http.patch(f"/admin/upstreams/{own}", json={"takes_org_keys": False})).raise_for_status()
    for name in ("default", names.token):
        (await http.put("/admin/hf-tokens", json={"name": name, "token": "hf_of_the_pictures_0123"})).raise_for_status()
