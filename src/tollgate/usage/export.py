"""Exports requests as a file, page by page, so that it needs the memory of one page only.

The first page is read before the response starts, so a refusal is an ordinary error response. A later failure writes
the error as the last line of the file and aborts the connection.
"""

import csv
import io
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from fastapi.responses import StreamingResponse

from tollgate.core.errors import TollgateError
from tollgate.core.money import with_credits
from tollgate.database import Door
from tollgate.usage import rules, store

PAGE = 1000

Request = Mapping[str, Any]

MEDIA_TYPES: Mapping[rules.Format, str] = {
    "csv": "text/csv; charset=utf-8; header=present",
    "jsonl": "application/x-ndjson",
}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file. If its last line is an error, it is incomplete.",
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    }
}


async def response(door: Door, form: rules.Format, filters: dict[str, Any], *, everyone: bool) -> StreamingResponse:
    first = await store.requests(door, filters, PAGE, everyone=everyone)
    columns = rules.COLUMNS + (rules.COLUMNS_OF_COST if everyone else ())
    writer = _Csv(columns) if form == "csv" else _JsonLines()
    return StreamingResponse(
        _written(writer, _pages(door, filters, first, everyone=everyone)),
        media_type=MEDIA_TYPES[form],
        headers={"content-disposition": f'attachment; filename="usage.{form}"'},
    )


class _Csv:
    def __init__(self, columns: Iterable[str]) -> None:
        self._columns = list(columns)
        self.head = self._lines([self._columns])

    def page(self, requests: Iterable[Request]) -> bytes:
        return self._lines(rules.table_row(request, self._columns) for request in requests)

    def broken(self, error: TollgateError) -> bytes:
        return self._lines([["error", error.code, error.message]])

    def _lines(self, rows: Iterable[list[Any]]) -> bytes:
        page = io.StringIO(newline="")
        csv.writer(page).writerows(rows)
        return page.getvalue().encode()


class _JsonLines:
    head = b""

    def page(self, requests: Iterable[Request]) -> bytes:
        return b"".join(map(_line, requests))

    def broken(self, error: TollgateError) -> bytes:
        return _line(error.body())


async def _pages(
    door: Door, filters: dict[str, Any], page: dict[str, Any], *, everyone: bool
) -> AsyncIterator[list[Request]]:
    yield page["data"]
    while page["next_cursor"]:
        further = filters | {"cursor": page["next_cursor"]}
        page = await store.requests(door, further, PAGE, everyone=everyone)
        yield page["data"]


async def _written(writer: _Csv | _JsonLines, pages: AsyncIterator[list[Request]]) -> AsyncIterator[bytes]:
    yield writer.head
    try:
        async for page in pages:
            yield writer.page([with_credits(request) for request in page])
    except TollgateError as error:
        yield writer.broken(error)
        raise


def _line(entry: Any) -> bytes:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
