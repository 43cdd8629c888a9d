"""The forms of the account and admin APIs: of lists, of bodies that change something, and of refusals in OpenAPI."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, computed_field
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

MOST_ON_A_PAGE = 1000
REFERENCE = "#/components/schemas/{model}"
ALWAYS_POSSIBLE: tuple[type[TollgateError], ...] = (
    *Unauthenticated.__subclasses__(),
    *Forbidden.__subclasses__(),
    DatabaseUnavailable,
)


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def in_utc(moment: datetime) -> datetime:
    """Offsets that Postgres would not read are gone from here on."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is before year 1 or after year 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(in_utc), PlainSerializer(rfc3339, return_type=str)]
"""RFC 3339 with an offset when it comes in; UTC when it goes out."""
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]
"""Postgres keeps any character but NUL."""
Entry = TypeVar("Entry")


def computed(description: str) -> Callable[[Callable[[Any], Any]], property]:
    """A field made of others. Pydantic's own decorator goes above @property, where mypy allows none."""
    return lambda made: computed_field(description=description)(property(made))


class Written(BaseModel):
    """A body that changes something. A field that it does not know is refused, so none can slip through unseen."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    def changes(self) -> dict[str, Any]:
        """What the client said, nulls included; nothing of what it left out."""
        return self.model_dump(mode="json", exclude_unset=True)


class Listed(BaseModel):
    """The query of a list. What is asked for beside these is each list's own."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    limit: int = Field(100, ge=1, le=MOST_ON_A_PAGE, description="Most entries on a page.")
    cursor: Text | None = Field(None, description="The next_cursor of the page before.")

    def filters(self) -> dict[str, Any]:
        """For the database: all that was asked for but the size of the page."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"limit"})


class Page(BaseModel, Generic[Entry]):
    data: list[Entry]
    next_cursor: str | None = Field(None, description="Ask with this cursor for the next page; null on the last.")
    total: int | None = Field(None, description="How many there are on all pages; null where counting would cost more.")

    @classmethod
    def of(cls, found: dict[str, Any]) -> Self:
        return cls.model_validate({name: found.get(name) for name in ("data", "next_cursor", "total")})


class Problem(BaseModel):
    """What went wrong, in OpenAI's shape: `code` is stable, `message` says what to do."""

    model_config = ConfigDict(extra="allow")

    message: str
    type: str
    code: str
    param: str | None


class Refused(BaseModel):
    error: Problem


def refusals(*kinds: type[TollgateError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: what any call with a key may meet, and what this one adds. They name the schema and
    not the model: FastAPI would build its fields anew for each status of each route, most of what a cold start costs.
    """
    told = sorted({*ALWAYS_POSSIBLE, *kinds}, key=lambda kind: (kind.status, kind.code))
    codes: dict[int | str, list[str]] = {}
    for kind in told:
        codes.setdefault(kind.status, []).append(kind.code)
    return {status: _refused(", ".join(named)) for status, named in codes.items()}


def told_of_bad_input(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's document with our refusals of bad input in the place of its own, which nobody gets here."""
    for operations in document["paths"].values():
        for operation in operations.values():
            _tell(operation)
    schemas = document["components"]["schemas"]
    for theirs in ("HTTPValidationError", "ValidationError"):
        schemas.pop(theirs, None)
    _, ours = models_json_schema([(Problem, "serialization"), (Refused, "serialization")], ref_template=REFERENCE)
    schemas |= ours["$defs"]
    return document


def _tell(operation: dict[str, Any]) -> None:
    operation.setdefault("x-stability", "stable")
    told = operation["responses"]
    kinds: list[type[TollgateError]] = [InternalError]
    if told.get("422", {}).get("description") == "Validation Error":
        del told["422"]
        kinds.append(BadRequest)
    if "requestBody" in operation:
        kinds.append(BodyTooLarge)
    for kind in kinds:
        told.setdefault(str(kind.status), _refused(kind.code))


def _refused(codes: str) -> dict[str, Any]:
    schema = {"$ref": REFERENCE.format(model=Refused.__name__)}
    return {"description": codes, "content": {"application/json": {"schema": schema}}}
