"""GET /docs shows the whole OpenAPI document, and loads nothing from anywhere."""

import re

import httpx

from journeys.walk import whole_document
from tollgate.app import create_app
from tollgate.settings import read
from tollgate.web.html import prose


async def test_the_page_shows_every_operation_and_needs_no_other_host() -> None:
    app = create_app(read({}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate.test") as http:
        answer = await http.get("/docs")
    page = answer.text
    for path, item in whole_document()["paths"].items():
        assert f"<code>{path}</code>" in page
        for told in item.values():
            assert "x-alias-of" in told or prose(told["summary"]) in page
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"<(script|link|img|iframe|object)|@import|url\(", page)
    assert set(re.findall(r'(?:src|href)="([^#"][^"]*)"', page)) == {"/openapi.json"}


async def test_every_link_within_the_page_leads_somewhere() -> None:
    app = create_app(read({}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate.test") as http:
        page = (await http.get("/docs")).text
    ids = re.findall(r'id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
