"""The playground in a real Chromium, before a real server, Postgres and sandbox."""

import base64
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import FilePayload, Page, Route, expect

from completions.paid import Auditor
from completions.stage import CRON_SECRET
from completions.test_sound import wav
from console.browser import tab_to, violations
from console.conftest import Visiting
from gateway import CHAT, Gateway
from people import Person
from sandbox.serving import a_chat

Payer = Callable[..., Awaitable[Person]]
SCRIPT = "<script>document.title='owned'</script> & <img src=x onerror=alert(1)> 🦊"
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

pytestmark = pytest.mark.slow


async def test_a_streamed_answer_shows_its_figures_and_the_charge_of_the_ledger(
    visit: Visiting, payer: Payer, shared_database: str, sql: Any
) -> None:
    someone = await payer()
    async with visit() as made:
        await made.connect(someone.secret)
        await made.say("hello there, sandbox", "sandbox/echo")
        answer = made.page.locator("article.assistant")
        await expect(answer.locator(".words")).to_have_text("hello there, sandbox")
        await expect(answer).to_contain_text("tokens/s")
        await expect(answer).to_contain_text("First token")
        shown = await answer.locator("data").get_attribute("value")
        charged = await sql(
            shared_database, "select charge_nanos from tollgate.requests where org_id = $1", someone.org_id
        )
        assert int(shown or 0) == charged > 0
        balance = await made.page.locator(".balance data").get_attribute("value")
        assert int(balance or 0) == 10**9 - charged
        await made.sign_in("account#/transactions", someone.secret)
        row = made.page.locator("tbody tr", has_text="charge")
        await expect(row.locator(f'data.money[value="{-charged}"]')).to_be_visible()
        assert made.complaints == []
        assert made.foreign == []


@pytest.mark.parametrize("streams", [True, False])
async def test_what_people_and_models_write_is_shown_as_text(visit: Visiting, payer: Payer, streams: bool) -> None:
    someone = await payer()
    async with visit() as made:
        await made.connect(someone.secret)
        await made.page.get_by_label("Stream the answer").set_checked(streams)
        await made.say(SCRIPT)
        words = made.page.locator("article .words")
        await expect(words).to_have_count(2)
        await expect(words.nth(1)).to_have_text(SCRIPT)
        await expect(made.page).to_have_title("Playground · Tollgate")
        assert await made.page.locator("article script, article img").count() == 0
        await expect(made.page.locator(".history .title")).to_have_text(SCRIPT[:80])
        assert made.complaints == []


async def test_stop_keeps_what_came_and_reads_the_balance(visit: Visiting, payer: Payer) -> None:
    someone = await payer()
    async with visit() as made:
        await made.connect(someone.secret)
        await made.say("one two three four", "sandbox/fault-stall-after")
        answer = made.page.locator("article.assistant")
        await expect(answer.locator(".words")).to_have_text("one")
        async with made.page.expect_response("**/user/balance"):
            await made.page.get_by_role("button", name="Stop").click()
        await expect(answer).to_contain_text("Stopped")
        await expect(made.page.get_by_role("button", name="Send", exact=True)).to_be_visible()
        assert made.complaints == []


async def test_a_402_offers_what_is_affordable(visit: Visiting, payer: Payer) -> None:
    someone = await payer(60_000)
    async with visit() as made:
        await made.connect(someone.secret)
        await made.page.get_by_label("Max tokens").fill("1000")
        await made.say("hello")
        problem = made.page.get_by_role("alert")
        await expect(problem).to_contain_text("Not enough credits")
        await expect(problem).to_contain_text("insufficient_credits")
        await expect(problem.locator("data").nth(1)).to_have_attribute("value", "60000")
        await made.page.get_by_role("button", name=re.compile(r"Send with at most \d+ tokens")).click()
        await expect(made.page.locator("article.assistant .words")).to_have_text("hello")
        assert made.complaints == []


async def test_a_429_counts_down_until_it_may_be_sent_again(visit: Visiting, payer: Payer, site: Gateway) -> None:
    someone = await payer()
    async with visit() as made:
        await made.page.clock.install()
        await made.connect(someone.secret)
        await made.page.locator("#message").wait_for()
        async with site.client(someone) as http:  # at the last moment: when a minute turns, its requests fade
            while (await http.post(CHAT, json=a_chat())).status_code == 200:
                pass
        await made.say("hello")
        await expect(made.page.get_by_role("alert")).to_contain_text("Too many requests")
        await expect(made.page.get_by_role("button", name=re.compile(r"Try again in \d+ s"))).to_be_disabled()
        await made.page.clock.run_for(120_000)
        await expect(made.page.get_by_role("button", name="Try again", exact=True)).to_be_enabled()
        assert made.complaints == []


