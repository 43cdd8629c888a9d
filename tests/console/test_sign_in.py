"""Ways to sign in on the pages: a password that a person sets, and Supabase Auth."""

from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Browser, expect

from console.browser import visiting
from console.conftest import Visiting
from gateway import Gateway, running
from people import Person
from sandbox.serving import serving
from sessions.browser import link_for
from sessions.supabase_auth import SECRET_KEY, Project
from tollgate.database import Door

Payer = Callable[..., Awaitable[Person]]
PUBLISHABLE = "sb_publishable_of_the_tests"
PASSWORD = "three wise grey herons "

pytestmark = pytest.mark.slow


async def test_a_password_set_after_a_link_signs_in(visit: Visiting, payer: Payer, postgres_door: Door) -> None:
    someone = await payer()
    async with visit() as made:
        page = made.page
        await page.goto(f"{made.address}/account#/sign-in/{await link_for(postgres_door, someone)}")
        await page.locator(".view h1").wait_for()
        await page.goto(f"{made.address}/account#/sessions")
        await page.get_by_role("button", name="Set a password").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("New password").fill("password1234")
        await dialog.get_by_role("button", name="Set", exact=True).click()
        await expect(dialog.get_by_role("alert")).to_contain_text("weak_password")
        await dialog.get_by_label("New password").fill(PASSWORD)
        await dialog.get_by_role("button", name="Set", exact=True).click()
        await expect(page.get_by_role("button", name="Change it")).to_be_visible()
        await made.sign_out()
        await page.get_by_text("Password", exact=True).click()
        await page.locator("[name=email]").fill(someone.email)
        await page.locator("[name=password]").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.locator(".view h1")).to_have_text("Sessions")
        assert (made.complaints, made.foreign) == ([], [])


async def test_an_account_at_supabase_signs_in_by_its_password_and_by_its_link(
    browser: Browser, site: Gateway, shared_database: str, payer: Payer
) -> None:
    someone, project = await payer(), Project()
    token = project.signs_in(someone.email)
    project.passwords[someone.email] = ("at Supabase", token)
    with serving(project.app) as supabase:
        settings = {
            "SUPABASE_URL": supabase,
            "SUPABASE_SECRET_KEY": SECRET_KEY,
            "SUPABASE_PUBLISHABLE_KEY": PUBLISHABLE,
        }
        with running({"DATABASE_URL": shared_database}, site.upstream, **settings) as gateway:
            async with visiting(browser, gateway.address) as made:
                page = made.page
                await page.goto(f"{made.address}/account")
                await page.get_by_text("Supabase", exact=True).click()
                google = page.get_by_role("link", name="Sign in with google")
                expected = f"{supabase}/auth/v1/authorize?provider=google&redirect_to="
                assert (await google.get_attribute("href") or "").startswith(expected)

                await page.locator("[name=email]").first.fill(someone.email)
                await page.locator("[name=password]").fill("wrong")
                await page.get_by_role("button", name="Sign in").click()
                await expect(page.get_by_role("alert")).to_contain_text("Invalid login credentials")
                await page.locator("[name=password]").fill("at Supabase")
                await page.get_by_role("button", name="Sign in").click()
                await page.locator(".view h1").wait_for()
                await made.sign_out()

                await page.get_by_text("Supabase", exact=True).click()
                await page.locator("[name=email]").last.fill(someone.email)
                await page.get_by_role("button", name="Send me a link").click()
                await expect(page.locator(".toast")).to_contain_text("a link was sent")
                await page.goto("about:blank")
                await page.goto(f"{project.links[someone.email]}#access_token={token}&token_type=bearer")
                await page.locator(".view h1").wait_for()
                assert token not in page.url
                assert made.complaints == []
                assert all(url.startswith(f"{supabase}/auth/v1/") for url in made.foreign)
