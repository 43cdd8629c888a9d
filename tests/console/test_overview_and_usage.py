"""The operators' overview and usage in a real Chromium: what they show is what the API says."""

import csv
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from console.browser import Visit, visiting
from console.conftest import Visiting
from console.test_playground import SCRIPT, Payer, violations
from gateway import Gateway, running
from people import Person
from sandbox.serving import a_chat, until
from tollgate.database.postgres import PostgresDoor
from usage import past
from usage.test_refused_calls import count, refused

pytestmark = pytest.mark.slow

MOST_REQUESTS_OF_THE_FIRST_VIEW = 5
MORE_THAN_OTHERS = 10**15
"""Nanos. The database has the rows of other tests too."""


NOTES_WHAT_IS_DRAWN = """
window.drawn = new Set();
const draws = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
  drawn.add(`${Math.round(y)} ${text}`);
  draws.apply(this, arguments);
};
"""
"""Where each label of the charts stands, and what it says."""


async def sign_in(made: Visit, operator: Person, view: str = "") -> None:
    await made.sign_in("admin", operator.secret)
    await expect(made.page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
    if view:
        await made.page.goto(f"{made.address}/admin#/{view}")


async def ask(site: Gateway, operator: Person, path: str, **query: str | int) -> Any:
    async with site.client(operator) as http:
        answer = await http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def customer(payer: Payer, shared_database: str, sql: Any) -> Person:
    """Named like a script, with five paid requests of the last minutes and one whose cost is unknown."""
    made = await payer()
    await sql(shared_database, "update tollgate.orgs set name = $2 where id = $1 returning 1", made.org_id, SCRIPT)
    await sql(shared_database, "update tollgate.api_keys set name = $2 where id = $1 returning 1", made.key_id, SCRIPT)
    now = datetime.now(UTC)
    paid = {"model": SCRIPT, "cost_nanos": MORE_THAN_OTHERS, "charge_nanos": MORE_THAN_OTHERS * 105 // 100}
    rows = [past.of(made, now - timedelta(minutes=n), streamed=n == 1, **paid) for n in range(1, 6)]
    waiting = past.still_open() | {"state": "unsettled", "expires_at": (now + timedelta(hours=1)).isoformat()}
    rows.append(past.of(made, now - timedelta(minutes=30), **waiting))
    await past.keep(shared_database, rows)
    return made


async def test_what_needs_attention_leads_to_the_request_and_back(
    visit: Visiting, site: Gateway, operator: Person, customer: Person
) -> None:
    async with visit() as made:
        await sign_in(made, operator)
        charge = made.page.locator(".tiles > div", has_text="Charge").locator("data").first
        await expect(charge).to_be_visible()
        await made.reload()
        await expect(charge).to_be_visible()
        assert 1 < len(made.asked) <= MOST_REQUESTS_OF_THE_FIRST_VIEW, made.asked
        overview = await ask(site, operator, "/admin/overview", hours=24)
        await expect(charge).to_have_attribute("value", str(overview["period"]["charge_nanos"]))

        await made.page.locator(".attention a", has_text="is unknown for more than 10 minutes").click()
        await expect(made.page).to_have_url(re.compile(r"#/usage\?state=unsettled$"))
        await made.page.goto(f"{made.page.url}&org_id={customer.org_id}")
        row = made.page.locator("tr.linked", has=made.page.get_by_title(customer.org_id))
        await expect(row).to_contain_text("unsettled")
        await row.get_by_role("link").first.click()
        side = made.page.get_by_role("complementary", name="Request")
        await expect(side).to_contain_text("It is not settled yet.")
        await made.page.reload()
        await expect(side.get_by_role("link", name=SCRIPT).first).to_be_visible()
        await made.page.go_back()
        await expect(side).to_have_count(0)
        await expect(row).to_be_visible()
        await made.page.go_back()
        await made.page.go_back()
        await expect(charge).to_be_visible()
        assert made.complaints == []
        assert made.foreign == []


async def test_the_file_has_the_requests_that_the_filters_leave(
    visit: Visiting, site: Gateway, operator: Person, customer: Person, tmp_path: Path
) -> None:
    async with visit() as made:
        await sign_in(made, operator, "usage?by=org&measure=requests")
        await made.page.get_by_role("combobox", name="Org", exact=True).fill(customer.org_id)
        await made.page.get_by_role("combobox", name="Org", exact=True).press("Enter")
        await made.page.get_by_role("combobox", name="State", exact=True).select_option("Settled")
        rows = made.page.get_by_role("region", name="Requests").locator("tbody tr")
        await expect(rows).to_have_count(5)
        groups = made.page.get_by_role("region", name="Groups").locator("tbody tr")
        await expect(groups).to_have_count(1)
        await expect(groups.locator("td").nth(1)).to_have_text("6")
        async with made.page.expect_download() as downloading:
            await made.page.get_by_role("link", name="CSV", exact=True).click()
        file = tmp_path / "usage.csv"
        await (await downloading.value).save_as(file)
        page = await ask(site, operator, "/admin/usage", hours=24, org_id=customer.org_id, state="settled")
        with file.open(newline="") as opened:
            *exported, total = csv.DictReader(opened)
        assert int(total["charge_nanos"]) == sum(row["charge_nanos"] for row in page["data"])
        for name in ("id", "charge_nanos", "charge_credits", "cost_nanos"):
            assert [row[name] for row in exported] == [str(row[name]) for row in page["data"]]

        await made.page.get_by_role("combobox", name="State", exact=True).select_option("Released, not charged")
        await expect(made.page.get_by_text("Nothing matches these filters.")).to_be_visible()
        await made.page.get_by_role("link", name="Clear the filters").click()
        await expect(made.page).to_have_url(re.compile(r"#/usage\?by=org&measure=requests$"))
        assert made.complaints == []


async def test_a_request_is_shown_from_its_hold_to_its_refund(
    visit: Visiting, site: Gateway, operator: Person, payer: Payer
) -> None:
    someone = await payer()
    await site.post(someone, a_chat("hello"), **{"idempotency-key": "once"})
    (row,) = (await ask(site, someone, "/user/usage"))["data"]
    async with site.client(operator, **{"idempotency-key": row["id"]}) as http:
        refund = {"request_id": row["id"], "credits": "0.000000007", "reason": SCRIPT}
        assert (await http.post("/admin/credits/refund", json=refund)).status_code == 200
    life = await ask(site, operator, f"/admin/usage/{row['id']}")
    async with visit() as made:
        await sign_in(made, operator, f"usage/{row['id']}")
        whole = made.page.locator(".life")
        for title, amounts in {
            "Hold": [life["hold"]["amount_nanos"]],
            "Settlement": [life["charge_nanos"], life["cost_nanos"], life["settlement"]["margin_nanos"], 7],
            "Ledger": [one["change_nanos"] for one in life["transfers"]],
        }.items():
            section = whole.locator("section", has=made.page.get_by_role("heading", name=title, exact=True))
            for nanos in amounts:
                await expect(section.locator(f'data.money[value="{nanos}"]').first).to_be_visible()
        await expect(whole).to_contain_text("The upstream stated its cost.")
        await expect(whole.locator(".steps").first).to_contain_text("openrouter")
        await expect(whole).to_contain_text("Kept for repetitions")
        await made.page.get_by_role("button", name="Show prompt and answer").click()
        await expect(whole).to_contain_text("None was kept.")

        await made.page.add_init_script(NOTES_WHAT_IS_DRAWN)
        await made.page.goto(f"{made.address}/admin#/usage?measure=requests&org_id={someone.org_id}")
        await made.page.reload()
        await expect(made.page.locator("table .swatch-1")).to_be_visible()
        await until(lambda: made.page.evaluate("drawn.size > 0"))
        drawn = [label.partition(" ") for label in await made.page.evaluate("[...drawn]")]
        assert sorted(text for _, _, text in drawn if text.isdigit()) == ["0", "1"]
        assert made.complaints == []


VIEWS = ["usage", "orgs", "users", "keys", "plans", "transfers", "models", "upstreams", "security", "audit", "system"]


async def test_a_new_installation_tells_its_operator_what_to_do_first(
    browser: Browser, site: Gateway, own_database: str
) -> None:
    door = PostgresDoor(own_database, pool_size=1, deadline_seconds=30)
    operator = Person(door, "admin")
    await operator.seed()
    await door.close()
    with running({"DATABASE_URL": own_database}, site.upstream) as gateway:
        async with visiting(browser, gateway.address) as made:
            await made.sign_in("admin", operator.secret)
            steps = made.page.locator(".panel", has=made.page.get_by_role("heading", name="First steps"))
            await expect(steps.get_by_role("link", name="Create an org")).to_be_visible()
            assert await violations(made.page) == []
            for view in VIEWS:
                await made.page.goto(f"{made.address}/admin#/{view}")
                await expect(made.page.locator(".view h1")).to_be_visible()
                await expect(made.page.locator(".waiting-lines, [aria-busy=true], .failure")).to_have_count(0)
            assert (made.complaints, made.foreign) == ([], [])


async def test_axe_finds_nothing_and_names_stay_text(
    visit: Visiting, site: Gateway, operator: Person, customer: Person
) -> None:
    await count(customer.door, refused(customer, model=SCRIPT))
    (row, *_) = (await ask(site, operator, "/admin/usage", org_id=customer.org_id))["data"]
    async with visit() as made:
        await sign_in(made, operator)
        await expect(made.page.get_by_text(SCRIPT).first).to_be_visible()
        assert await violations(made.page) == []
        await made.page.goto(f"{made.address}/admin#/usage?by=key&org_id={customer.org_id}&open={row['id']}&status=2xx")
        await expect(made.page.locator("aside .life")).to_be_visible()
        await expect(made.page.locator("table .swatch-1")).to_be_visible()
        await expect(made.page.locator("tr[aria-current]")).to_be_visible()
        assert await violations(made.page) == []
        await made.page.goto(f"{made.address}/admin#/usage/{row['id']}")
        await expect(made.page.locator(".panel .life")).to_contain_text(SCRIPT)
        assert await violations(made.page) == []
        await made.page.goto(f"{made.address}/admin#/usage?tab=refused&org_id={customer.org_id}")
        await made.page.get_by_role("region", name="Refused calls").locator("tbody a").first.click()
        await expect(made.page.get_by_role("complementary")).to_contain_text(SCRIPT)
        assert await violations(made.page) == []
        await expect(made.page).to_have_title("Console · Tollgate")
        assert made.complaints == []
