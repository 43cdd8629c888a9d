"""Takes pictures of the web pages, at three widths and in both themes: `make screenshots`, into .cache/screenshots."""

import asyncio
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.async_api import expect

from console.browser import Visit, chromium, visiting
from gateway import Upstream, running
from people import Person
from sandbox.serving import serving
from servers.postgres import cluster
from tollgate.credits import store as credits
from tollgate.database import Door, migrations
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

FOLDER = Path(__file__).parents[1] / ".cache" / "screenshots"
SIZES = {360: 780, 768: 1024, 1440: 900}
QUESTION = "Explain in two sentences why a credit hold is taken before a request, and what happens to the rest of it."
LONG = "A name of sixty characters without a single space in it: " + "m" * 60 + " — and " + "many words " * 120


class Keys(NamedTuple):
    rich: str
    poor: str


async def asking(visit: Visit, keys: Keys) -> None:
    await visit.page.goto(f"{visit.address}/ui")
    await expect(visit.page.get_by_label("API key")).to_be_visible()


async def refused_key(visit: Visit, keys: Keys) -> None:
    await visit.connect("tg_live_not-a-key")
    await expect(visit.page.get_by_role("alert")).to_be_visible()


async def empty(visit: Visit, keys: Keys) -> None:
    await visit.connect(keys.rich)
    await expect(visit.page.locator(".nothing")).to_be_visible()


async def answered(visit: Visit, keys: Keys) -> None:
    await empty(visit, keys)
    await visit.say(QUESTION)
    await visit.page.locator(".told").wait_for()
    await visit.say("And in one word?")
    await expect(visit.page.locator(".told")).to_have_count(2)


async def embedded(visit: Visit, keys: Keys) -> None:
    await empty(visit, keys)
    await visit.page.get_by_text("Embedding", exact=True).click()
    await visit.say(QUESTION)
    await visit.page.locator(".told").wait_for()
    await visit.page.get_by_role("button", name="curl").click()
    await expect(visit.page.locator(".toast")).to_be_visible()


async def settings(visit: Visit, keys: Keys) -> None:
    await empty(visit, keys)
    await _choose(visit, "sandbox/image")
    await visit.page.locator(".settings details").evaluate("one => { one.open = true }")


async def broken(visit: Visit, keys: Keys) -> None:
    await empty(visit, keys)
    await _choose(visit, "sandbox/fault-mid-stream-error")
    await visit.say(QUESTION)
    await visit.page.get_by_role("alert").wait_for()


async def unaffordable(visit: Visit, keys: Keys) -> None:
    await visit.connect(keys.poor)
    await visit.say(QUESTION)
    await visit.page.get_by_role("alert").wait_for()


async def long(visit: Visit, keys: Keys) -> None:
    await empty(visit, keys)
    await visit.say(LONG)
    await visit.page.locator(".told").wait_for()


async def _choose(visit: Visit, model: str) -> None:
    select = visit.page.get_by_role("combobox", name="Model", exact=True, include_hidden=True)
    await select.select_option(model, force=True)


PICTURES: dict[str, Callable[[Visit, Keys], Awaitable[None]]] = {
    made.__name__: made
    for made in (asking, refused_key, empty, settings, answered, embedded, broken, unaffordable, long)
}


@asynccontextmanager
async def site(url: str) -> AsyncIterator[tuple[str, Door]]:
    """An address, and the door to its database."""
    sandbox = create_sandbox(Habits(list_faults=True))
    await migrations.migrate(url)
    door = PostgresDoor(url, pool_size=2, deadline_seconds=30)
    with serving(sandbox) as upstream, running({"DATABASE_URL": url}, Upstream(sandbox, upstream)) as gateway:
        yield gateway.address, door
    await door.close()


async def _paid(door: Door, nanos: int) -> str:
    someone = Person(door)
    await someone.seed()
    await credits.grant(
        console(door, "pictures"), someone.org_id, nanos, source="funding", reason="", reference=someone.org_id
    )
    return someone.secret


async def take(url: str, wanted: str) -> None:
    async with site(url) as (address, door), chromium() as browser:
        for name, prepare in PICTURES.items():
            for width, height in SIZES.items():
                for scheme in ("light", "dark"):
                    picture = f"{name}-{width}-{scheme}"
                    if re.search(wanted, picture):
                        keys = Keys(await _paid(door, 48 * 10**8), await _paid(door, 50_000))
                        async with visiting(browser, address, width, height, scheme) as visit:
                            await prepare(visit, keys)
                            await visit.page.screenshot(path=FOLDER / f"{picture}.png")


def main(wanted: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        with cluster(Path(folder) / "postgres") as postgres:
            asyncio.run(take(postgres.create_supabase_project("pictures"), wanted))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
