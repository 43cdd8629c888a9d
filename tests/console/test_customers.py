"""Orgs, users, keys, plans and transfers in the console of operators, in a real Chromium."""

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, Route, expect

from console.browser import visiting
from console.conftest import Visiting
from console.test_playground import SCRIPT, violations
from gateway import Gateway, running
from people import Person
from sandbox.serving import a_chat
from servers.postgrest import token
from servers.relay import Relay

Payer = Callable[..., Awaitable[Person]]

pytestmark = pytest.mark.slow


async def press(page: Page | Locator, name: str) -> None:
    await page.get_by_role("button", name=name, exact=True).click()


async def choose(page: Page, field: Locator, typed: str) -> None:
    """Takes the first suggestion of a field that wants an id."""
    await field.fill(typed)
    suggestions = page.locator("datalist option", has_text=typed)
    await expect(suggestions).to_have_count(1)
    await field.fill(await suggestions.get_attribute("value") or "")


def tab(page: Page, name: str) -> Locator:
    return page.get_by_role("navigation", name="Sections").get_by_role("link", name=name, exact=True)


def figure(page: Page, name: str) -> Locator:
    return page.locator(".tiles > div", has_text=name).locator("data")


@pytest.fixture(params=["postgres", "supabase"])
def either_site(request: pytest.FixtureRequest, site: Gateway) -> Iterator[Gateway]:
    """The server, and another one before the same database, through a real PostgREST."""
    if request.param == "postgres":
        yield site
        return
    supabase_api: Relay = request.getfixturevalue("supabase_api")
    supabase_api.restore()
    database = {
        "SUPABASE_URL": f"http://127.0.0.1:{supabase_api.port}",
        "SUPABASE_SECRET_KEY": token("service_role"),
    }
    with running(database, site.upstream) as made:
        yield made


async def test_a_new_customer_is_set_up_pays_for_a_request_and_is_refunded_through_either_door(
    browser: Browser, operator: Person, either_site: Gateway, shared_database: str, sql: Any
) -> None:
    name = f"{SCRIPT} {operator.number}"
    async with visiting(browser, either_site.address) as made:
        page = made.page
        await made.sign_in("admin#/orgs", operator.secret)
        await press(page, "Create an org")
        await page.get_by_role("dialog").get_by_label("Name").fill(name)
        await expect(page.get_by_role("dialog").get_by_label("Plan")).to_have_value("free")
        await press(page, "Create")
        await expect(page.get_by_role("heading", level=1)).to_contain_text(name)
        org_id = page.url.rpartition("/")[2]

        await press(page, "Grant credits")
        dialog = page.get_by_role("dialog")
        await dialog.get_by_role("textbox", name="Credits").fill("2.5")
        await dialog.get_by_label("Reason").fill("Invoice 1042")
        await expect(dialog.locator(".before-after data")).to_have_text(["0.00", "2.50"])
        await press(dialog, "Grant")
        await expect(dialog).to_have_count(0)
        await expect(figure(page, "Available")).to_have_text("2.50")

        await tab(page, "Users").click()
        await press(page, "Create a user")
        email = f"{org_id}@example.com"
        await dialog.get_by_label("Email").fill(email)
        await dialog.get_by_label("Name").fill(SCRIPT)
        await press(dialog, "Create")
        await expect(page).to_have_url(re.compile("#/users/"))
        await expect(page.get_by_role("heading", level=1)).to_contain_text(SCRIPT)

        await page.goto(f"{made.address}/admin#/keys")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Keys")
        await press(page, "Create a key")
        await choose(page, dialog.get_by_label("User"), email)
        await dialog.get_by_label("Name").fill(SCRIPT)
        await dialog.get_by_label("Budget in credits").fill("1")
        await press(dialog, "Create")
        await expect(dialog).to_contain_text(f"The key {SCRIPT} is created")
        secret = await dialog.locator(".secret code").first.inner_text()
        await page.keyboard.press("Escape")
        await press(dialog, "I stored it")
        await expect(dialog).to_have_count(0)
        await expect(page.locator("tbody tr").get_by_role("link", name=name)).to_be_visible()

        customer = Person(operator.door)
        customer.secret = secret
        paid = await either_site.post(customer, a_chat())
        request_id = paid.headers["x-request-id"]
        await page.goto(f"{made.address}/admin#/orgs/{org_id}")
        charge = page.locator("tbody tr", has_text=request_id).filter(has_text="charge")
        charged = await sql(shared_database, "select charge_nanos from tollgate.requests where id = $1", request_id)
        await expect(charge.locator("data").first).to_have_attribute("value", str(-charged))
        await press(charge, "Refund")
        await dialog.get_by_label("Reason").fill("The answer was cut off")
        await expect(dialog.locator(".before-after data").last).to_have_attribute("value", str(25 * 10**8))
        await press(dialog, "Refund")
        await expect(figure(page, "Available")).to_have_attribute("value", str(25 * 10**8))
        await expect(charge.get_by_role("button", name="Refund")).to_have_count(0)
        await press(page.locator(".heading"), "Refund")
        await dialog.get_by_label("Request id").fill(request_id)
        await press(dialog, "Find the charge")
        await expect(dialog).to_contain_text("Nothing is left to refund")
        assert made.complaints == []
        assert made.foreign == []


