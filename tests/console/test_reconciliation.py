"""Operators reconcile a day in the console, down to a request, and look at backups and processes."""

import secrets
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect

from console.browser import violations, visiting
from gateway import running
from reconciliation.installation import Installation, installed
from tollgate.health import store as health

pytestmark = pytest.mark.slow

BACKUP = """
insert into tollgate.backups (digest, file, bytes, created_at, made_here, as_of, verified_at, is_sound, faults)
values ($1, 'nightly.dump', 1000, now(), true, now() - interval '9 days', now(), false, '["it is 9.0 days old"]')
"""
PROCESS = "<script>web.1:7"
SAMPLE = {
    "cpu_percent": 41.0, "process_cpu_percent": 12.0, "memory_total_bytes": 2**30, "memory_used_bytes": 2**29,
    "memory_source": "container", "process_memory_bytes": 2**27, "disk_total_bytes": 100, "disk_used_bytes": 40,
    "loop_delay_ms": 3.5, "kind": "server",
}  # fmt: skip


@pytest.fixture
async def installation(own_database: str) -> AsyncIterator[Installation]:
    """Yesterday it had a call without a fault, one whose settlement was lost, and one that was estimated."""
    async with installed(own_database) as made:
        await made.call("sandbox/words")
        await made.call("sandbox/echo", "no-usage,no-generation")
        await made.call("sandbox/reasoner", "no-usage,no-id")
        await made.settle()
        made.end_the_day()
        yield made


async def test_a_day_is_reconciled_from_the_page_down_to_a_request(
    installation: Installation, browser: Browser
) -> None:
    lost = await installation.sql("select id from tollgate.requests where model = 'sandbox/echo'")
    digest = secrets.token_hex(32)
    await installation.sql(BACKUP, digest)
    for _ in range(2):
        await installation.sql("update tollgate.process_samples set sampled_at = sampled_at - interval '1 hour'")
        await health.record_process(installation.door, PROCESS, SAMPLE, 1000)
    more = {"OPENROUTER_MANAGEMENT_KEY": "sk-or-v1-of-the-management"}
    with running({"DATABASE_URL": installation.url}, installation.upstream, **more) as site:
        async with visiting(browser, site.address) as made:
            page, side = made.page, made.page.get_by_role("complementary")
            await made.sign_in("admin", installation.admin.secret)
            await page.get_by_role("link", name="Reconciliation").click()
            await expect(page.get_by_text("No day was reconciled yet.")).to_be_visible()
            await page.get_by_role("button", name="Reconcile a day").click()
            await page.get_by_label("Day (UTC)").fill(str(installation.day))
            await page.get_by_role("dialog").get_by_role("button", name="Reconcile").click()
            await expect(page.locator(".tiles")).to_contain_text("explained")
            models = page.get_by_role("region", name="By model")
            await expect(models.get_by_role("row").filter(has_text="sandbox/words")).to_contain_text("agrees")
            for cause in ("Missing generation", "Estimated"):
                await expect(page.locator(".causes").filter(has_text=cause)).to_contain_text("1 request")
            await page.get_by_role("link", name=lost).press("Enter")
            await expect(side).to_contain_text("OpenRouter has no record of it")
            assert await violations(page) == []
            await page.keyboard.press("Escape")
            await page.get_by_role("link", name="All days").click()
            await expect(page.get_by_role("row").filter(has_text="explained")).to_have_count(1)
            assert await violations(page) == []

            await page.goto(f"{site.address}/admin#/system?tab=backups")
            await expect(page.get_by_text("No backup was verified")).to_be_visible()
            await page.get_by_role("link", name="nightly.dump").click()
            await expect(side).to_contain_text("it is 9.0 days old")
            assert await violations(page) == []
            await page.goto(f"{site.address}/admin#/system?tab=processes")
            await page.get_by_role("link", name=PROCESS).click()
            await expect(page.get_by_role("row").filter(has_text=PROCESS)).to_contain_text("of the container")
            await expect(page.get_by_role("figure").filter(has_text="event loop")).to_contain_text("3.5 ms now")
            assert await violations(page) == []
            assert (made.complaints, made.foreign) == ([], [])
