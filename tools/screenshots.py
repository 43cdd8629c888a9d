"""Takes pictures of the web pages, at three widths and in both themes: `make screenshots`, into .cache/screenshots.

`make screenshots ARGS=docs` takes those of README.md and docs/ again."""

import asyncio
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from playwright.async_api import Browser, FilePayload, expect

import pictured
import pictured_alerts
import pictured_operation
from completions.test_sound import wav
from console.browser import Visit, chromium, visiting
from fleet.agent import Ingress
from gateway import Upstream, running
from people import Person
from pictured_fleet import Fleet
from sandbox.serving import serving
from servers.postgres import cluster
from tollgate.credits import store as credits
from tollgate.database import Door, migrations
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

FOLDER = Path(__file__).parents[1] / ".cache" / "screenshots"
SCHEMES = ("light", "dark")
SIZES = {360: 780, 768: 1024, 1440: 900}
QUESTION = "Explain in two sentences why a credit hold is taken before a request, and what happens to the rest of it."
REFUSED = "Too many requests: the limit is 600 a minute for this org. Send it again after 42 s."
LONG = "A name of sixty characters without a single space in it: " + "m" * 60 + " — and " + "many words " * 120


class Keys(NamedTuple):
    rich: str
    poor: str


class Owners(NamedTuple):
    """Whose key signs in to the console, and to the account page."""

    operator: Person
    customer: Person


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


async def limited(visit: Visit, keys: Keys) -> None:
    await empty(visit, keys)
    answer = {"error": {"message": REFUSED, "type": "rate_limit_error", "code": "rate_limit_exceeded", "param": None}}
    await visit.page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=429, json=answer, headers={"retry-after": "42", "x-request-id": "req_1"}),
    )
    await visit.say(QUESTION)
    await visit.page.get_by_role("alert").wait_for()


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


async def failed(visit: Visit, keys: Keys) -> None:
    await empty(visit, keys)
    await _choose(visit, "sandbox/fault-status")
    await visit.say(QUESTION)
    await visit.page.get_by_role("alert").wait_for()


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


async def painted(visit: Visit, keys: Keys) -> None:
    await empty(visit, keys)
    await visit.page.get_by_text("Image", exact=True).click()
    await visit.say("A lighthouse in the fog, in the style of a woodcut")
    await visit.page.locator(".told").wait_for()


async def spoken(visit: Visit, keys: Keys) -> None:
    await empty(visit, keys)
    await visit.page.get_by_text("Speech", exact=True).click()
    await visit.page.get_by_role("combobox", name="Format", include_hidden=True).select_option("wav", force=True)
    await visit.say("Welcome to Tollgate.")
    await visit.page.locator(".told data").wait_for()


async def to_transcribe(visit: Visit, keys: Keys) -> None:
    await empty(visit, keys)
    await visit.page.get_by_text("Transcription", exact=True).click()
    recording: FilePayload = {"name": "interview with a long name.wav", "mimeType": "audio/wav", "buffer": wav(3)}
    await visit.page.locator("input[type=file]").set_input_files([recording])


async def front(visit: Visit, keys: Keys) -> None:
    await visit.page.goto(visit.address)


async def reference(visit: Visit, keys: Keys) -> None:
    await visit.page.goto(f"{visit.address}/docs")


async def menu(visit: Visit, keys: Keys) -> None:
    await visit.page.goto(f"{visit.address}/ui")
    await visit.page.locator(".small-menu").evaluate("one => { one.open = true }")


async def signing_in(visit: Visit, keys: Keys) -> None:
    await visit.page.goto(f"{visit.address}/admin")
    await visit.page.locator("[name=key]").fill("tg_live_not-a-key")
    await visit.page.get_by_role("button", name="Sign in").click()
    await expect(visit.page.get_by_role("alert")).to_be_visible()


async def signing_in_by_password(visit: Visit, keys: Keys) -> None:
    await visit.page.goto(f"{visit.address}/account")
    await visit.page.get_by_role("group").get_by_text("Password").click()


async def signing_in_by_an_old_link(visit: Visit, keys: Keys) -> None:
    await visit.page.goto(f"{visit.address}/account#/sign-in/used-before")
    await expect(visit.page.get_by_role("alert")).to_be_visible()


async def member_at_the_console(visit: Visit, keys: Keys) -> None:
    await visit.sign_in("admin", keys.rich)


