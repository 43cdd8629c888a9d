"""GET /docs shows the whole OpenAPI document, and loads nothing from anywhere."""

import re

import httpx

from journeys.walk import operations, whole_document
from tollgate.app import create_app
from tollgate.settings import read
from tollgate.web import aliases
from tollgate.web.html import prose


async def test_the_page_shows_every_operation_and_needs_no_other_host() -> None:
    app = create_app(read({}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate.test") as http:
        answer = await http.get("/docs")
    page = answer.text
    for operation in operations(whole_document()):
        assert f"<code>{operation.path}</code>" in page
        assert prose(operation.told["summary"]) in page
    for path in aliases.documented(whole_document()["paths"]):
        assert f"<code>{path}</code>" in page
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"<(script|link|img|iframe|object)|@import|url\(", page)
    assert set(re.findall(r'(?:src|href)="([^#"][^"]*)"', page)) == {"openapi.json"}


async def test_every_link_within_the_page_leads_somewhere() -> None:
    app = create_app(read({}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate.test") as http:
        page = (await http.get("/docs")).text
    ids = re.findall(r'id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


async def test_the_document_has_aliases_only_if_they_are_asked_for() -> None:
    app = create_app(read({}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate.test") as http:
        plain, whole, wrong = [await http.get(f"/openapi.json{query}") for query in ("", "?aliases=true", "?aliases=1")]
    assert plain.json() == whole_document(), "`make exports` writes src/tollgate/openapi.json"
    assert not [path for path in aliases.ALIASES if path in plain.json()["paths"]]
    assert whole.json()["paths"].keys() == plain.json()["paths"].keys() | aliases.documented(plain.json()["paths"])
    assert (wrong.status_code, wrong.json()["error"]["message"]) == (400, "aliases: send true or false.")
