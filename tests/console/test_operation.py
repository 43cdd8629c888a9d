"""The console's views of models, upstreams, security, audit log, sessions and system, in a real Chromium."""

import csv
import json
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Page, Route, expect

from console.browser import violations
from console.conftest import Visiting
from gateway import Gateway
from people import Person
from sandbox.serving import a_chat

SCRIPT = "<script>document.title='owned'</script> & 🦊"
VIEWS = [
    "models",
    "models?open=sandbox%2Fecho",
    "models?tab=routes",
    "models?tab=aliases&open=none",
    "upstreams",
    "upstreams?open=openrouter",
    "cache",
    "vault",
    "hosts",
    "deployments",
    "deployments/new",
    "security",
    "security?tab=report",
    "audit",
    "reconciliation",
    "sessions?everyone=true",
    "system",
    "system?tab=database",
    "system?tab=settings",
]

pytestmark = pytest.mark.slow


async def test_a_server_is_added_checked_given_a_route_and_deleted(
    visit: Visiting, operator: Person, site: Gateway
) -> None:
    name, model = f"{SCRIPT} {secrets.token_hex(4)}", f"our/{secrets.token_hex(4)}"
    async with visit() as made:
        page, dialog = made.page, made.page.get_by_role("dialog")
        await made.sign_in("admin", operator.secret)
        await page.get_by_role("link", name="Upstreams").click()
        await page.get_by_role("button", name="Add an upstream").click()
        await dialog.get_by_label("Vendor").select_option(label="Groq")
        await expect(dialog.get_by_label("Address")).to_have_value("https://api.groq.com/openai/v1")
        await expect(dialog.get_by_label("Environment variable of its key")).to_have_value("UPSTREAM_GROQ_KEY")
        await expect(dialog.locator("[name=dialect]")).to_have_value("groq")
        await dialog.get_by_label("Vendor").select_option(value="")
        await dialog.get_by_label("Name", exact=True).fill(name)
        await dialog.get_by_label("Address").fill("http://169.254.169.254/v1")
        await dialog.get_by_role("button", name="Add").click()
        await expect(dialog.get_by_label("Address")).to_have_attribute("aria-invalid", "true")
        await dialog.get_by_label("Address").fill(f"{site.address}/v1")
        await dialog.get_by_label("Health path").fill("/healthz")
        await dialog.get_by_role("button", name="Add").click()
        side = page.get_by_role("complementary")
        await side.get_by_role("button", name="Check health now").click()
        await expect(side.get_by_role("table").get_by_text("up", exact=True)).to_be_visible()
        await side.get_by_role("button", name="Disable").click()
        await page.get_by_role("button", name="Undo").click()
        await expect(side.get_by_role("button", name="Disable")).to_be_visible()

        await page.get_by_role("link", name="Models").click()
        await page.get_by_role("link", name="Routes to your servers").click()
        await page.get_by_role("button", name="Add a route").click()
        await dialog.get_by_label("Model, as clients name it").fill(model)
        await dialog.get_by_label("Upstream").select_option(label=name)
        await dialog.get_by_label("In, credits a million tokens").fill("0.1")
        await dialog.get_by_label("Out, credits a million tokens").fill("2.5")
        await dialog.get_by_role("button", name="Add").click()
        await page.get_by_role("link", name=model).click()
        await page.get_by_role("button", name="Remove").click()
        await expect(page.get_by_role("link", name=model)).to_have_count(0)
        await page.get_by_role("button", name="Undo").click()
        await expect(page.get_by_role("link", name=model)).to_be_visible()
        async with site.client(operator) as http:
            routes = (await http.get("/admin/models/registry", params={"model": model})).json()["data"]
        assert [route["pricing"] for route in routes] == [{"prompt": "0.0000001", "completion": "0.0000025"}]

        await page.get_by_role("link", name="Upstreams").click()
        await page.get_by_role("link", name=name).click()
        await side.get_by_role("button", name="Delete").click()
        await dialog.get_by_label("Delete its 1 routes as well").check()
        await dialog.get_by_role("textbox").fill(name)
        await dialog.get_by_role("button", name="Delete").click()
        await expect(page.get_by_role("link", name=name)).to_have_count(0)
        await expect(page).to_have_title("Console · Tollgate")
        assert (made.complaints, made.foreign) == ([], [])


