"""What may be asked about usage."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tollgate.usage.export import Format
from tollgate.usage.rules import Bucket, Span
from tollgate.web.schemas import Listed, Moment

Word = Annotated[str, Field(max_length=300, pattern=r"^[^\x00]*$")]
When = Annotated[Moment, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC))]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class _Time(_Asked):
    since: When | None = Field(None, alias="from", description="Not before this time.")
    until: When | None = Field(None, alias="to", description="Before this time.")

    def filters(self) -> dict[str, Any]:
        """For the database: all that was asked for but the shape of the answer."""
        shape = {"limit", "by", "bucket", "format", "include"}
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=shape)

    def over(self, span: Span) -> dict[str, Any]:
        """The filters with the time they came to."""
        return self.model_copy(update={"since": span.since, "until": span.until}).filters()


class Used(_Asked):
    """Narrows usage to what an org may ask of its own."""

    model: Word | None = Field(None, description="Only this model, as it was asked for.")
    upstream: Word | None = Field(None, description="Only requests that this upstream served.")
    key_id: Word | None = Field(None, description="Only requests with this key.")
    user_id: Word | None = Field(None, description="Only requests with keys of this user.")


class UsedByAnyone(Used):
    org_id: Word | None = Field(None, description="Only requests of this org.")

    @property
    def of_people(self) -> bool:
        return bool(self.org_id or self.user_id or self.key_id)


class _Which(_Time, Used):
    endpoint: Word | None = Field(None, description="Only this endpoint, such as chat or embeddings.")
    status: str | None = Field(
        None, pattern=r"^[1-5](\d\d|xx)$", description="Only this HTTP status, or 4xx for all of its hundred."
    )
    state: Literal["held", "unsettled", "settled", "released"] | None = None
    streamed: bool | None = None
    estimated: bool | None = Field(None, description="Whether the charge is an estimate.")
    cached: bool | None = Field(None, description="Whether the upstream found part of the prompt in its cache.")
    sort: Literal["created_at:desc", "created_at:asc"] | None = Field(None, description="Newest first if not named.")


class Paged(Listed):
    cursor: Word | None = Field(None, description="The next_cursor of the page before.")


class OwnRequests(Paged, _Which):
    """The query of an org's own requests."""


class AllRequests(Paged, _Which, UsedByAnyone):
    """The query of everyone's requests."""


class OwnFile(_Which):
    format: Format = Field("csv", description="CSV with a header (RFC 4180), or one JSON object a line.")


class WholeFile(OwnFile, UsedByAnyone):
    """The query of a file of everyone's requests."""


MOST_WITH_CONTENT = 100


class Logs(Paged, _Time):
    model: Word | None = Field(None, description="Only this model, as it was asked for.")
    cached: bool | None = Field(None, description="Whether the upstream found part of the prompt in its cache.")
    status: str | None = Field(
        None, pattern=r"^[1-5](\d\d|xx)$", description="Only this HTTP status, or 4xx for all of its hundred."
    )
    key: Word | None = Field(None, description="Only requests with the key of this id.")
    include: Literal["content"] | None = Field(
        None,
        description="With prompts and answers as LOG_CONTENT keeps them, at most 100 on a page. That they were read "
        "is recorded: an audit event `content.read` for each org.",
    )

    def filters(self) -> dict[str, Any]:
        asked = super().filters()
        return asked | ({"key_id": asked.pop("key")} if self.key else {})


class OwnAggregate(Paged, _Time, Used):
    by: list[Literal["day", "month", "model", "key", "user", "upstream"]] = Field(
        ["model"], min_length=1, max_length=3, description="What to tell apart; more than one where repeated."
    )
    sort: Literal["start", "requests", "errors", "tokens", "charge"] | None = Field(
        None, description="The most of it first; start goes by time, and is the rule by day or month."
    )

    @property
    def order(self) -> str:
        return self.sort or ("start" if {"day", "month"} & set(self.by) else "charge")


class WholeAggregate(Paged, _Time, UsedByAnyone):
    by: list[Literal["day", "month", "model", "key", "user", "org", "upstream"]] = Field(
        ["model"], min_length=1, max_length=3, description="What to tell apart; more than one where repeated."
    )
    sort: Literal["start", "requests", "errors", "tokens", "charge", "cost", "margin"] | None = Field(
        None, description="The most of it first; start goes by time, and is the rule by day or month."
    )

    @property
    def order(self) -> str:
        return self.sort or ("start" if {"day", "month"} & set(self.by) else "charge")


class OwnSeries(_Time, Used):
    bucket: Bucket = Field("hour", description="minute over at most 6 hours, hour over 31 days, day over 731 days.")


class WholeSeries(OwnSeries, UsedByAnyone):
    """The query of a series over everyone's usage."""


class LatencyOf(_Time, UsedByAnyone):
    """The query of latencies."""
