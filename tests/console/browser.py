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

expect.set_options(timeout=30_000)  # a busy machine fails no test


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
    found = await _violations(page, RULES)
    await page.emulate_media(color_scheme="dark", reduced_motion="reduce")  # no colour is on its way to another
    found += await _violations(page, ["color-contrast"])
    await page.emulate_media(color_scheme="light")
    return found


async def _violations(page: Page, rules: list[str]) -> list[str]:
    found = await page.evaluate("rules => axe.run({runOnly: rules, resultTypes: ['violations']})", rules)
    return [
        f"{one['id']}: {node['html']} {node['failureSummary']}" for one in found["violations"] for node in one["nodes"]
    ]
