"""A machine becomes a host and runs a model that is paid for, in a real Chromium, with the agent and llama-server."""

import re
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import pytest
from playwright.async_api import expect

from agent import host
from agent.control_plane import ControlPlane
from console.browser import Visit, violations
from console.conftest import Visiting
from engines.tiny_model import SAYS, write_gguf
from gateway import Gateway
from people import Person

pytestmark = pytest.mark.slow

CONTEXT_BEYOND_THE_MODEL = "999999"


@pytest.fixture
def agent(site: Gateway, tmp_path: Path) -> Iterator[host.Agent]:
    """Not started. Its folder of models has one."""
    models = tmp_path / "models"
    models.mkdir()
    write_gguf(models / "tiny.gguf")
    made = host.Agent(cast(ControlPlane, SimpleNamespace(address=site.address)), tmp_path / "a", models)
    yield made
    host.end(made)


async def clean(made: Visit, scheme: Literal["light", "dark"]) -> None:
    """Nothing for axe to find in this state."""
    await made.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    assert await violations(made.page) == []


async def test_a_machine_becomes_a_host_and_runs_a_model_that_customers_pay_for(
    visit: Visiting, operator: Person, payer: Callable[..., Awaitable[Person]], agent: host.Agent
) -> None:
    name, served = f"gpu {secrets.token_hex(4)}", f"our/{secrets.token_hex(4)}"
    async with visit() as made:
        page, dialog = made.page, made.page.get_by_role("dialog")
        await made.sign_in("admin", operator.secret)
        await page.get_by_role("link", name="Hosts").click()
        await page.get_by_role("button", name="Add a host").first.click()
        await dialog.get_by_label("Name").fill(name)
        await dialog.get_by_role("button", name="Add").click()
        await expect(dialog.get_by_text("Waiting for the agent…")).to_be_visible()
        await page.keyboard.press("Escape")
        (token,) = re.findall(r" --token (tge_\S+)", await dialog.locator(".secret code").inner_text())
        agent.start(token=token)
        await clean(made, "dark")
        await expect(dialog.get_by_text(f"{name} is here: no GPU; llama.cpp")).to_be_visible()
        await dialog.get_by_role("button", name="To the host").click()
        await expect(page.get_by_role("heading", name=name, level=1)).to_contain_text("seen")
        await clean(made, "light")

        await page.get_by_role("link", name="Files").click()
        await page.get_by_role("link", name="The folder of models itself").click()
        await page.get_by_role("link", name="Run tiny").click()
        started = page.locator(".dry-run")
        await expect(started).to_contain_text("Nothing keeps it from starting")
        await expect(started).to_contain_text("There is room.")
        await page.get_by_label("Context, in tokens").fill(CONTEXT_BEYOND_THE_MODEL)
        await expect(started).to_contain_text("4096")
        await page.get_by_label("Context, in tokens").fill("1024")
        await expect(started).to_contain_text("-c 1024")
        await page.get_by_label("Name for clients").fill(served)
        await page.get_by_label("In, credits a million tokens").fill("1")
        await clean(made, "dark")
        await page.get_by_role("button", name="Add the model").click()
        await expect(page.get_by_label("Out, credits a million tokens")).to_have_attribute("aria-invalid", "true")
        await page.get_by_label("Out, credits a million tokens").fill("2")
        await page.get_by_role("button", name="Add the model").click()
        await expect(page.get_by_role("heading", name=served, level=1)).to_contain_text("running")
        await expect(page.get_by_text("It takes calls")).to_be_visible()
        await page.get_by_role("button", name="Test").click()
        await expect(page.get_by_text("The engine answered")).to_be_visible()
        await clean(made, "light")

        someone = await payer()
        async with visit() as theirs:
            await theirs.connect(someone.secret)
            await theirs.say("Hello", served)
            await expect(theirs.page.locator("article.assistant .words")).to_have_text(SAYS)
            await expect(theirs.page.locator(".told data").first).to_be_visible()
            assert theirs.complaints == []

        await page.get_by_role("link", name="Log", exact=True).click()
        await expect(page.get_by_role("region", name="Log")).to_contain_text("llama")
        await clean(made, "dark")
        await page.get_by_role("link", name="History").click()
        await expect(page.get_by_role("table").get_by_text("answered")).to_be_visible()
        await clean(made, "light")
        await expect(page.get_by_role("table").get_by_text("deployment.created")).to_be_visible()
        await page.get_by_role("button", name="Stop").click()
        await expect(page.get_by_role("heading", name=served, level=1)).to_contain_text("stopped")
        await page.get_by_role("button", name="Delete").click()
        await dialog.get_by_role("textbox").fill(served)
        await dialog.get_by_role("button", name="Delete").click()
        await expect(page.get_by_role("heading", name="Models on hosts")).to_be_visible()
        await page.get_by_role("link", name="Hosts").first.click()
        await page.get_by_role("link", name=name).click()
        await page.get_by_role("button", name="Retire").click()
        await dialog.get_by_role("textbox").fill(name)
        await dialog.get_by_role("button", name="Retire").click()
        await expect(page.get_by_role("heading", name=name, level=1)).to_contain_text("retired")
        await page.get_by_role("button", name="Delete").click()
        await dialog.get_by_role("textbox").fill(await dialog.locator(".exactly").inner_text())
        await dialog.get_by_role("button", name="Delete").click()
        await expect(page.get_by_text(f"{name} is deleted.")).to_be_visible()
        assert (made.complaints, made.foreign) == ([], [])