async def test_a_502_is_said_of_the_server_and_an_error_midway_keeps_the_text_before_it(
    visit: Visiting, payer: Payer
) -> None:
    someone = await payer()
    async with visit() as made:
        answer = made.page.locator("article.assistant").last
        await made.connect(someone.secret)
        await made.say("hello", "sandbox/fault-garbage")
        await expect(answer.get_by_role("alert")).to_contain_text("The model's server failed")
        await expect(answer.get_by_role("alert")).to_contain_text("HTTP 502")
        await expect(answer.get_by_role("button", name="Try again")).to_be_enabled()
        await made.say("one two three four", "sandbox/fault-mid-stream-error")
        await expect(answer.get_by_role("alert")).to_contain_text("The answer broke off")
        await expect(answer.get_by_role("alert")).to_contain_text("Provider disconnected unexpectedly")
        await expect(answer.locator(".words")).to_have_text("one two")
        assert made.complaints == []


async def test_what_a_broken_connection_had_paid_for_is_not_paid_twice(
    visit: Visiting, payer: Payer, shared_database: str, sql: Any
) -> None:
    someone = await payer()
    async with visit() as made:
        await made.connect(someone.secret)
        await made.page.route("**/v1/chat/completions", answered_to_nobody, times=1)
        await made.say("hello")
        await expect(made.page.get_by_role("alert")).to_contain_text("connection_failed")
        await made.page.get_by_role("button", name="Try again").click()
        await expect(made.page.locator("article.assistant .words")).to_have_text("hello")
        await expect(made.page.locator("article.assistant")).to_contain_text("Replayed")
        paid = await sql(shared_database, "select count(*) from tollgate.requests where org_id = $1", someone.org_id)
        assert paid == 1


async def answered_to_nobody(route: Route) -> None:
    """The server answers, and the connection breaks before the browser hears of it."""
    await route.fetch()
    await route.abort("connectionreset")


async def test_the_raw_endpoints_answer_too(visit: Visiting, payer: Payer) -> None:
    someone = await payer()
    async with visit() as made:
        await made.connect(someone.secret)
        await made.page.get_by_text("Completion", exact=True).click()
        await made.say("once upon a time")
        await expect(made.page.locator("article.assistant .words")).to_have_text("once upon a time")
        await made.page.get_by_text("Embedding", exact=True).click()
        await made.say("a text")
        await expect(made.page.locator("article.assistant .words")).to_have_text(re.compile(r"^\[-?[\d.]+,"))
        await expect(made.page.locator("article.assistant")).to_contain_text("Charge")
        assert made.complaints == []


async def test_images_are_painted_texts_spoken_and_recordings_written_down_each_with_its_charge(
    visit: Visiting, site: Gateway, payer: Payer, shared_database: str, sql: Any
) -> None:
    someone = await payer()
    auditor = Auditor(shared_database)
    async with visit() as made:
        page, answer = made.page, made.page.locator("article.assistant")
        await made.connect(someone.secret)
        await page.get_by_text("Image", exact=True).click()
        await made.say("a lighthouse", "sandbox/painter")
        await expect(answer.get_by_alt_text("Made by the model")).to_be_visible()
        await _is_charged(page, someone, shared_database, sql)
        await page.get_by_text("Speech", exact=True).click()
        await page.get_by_label("Format").select_option("wav")
        await made.say("hello there")
        await expect(answer.locator("audio")).to_be_visible()
        assert await answer.locator("audio").evaluate(PLAYS) > 0
        await auditor.ended(someone)
        await auditor.hasten(someone)  # what speech costs is known only to the sweeper
        swept = await site.post(someone, None, "/internal/sweep", authorization=f"Bearer {CRON_SECRET}")
        assert swept.json()["settled"] == 1
        await _is_charged(page, someone, shared_database, sql)
        await page.get_by_text("Transcription", exact=True).click()
        recording: FilePayload = {"name": f"{SCRIPT}.wav", "mimeType": "audio/wav", "buffer": wav(2)}
        await page.locator("input[type=file]").set_input_files([recording])
        await page.get_by_role("combobox", name="Model", exact=True).select_option("sandbox/ear")
        await page.get_by_role("button", name="Send", exact=True).click()
        await expect(answer.locator(".words")).to_have_text("The sandbox heard 2 seconds of sound.")
        await _is_charged(page, someone, shared_database, sql)
        assert await violations(page) == []
        assert (made.complaints, made.foreign) == ([], [])


PLAYS = """one => new Promise((resolve, reject) => {
  const told = () => resolve(one.duration);
  one.onerror = () => reject(new Error(one.error.message));
  if (one.readyState > 0) told(); else one.onloadedmetadata = told;
})"""
NEWEST = "select charge_nanos from tollgate.requests where org_id = $1 order by created_at desc limit 1"


async def _is_charged(page: Page, someone: Person, database: str, sql: Any) -> None:
    """What the page shows is what the newest request was charged."""
    shown = await page.locator("article.assistant .told data").get_attribute("value")
    assert int(shown or 0) == await sql(database, NEWEST, someone.org_id) > 0


