"""The schemas that rooms share: types of fields, request bodies, pages, amounts and errors."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import models_json_schema

from tollgate.core.errors import (
    BadRequest,
    BodyTooLarge,
    DatabaseUnavailable,
    Forbidden,
    InternalError,
    TollgateError,
    Unauthenticated,
)
from tollgate.core.money import with_credits
from tollgate.process import clock
from tollgate.web.faults import DATE as A_DATE
from tollgate.web.faults import NO_NUL, ONE_LINE, PRINTABLE, TIME_OR_DATE
from tollgate.web.faults import TIME as A_TIME

MOST_ON_A_PAGE = 1000
MOST_SKIPPED = 10_000
MOST_HOURS = 731 * 24
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ].+")
PLAIN_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
SHAPING = {"limit", "hours", "by", "bucket", "format", "include", "totals"}
REFERENCE = "#/components/schemas/{model}"
ALWAYS_POSSIBLE: tuple[type[TollgateError], ...] = (
    *Unauthenticated.__subclasses__(),
    *Forbidden.__subclasses__(),
    DatabaseUnavailable,
)


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def in_utc(moment: datetime) -> datetime:
    """In UTC, because Postgres does not read every offset."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie between the years 1 and 9999 in UTC") from None


def on_clocks(moment: datetime) -> datetime:
    """Within the years that every time zone can represent."""
    if not 1900 <= moment.year < 9000:
        raise ValueError("must lie between the years 1900 and 9000")
    return moment


def written_out(value: object) -> object:
    """Refuses numbers, which pydantic reads as seconds since 1970."""
    if isinstance(value, str | int | float) and not TIME.fullmatch(str(value)):
        raise ValueError(A_TIME)
    return value


def time_or_date(value: object) -> object:
    """Refuses texts that are neither, before a time alone is asked for."""
    moment = midnight_of(value)
    if isinstance(moment, str) and not TIME.fullmatch(moment):
        raise ValueError(TIME_OR_DATE)
    return moment


def midnight_of(value: object) -> object:
    """A plain date means its midnight in UTC. Other values stay as they are."""
    is_date = isinstance(value, str) and PLAIN_DATE.fullmatch(value)
    return f"{value}T00:00:00Z" if is_date else value


def plain_date(value: object) -> object:
    if isinstance(value, str) and not PLAIN_DATE.fullmatch(value):
        raise ValueError(A_DATE)
    return value


_Shown = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Moment = Annotated[
    AwareDatetime,
    BeforeValidator(written_out),
    AfterValidator(in_utc),
    PlainSerializer(rfc3339, return_type=_Shown),
]
"""RFC 3339: any offset in requests; UTC with milliseconds in responses."""
When = Annotated[
    Moment,
    AfterValidator(on_clocks),
    BeforeValidator(time_or_date),
    WithJsonSchema({"anyOf": [{"type": "string", "format": name} for name in ("date-time", "date")]}),
]
"""A time in a query: RFC 3339, or a plain date."""
Day = Annotated[
    AwareDatetime,
    AfterValidator(on_clocks),
    BeforeValidator(midnight_of),
    BeforeValidator(plain_date),
    WithJsonSchema({"type": "string", "format": "date"}),
]
"""A plain date in a query, as its midnight in UTC."""
Text = Annotated[str, Field(max_length=300, pattern=NO_NUL)]
Note = Annotated[str, Field(max_length=1000, pattern=NO_NUL)]
Line = Annotated[str, Field(max_length=200, pattern=ONE_LINE)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=ONE_LINE)]
Identifier = Annotated[str, Field(min_length=1, max_length=256, pattern=PRINTABLE)]
Credits = Annotated[str, Field(pattern=r"^-?[0-9]+\.[0-9]{2,9}$", examples=["4.999996"])]
"""An amount in responses: a decimal string, exact, with two to nine places."""
Entry = TypeVar("Entry")


def exactly_one(*names: str) -> dict[str, Any]:
    """For the schema of a body that needs one of these fields."""
    return {"oneOf": [{"required": [name]} for name in names]}


def not_both(*pairs: tuple[str, str]) -> dict[str, Any]:
    """For the schema of a body in which only one of each pair may be sent."""
    return {"allOf": [{"not": {"required": list(pair)}} for pair in pairs]}


