"""The account page in a real Chromium, before a real server, Postgres and sandbox."""

import csv
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from console.browser import tab_to, violations
from console.conftest import Visiting
from gateway import CHAT, Gateway
from people import Person
from sandbox.serving import a_chat
from usage import past

Payer = Callable[..., Awaitable[Person]]
SCRIPT = "<script>document.title='owned'</script> & 🦊"
ROWS_OF_A_PAGE = 50
MOST_REQUESTS_OF_THE_FIRST_VIEW = 5
VIEWS = ["", "usage", "transactions", "keys", "upstream-keys", "limits", "connect", "audit", "sessions", "nowhere"]

pytestmark = pytest.mark.slow


async def test_the_secret_of_a_new_key_is_shown_until_it_is_stored_and_then_never(
    visit: Visiting, payer: Payer, site: Gateway
) -> None:
    someone = await payer()
    async with visit() as made:
        page = made.page
        await made.sign_in("account", someone.secret)
        await page.get_by_role("link", name="Keys", exact=True).click()
        await page.get_by_role("button", name="Create a key").click()
        await page.get_by_label("Name", exact=True).fill(SCRIPT)
        await page.get_by_role("button", name="Create", exact=True).click()
        dialog = page.get_by_role("dialog")
        secret = await dialog.locator(".secret code").first.inner_text()
        await page.keyboard.press("Escape")
        await page.keyboard.press("Escape")
        await page.mouse.click(5, 5)
        await expect(dialog).to_contain_text("I stored it")
        await dialog.get_by_role("button", name="I stored it").click()
        await expect(page.get_by_role("link", name=SCRIPT)).to_be_visible()
        await expect(page).to_have_title("Account · Tollgate")
        assert secret not in await page.content()
        assert (made.complaints, made.foreign) == ([], [])
    async with site.client(someone, authorization=f"Bearer {secret}") as http:
        assert (await http.post(CHAT, json=a_chat())).status_code == 200


async def test_a_key_is_disabled_and_enabled_again_rotated_and_revoked_by_its_name(
    visit: Visiting, payer: Payer, site: Gateway
) -> None:
    someone = await payer()
    async with visit() as made:
        page = made.page
        await made.sign_in("account", someone.secret)
        made_key = await _create(page, "Old")
        await page.get_by_role("link", name="Old", exact=True).click()
        side = page.get_by_role("complementary", name="Old")
        await side.get_by_role("button", name="Disable").click()
        await expect(side).to_contain_text("disabled")
        assert await _status(site, someone, made_key) == 401
        await page.get_by_role("button", name="Undo").click()
        await expect(side.get_by_role("button", name="Disable")).to_be_visible()
        assert await _status(site, someone, made_key) == 200

        await side.get_by_role("button", name="Rotate").click()
        await page.get_by_label("The old key works for (hours)").fill("0")
        await page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
        rotated = await _stored(page)
        assert (await _status(site, someone, made_key), await _status(site, someone, rotated)) == (401, 200)

        await page.goto(f"{made.address}/account#/keys?status=active")
        await expect(page.get_by_role("link", name="Old", exact=True)).to_have_count(1)
        await page.get_by_role("link", name="Old", exact=True).click()
        await side.get_by_role("button", name="Revoke").click()
        revoke = page.get_by_role("dialog").get_by_role("button", name="Revoke")
        await expect(revoke).to_be_disabled()
        await page.get_by_label("Type Old to confirm").fill("Old")
        await revoke.click()
        await expect(page.get_by_role("link", name="Old", exact=True)).to_have_count(0)
        assert await _status(site, someone, rotated) == 401
        assert (made.complaints, made.foreign) == ([], [])


async def _create(page: Page, name: str) -> str:
    """The secret of a new key."""
    await page.get_by_role("link", name="Keys", exact=True).click()
    await page.get_by_role("button", name="Create a key").click()
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_role("button", name="Create", exact=True).click()
    return await _stored(page)


async def _stored(page: Page) -> str:
    secret = await page.get_by_role("dialog").locator(".secret code").first.inner_text()
    await page.get_by_role("button", name="I stored it").click()
    return secret


