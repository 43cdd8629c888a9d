"""The console's views of alerts, and the account page's webhooks, in a real Chromium."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page, expect

from alerts import receivers
from alerts.receivers import Receiver, receiver
from completions.stage import CRON_SECRET
from console.browser import violations
from console.conftest import Visiting
from gateway import Gateway
from people import Person
from sandbox.serving import until
from tollgate.database import Door

SCRIPT = "<script>document.title='owned'</script> & 🦊"
MAY_BE_LOOKED_AT_AGAIN = "update tollgate.alert_scan set scanned_at = scanned_at - interval '1 minute'"
TABS = ["History", "Rules", "Silences", "Deliveries"]

pytestmark = pytest.mark.slow


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


async def test_a_channel_that_fails_fires_is_told_acknowledged_and_silenced(
    visit: Visiting, operator: Person, site: Gateway, hook: Receiver, shared_database: str, sql: Any
) -> None:
    broken, working = f"{SCRIPT} {secrets.token_hex(4)}", f"on-call {secrets.token_hex(4)}"
    async with visit() as made, site.client(operator) as http, receiver(receivers.ERROR) as refuses:
        page, dialog, side = made.page, made.page.get_by_role("dialog"), made.page.get_by_role("complementary")
        await made.sign_in("admin", operator.secret)
        await page.get_by_role("navigation").get_by_role("link", name="Alerts").first.click()
        await page.get_by_role("link", name="Channels").click()
        secret = await _add(page, working, hook.url)
        assert secret.startswith("whsec_")
        await side.get_by_role("button", name="Send a test").click()
        await expect(side.get_by_text("The receiver took the test")).to_be_visible()
        assert hook.received[0].json["type"] == "channel.test"
        assert await violations(page) == []
        await side.get_by_role("button", name="Close").click()

        await _add(page, broken, refuses.url)
        for tests in range(1, 4):
            await side.get_by_role("button", name="Send a test").click()
            await until(lambda tests=tests: _received(refuses, tests))
            await expect(side.get_by_text("The test was not taken")).to_be_visible()
        await expect(side.get_by_text("The last 3 attempts failed")).to_be_visible()
        channel = (await page.evaluate("location.hash")).partition("open=")[2]

        async def fires() -> bool:
            await sql(shared_database, MAY_BE_LOOKED_AT_AGAIN)
            await http.post("/internal/sweep", headers={"authorization": f"Bearer {CRON_SECRET}"})
            found = await http.get("/admin/alerts", params={"subject": channel, "state": "firing"})
            return bool(found.json()["data"]) and len(hook.received) > 1

        await until(fires)
        assert (await http.get("/auth/me")).json()["firing_alerts"] > 0
        await page.get_by_role("link", name="Overview").click()
        await expect(page.get_by_role("navigation", name="Views").get_by_text("firing")).to_be_visible()
        await page.locator(".attention a", has_text="Alerts firing").click()
        await expect(page.get_by_role("heading", name="Alerts")).to_be_visible()
        await page.goto(f"{made.address}/admin#/alerts?subject={channel}")
        row = page.get_by_role("row").filter(has_text=broken)
        await expect(row).to_contain_text("at least 3")
        await row.get_by_role("button", name="Acknowledge").click()
        await dialog.get_by_label("Note").fill(SCRIPT)
        await dialog.get_by_role("button", name="Acknowledge").click()
        await expect(row).to_contain_text("acknowledged")
        await row.get_by_role("button", name="Silence").click()
        await dialog.get_by_label("Reason").fill(f"Moved: {channel}")
        await dialog.get_by_role("button", name="Silence").click()
        await expect(row).to_contain_text("silenced")
        assert await violations(page) == []

        await row.get_by_role("link", name="A channel fails").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("firing")
        await expect(page.get_by_text(SCRIPT, exact=True)).to_be_visible()
        told = page.get_by_role("row").filter(has_text="firing").get_by_role("link", name=working)
        assert await violations(page) == []
        await told.click()
        before = len(hook.received)
        await side.get_by_role("button", name="Send again").click()
        await until(lambda: _swept(http, hook, before + 1))
        assert hook.received[-1].headers["webhook-id"] == hook.received[before - 1].headers["webhook-id"]

        await page.goto(f"{made.address}/admin#/alerts?tab=silences&state=active")
        silence = page.get_by_role("row").filter(has_text=channel)
        await silence.get_by_role("button", name="End").click()
        await expect(silence).to_have_count(0)
        for tab in TABS:
            link = page.get_by_role("navigation", name="Alerts").get_by_role("link", name=tab)
            await link.click()
            await expect(link).to_have_attribute("aria-current", "page")
            assert (tab, await violations(page)) == (tab, [])
        assert (made.complaints, made.foreign) == ([], [])


async def _add(page: Page, name: str, url: str) -> str:
    """Adds a webhook, and answers its secret."""
    dialog = page.get_by_role("dialog")
    await page.get_by_role("button", name="Add a channel").click()
    await dialog.get_by_label("Name", exact=True).fill(name)
    await dialog.get_by_label("URL").fill(url)
    await dialog.get_by_label("Only these rules").fill("channel_failing")
    await dialog.get_by_role("button", name="Add", exact=True).click()
    secret = await dialog.locator(".secret code").inner_text()
    await dialog.get_by_role("button", name="I stored it").click()
    return secret


async def _received(hook: Receiver, times: int) -> bool:
    return len(hook.received) >= times


async def _swept(http: Any, hook: Receiver, times: int) -> bool:
    await http.post("/internal/sweep", headers={"authorization": f"Bearer {CRON_SECRET}"})
    return len(hook.received) >= times


async def test_an_owner_adds_a_webhook_whose_secret_is_shown_once_and_tests_it(
    visit: Visiting, payer: Callable[..., Awaitable[Person]], postgres_door: Door
) -> None:
    someone, without_scope = await payer(), Person(postgres_door, scopes=["chat", "usage"])
    await without_scope.seed()
    async with visit(width=360) as made, visit() as theirs:
        page, dialog, side = made.page, made.page.get_by_role("dialog"), made.page.get_by_role("complementary")
        await made.sign_in("account#/webhooks", someone.secret)
        await page.get_by_role("button", name="Add a webhook").click()
        await dialog.get_by_label("Name", exact=True).fill(SCRIPT)
        await dialog.get_by_label("URL").fill("http://127.0.0.1/hook")
        await dialog.get_by_label("A key was created").uncheck()
        await dialog.get_by_role("button", name="Add", exact=True).click()
        await expect(dialog.get_by_label("URL")).to_have_attribute("aria-invalid", "true")
        assert await violations(page) == []
        await dialog.get_by_label("URL").fill("https://receiver.invalid/hook")
        await dialog.get_by_role("button", name="Add", exact=True).click()
        secret = await dialog.locator(".secret code").inner_text()
        await dialog.get_by_role("button", name="I stored it").click()
        await expect(side).to_contain_text(secret[-4:])
        assert secret not in await page.content()
        await side.get_by_role("button", name="Send a test").click()
        await expect(side.get_by_role("status").last).to_contain_text("its host name is not known")
        assert await violations(page) == []

        await side.get_by_role("link", name="what it was told").click()
        await page.get_by_role("link", name="channel.test").click()
        await expect(side.get_by_role("heading", name="Message")).to_be_visible()
        assert await violations(page) == []
        await page.go_back()
        await page.go_back()
        await side.get_by_role("button", name="Delete").click()
        await dialog.get_by_role("textbox").fill(SCRIPT)
        await dialog.get_by_role("button", name="Delete").click()
        await expect(page.get_by_text("There is no webhook.")).to_be_visible()

        await theirs.sign_in("account", without_scope.secret)
        assert (await theirs.page.evaluate("fetch('auth/me').then((one) => one.json())"))["firing_alerts"] is None
        await expect(theirs.page.get_by_role("link", name="Usage").first).to_be_visible()
        await expect(theirs.page.get_by_role("link", name="Webhooks")).to_have_count(0)
        assert (made.complaints, made.foreign, theirs.complaints) == ([], [], [])