class ChangeBody(BaseModel):
    """The body of a request that changes something. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    def changes(self) -> dict[str, Any]:
        """The fields that the client sent, nulls included."""
        return self.model_dump(mode="json", exclude_unset=True)


class QueryModel(BaseModel):
    """The query of a request. Unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    def filters(self) -> dict[str, Any]:
        """The query for the database, without the parameters that only shape the response."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=SHAPING)


class Period(QueryModel):
    """A period. A plain date is midnight in UTC, so `from=2026-11-01&to=2026-12-01` is November."""

    since: When | None = Field(
        None, alias="from", description="From this time on: RFC 3339, or a date, which is its midnight in UTC."
    )
    until: When | None = Field(
        None, alias="to", description="Before this time. A date is its midnight in UTC, so that day is not included."
    )
    hours: int | None = Field(
        None, ge=1, le=MOST_HOURS, description="The last so many hours. Send either hours, or from and to."
    )

    @model_validator(mode="after")
    def _with_hours(self) -> Self:
        if self.hours is not None:
            if self.since or self.until:
                raise BadRequest("Send either hours, or from and to.", param="hours")
            self.since = clock.now() - timedelta(hours=self.hours)
        if self.since and self.until and self.until <= self.since:
            raise BadRequest("`to` must be later than `from`.", param="to")
        return self


class PageQuery(QueryModel):
    """The query of a list. Lists add their filters."""

    limit: int = Field(100, ge=1, le=MOST_ON_A_PAGE, description="The most entries on a page.")
    cursor: Text | None = Field(None, description="The next_cursor of the previous page. Send either cursor or offset.")
    offset: int | None = Field(
        None,
        ge=0,
        le=MOST_SKIPPED,
        description="How many entries to skip. A cursor is faster, and misses nothing when entries are added.",
    )

    @model_validator(mode="after")
    def _has_one_start(self) -> Self:
        if self.cursor and self.offset:
            raise BadRequest("Send either cursor or offset.", param="offset")
        return self


class Page(BaseModel, Generic[Entry]):
    data: list[Entry]
    next_cursor: str | None = Field(None, description="The cursor of the next page; null on the last page.")

    @classmethod
    def of(cls, found: dict[str, Any]) -> Self:
        return cls.model_validate({name: found[name] for name in cls.model_fields})


class CountedPage(Page[Entry], Generic[Entry]):
    """Of a list that is short enough to be counted. Lists that may have millions of entries have no total."""

    total: int = Field(description="How many entries all pages have.")


class Amounts(BaseModel):
    """Shows amounts twice, both exact: `<name>_nanos` is an integer, `<name>_credits` a decimal string."""

    @model_validator(mode="before")
    @classmethod
    def _with_credits(cls, found: dict[str, Any]) -> dict[str, Any]:
        return with_credits(found)


class Problem(BaseModel):
    """An error in OpenAI's shape. `code` is stable; `message` says what to do."""

    model_config = ConfigDict(extra="allow")

    message: str
    type: str
    code: str
    param: str | None


class ErrorResponse(BaseModel):
    error: Problem


def refusals(*kinds: type[TollgateError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: the errors of any call with a key, and these.

    They refer to the schema instead of the model. FastAPI would build the model's fields again for each status of each
    route, which is most of a cold start.
    """
    return refusals_of(*ALWAYS_POSSIBLE, *kinds)


def refusals_of(*kinds: type[TollgateError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that needs no API key: these errors alone."""
    codes: dict[int | str, list[str]] = {}
    for kind in sorted(set(kinds), key=lambda kind: (kind.status, kind.code)):
        codes.setdefault(kind.status, []).append(kind.code)
    return {status: _error(", ".join(named)) for status, named in codes.items()}


def with_our_errors(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's document, with our errors in place of its validation errors, which are never sent."""
    for operations in document["paths"].values():
        for operation in operations.values():
            _add_errors(operation)
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    _, ours = models_json_schema([(Problem, "serialization"), (ErrorResponse, "serialization")], ref_template=REFERENCE)
    schemas |= ours["$defs"]
    return document


def _add_errors(operation: dict[str, Any]) -> None:
    operation.setdefault("x-stability", "stable")
    responses = operation["responses"]
    kinds: list[type[TollgateError]] = [InternalError]
    if responses.get("422", {}).get("description") == "Validation Error":
        del responses["422"]
        kinds.append(BadRequest)
    if "requestBody" in operation:
        kinds.append(BodyTooLarge)
    for kind in kinds:
        responses.setdefault(str(kind.status), _error(kind.code))


def _error(codes: str) -> dict[str, Any]:
    schema = {"$ref": REFERENCE.format(model=ErrorResponse.__name__)}
    return {"description": codes, "content": {"application/json": {"schema": schema}}}
