"""Exports requests, or counts of refused calls, as a file, page by page, so that it needs the memory of one page only.

The first page is read before the response starts, so a refusal is an ordinary error response. A later failure writes
the error as the last line of the file and aborts the connection.
"""

import csv
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from fastapi.responses import StreamingResponse

from tollgate.core.errors import TollgateError
from tollgate.core.money import with_credits
from tollgate.database import Door
from tollgate.usage import rules, store

PAGE = 1000

Row = Mapping[str, Any]
Read = Callable[[dict[str, Any], int], Awaitable[Any]]
"""A page of rows, by filters and the size of a page."""

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


async def requests(
    door: Door, form: rules.Format, filters: dict[str, Any], *, everyone: bool, totals: bool = False
) -> StreamingResponse:
    columns = rules.COLUMNS + (rules.COLUMNS_OF_COST if everyone else ())
    summed = rules.SUMMED + (rules.SUMMED_OF_COST if everyone else ()) if totals else ()
    return await _file("usage", form, columns, partial(store.requests, door, everyone=everyone), filters, summed)


async def refused_calls(
    door: Door, form: rules.Format, filters: dict[str, Any], *, everyone: bool
) -> StreamingResponse:
    read = partial(store.refused_calls, door, everyone=everyone)
    return await _file("refused", form, rules.COLUMNS_OF_REFUSED, read, filters)


async def _file(
    name: str,
    form: rules.Format,
    columns: Sequence[str],
    read: Read,
    filters: dict[str, Any],
    summed: Sequence[str] = (),
) -> StreamingResponse:
    first = await read(filters, PAGE)
    writer = _Csv(columns) if form == "csv" else _JsonLines()
    return StreamingResponse(
        _written(writer, _pages(read, filters, first), summed),
        media_type=MEDIA_TYPES[form],
        headers={"content-disposition": f'attachment; filename="{name}.{form}"'},
    )


class _Csv:
    def __init__(self, columns: Iterable[str]) -> None:
        self._columns = list(columns)
        self.head = self._lines([self._columns])

    def page(self, rows: Iterable[Row]) -> bytes:
        return self._lines(rules.table_row(row, self._columns) for row in rows)

    def broken(self, error: TollgateError) -> bytes:
        return self._lines([["error", error.code, error.message]])

    def _lines(self, rows: Iterable[list[Any]]) -> bytes:
        page = io.StringIO(newline="")
        csv.writer(page).writerows(rows)
        return page.getvalue().encode()


class _JsonLines:
    head = b""

    def page(self, rows: Iterable[Row]) -> bytes:
        return b"".join(map(_line, rows))

    def broken(self, error: TollgateError) -> bytes:
        return _line(error.body())


async def _pages(read: Read, filters: dict[str, Any], page: dict[str, Any]) -> AsyncIterator[list[Row]]:
    yield page["data"]
    while page["next_cursor"]:
        page = await read(filters | {"cursor": page["next_cursor"]}, PAGE)
        yield page["data"]


async def _written(
    writer: _Csv | _JsonLines, pages: AsyncIterator[list[Row]], summed: Sequence[str]
) -> AsyncIterator[bytes]:
    yield writer.head
    totals = dict.fromkeys(summed, 0)
    try:
        async for page in pages:
            for name in summed:
                totals[name] += sum(row[name] or 0 for row in page)
            yield writer.page([with_credits(row) for row in page])
        if summed:
            yield writer.page([with_credits({"id": "total", **totals})])
    except TollgateError as error:
        yield writer.broken(error)
        raise


def _line(entry: Any) -> bytes:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