async def test_the_catalogue_has_the_prices_that_a_plan_is_charged_and_is_refreshed_and_a_cache_is_cleared(
    visit: Visiting, operator: Person, payer: Callable[..., Awaitable[Person]], site: Gateway
) -> None:
    plan = f"plan-{secrets.token_hex(4)}"
    async with site.client(operator) as http:
        made_plan = await http.post("/admin/plans", json={"id": plan, "name": plan, "markup": 1})
        assert made_plan.status_code == 201, made_plan.text
    async with visit() as made:
        page = made.page
        await made.sign_in("admin", operator.secret)
        await page.goto(f"{made.address}/admin#/models?q=sandbox%2Fecho")
        echo = page.get_by_role("link", name="sandbox/echo", exact=True)
        prices = page.get_by_role("row").filter(has=echo).locator("td data")
        await expect(prices).to_have_text(["131,072", "0.25", "1.25"])
        await page.get_by_label("Prices for").select_option(label=plan)
        await expect(prices).to_have_text(["131,072", "0.50", "2.50"])
        await page.reload()
        await expect(prices).to_have_text(["131,072", "0.50", "2.50"])
        await page.get_by_role("button", name="Refresh the list now").click()
        await expect(page.locator(".toast")).to_contain_text("models read in")

        await page.route("**/admin/cache-status", _not_read)
        await page.reload()
        await expect(page.get_by_text("This server has not read the list since it started.")).to_be_visible()
        await page.route("**/admin/refresh-models", _read_from_then_on)
        await page.get_by_role("button", name="Load now").click()
        await expect(page.locator(".tiles")).to_contain_text("healthy")
        await page.unroute("**/admin/refresh-models")

        model = f"our/cached-{secrets.token_hex(4)}"
        await _alias(page, model, "sandbox/echo")
        someone = await payer()
        for found in ("miss", "hit"):
            answer = await site.post(someone, a_chat(model=model, cache=True))
            assert answer.headers["x-tollgate-cache"] == found
        await page.goto(f"{made.address}/admin#/cache?org_id={someone.org_id}")
        await expect(page.locator(".tiles")).to_contain_text("1 of 2 look-ups")
        await page.get_by_role("button", name="Clear").click()
        await expect(page.get_by_role("dialog").get_by_label("Org")).to_have_value(someone.org_id)
        await page.get_by_role("dialog").get_by_role("button", name="Clear").click()
        await expect(page.locator(".toast")).to_have_text("Answers cleared: 1.")
        async with site.client(operator) as http:
            await http.delete(f"/admin/models/aliases/{quote(model, safe='')}")
        assert (made.complaints, made.foreign) == ([], [])


async def _not_read(route: Route) -> None:
    """The state of the list, as a server tells it that has just started."""
    answer = await route.fetch()
    state = await answer.json()
    state["live"]["instance"]["age_seconds"] = None
    await route.fulfill(response=answer, json=state)


async def _read_from_then_on(route: Route) -> None:
    await route.request.frame.page.unroute("**/admin/cache-status")
    await route.continue_()


async def _alias(page: Page, name: str, *models: str) -> None:
    """Makes an alias of models, the first of which serves nine of ten."""
    dialog = page.get_by_role("dialog")
    await page.get_by_role("link", name="Aliases").click()
    await page.get_by_role("button", name="Add an alias").click()
    await dialog.get_by_label("Name, as clients send it").fill(name)
    for number, model in enumerate(models, 1):
        if number > 1:
            await dialog.get_by_role("button", name="Add a target").click()
        await dialog.get_by_label(f"Model {number}", exact=True).fill(model)
    await dialog.get_by_label("Weight").first.fill("9")
    await dialog.get_by_role("button", name="Add", exact=True).click()
    await page.get_by_role("link", name=name).click()


async def test_an_alias_is_made_changed_deleted_and_made_again(
    visit: Visiting, operator: Person, site: Gateway
) -> None:
    name = f"our/{secrets.token_hex(4)}"
    async with visit() as made:
        page, dialog = made.page, made.page.get_by_role("dialog")
        side = page.get_by_role("complementary")
        await made.sign_in("admin", operator.secret)
        await page.get_by_role("link", name="Models").click()
        await _alias(page, name, "sandbox/echo", "sandbox/words")
        await expect(side.get_by_role("row").nth(1)).to_contain_text("90%")
        await side.get_by_role("button", name="Edit").click()
        await dialog.get_by_role("button", name="Remove model 1").click()
        await dialog.get_by_label("Only at").select_option(label="OpenRouter")
        await dialog.get_by_label("Fallbacks").fill("sandbox/echo")
        await dialog.get_by_label("Description").fill(SCRIPT)
        await dialog.get_by_label("Retires on").fill("2999-12-31")
        await dialog.get_by_role("button", name="Save").click()
        await expect(side).to_contain_text("2999-12-31")
        await expect(side).to_contain_text(SCRIPT)
        await side.get_by_role("button", name="Edit").click()
        await expect(dialog.get_by_label("Only at")).to_have_value("openrouter")
        await dialog.get_by_role("button", name="Cancel").click()
        await side.get_by_role("button", name="Delete").click()
        await expect(page.get_by_role("link", name=name)).to_have_count(0)
        await page.get_by_role("button", name="Undo").click()
        await expect(page.get_by_role("link", name=name)).to_be_visible()
        async with site.client(operator) as http:
            (alias,) = (await http.get("/admin/models/aliases", params={"model": "sandbox/words"})).json()["data"]
            await http.delete(f"/admin/models/aliases/{quote(name, safe='')}")
        assert alias["targets"] == [{"model": "sandbox/words", "upstream_id": "openrouter", "weight": 1}]
        assert (alias["fallbacks"], alias["retires_on"]) == (["sandbox/echo"], "2999-12-31")
        assert (made.complaints, made.foreign) == ([], [])


