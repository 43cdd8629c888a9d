"""Ways to sign in on the pages: a password that a person sets, and Supabase Auth."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Browser, Page, expect

from console.browser import visiting
from console.conftest import Visiting
from gateway import Gateway, running
from people import Person
from sandbox.serving import serving
from sessions.browser import browser as api_of
from sessions.browser import link_for, new_address, set_password, sign_in_with_password
from sessions.supabase_auth import SECRET_KEY, Project
from tollgate.database import Door

Payer = Callable[..., Awaitable[Person]]
PUBLISHABLE = "sb_publishable_of_the_tests"
PASSWORD = "three wise grey herons "
ALLOWED_FAILURES = 10

pytestmark = pytest.mark.slow


async def test_a_link_a_password_that_is_set_then_and_a_key_each_sign_in(
    visit: Visiting, payer: Payer, postgres_door: Door
) -> None:
    someone = await payer()
    async with visit() as made:
        page, heading = made.page, made.page.locator(".view h1")
        await page.goto(f"{made.address}/account#/sign-in/{await link_for(postgres_door, someone)}")
        await expect(heading).to_have_text("Org")
        assert "sign-in" not in page.url
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

        await tries_password(page, someone, "wrong")
        await expect(page.get_by_role("alert")).to_contain_text("sign_in_failed")
        await tries_password(page, someone, PASSWORD)
        await expect(heading).to_have_text("Sessions")
        await made.sign_out()

        await made.sign_in("account", someone.secret)
        kept = await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert someone.secret not in kept
        assert (made.complaints, made.foreign) == ([], [])


async def tries_password(page: Page, someone: Person, password: str) -> None:
    await page.get_by_role("group").get_by_text("Password").click()
    await page.locator("[name=email]").fill(someone.email)
    await page.locator("[name=password]").fill(password)
    await page.get_by_role("button", name="Sign in").click()


async def test_a_guesser_is_told_how_long_to_wait_and_the_owner_elsewhere_signs_in(
    browser: Browser, site: Gateway, shared_database: str, payer: Payer, postgres_door: Door
) -> None:
    someone, guesser_at = await payer(), new_address()
    async with api_of(postgres_door, guesser_at) as client:
        await set_password(client, postgres_door, someone, PASSWORD)
        await asyncio.gather(*(sign_in_with_password(client, someone, "wrong") for _ in range(ALLOWED_FAILURES)))
    with running({"DATABASE_URL": shared_database}, site.upstream, TRUSTED_PROXY="proxy") as gateway:
        async with visiting(browser, gateway.address) as guesser, visiting(browser, gateway.address) as owner:
            for made, at in ((guesser, guesser_at), (owner, new_address())):
                await made.page.set_extra_http_headers({"x-forwarded-for": at})
                await made.page.goto(f"{made.address}/account")
                await tries_password(made.page, someone, PASSWORD)
            told = guesser.page.get_by_role("alert")
            await expect(told).to_contain_text("Too many wrong tries")
            await expect(told).to_contain_text(re.compile(r"You can try again in 1[0-5] min\."))
            await expect(owner.page.locator(".view h1")).to_have_text("Org")
            await guesser.sign_in("account", someone.secret)
            assert guesser.complaints == owner.complaints == []


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
