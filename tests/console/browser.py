"""Debian's Chromium, and a page that notes everything that should not happen."""

import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from playwright.async_api import Browser, Locator, Page, async_playwright, expect

PROGRAM = shutil.which("chromium") or "chromium"
AXE = Path(__file__).parents[2] / "console" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

BUSY = ".waiting-lines, [aria-busy=true]"
MOST_LOOKS = 20
LOOK = """async ([rules, busy]) => {
  let wasBusy = false;
  const look = () => { wasBusy ||= document.querySelector(busy) !== null; };
  const watch = new MutationObserver(look);
  watch.observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ["aria-busy"]});
  look();
  const found = await axe.run({runOnly: rules, resultTypes: ["violations"]});
  watch.disconnect();
  return [found.violations, wasBusy];
}"""
"""What axe finds, and whether the view read its data meanwhile."""

PATIENCE_MS = 60_000
"""A busy machine fails no test."""
UNDO_STAYS = """{
  const soon = window.setTimeout;
  window.setTimeout = (what, pause, ...more) => soon(what, pause === 10_000 ? 40_000 : pause, ...more);
}"""
"""A change can be undone for 10 s, which a busy machine may need to show that it is made."""

expect.set_options(timeout=PATIENCE_MS)


@dataclass
class Visit:
    """A page, the addresses that it asked for, and its complaints: errors and violations of the content security."""

    page: Page
    address: str
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def foreign(self) -> list[str]:
        return [url for url in self.asked if not url.startswith((self.address, "data:"))]

    @property
    def loaded(self) -> list[str]:
        """Without what stands in the page itself."""
        return [url for url in self.asked if not url.startswith("data:")]

    async def reload(self) -> None:
        """And forgets what was asked for before. Of a page that is left, no request follows."""
        address = self.page.url
        await self.page.goto("about:blank")
        self.asked.clear()
        await self.page.goto(address)

    async def connect(self, secret: str) -> None:
        await self.page.goto(f"{self.address}/ui")
        await self.page.get_by_label("API key").fill(secret)
        await self.page.get_by_role("button", name="Use this key").click()

    async def sign_in(self, page: str, secret: str) -> None:
        await self.page.goto(f"{self.address}/{page}")
        await self.page.locator("[name=key]").fill(secret)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.page.locator(".view h1").wait_for()

    async def sign_out(self) -> None:
        """Waits until the server has ended the session: a page that is left cancels its requests."""
        await self.page.get_by_role("button", name="Sign out", exact=True).first.click()
        await self.page.get_by_text("You are signed out.").wait_for()

    async def say(self, text: str, model: str | None = None) -> None:
        if model:
            await self.page.get_by_role("combobox", name="Model", exact=True).select_option(model)
        await self.page.locator("#message").fill(text)
        await self.page.get_by_role("button", name="Send", exact=True).click()


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as made:
        browser = await made.chromium.launch(executable_path=PROGRAM, args=FLAGS)
        yield browser
        await browser.close()


@contextlib.asynccontextmanager
async def visiting(
    browser: Browser, address: str, width: int = 1440, height: int = 900, scheme: str = "light", scale: float = 1
) -> AsyncIterator[Visit]:
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=scale
    )
    context.set_default_timeout(PATIENCE_MS)
    await context.add_init_script(UNDO_STAYS)
    page = await context.new_page()
    visit = Visit(page, address)
    page.on("request", lambda request: visit.asked.append(request.url))
    page.on("console", lambda message: _complains(visit, message.type, message.text))
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    yield visit
    await context.close()


def _complains(visit: Visit, kind: str, text: str) -> None:
    """That an answer had the status of a refusal is logged by Chromium and no mistake of the page."""
    if kind in {"error", "warning"} and "Failed to load resource" not in text:
        visit.complaints.append(text)


async def tab_to(control: Locator) -> None:
    for _ in range(60):
        await control.page.keyboard.press("Tab")
        if await control.evaluate("it => it === document.activeElement"):
            return
    raise AssertionError(f"no Tab leads to {control}")


async def violations(page: Page) -> list[str]:
    """What axe finds on the page as it is now: by light, and of what a dark scheme changes, which are colours only."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE.read_text())
    await page.emulate_media(reduced_motion="reduce")  # no colour is on its way to another
    found = await _violations(page, RULES)
    await page.emulate_media(color_scheme="dark")
    found += await _violations(page, ["color-contrast"])
    await page.emulate_media(color_scheme="light")
    return found


async def _violations(page: Page, rules: list[str]) -> list[str]:
    """Of a view at rest: one that reads its data anew is dimmed, and what is dimmed has less contrast."""
    for _ in range(MOST_LOOKS):
        await expect(page.locator(BUSY)).to_have_count(0)
        found, was_busy = await page.evaluate(LOOK, [rules, BUSY])
        if not (found and was_busy):
            break
    return [f"{one['id']}: {node['html']} {node['failureSummary']}" for one in found for node in one["nodes"]]