async def test_secrets_are_stored_and_shown_to_nobody(
    visit: Visiting, operator: Person, payer: Callable[..., Awaitable[Person]], site: Gateway
) -> None:
    someone, token, key = await payer(), f"hf_{secrets.token_hex(8)}", f"sk-or-v1-{secrets.token_hex(8)}"
    name = f"<script>{token[3:]}</script>"
    async with visit() as made, visit(width=360) as theirs:
        page, dialog = made.page, made.page.get_by_role("dialog")
        await made.sign_in("admin", operator.secret)
        await page.get_by_role("link", name="Vault").click()
        await page.get_by_role("button", name="Store a token").click()
        await dialog.get_by_label("Name").fill(name)
        await dialog.locator("[name=token]").fill(token)
        await dialog.get_by_role("button", name="Store").click()
        await expect(page.get_by_role("row").filter(has_text=name)).to_contain_text(f"…{token[-4:]}")
        await page.get_by_role("button", name=f"Delete the token {name}").click()
        await dialog.get_by_role("textbox").fill(name)
        await dialog.get_by_role("button", name="Delete").click()
        await expect(page.get_by_role("row").filter(has_text=name)).to_have_count(0)

        await theirs.sign_in("account#/upstream-keys", someone.secret)
        await theirs.page.get_by_role("button", name="Store a key").click()
        await theirs.page.get_by_label("Key of the account there").fill(key)
        await theirs.page.get_by_role("dialog").get_by_role("button", name="Store").click()
        await expect(theirs.page.get_by_role("row").filter(has_text="OpenRouter")).to_contain_text("active")
        await page.goto(f"{made.address}/admin#/orgs/{someone.org_id}/upstream-keys")
        await expect(page.get_by_role("row").filter(has_text="OpenRouter")).to_contain_text(f"…{key[-4:]}")
        await page.get_by_role("button", name="Delete the key for OpenRouter").click()
        await dialog.get_by_role("textbox").fill("OpenRouter")
        await dialog.get_by_role("button", name="Delete").click()
        await expect(page.get_by_text("No key is stored.")).to_be_visible()
        assert key not in await theirs.page.content()
        assert (made.complaints, made.foreign, theirs.complaints) == ([], [], [])


async def test_a_link_opens_an_entry_that_is_not_on_the_page(
    visit: Visiting, operator: Person, site: Gateway, shared_database: str, sql: Any
) -> None:
    """With filters that match nothing, the list has no entry."""
    event = await _event(sql, shared_database, operator)
    refused = await sql(shared_database, REFUSED, operator.org_id, operator.user_id, operator.key_id)
    async with site.client(operator) as http:
        (of_key, *_) = (await http.get("/admin/audit-logs", params={"target_id": operator.key_id})).json()["data"]
    async with visit() as made:
        page, side = made.page, made.page.get_by_role("complementary")
        await made.sign_in("admin", operator.secret)
        for view, shown in (
            (f"audit?action=none&open={of_key['id']}", operator.key_id),
            (f"security?org_id=none&open={event}", operator.org_id),
            (f"usage?tab=refused&org_id=none&open={refused}", operator.key_id),
            ("models?q=none-of-them&open=sandbox%2Fecho", "131,072"),
            ("models?tab=routes&model=none&open=rte_none", "No route has the id rte_none"),
        ):
            await page.goto(f"{made.address}/admin#/{view}")
            await expect(side).to_contain_text(shown)
            await expect(page.locator("tbody a[aria-current]")).to_have_count(0)
        assert (made.complaints, made.foreign) == ([], [])


async def test_a_security_event_is_acknowledged_with_a_note(
    visit: Visiting, operator: Person, site: Gateway, shared_database: str, sql: Any
) -> None:
    event = await _event(sql, shared_database, operator)
    async with visit() as made:
        page = made.page
        await made.sign_in("admin", operator.secret)
        view = f"{made.address}/admin#/security?kind=org_overdrawn&org_id={operator.org_id}&open={event}"
        await page.goto(f"{view}&acknowledged=false")
        side = page.get_by_role("complementary")
        await side.get_by_role("button", name="Acknowledge").click()
        await page.get_by_label("Note").fill(SCRIPT)
        await page.get_by_role("dialog").get_by_role("button", name="Acknowledge").click()
        await expect(page.get_by_text("Nothing matches these filters.")).to_be_visible()
        await page.goto(f"{view}&acknowledged=true")
        await expect(side).to_contain_text(SCRIPT)
        assert (made.complaints, made.foreign) == ([], [])