AGED = "update tollgate.sessions set created_at = created_at - interval '16 minutes' where user_id = $1 returning 1"


async def test_an_amount_waits_for_a_fresh_sign_in_and_is_moved_once_though_sent_again(
    visit: Visiting, operator: Person, payer: Payer, shared_database: str, sql: Any
) -> None:
    someone = await payer()
    async with visit() as made:
        page = made.page
        await made.sign_in(f"admin#/orgs/{someone.org_id}", operator.secret)
        await sql(shared_database, AGED, operator.user_id)
        await press(page, "Adjust")
        dialog = page.get_by_role("dialog", name="Adjust")
        await dialog.get_by_role("textbox", name="Credits").fill("none")
        await expect(dialog.get_by_role("button", name="Adjust")).to_be_disabled()
        await dialog.get_by_role("textbox", name="Credits").fill("-0.25")
        await dialog.get_by_label("Reason").fill("Paid twice")
        await expect(dialog.locator(".before-after data")).to_have_text(["1.00", "0.75"])

        async def lose_the_answer(route: Route) -> None:
            await route.fetch()
            await route.abort()

        await press(dialog, "Adjust")
        again = page.get_by_role("dialog", name="Sign in again")
        await again.locator("[name=key]").fill(operator.secret)
        await page.route("**/admin/credits/adjust", lose_the_answer, times=1)
        await press(again, "Sign in")
        await expect(dialog.get_by_role("alert")).to_contain_text("could not be reached")
        await press(dialog, "Adjust")
        await expect(dialog).to_have_count(0)
        await expect(figure(page, "Available")).to_have_text("0.75")
    moved = "select array_agg(amount_nanos) from tollgate.transfers where org_id = $1 and kind = 'adjustment'"
    assert await sql(shared_database, moved, someone.org_id) == [25 * 10**7]


async def test_what_can_be_undone_is_done_at_once_and_what_is_final_is_typed(
    visit: Visiting, operator: Person, payer: Payer
) -> None:
    someone = await payer()
    async with visit() as made:
        page = made.page
        state = page.locator("h1 .status")
        await made.sign_in(f"admin#/orgs/{someone.org_id}", operator.secret)
        await press(page, "Suspend")
        await expect(state).to_have_text("suspended")
        await press(page, "Undo")
        await expect(state).to_have_text("active")

        await tab(page, "Limits").click()
        own = page.locator("tbody tr", has_text="Requests a minute").locator("td")
        before = await own.nth(2).inner_text()
        await press(page, "Set limits")
        await page.get_by_label("Requests a minute").fill("7")
        await press(page.get_by_role("dialog"), "Set limits")
        await expect(own.nth(2)).to_have_text("7")
        await expect(own.nth(3)).to_have_text("org")
        await press(page, "Undo")
        await expect(own.nth(2)).to_have_text(before)

        await page.goto(f"{made.address}/admin#/users?tab=limits")
        of_members = page.locator(".panel", has=page.get_by_role("heading", name="Each member"))
        of_days = of_members.locator("tbody tr", has_text="Requests a day").locator("td")
        await press(of_members, "Set limits")
        await page.get_by_label("Requests a day").fill("1000000")
        await press(page.get_by_role("dialog"), "Set limits")
        await expect(of_days).to_have_text(["Requests a day", "1,000,000", "1,000,000", "role"])
        await press(page, "Undo")
        await expect(of_days.last).to_have_text("–")

        await page.goto(f"{made.address}/admin#/keys?org_id={someone.org_id}&open={someone.key_id}")
        panel = page.locator("aside.side")
        await press(panel, "Disable")
        await expect(panel.locator(".status").first).to_have_text("disabled")
        await press(page, "Undo")
        await expect(panel.locator(".status").first).to_have_text("active")
        await press(panel, "Revoke")
        dialog = page.get_by_role("dialog")
        revoke = dialog.get_by_role("button", name="Revoke")
        await dialog.get_by_role("textbox").fill("of the tests")
        await expect(revoke).to_be_disabled()
        await dialog.get_by_role("textbox").fill("Of the tests")
        await revoke.click()
        await expect(panel.locator(".status").first).to_have_text("revoked")
        await expect(panel.get_by_role("button", name="Rotate")).to_have_count(0)
        assert made.complaints == []


