"""How the pages are served: caching, content security, sizes, and below a path prefix."""

import gzip
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Browser, expect

from console.browser import visiting
from console.conftest import Visiting
from gateway import Gateway, running
from people import Person
from sandbox.serving import PATIENCE_SECONDS
from servers.nginx import PROGRAM, nginx
from tollgate.app import create_app
from tollgate.console.routes import ASSETS, FILES, PAGES
from tollgate.settings import read

PAGE_OF_SERVERS = Path(__file__).parents[2] / "docs" / "how-to" / "deploy-server.md"
MOST_REQUESTS = 5
MOST_BYTES = 120_000


@pytest.fixture
async def http(site: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=site.address, timeout=PATIENCE_SECONDS) as made:
        yield made


def assets_of(path: str) -> set[str]:
    return {PAGES[path].replace(".html", ".js"), "style.css"}


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_asked_for_again_and_its_assets_are_kept(http: httpx.AsyncClient, path: str) -> None:
    page = await http.get(path)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    assert "require-trusted-types-for 'script'" in page.headers["content-security-policy"]
    assert (await http.get(path, headers={"if-none-match": page.headers["etag"]})).status_code == 304
    for name in assets_of(path):
        address = next(part for part in page.text.split('"') if part.startswith(f"assets/{name}?v="))
        asset = await http.get(f"/{address}")
        assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert asset.content == (FILES / name).read_bytes()
        assert (await http.get(f"/assets/{name}?v=old")).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_served_by_an_instance_that_loads_nothing_in_advance(path: str) -> None:
    app = create_app(read({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://cold") as http:
        assert (await http.get(path)).status_code == 200


async def test_every_built_file_is_served_and_nothing_else(http: httpx.AsyncClient) -> None:
    assert {file.name for file in FILES.iterdir()} == {*PAGES.values(), *ASSETS}
    for name in ("", "playground.html", "none.js", "..%2Froutes.py", "%2E%2E/routes.py"):
        missing = await http.get(f"/assets/{name}")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


async def test_files_are_sent_as_they_are_to_those_who_cannot_unzip(http: httpx.AsyncClient) -> None:
    plain = await http.get("/assets/style.css", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == (FILES / "style.css").read_bytes()


@pytest.mark.parametrize("path", PAGES)
def test_the_first_view_is_small(path: str) -> None:
    files = [FILES / name for name in (PAGES[path], *assets_of(path))]
    assert sum(len(gzip.compress(file.read_bytes())) for file in files) <= MOST_BYTES


@pytest.mark.slow
async def test_the_first_view_asks_for_little_and_a_key_for_little_more(
    visit: Visiting, payer: Callable[..., Awaitable[Person]]
) -> None:
    someone = await payer()
    async with visit() as made:
        await made.page.goto(f"{made.address}/ui")
        await made.page.get_by_label("API key").wait_for()
        assert len(made.loaded) == 1 + len(assets_of("/ui"))
        await made.page.get_by_label("API key").fill(someone.secret)
        await made.page.get_by_label("API key").press("Enter")
        await made.page.locator("#message").wait_for()
        assert len(made.loaded) <= MOST_REQUESTS
        assert (made.foreign, made.complaints) == ([], [])


@pytest.mark.slow
async def test_the_overview_of_an_operator_asks_for_little(visit: Visiting, operator: Person) -> None:
    async with visit() as made:
        await made.sign_in("admin", operator.secret)
        await made.reload()
        await made.page.wait_for_load_state("networkidle")
        await expect(made.page.get_by_role("heading", name="Overview")).to_be_visible()
        assert len(made.loaded) <= MOST_REQUESTS
        assert (made.foreign, made.complaints) == ([], [])


def below_a_path(shipped: Path) -> None:
    """By the command of the page, below /ai."""
    (command,) = (line for line in PAGE_OF_SERVERS.read_text().splitlines() if line.startswith("sed "))
    subprocess.run(["bash", "-c", command.replace("/etc/nginx/conf.d/tollgate.conf", str(shipped))], check=True)


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed (CI installs it)")
async def test_the_pages_work_below_a_path_of_nginx(
    browser: Browser,
    site: Gateway,
    shared_database: str,
    payer: Callable[..., Awaitable[Person]],
    operator: Person,
    tmp_path: Path,
) -> None:
    someone = await payer()
    with (
        running({"DATABASE_URL": shared_database}, site.upstream, TRUSTED_PROXY="proxy") as gateway,
        nginx(gateway.address, tmp_path, below_a_path) as front,
    ):
        async with visiting(browser, f"{front}/ai") as made:
            await made.connect(someone.secret)
            await made.say("hello")
            await expect(made.page.locator("article.assistant .words")).to_have_text("hello")
            await made.sign_in("account", someone.secret)
            await made.page.get_by_role("link", name="Keys", exact=True).click()
            await expect(made.page.get_by_role("link", name="Of the tests")).to_be_visible()
            await made.sign_out()
            await made.sign_in("admin", operator.secret)
            await made.page.get_by_role("link", name="System").click()
            await expect(made.page.get_by_text("connected")).to_be_visible()
            assert (made.foreign, made.complaints) == ([], [])
        async with httpx.AsyncClient(base_url=front) as http:
            for path in ("/healthz", "/ai/metrics", "/ai/api/metrics", "/ai//metrics", "/ai/internal/sweep"):
                closed = await http.get(path)
                assert (closed.status_code, "nginx" in closed.text) == (404, True), path
            assert (await http.get("/ai/healthz")).json() == {"status": "ok"}