async def away(visit: Visit, keys: Keys) -> None:
    await visit.sign_in("account", keys.rich)
    await visit.page.route("**/user/usage?*", lambda route: route.abort())
    await visit.page.get_by_role("link", name="Usage", include_hidden=True).first.dispatch_event("click")
    await expect(visit.page.get_by_role("alert")).to_be_visible()


Prepare = Callable[[Visit, Keys], Awaitable[None]]
PICTURES: dict[str, Prepare] = {
    made.__name__: made
    for made in (
        front,
        reference,
        menu,
        signing_in,
        signing_in_by_password,
        signing_in_by_an_old_link,
        member_at_the_console,
        away,
        asking,
        refused_key,
        empty,
        settings,
        answered,
        embedded,
        painted,
        spoken,
        to_transcribe,
        broken,
        failed,
        limited,
        unaffordable,
        long,
    )
}


VIEWS = {
    "admin": [
        "",
        "usage?hours=168",
        "usage?tab=refused",
        "orgs",
        "orgs/{org}",
        "orgs/{org}/usage",
        "orgs/{org}/limits",
        "orgs/{org}/limits > Set limits",
        "orgs/{org}/users",
        "orgs/{org}/keys",
        "orgs/{org}/upstream-keys",
        "orgs/{org}/details",
        "orgs/{org} > Grant credits",
        "orgs/{org} > Edit",
        "orgs/{org} > Delete",
        "orgs/{owing}",
        "orgs/missing",
        "users",
        "users/{user}",
        "users/{user} > Create a sign-in link > Create",
        "users?tab=limits",
        "keys",
        "keys?q=none-of-them",
        "keys?open={key}",
        "keys?open={key} > Rotate",
        "keys > Create a key",
        "plans",
        "plans?open=free",
        "transfers",
        "models",
        "models?open=sandbox%2Fecho",
        "models?tab=routes",
        "models?tab=aliases",
        "models?tab=aliases&open=fast",
        "models?tab=aliases&open=fast > Edit",
        "upstreams",
        "upstreams?open={upstream}",
        "upstreams > Add an upstream",
        "cache",
        "vault",
        "hosts",
        "hosts/{host}",
        "hosts/{host}/models",
        "hosts/{host}/files?folder=llama",
        "hosts/{silent}",
        "hosts > Add a host",
        "deployments",
        "deployments/new",
        "deployments/new?folder=llama&path=%2Fsrv%2Fmodels%2Fllama%2FLlama-3.1-8B-Instruct-Q4_K_M.gguf",
        "deployments/{running}",
        "deployments/{running}/log",
        "deployments/{running}/spec",
        "deployments/{running}/history",
        "deployments/{fetching}",
        "deployments/{failing}",
        "alerts",
        "alerts/{alert}",
        "alerts?tab=history",
        "alerts?tab=rules",
        "alerts?tab=rules&open=database_slow",
        "alerts?tab=channels",
        "alerts?tab=channels&open={channel}",
        "alerts?tab=silences",
        "alerts?tab=deliveries",
        "alerts?tab=deliveries&open={delivery}",
        "security",
        "security?tab=report",
        "audit",
        "audit?open={event}",
        "reconciliation",
        "reconciliation/{day}",
        "sessions?everyone=true",
        "system",
        "system?tab=processes&process=web.1%3A12",
        "system?tab=processes",
        "system?tab=backups",
        "system?tab=backups&open={backup}",
        "system?tab=database",
        "system?tab=settings",
        "nowhere",
    ],
    "account": [
        "",
        "usage",
        "usage?open={request}",
        "transactions",
        "keys",
        "keys?open={key}",
        "keys > Create a key",
        "upstream-keys",
        "webhooks",
        "webhooks?open={webhook}",
        "webhooks?tab=deliveries",
        "upstream-keys > Store a key",
        "limits",
        "connect",
        "audit",
        "sessions",
    ],
}
PHASES = {"running": "running", "downloading": "fetching", "failed": "failing"}
OF_ENTRIES = re.compile("{|=fast")
BELOW = 60
HIGHEST = 4000