async def _status(site: Gateway, someone: Person, secret: str) -> int:
    async with site.client(someone, authorization=f"Bearer {secret}") as http:
        return (await http.get("/user/balance")).status_code


async def test_the_csv_has_the_rows_of_the_api_with_the_filters_of_the_page(
    visit: Visiting, payer: Payer, site: Gateway, tmp_path: Path
) -> None:
    someone = await payer()
    for model in ("sandbox/echo", "sandbox/echo", "sandbox/long-context"):
        assert (await site.post(someone, a_chat(model=model))).status_code == 200
    async with site.client(someone) as http:
        query = {"model": "sandbox/echo", "hours": 168}
        rows = (await http.get("/user/usage", params=query)).json()["data"]
    async with visit() as made:
        await made.sign_in("account", someone.secret)
        await made.page.goto(f"{made.address}/account#/usage?model=sandbox%2Fecho")
        await expect(made.page.locator("tbody tr")).to_have_count(2)
        async with made.page.expect_download() as download:
            await made.page.get_by_role("link", name="CSV").click()
        file = tmp_path / "usage.csv"
        await (await download.value).save_as(file)
    with file.open(newline="") as opened:
        saved = [row for row in csv.DictReader(opened) if row["id"].startswith("req_")]
    assert len(rows) == 2
    assert sorted((row["id"], row["charge_credits"]) for row in saved) == sorted(
        (row["id"], row["charge_credits"]) for row in rows
    )


async def test_a_session_ended_elsewhere_is_out_at_the_next_click(visit: Visiting, payer: Payer) -> None:
    someone = await payer()
    async with visit() as first, visit() as second:
        await first.sign_in("account", someone.secret)
        await second.sign_in("account", someone.secret)
        await second.page.get_by_role("link", name="Sessions").click()
        await second.page.get_by_role("button", name="End", exact=True).click()
        await expect(second.page.locator("tbody tr")).to_have_count(1)
        await first.page.get_by_role("link", name="Transactions").click()
        await expect(first.page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert (first.complaints, second.complaints) == ([], [])


async def test_reload_back_and_a_pasted_link_show_the_same_view(visit: Visiting, payer: Payer) -> None:
    someone = await payer()
    async with visit() as made:
        page, side = made.page, made.page.get_by_role("complementary", name="Of the tests")
        await made.sign_in("account", someone.secret)
        deep = f"{made.address}/account#/keys?status=active&open={someone.key_id}"
        await page.goto(deep)
        await expect(side).to_be_visible()
        await expect(page.get_by_label("State")).to_have_value("active")
        await page.route("**/auth/me", lambda lost: lost.abort(), times=1)
        await page.reload()
        await expect(page.get_by_role("alert")).to_contain_text("could not be reached")
        await page.get_by_role("button", name="Try again").click()
        await expect(side).to_be_visible()
        await side.get_by_role("button", name="Close").click()
        await expect(side).to_have_count(0)
        await page.go_back()
        await expect(side).to_be_visible()
        assert page.url == deep
        await page.goto(f"{made.address}/account#/nowhere")
        await expect(page.get_by_role("heading", name="There is no such view")).to_be_visible()


async def test_a_request_older_than_the_list_opens_from_its_refund_and_the_first_view_asks_for_little(
    visit: Visiting, payer: Payer, operator: Person, site: Gateway, shared_database: str
) -> None:
    someone, now = await payer(), datetime.now(UTC)
    old, *newer = (past.of(someone, now - timedelta(hours=50 - hour / 2)) for hour in range(ROWS_OF_A_PAGE + 1))
    await past.keep(shared_database, [old, *newer])
    async with site.client(operator, **{"idempotency-key": old["id"]}) as http:
        refund = {"request_id": old["id"], "credits": "0.000000007", "reason": SCRIPT}
        assert (await http.post("/admin/credits/refund", json=refund)).status_code == 200
    async with visit() as made:
        page = made.page
        await made.sign_in("account", someone.secret)
        await made.reload()
        await page.get_by_role("region", name="Usage by model").wait_for()
        await page.wait_for_load_state("networkidle")
        assert 1 < len(made.loaded) <= MOST_REQUESTS_OF_THE_FIRST_VIEW, made.loaded

        await page.get_by_role("link", name="Transactions").click()
        await page.locator("tbody tr", has_text="refund").get_by_role("link", name=old["id"]).click()
        await expect(page.get_by_role("region", name="Requests").locator("tbody tr")).to_have_count(ROWS_OF_A_PAGE)
        await expect(page.locator("tr[aria-current]")).to_have_count(0)
        side = page.get_by_role("complementary", name="Request")
        await expect(side).to_contain_text(old["id"])
        for nanos in (old["charge_nanos"], 7, -old["charge_nanos"]):
            await expect(side.locator(f'data.money[value="{nanos}"]').first).to_be_visible()
        await page.goto(f"{made.address}/account#/usage?open=req_of_somebody_else")
        await expect(side.get_by_role("alert")).to_be_visible()
        assert (made.complaints, made.foreign) == ([], [])


async def test_a_key_is_created_with_the_keyboard_alone(visit: Visiting, payer: Payer) -> None:
    someone = await payer()
    async with visit() as made:
        page = made.page
        await page.goto(f"{made.address}/account")
        await tab_to(page.locator("[name=key]"))
        await page.keyboard.type(someone.secret)
        await page.keyboard.press("Enter")
        await page.locator(".view h1").wait_for()
        await tab_to(page.get_by_role("link", name="Keys", exact=True))
        await page.keyboard.press("Enter")
        await tab_to(page.get_by_role("button", name="Create a key"))
        await page.keyboard.press("Enter")
        await tab_to(page.get_by_label("Name", exact=True))
        await page.keyboard.type("By keyboard")
        await page.keyboard.press("Enter")
        await tab_to(page.get_by_role("button", name="I stored it"))
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("link", name="By keyboard")).to_be_visible()