async def test_an_image_is_sent_where_the_model_takes_images(visit: Visiting, payer: Payer) -> None:
    someone = await payer()
    async with visit() as made:
        await made.connect(someone.secret)
        await expect(made.page.get_by_text("Add an image")).to_have_count(0)
        await made.page.get_by_role("combobox", name="Model", exact=True).select_option("sandbox/image")
        picture: FilePayload = {"name": "dot.png", "mimeType": "image/png", "buffer": PICTURE}
        await made.page.locator("input[type=file]").set_input_files([picture])
        async with made.page.expect_request("**/v1/chat/completions") as sent:
            await made.say("what is this?")
        asked = (await sent.value).post_data_json["messages"][0]["content"]
        assert [part["type"] for part in asked] == ["text", "image_url"]
        await expect(made.page.locator("article.assistant")).to_contain_text("Charge")
        assert made.complaints == []


async def test_reload_and_back_restore_a_conversation_and_ask_for_the_key_again(visit: Visiting, payer: Payer) -> None:
    someone = await payer()
    async with visit() as made:
        await made.connect(someone.secret)
        await made.say("the first")
        await expect(made.page.locator(".told")).to_have_count(1)
        await made.page.get_by_role("button", name="New").click()
        await made.say("the second")
        await expect(made.page.locator(".history li")).to_have_count(2)
        await made.page.go_back()
        await expect(made.page.locator("article.user .words")).to_have_text("the first")
        await made.page.reload()
        await expect(made.page.get_by_label("API key")).to_be_empty()
        kept = await made.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert "the first" in kept
        assert someone.secret not in kept
        await made.page.get_by_label("API key").fill(someone.secret)
        await made.page.get_by_label("API key").press("Enter")
        await expect(made.page.locator("article.user .words")).to_have_text("the first")


async def test_a_request_is_copied_without_the_key(visit: Visiting, payer: Payer) -> None:
    someone = await payer()
    async with visit() as made:
        await made.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await made.connect(someone.secret)
        await made.page.locator("#message").fill("it's 'quoted'")
        for name, starts in (("curl", f"curl {made.address}/v1/chat/completions"), ("Python", "import os")):
            await made.page.get_by_role("button", name=name).click()
            await expect(made.page.get_by_role("status")).to_contain_text(f"{name}: copied")
            copied = await made.page.evaluate("navigator.clipboard.readText()")
            assert copied.startswith(starts)
            assert "quoted" in copied
            assert someone.secret not in copied


async def test_an_answer_comes_from_the_cache_if_that_is_asked_for(visit: Visiting, payer: Payer) -> None:
    someone = await payer()
    async with visit() as made:
        await made.connect(someone.secret)
        await made.page.get_by_label("Use the cache").check()
        for found in ("miss", "hit"):
            await made.say("hello cache")
            cache = made.page.locator("article.assistant .figures div", has_text="Cache")
            await expect(cache).to_have_text(f"Cache{found}")
            await made.page.get_by_role("button", name="New").click()


async def test_clearing_the_history_can_be_undone(visit: Visiting, payer: Payer) -> None:
    someone = await payer()
    async with visit() as made:
        await made.connect(someone.secret)
        await made.say("remember this")
        await expect(made.page.locator(".history li time")).to_have_count(1)
        await expect(made.page.locator(".history").get_by_label("Time zone")).to_have_value("UTC")
        await made.page.get_by_role("button", name="Clear history").click()
        await expect(made.page.locator(".history li")).to_have_count(0)
        await made.page.get_by_role("button", name="Undo").click()
        await expect(made.page.locator(".history li")).to_have_count(1)


async def test_axe_finds_nothing(visit: Visiting, payer: Payer) -> None:
    someone = await payer()
    async with visit() as made:
        await made.page.goto(f"{made.address}/ui")
        await made.page.get_by_label("API key").wait_for()
        assert await violations(made.page) == []
        await made.connect("tg_live_wrong")
        await made.page.get_by_role("alert").wait_for()
        assert await violations(made.page) == []
        await made.connect(someone.secret)
        await made.page.locator(".nothing").wait_for()
        assert await violations(made.page) == []
        await made.say("hello")
        await made.page.locator(".told").wait_for()
        assert await violations(made.page) == []
        await made.say("one two three", "sandbox/fault-mid-stream-error")
        await made.page.get_by_role("alert").wait_for()
        assert await violations(made.page) == []


async def test_a_conversation_can_be_had_with_the_keyboard_alone_on_a_phone(visit: Visiting, payer: Payer) -> None:
    someone = await payer()
    async with visit(width=360, height=740) as made:
        await made.page.goto(f"{made.address}/ui")
        await tab_to(made.page.get_by_label("API key", exact=True))
        await made.page.keyboard.type(someone.secret)
        await made.page.keyboard.press("Enter")
        await made.page.locator("#message").wait_for()
        await tab_to(made.page.get_by_label("Message", exact=True))
        await made.page.keyboard.type("hello")
        await made.page.keyboard.press("Enter")
        await expect(made.page.locator("article.assistant .words")).to_have_text("hello")
        for width in (360, 600, 768):
            await made.page.set_viewport_size({"width": width, "height": 740})
            assert await made.page.evaluate("document.documentElement.scrollWidth") <= width
