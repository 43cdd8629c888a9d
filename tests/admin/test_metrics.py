"""GET /metrics over HTTP, parsed as Prometheus does."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from admin.api_client import ApiClient
from admin.monitoring import MANAGEMENT_KEY, installation, paid, seen
from completions.paid import HOLD, Watched, an_item, unsettled
from dashboards import DASHBOARDS
from gateway import BOTH_DOORS, Upstream
from people import PEPPER, Person
from sandbox.serving import PATIENCE_SECONDS, a_chat
from tollgate.admin.schemas.metrics import Metric, render
from tollgate.app import create_app
from tollgate.database import Door
from tollgate.settings import read as read_settings
from tollgate.upstreams import openrouter_account
from turns import not_at_the_end_of

Customer = Callable[..., Awaitable[Person]]
Samples = dict[str, Decimal]

ONE_A_MINUTE = "update tollgate.orgs set limits = row(1, null, null, null, null, null) where id = $1"
DEPLOY = Path(__file__).parents[2] / "deploy"
COMMENT = re.compile(r"# (HELP|TYPE) (tollgate_[a-z0-9_]+) (.+)")
SAMPLE = re.compile(
    r'(tollgate_[a-z0-9_]+)((?:{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*})?) (\S+)'
)


@pytest.fixture
async def api(door: Door, sandbox: Upstream, person: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiClient]:
    monkeypatch.setattr(openrouter_account, "TIMEOUT_SECONDS", PATIENCE_SECONDS)
    await not_at_the_end_of("day")
    async with installation(door, sandbox.url, await person("admin")) as made:
        yield made


async def answered(api: ApiClient) -> httpx.Response:
    return await api.http.get("/metrics", headers={"authorization": f"Bearer {api.someone.secret}"})


async def scraped(api: ApiClient) -> Samples:
    answer = await answered(api)
    assert answer.status_code == 200, answer.text
    return read(answer.text)


def read(text: str) -> Samples:
    """The samples by name and labels. Checks that each metric has one HELP and one TYPE line."""
    samples: Samples = {}
    announced: list[tuple[str, str]] = []
    kind = ""
    for line in text.splitlines():
        if comment := COMMENT.fullmatch(line):
            announced.append((comment[2], comment[1]))
            kind = comment[3]
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        name = re.sub("_(bucket|sum|count)$", "", sample[1]) if kind == "histogram" else sample[1]
        assert announced[-2:] == [(name, "HELP"), (name, "TYPE")], line
        assert sample[1] + sample[2] not in samples, line
        samples[sample[1] + sample[2]] = Decimal(sample[3])
    assert len(announced) == len(set(announced))
    return samples


def grown(before: Samples, after: Samples, *names: str) -> list[Decimal]:
    return [after[f"tollgate_{name}"] - before.get(f"tollgate_{name}", Decimal(0)) for name in names]


async def test_what_was_used_today_is_counted(api: ApiClient, door: Door, customer: Customer) -> None:
    before = await scraped(api)
    someone = await customer()
    for _ in range(3):
        await paid(door, someone)
    await paid(
        door, someone, outcome="released", charge_nanos=0, cost_nanos=0, prompt_tokens=None, completion_tokens=None,
        error_code="upstream_timeout", status=504,
    )  # fmt: skip
    after = await scraped(api)
    assert grown(before, after, "requests_total", "request_errors_total") == [4, 1]
    assert grown(before, after, 'tokens_total{kind="prompt"}', 'tokens_total{kind="completion"}') == [30, 15]
    money = grown(before, after, "charge_credits_total", "cost_credits_total", "margin_credits")
    assert money == [Decimal("0.0000063"), Decimal("0.000006"), Decimal("0.0000003")]
    shares = ("upstream_requests_of_a_day", "upstream_errors_of_a_day")
    assert grown(before, after, *(f'{share}{{upstream="openrouter"}}' for share in shares)) == [4, 1]


async def test_tokens_and_charges_are_told_by_model(api: ApiClient, door: Door, customer: Customer) -> None:
    before = await scraped(api)
    await paid(door, await customer())
    after = await scraped(api)
    (name,) = [
        sample[len('tollgate_model_requests_total{model="') : -2]
        for sample in after
        if sample.startswith("tollgate_model_requests_total") and after[sample] != before.get(sample, 0)
    ]
    label = f'{{model="{name}"}}'
    assert grown(before, after, f"model_requests_total{label}") == [1]
    assert grown(before, after, f"model_charge_credits_total{label}") == [Decimal("0.0000021")]
    kinds = [f'model_tokens_total{{model="{name}",kind="{kind}"}}' for kind in ("prompt", "completion")]
    assert grown(before, after, *kinds) == [10, 5]


async def test_models_beyond_the_first_places_are_told_together(
    door: Door, customer: Customer, sql: Any, shared_database: str
) -> None:
    someone = await customer()
    for model in ("sandbox/echo", "sandbox/words"):
        await door.call("tollgate_admit", items=[an_item(someone, model=model)])
    told = "select tollgate.models_today(date_trunc('day', now(), 'UTC'), $1)"
    first, rest = json.loads(await sql(shared_database, told, 1))
    every = json.loads(await sql(shared_database, told, 1000))
    assert len(every) > 1
    assert {first["model"], rest["model"]} == {every[0]["model"], "other"}
    assert first["requests"] + rest["requests"] == sum(one["requests"] for one in every)


async def test_requests_are_counted_by_route_and_status_and_errors_by_code(api: ApiClient) -> None:
    await api.ask("GET", "/admin/keys/key_of_nobody", 404)
    await api.ask("GET", "/v1/admin/keys/key_of_nobody", 404)
    await api.ask("GET", "/nothing", 404)
    await api.ask("BREW", "/nothing", 404)
    told = await scraped(api)
    labels = 'method="GET",route="/admin/keys/{key_id}",status="404"'
    assert told[f"tollgate_http_requests_total{{{labels}}}"] == 2
    assert told['tollgate_http_requests_total{method="other",route="none",status="404"}'] == 1
    assert told['tollgate_http_errors_total{code="not_found"}'] == 4
    name = "tollgate_http_request_duration_seconds"
    assert told[f'{name}_count{{route="none"}}'] == told[f'{name}_bucket{{route="none",le="+Inf"}}'] == 2
    counts = [told[sample] for sample in told if sample.startswith(f'{name}_bucket{{route="none"')]
    assert counts == sorted(counts)


async def test_what_an_upstream_refused_is_counted_by_its_code(api: ApiClient, customer: Customer) -> None:
    someone = await customer()
    await api.of(someone).ask("POST", "/v1/chat/completions", 400, json=a_chat() | {"stop": 5})
    assert (await scraped(api))['tollgate_http_errors_total{code="refused_upstream"}'] == 1


async def test_refusals_are_counted_by_the_limit_that_was_reached(
    api: ApiClient, customer: Customer, sql: Any, shared_database: str
) -> None:
    someone = await customer()
    await sql(shared_database, ONE_A_MINUTE, someone.org_id)
    await api.of(someone).ask("POST", "/v1/chat/completions", json=a_chat())
    for _ in range(2):
        await api.of(someone).ask("POST", "/v1/chat/completions", 429, json=a_chat())
    assert (await scraped(api))['tollgate_http_rate_limited_total{limit="requests_per_minute"}'] == 2


async def test_what_is_owed_held_and_open_is_told(api: ApiClient, door: Door, customer: Customer) -> None:
    before = await scraped(api)
    rich, poor = await customer(10**15), await customer(HOLD)
    await door.call("tollgate_admit", items=[an_item(rich)])
    await unsettled(door, rich, "gen-1")
    await paid(door, poor, charge_nanos=HOLD + 10**14, cost_nanos=HOLD)
    await api.ask("PATCH", f"/admin/orgs/{poor.org_id}", json={"paid_calls": "suspended"})
    after = await scraped(api)
    assert grown(before, after, "open_holds", "unsettled_requests", "overdrawn_orgs") == [2, 1, 1]
    assert grown(before, after, "paid_suspended_orgs") == [1]
    assert grown(before, after, "held_credits") == [2 * Decimal(HOLD).scaleb(-9)]
    assert grown(before, after, "balances_credits", "overdrawn_credits") == [10**6, 10**5]
    assert after["tollgate_oldest_hold_seconds"] >= 0
    added = [f'{kind}{{state="{state}"}}' for kind in ("orgs", "keys") for state in ("total", "usable", "active_today")]
    assert grown(before, after, *added) == [2, 2, 2, 2, 2, 2]


async def test_the_monitor_tells_the_same(api: ApiClient, door: Door, customer: Customer) -> None:
    await paid(door, await customer())
    told, page = await scraped(api), await seen(api)
    today, day = page["usage"]["today"], page["last_24_hours"]
    assert told["tollgate_requests_total"] == today["requests"]
    assert told["tollgate_charge_credits_total"] * 10**9 == today["charge_nanos"]
    assert told["tollgate_balances_credits"] * 10**9 == page["balances"]["credits_nanos"]
    assert float(told['tollgate_duration_seconds{percentile="95"}']) == day["latency"]["p95_ms"] / 1000
    assert float(told['tollgate_first_token_seconds{percentile="50"}']) > 0


async def test_this_instance_s_catalogue_and_upstreams_are_told(api: ApiClient, customer: Customer) -> None:
    fresh = await scraped(api)
    assert fresh['tollgate_catalog_models{environment="live"}'] == 0
    assert not [name for name in fresh if name.startswith(("tollgate_catalog_age", "tollgate_upstream_up"))]
    someone = api.of(await customer())
    await someone.ask("POST", "/v1/chat/completions", json=a_chat())
    await someone.ask("GET", "/v1/models")
    used = await scraped(api)
    assert used['tollgate_catalog_models{environment="live"}'] > 0
    assert used['tollgate_catalog_lookups_total{environment="live",result="hit"}'] == 1
    assert 0 <= used['tollgate_catalog_age_seconds{environment="live"}'] < 300
    assert used['tollgate_upstream_up{upstream="openrouter",breaker="closed"}'] == 1
    assert used['tollgate_upstream_in_flight{upstream="openrouter"}'] == 0
    assert used['tollgate_upstream_failures_total{upstream="openrouter"}'] == 0
    assert used["tollgate_openrouter_credits"] > 0


@BOTH_DOORS
async def test_what_is_not_known_is_not_told(door: Door, sandbox: Upstream, person: Any) -> None:
    async with installation(door, sandbox.url, await person("admin"), key="") as api:
        assert "tollgate_openrouter_credits" not in await scraped(api)


async def test_every_figure_that_is_shown_or_alerts_is_told(
    api: ApiClient, door: Door, customer: Customer, sql: Any, shared_database: str
) -> None:
    someone = await customer()
    await paid(door, someone)
    await unsettled(door, someone, "gen-1")
    for _ in range(2):
        await api.of(someone).ask("POST", "/v1/chat/completions", json=a_chat(cache=True))
    await sql(shared_database, ONE_A_MINUTE, someone.org_id)
    await api.of(someone).ask("POST", "/v1/chat/completions", 429, json=a_chat())
    await api.ask("GET", "/nothing", 404)
    told = {sample.split("{")[0] for sample in await scraped(api)}
    queries = [query for _, panels in DASHBOARDS.values() for panel in panels for query in panel.queries.values()]
    alerts = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
    queries += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    asked = {name for query in queries for name in re.findall(r"tollgate_\w+", query)}
    assert len(asked) > 15
    assert asked <= told


async def test_it_takes_one_call_of_the_database(door: Door, sandbox: Upstream, person: Any) -> None:
    watched = Watched(door)
    async with installation(watched, sandbox.url, await person("admin")) as api:
        answer = await answered(api)
        assert watched.calls == ["monitor"]
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_only_an_admin_s_key_with_that_scope_opens_it(api: ApiClient, person: Any) -> None:
    for stranger in (await person(), await person("admin", scopes=["usage"]), await person("member", scopes=["admin"])):
        assert (await answered(api.of(stranger))).status_code == 403
    assert (await api.http.get("/metrics")).status_code == 401


TOKEN = "metrics-token-of-the-tests"


@pytest.mark.parametrize(
    ("given", "headers", "status"),
    [
        ({"METRICS_TOKEN": TOKEN}, {"authorization": f"Bearer {TOKEN}"}, 200),
        ({"METRICS_TOKEN": TOKEN}, {"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"METRICS_TOKEN": TOKEN}, {}, 401),
        ({}, {"authorization": f"Bearer {TOKEN}"}, 401),
        ({"METRICS_NETWORKS": "192.0.2.0/24, 2001:db8::/32"}, {}, 200),
        ({"METRICS_NETWORKS": "192.0.3.0/24"}, {}, 401),
        ({"METRICS_NETWORKS": "192.0.2.0/24", "TRUSTED_PROXY": "proxy"}, {"x-forwarded-for": "198.51.100.1"}, 401),
        ({"METRICS_NETWORKS": "198.51.100.1/32", "TRUSTED_PROXY": "proxy"}, {"x-forwarded-for": "198.51.100.1"}, 200),
        ({"METRICS_NETWORKS": "198.51.100.1/32"}, {"x-forwarded-for": "198.51.100.1"}, 401),
    ],
)
async def test_a_token_or_a_network_opens_it_without_a_key(
    door: Door, given: dict[str, str], headers: dict[str, str], status: int
) -> None:
    app = create_app(read_settings({"KEY_PEPPER": PEPPER, **given}), door=door, environ=given)
    transport = httpx.ASGITransport(app, client=("192.0.2.1", 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://tollgate") as http:
        answer = await http.get("/metrics", headers=headers)
        assert answer.status_code == status, answer.text
        assert ("tollgate_requests_total" in answer.text) == (status == 200)
        assert (await http.get("/admin/monitor", headers=headers)).status_code == 401, "it opens nothing else"


async def test_it_shows_no_secret_and_no_name_of_a_customer(api: ApiClient, door: Door, customer: Customer) -> None:
    someone = await customer(10**15)
    await paid(door, someone, charge_nanos=10**13)
    text = (await answered(api)).text
    for private in (someone.org_id, someone.key_id, someone.secret, api.someone.secret, MANAGEMENT_KEY, PEPPER):
        assert private not in text


def test_labels_are_escaped_and_money_keeps_its_digits() -> None:
    odd = Metric("tollgate_odd", "gauge", "Odd.", [({"upstream": 'a"b\\c\nd'}, 1), ({"upstream": "unknown"}, None)])
    large = Metric(
        "tollgate_large", "gauge", "Large.", [({}, Decimal(10**20 + 1).scaleb(-9)), ({"of": "nothing"}, 0.5)]
    )
    nothing = Metric("tollgate_nothing", "counter", "Nothing.", [({}, Decimal(0).scaleb(-9))])
    unknown = Metric("tollgate_unknown", "gauge", "Unknown.", [({}, None)])
    assert render([odd, large, nothing, unknown]) == (
        "# HELP tollgate_odd Odd.\n# TYPE tollgate_odd gauge\n"
        'tollgate_odd{upstream="a\\"b\\\\c\\nd"} 1\n'
        "# HELP tollgate_large Large.\n# TYPE tollgate_large gauge\n"
        'tollgate_large 100000000000.000000001\ntollgate_large{of="nothing"} 0.5\n'
        "# HELP tollgate_nothing Nothing.\n# TYPE tollgate_nothing counter\n"
        "tollgate_nothing 0.000000000\n"
    )
    counted = Metric("tollgate_odd_total", "counter", "Odd.", [({}, 1)])
    assert render([counted], open_metrics=True) == (
        "# HELP tollgate_odd Odd.\n# TYPE tollgate_odd counter\ntollgate_odd_total 1\n# EOF\n"
    )