async def test_empty_lists_say_what_to_do_next(visit: Visiting, operator: Person) -> None:
    async with visit() as made:
        page = made.page
        await made.sign_in("account", operator.secret)
        for view in ("usage", "transactions", "upstream-keys", "webhooks?tab=deliveries", "webhooks"):
            await page.goto(f"{made.address}/account#/{view}")
            await expect(page.locator(".nothing-here > :is(.button, button)")).to_be_visible()
        await page.get_by_role("button", name="Add the first webhook").click()
        dialog = page.get_by_role("dialog", name="Add a webhook")
        await dialog.get_by_label("Name").fill("mine")
        await dialog.get_by_label("URL").fill("https://1.1.1.1/hook")
        await dialog.get_by_role("button", name="Add", exact=True).click()
        await page.get_by_role("button", name="I stored it").click()
        await expect(page.get_by_role("row", name="mine")).to_be_visible()
        assert (made.complaints, made.foreign) == ([], [])


async def test_axe_finds_nothing_on_any_view(visit: Visiting, payer: Payer, site: Gateway) -> None:
    someone = await payer()
    answer = await site.post(someone, a_chat())
    assert answer.status_code == 200
    request = answer.headers["x-tollgate-request-id"]
    async with visit() as made:
        await made.page.goto(f"{made.address}/account")
        await made.page.locator("[name=key]").wait_for()
        assert await violations(made.page) == []
        await made.page.get_by_role("group").get_by_text("Password").click()
        await made.page.locator("[name=password]").wait_for()
        assert await violations(made.page) == []
        await made.sign_in("account", someone.secret)
        for view in [*VIEWS, f"usage?open={request}", f"keys?open={someone.key_id}"]:
            await made.page.goto(f"{made.address}/account#/{view}")
            await made.page.wait_for_load_state("networkidle")
            assert (view, await violations(made.page)) == (view, [])
        await made.page.get_by_role("button", name="Edit").click()
        assert await violations(made.page) == []
        assert (made.complaints, made.foreign) == ([], [])
