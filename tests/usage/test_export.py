"""The usage export: constant memory, refusals before the first byte, and a visible error when it breaks."""

import csv
import io
import json
import tracemalloc
from typing import Any

import httpx
import pytest

from people import PEPPER, Person
from sandbox.serving import PATIENCE_SECONDS, serving
from tollgate.app import create_app
from tollgate.core.money import credits_text
from tollgate.database import Door, Json
from tollgate.database.postgres import PostgresDoor
from tollgate.settings import read
from tollgate.usage import export, rules
from usage import past


class Endless:
    """A door with any number of pages of requests."""

    def __init__(self, pages: int) -> None:
        self.pages = pages

    async def call(self, function: str, **arguments: Json) -> Json:
        self.pages -= 1
        rows = [past.a_request(id=f"req_{self.pages}_{number}") for number in range(arguments["page_size"])]
        return {"data": rows, "next_cursor": rows[-1]["id"] if self.pages else None}

    async def close(self) -> None: ...


class Revoking:
    """A door that revokes the caller's key after this many pages."""

    def __init__(self, door: Door, pages: int, revoke: Any) -> None:
        self._door = door
        self._left = pages
        self._revoke = revoke

    async def call(self, function: str, **arguments: Json) -> Json:
        if function == "tollgate_requests":
            self._left -= 1
            if self._left < 0:
                await self._revoke()
        return await self._door.call(function, **arguments)

    async def close(self) -> None:
        await self._door.close()


async def peak(pages: int, form: rules.Format) -> int:
    answer = await export.requests(Endless(pages), form, {}, everyone=True)
    tracemalloc.start()
    try:
        rows = 0
        async for chunk in answer.body_iterator:
            rows += bytes(chunk).count(b"\n")
        assert rows >= pages * export.PAGE
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", ["csv", "jsonl"])
async def test_thirty_pages_take_the_memory_of_three(form: rules.Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PAGE", 100)
    assert await peak(30, form) < await peak(3, form) * 1.2


@pytest.mark.parametrize("form", ["csv", "jsonl"])
async def test_a_file_that_breaks_off_says_so_and_its_connection_breaks(
    own_database: str, sql: Any, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(export, "PAGE", 10)
    ours, servers = (PostgresDoor(own_database, pool_size=2, deadline_seconds=30.0) for _ in range(2))
    someone = Person(ours)
    await someone.seed()
    await ours.close()
    await past.keep(own_database, list(past.many(someone, 100)))

    async def revoke() -> None:
        await sql(own_database, "update tollgate.api_keys set revoked_at = now()")

    app = create_app(read({"KEY_PEPPER": PEPPER}), door=Revoking(servers, 4, revoke))
    headers = {"authorization": f"Bearer {someone.secret}"}
    with serving(app, lifespan="on") as address:
        async with httpx.AsyncClient(base_url=address, headers=headers, timeout=PATIENCE_SECONDS) as client:
            text, whole = await read_file(client, form)
            again = await client.get("/user/usage/export", params={"format": form})
    lines = text.splitlines()
    assert not whole
    assert len(lines) == 40 + 1 + (form == "csv")
    assert "key_revoked" in lines[-1]
    assert again.status_code == 401
    assert again.json()["error"]["code"] == "key_revoked"
    assert someone.secret not in text


async def read_file(client: httpx.AsyncClient, form: str) -> tuple[str, bool]:
    """The content of a file, and whether it ended without an error."""
    text = ""
    try:
        async with client.stream("GET", "/user/usage/export", params={"format": form}) as answer:
            assert answer.status_code == 200
            async for piece in answer.aiter_text():
                text += piece
    except httpx.RemoteProtocolError:
        return text, False
    return text, True


async def test_a_file_holds_every_request_once_in_both_forms(
    door: Door, person: Any, shared_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE", 37)
    someone, other = await person(), await person()
    rows = list(past.many(someone, 200))
    rows[0]["model"] = "=cmd|' /C calc'!A0"
    rows[1]["model"] = 'with "quotes", a comma\r\nand lines'
    await past.keep(shared_database, [*rows, *past.many(other, 20)])
    app = create_app(read({"KEY_PEPPER": PEPPER}), door=door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tollgate") as client:
        headers = {"authorization": f"Bearer {someone.secret}"}
        table = await client.get("/user/usage/export", headers=headers)
        lines = await client.get("/user/usage/export?format=jsonl", headers=headers)
        summed = await client.get("/user/usage/export?totals=true", headers=headers)
    assert table.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert table.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    assert lines.headers["content-type"] == "application/x-ndjson"
    written = list(csv.DictReader(io.StringIO(table.text, newline="")))
    told = [json.loads(line) for line in lines.text.splitlines()]
    newest_first = [row["id"] for row in reversed(rows)]
    assert [row["id"] for row in written] == newest_first == [row["id"] for row in told]
    assert list(written[0]) == list(rules.COLUMNS)
    *same, total = csv.DictReader(io.StringIO(summed.text, newline=""))
    assert (same, total["id"], total["model"]) == (written, "total", "")
    for name in rules.SUMMED:
        assert int(total[name]) == sum(row[name] or 0 for row in told), name
    assert total["charge_credits"] == credits_text(int(total["charge_nanos"]))
    assert "cost" not in table.text
    assert "cost" not in lines.text
    assert written[-1]["model"] == "'" + rows[0]["model"]
    assert written[-2]["model"] == rows[1]["model"] == told[-2]["model"]
    assert table.text.endswith("\r\n")
    for row, kept in zip(written, reversed(rows), strict=True):
        assert row["charge_nanos"] == ("" if kept["charge_nanos"] is None else str(kept["charge_nanos"]))