DOCS = Path(__file__).parents[1] / "docs" / "pictures"
MANAGED = {"OPENROUTER_MANAGEMENT_KEY": "sk-or-v1-of-the-management"}
WIDTH_OF_DOCS = 1440
OF_DOCS = {
    "account": ("account", "", 1000),
    "console": ("admin", "", 908),
    "console-key": ("admin", "keys?open={key}", 931),
    "console-hosts": ("admin", "hosts", 420),
    "console-host": ("admin", "hosts/{host}", 1240),
    "console-deployments": ("admin", "deployments", 520),
    "console-add-model": (
        "admin",
        "deployments/new?folder=llama&path=%2Fsrv%2Fmodels%2Fllama%2FLlama-3.1-8B-Instruct-Q4_K_M.gguf",
        1160,
    ),
    "console-model": ("admin", "deployments/{running}", 940),
    "console-alerts": ("admin", "alerts", 908),
    "console-processes": ("admin", "system?tab=processes&process=web.1%3A12", 1300),
    "console-reconciliation": ("admin", "reconciliation/{day}", 1200),
}
"""Page, view and height."""


def named(page: str, view: str) -> str:
    return "-".join([page, *re.findall(r"\w+", view)]) if view else f"{page}-overview"


@asynccontextmanager
async def site(url: str, **more: str) -> AsyncIterator[tuple[str, Door]]:
    """An address, and the door to its database."""
    sandbox = create_sandbox(Habits(list_faults=True, generation_delay_seconds=0.0))
    await migrations.migrate(url)
    door = PostgresDoor(url, pool_size=2, deadline_seconds=30)
    with (
        serving(sandbox) as upstream,
        running(
            {"DATABASE_URL": url},
            Upstream(sandbox, upstream),
            PRIVATE_UPSTREAMS="true",
            VAULT_KEY="5a" * 32,
            AGENT_KEY="a6" * 20,
            **more,
        ) as gateway,
    ):
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
    async with site(url, **MANAGED) as (address, door), chromium() as browser:
        for name, prepare in PICTURES.items():
            for picture, width, height, scheme in _pictures(name, wanted):
                await take_picture(door, browser, address, FOLDER / f"{picture}.png", prepare, (width, height), scheme)
        async with _filled(url, door, address, pictured.ODD) as owners:
            await take_views(browser, owners, address, wanted)


async def take_picture(
    door: Door, browser: Browser, address: str, at: Path, prepare: Prepare, size: tuple[int, int], scheme: str
) -> None:
    keys = Keys(await _paid(door, 48 * 10**8), await _paid(door, 50_000))
    async with visiting(browser, address, *size, scheme) as visit:
        await prepare(visit, keys)
        await visit.page.screenshot(path=at)


async def take_for_docs(url: str) -> None:
    """The pictures of README.md and docs/, of an installation as it usually is."""
    async with site(url, **MANAGED) as (address, door), chromium() as browser:
        async with _filled(url, door, address, pictured.PLAIN) as owners:
            ids = await _ids(address, owners)
            for name, (page, view, height) in OF_DOCS.items():
                someone = owners.operator if page == "admin" else owners.customer
                async with visiting(browser, address, WIDTH_OF_DOCS, height) as visit:
                    await visit.sign_in(page, someone.secret)
                    await visit.page.goto("about:blank")
                    await visit.page.goto(f"{visit.address}/{page}#/{view.format(**ids)}")
                    await _rest(visit)
                    await visit.page.screenshot(path=DOCS / f"{name}.png")
        await take_picture(door, browser, address, DOCS / "playground.png", answered, (WIDTH_OF_DOCS, 720), "light")


@asynccontextmanager
async def _filled(url: str, door: Door, address: str, names: pictured.Names) -> AsyncIterator[Owners]:
    """Customers, a month of requests, servers, hosts, days beside the bill, backups and alerts."""
    ingress, operator = Ingress(), Person(door, "admin")
    await operator.seed()
    owners = Owners(operator, await pictured.fill(url, door, address, operator, names))
    await pictured_operation.fill(url, names)
    with serving(ingress) as ingress_url:
        async with pictured.client(address, operator) as http, pictured.client(address, owners.customer) as customer:
            await Fleet(http, ingress, ingress_url, names).fill(url)
            await pictured_alerts.fill(url, door, http, customer, names)
        yield owners


async def take_first_views(url: str, wanted: str) -> None:
    """Pictures of an installation in which there is nobody but an operator."""
    async with site(url) as (address, door), chromium() as browser:
        operator = Person(door, "admin")
        await operator.seed()
        owners = Owners(operator, operator)
        views = {
            page: [view for view in views if "{" not in view and "=fast" not in view] for page, views in VIEWS.items()
        }
        await take_views(browser, owners, address, wanted, views, "first-")