async def test_a_refused_change_without_a_form_says_why(
    visit: Visiting, operator: Person, payer: Payer, site: Gateway
) -> None:
    someone = await payer()
    async with visit() as made, site.client(operator) as elsewhere:
        await made.sign_in(f"admin#/keys?open={someone.key_id}", operator.secret)
        panel = made.page.locator("aside.side")
        await expect(panel.get_by_role("button", name="Disable")).to_be_visible()
        await elsewhere.delete(f"/admin/keys/{someone.key_id}")
        await press(panel, "Disable")
        await expect(made.page.locator(".toast")).to_contain_text("revoked")
        assert made.complaints == []


async def test_a_user_signs_in_with_a_link_that_is_shown_once(visit: Visiting, operator: Person, payer: Payer) -> None:
    someone = await payer()
    async with visit() as made, visit() as other:
        page = made.page
        await made.sign_in(f"admin#/users/{someone.user_id}", operator.secret)
        await press(page, "Create a sign-in link")
        await press(page.get_by_role("dialog"), "Create")
        secret = page.get_by_role("dialog").locator(".secret code")
        link = await secret.inner_text()
        await press(page, "I stored it")
        await expect(secret).to_have_count(0)

        await other.page.goto(f"{made.address}/account#{link.partition('#')[2]}")
        await expect(other.page.locator("main.view")).to_be_visible()
        await tab(page, "Sessions").click()
        session = page.locator("tbody tr", has_text=someone.email)
        await expect(session).to_contain_text("link")
        await press(session, "End")
        await expect(session).to_have_count(0)
        await other.page.get_by_role("link", name="Keys", exact=True).click()
        await expect(other.page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_back_reload_and_a_pasted_address_restore_a_list(visit: Visiting, operator: Person, payer: Payer) -> None:
    someone, _ = await payer(), await payer()
    async with visit() as made, visit() as other:
        page = made.page
        await made.sign_in("admin#/users", operator.secret)
        await page.get_by_label("Find by email or name").fill(someone.number)
        rows = page.locator("tbody tr")
        await expect(rows).to_have_count(1)
        await page.get_by_label("Role").select_option("member")
        await page.get_by_role("link", name="Created").click()
        await expect(page).to_have_url(re.compile(f"q={someone.number}&role=member&sort=created_at"))
        await page.reload()
        await expect(rows).to_have_count(1)
        await expect(page.get_by_label("Find by email or name")).to_have_value(someone.number)
        await expect(page.get_by_role("columnheader", name="Created")).to_have_attribute("aria-sort", "ascending")
        await page.get_by_label("Role").select_option("admin")
        await expect(page.get_by_text("Nothing matches these filters.")).to_be_visible()
        await page.go_back()
        await rows.get_by_role("link").first.click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text(someone.email)
        await page.go_back()
        await expect(rows).to_have_count(1)

        await rows.get_by_role("link").first.click()
        await page.locator("tbody tr").get_by_role("link").first.click()
        await expect(page.locator("aside.side")).to_contain_text(someone.key_id)
        await other.sign_in("admin", operator.secret)
        await other.page.goto(page.url)
        await expect(other.page.locator("aside.side")).to_contain_text(someone.key_id)
        await page.go_back()
        await expect(page.locator("aside.side")).to_have_count(0)
        assert made.complaints == other.complaints == []


VIEWS = [
    "orgs",
    "orgs?q=nobody-has-this-name",
    "orgs/{org}",
    "orgs/{org}/usage",
    "orgs/{org}/limits",
    "orgs/{org}/users",
    "orgs/{org}/keys",
    "orgs/{org}/upstream-keys",
    "orgs/{org}/details",
    "orgs/org_missing",
    "users",
    "users?tab=limits",
    "users/{user}",
    "users/{user}/usage",
    "users/{user}/limits",
    "users/{user}/sessions",
    "keys?open={key}",
    "plans?open=free",
    "transfers",
]


async def test_axe_finds_nothing_with_customers(visit: Visiting, operator: Person, payer: Payer) -> None:
    someone = await payer()
    found = []
    async with visit() as made:
        page = made.page
        await page.emulate_media(reduced_motion="reduce")
        await made.sign_in("admin#/orgs", operator.secret)
        for view in VIEWS:
            ids = {"org": someone.org_id, "user": someone.user_id, "key": someone.key_id}
            await page.goto(f"{made.address}/admin#/{view.format(**ids)}")
            await expect(page.locator(".waiting-lines, [aria-busy=true]")).to_have_count(0)
            found += await violations(page)
        for button in ("Grant credits", "Adjust", "Refund", "Edit", "Change the plan", "Delete"):
            await page.goto(f"{made.address}/admin#/orgs/{someone.org_id}")
            await press(page, button)
            found += await violations(page)
            await page.keyboard.press("Escape")
        await page.goto(f"{made.address}/admin#/keys")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Keys")
        await press(page, "Create a key")
        assert found + await violations(page) == []
        assert made.complaints == []