REFUSED = """
insert into tollgate.refused_calls (hour, org_id, user_id, key_id, model, code, count, first_seen_at, last_seen_at)
values (date_trunc('hour', now()), $1, $2, $3, 'a/b', 'quota_exhausted', 3, now(), now()) returning id
"""
EVENT = """
insert into tollgate.security_events
  (kind, severity, subject_kind, subject, org_id, first_seen_at, last_seen_at, count, hour, count_in_hour)
values ('org_overdrawn', 'warning', 'org', $1, $1, now(), now(), 1, date_trunc('hour', now()), 1) returning id
"""


async def _event(sql: Any, url: str, operator: Person) -> str:
    return str(await sql(url, EVENT, operator.org_id))


async def test_the_audit_log_is_filtered_by_its_address_and_shows_what_an_event_has(
    visit: Visiting, operator: Person
) -> None:
    async with visit() as made:
        page, side = made.page, made.page.get_by_role("complementary")
        await made.sign_in("admin", operator.secret)
        await page.goto(f"{made.address}/admin#/audit?actor_id={operator.user_id}&action=session.started")
        await page.locator("tbody a").click()
        await expect(side).to_contain_text(operator.user_id)
        await page.reload()
        await expect(side.get_by_role("heading", name="session.started")).to_be_visible()
        await page.go_back()
        await expect(side).to_have_count(0)
        await page.get_by_label("Outcome").select_option("refused")
        await expect(page.get_by_text("Nothing matches these filters.")).to_be_visible()
        assert (made.complaints, made.foreign) == ([], [])


async def test_the_books_are_audited_and_reports_are_saved(visit: Visiting, operator: Person, tmp_path: Path) -> None:
    async with visit() as made:
        page = made.page
        await made.sign_in("admin", operator.secret)
        await page.get_by_role("link", name="System").click()
        await page.get_by_role("button", name="Audit now").click()
        await expect(page.get_by_text("The books agree")).to_be_visible()
        await page.get_by_role("link", name="Reconciliation").click()
        await expect(page.get_by_role("heading", name="Reconciliation is off")).to_be_visible()
        await page.goto(f"{made.address}/admin#/security?tab=report&hours=24")
        saved = {}
        for name in ("JSON", "CSV"):
            async with page.expect_download() as download:
                await page.get_by_role("link", name=name).click()
            await (await download.value).save_as(tmp_path / name)
            saved[name] = (tmp_path / name).read_text()
        assert json.loads(saved["JSON"])["books"]["agree"] is True
        assert len(list(csv.reader(saved["CSV"].splitlines()))) > 1
        assert (made.complaints, made.foreign) == ([], [])


async def test_an_operator_sees_and_ends_the_sessions_of_others(
    visit: Visiting, operator: Person, payer: Callable[..., Awaitable[Person]]
) -> None:
    someone = await payer()
    async with visit() as theirs, visit() as made:
        await theirs.sign_in("account", someone.secret)
        await made.sign_in("admin", operator.secret)
        await made.page.get_by_role("link", name="Sessions").click()
        await made.page.get_by_role("combobox", name="Of").select_option("true")
        row = made.page.get_by_role("row").filter(has_text=someone.email)
        await row.get_by_role("button", name="End").click()
        await expect(row).to_have_count(0)
        await theirs.page.get_by_role("link", name="Usage").click()
        await expect(theirs.page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_axe_finds_nothing_on_any_view(
    visit: Visiting, operator: Person, site: Gateway, shared_database: str, sql: Any
) -> None:
    event = await _event(sql, shared_database, operator)
    async with visit() as made:
        await made.sign_in("admin", operator.secret)
        async with site.client(operator) as http:
            (of_key, *_) = (await http.get("/admin/audit-logs", params={"target_id": operator.key_id})).json()["data"]
        for view in [*VIEWS, f"security?org_id={operator.org_id}&open={event}", f"audit?open={of_key['id']}"]:
            await made.page.goto(f"{made.address}/admin#/{view}")
            await made.page.wait_for_load_state("networkidle")
            assert (view, await violations(made.page)) == (view, [])
        await made.page.goto(f"{made.address}/admin#/upstreams")
        await made.page.get_by_role("button", name="Add an upstream").click()
        assert await violations(made.page) == []
        assert (made.complaints, made.foreign) == ([], [])