def _pictures(name: str, wanted: str) -> Iterator[tuple[str, int, int, str]]:
    for width, height in SIZES.items():
        for scheme in SCHEMES:
            picture = f"{name}-{width}-{scheme}"
            if re.search(wanted, picture):
                yield picture, width, height, scheme


async def take_views(
    browser: Browser,
    owners: Owners,
    address: str,
    wanted: str,
    of: Mapping[str, Sequence[str]] = VIEWS,
    prefix: str = "",
) -> None:
    """Pictures of the views of the console and of the account page, at their full height. Behind each `>` stands a
    button to be pressed."""
    ids = await _ids(address, owners)
    for page, views in of.items():
        someone = owners.operator if page == "admin" else owners.customer
        for width, height in SIZES.items():
            for scheme in SCHEMES:
                names = {f"{prefix}{named(page, view)}-{width}-{scheme}": view.format(**ids) for view in views}
                if chosen := {name: view for name, view in names.items() if re.search(wanted, name)}:
                    async with visiting(browser, address, width, height, scheme) as visit:
                        await visit.sign_in(page, someone.secret)
                        for name, view in chosen.items():
                            await take_view(visit, page, name, view, width, height)


async def take_view(visit: Visit, page: str, name: str, view: str, width: int, height: int) -> None:
    at, *buttons = view.split(" > ")
    await visit.page.set_viewport_size({"width": width, "height": height})
    await visit.page.goto("about:blank")
    await visit.page.goto(f"{visit.address}/{page}#/{at}")
    await _rest(visit)
    for button in buttons:
        await visit.page.get_by_role("button", name=button, exact=True).last.click()
        await _rest(visit)
    if not buttons:
        whole = await visit.page.evaluate("document.querySelector('.view').scrollHeight") + BELOW
        await visit.page.set_viewport_size({"width": width, "height": max(height, min(whole, HIGHEST))})
    await visit.page.screenshot(path=FOLDER / f"{name}.png")
    for complaint in visit.complaints:
        sys.stderr.write(f"{name}: {complaint}\n")
    visit.complaints.clear()


async def _rest(visit: Visit) -> None:
    await visit.page.wait_for_load_state("networkidle")
    await expect(visit.page.locator(".waiting-lines")).to_have_count(0)


async def _ids(address: str, owners: Owners) -> dict[str, str]:
    """The entries that the pictures show."""
    async with pictured.client(address, owners.operator) as http:
        events = await http.get("/admin/audit-logs")
        upstreams = await http.get("/admin/upstreams")
        orgs = (await http.get("/admin/orgs", params={"limit": 100})).json()["data"]
        requests = await http.get("/admin/usage", params={"org_id": owners.customer.org_id})
        days = await http.get("/admin/reconciliation", params={"verdict": "differs"})
        backups = await http.get("/admin/backups", params={"is_sound": False})
        hosts = (await http.get("/admin/hosts")).json()["data"]
        models = (await http.get("/admin/models")).json()["data"]
        alerts = await http.get("/admin/alerts", params={"state": "firing", "sort": "severity:desc"})
        deliveries = await http.get("/admin/alerts/deliveries", params={"state": "failed"})
        channels = await http.get("/admin/alerts/channels", params={"kind": "slack"})
    async with pictured.client(address, owners.customer) as http:
        webhooks = await http.get("/user/webhooks")
    return {
        "org": owners.customer.org_id,
        "user": owners.customer.user_id,
        "owing": next((one["id"] for one in orgs if one["name"] == pictured.OWING), "none"),
        "key": owners.customer.key_id,
        "event": _first(events),
        "upstream": _first(upstreams),
        "request": _first(requests),
        "day": _first(days, "day"),
        "backup": _first(backups, "digest"),
        "alert": _first(alerts),
        "channel": _first(channels),
        "delivery": _first(deliveries),
        "webhook": _first(webhooks),
        **{one["contact"].replace("unseen", "silent").replace("seen", "host"): one["id"] for one in hosts},
        **{PHASES.get(one["phase"], "other"): one["id"] for one in models if one["host"]["contact"] == "seen"},
    }


def _first(answer: httpx.Response, name: str = "id") -> str:
    return next((str(row[name]) for row in answer.json()["data"]), "none")


def main(wanted: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        with cluster(Path(folder) / "postgres") as postgres:
            if wanted == "docs":
                asyncio.run(take_for_docs(postgres.create_supabase_project("docs")))
                return
            asyncio.run(take(postgres.create_supabase_project("pictures"), wanted))
            asyncio.run(take_first_views(postgres.create_supabase_project("first"), wanted))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
