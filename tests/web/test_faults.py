"""Errors of validation are told in our words, whatever pydantic calls them."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import httpx
import pytest
from fastapi import FastAPI, Header
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from tollgate.web.error_responses import HANDLERS
from tollgate.web.faults import NO_NUL, ONE_LINE
from tollgate.web.routing import Routes
from tollgate.web.schemas import Identifier, Moment, When


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    minutes: int | None = None


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inner: Inner | None = None
    several: list[Inner] = []
    names: Annotated[list[str], Field(min_length=1, max_length=2)] = ["a"]
    size: Annotated[int, Field(ge=1, le=9)] = 1
    share: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.5
    amount: Annotated[Decimal, Field(decimal_places=2)] = Decimal(0)
    flag: bool = False
    kind: Literal["a", "b"] = "a"
    line: Annotated[str, Field(min_length=1, max_length=3, pattern=ONE_LINE)] = "x"
    text: Annotated[str, Field(pattern=NO_NUL)] = "x"
    id: Identifier = "x"
    day: datetime | None = None
    at: AwareDatetime | None = None
    moment: Moment | None = None
    when: When | None = None
    own: dict[str, str] = {}


def app() -> FastAPI:
    routes = Routes()

    @routes.post("/things", summary="Make")
    async def make(
        body: Body,
        signature: Annotated[str, Header()],
        idempotency_key: Annotated[str, Header(alias="Idempotency-Key")],
    ) -> None: ...

    made = FastAPI(exception_handlers=HANDLERS)
    made.router.routes += routes.routes
    return made


FAULTS: list[tuple[Any, str]] = [
    ({"inner": {"hours": 1}}, "inner.hours: is not known here. Known: minutes."),
    ({"several": [{"hours": 1}]}, "several.0.hours: is not known here. Known: minutes."),
    ({"inner": {"minutes": "x"}}, "inner.minutes: must be a whole number."),
    ({"inner": 5}, "inner: must be an object."),
    ({"own": 5}, "own: must be an object."),
    ({"names": "x"}, "names: must be a list."),
    ({"names": []}, "names: must have at least 1 entry."),
    ({"names": ["a", "b", "c"]}, "names: must have at most 2 entries."),
    ({"size": 0}, "size: must be at least 1."),
    ({"size": 10}, "size: must be at most 9."),
    ({"size": 1.5}, "size: must be a whole number."),
    ({"share": 0}, "share: must be more than 0.0."),
    ({"share": 1}, "share: must be less than 1.0."),
    ({"share": "x"}, "share: must be a number."),
    ({"share": "inf"}, "share: must be a finite number."),
    ({"amount": "x"}, "amount: must be a number."),
    ({"amount": "0.001"}, "amount: must have at most 2 decimal places."),
    ({"flag": "perhaps"}, "flag: must be true or false."),
    ({"kind": "c"}, "kind: must be 'a' or 'b'."),
    ({"line": ""}, "line: must not be empty."),
    ({"line": "abcd"}, "line: must have at most 3 characters."),
    ({"line": "a\n"}, "line: must not have control characters, such as line breaks."),
    ({"line": 5}, "line: must be text."),
    ({"text": "\x00"}, "text: must not have the character NUL."),
    ({"id": "a b"}, "id: must be printable ASCII without spaces."),
    ({"day": "soon"}, "day: must be a time such as 2026-11-01T09:30:00Z."),
    ({"at": "2026-11-01T09:30:00"}, "at: must be a time such as 2026-11-01T09:30:00Z, with its time zone."),
    ({"moment": 5}, "moment: must be a time such as 2026-11-01T09:30:00Z."),
    ({"when": "soon"}, "when: must be a time such as 2026-11-01T09:30:00Z, or a date such as 2026-11-01."),
]


async def refused(headers: dict[str, str], **body: Any) -> str:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app()), base_url="http://tollgate.test") as http:
        answer = await http.post("/things", headers=headers, **body)
    assert answer.status_code == 400
    return str(answer.json()["error"]["message"])


@pytest.mark.parametrize(("body", "message"), FAULTS)
async def test_a_fault_is_told_in_our_words(body: Any, message: str) -> None:
    assert await refused({"signature": "x", "idempotency-key": "x"}, json=body) == message


async def test_what_is_missing_or_no_json_is_named() -> None:
    assert await refused({"idempotency-key": "x"}, json={}) == "signature: is missing. Send it."
    told = await refused({"signature": "x"}, json={})
    assert told.startswith("Idempotency-Key: is missing. Send a value of your own")
    broken = await refused({"signature": "x", "content-type": "application/json"}, content=b"{")
    assert broken.endswith("is not valid JSON.")
