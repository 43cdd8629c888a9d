"""The compliance report, and the period that it covers."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tollgate.audit import rules
from tollgate.core.errors import BadRequest
from tollgate.web.schemas import Amounts, ChangeBody, Credits, Moment, Period, When


class ReportQuery(Period):
    since: When | None = Field(
        None, alias="from", description="The start of the period, as a time or a date. Send it, or hours."
    )
    until: When | None = Field(
        None,
        alias="to",
        description=f"The end of the period, exclusive; at most {rules.MOST_DAYS} days after its start. Default: now.",
    )
    form: Literal["json", "csv", "md"] = Field("json", alias="format", description="The format of the report.")
    books: bool | None = Field(
        None, description="Whether to audit the books. By default they are audited if one call can do it."
    )

    @property
    def start(self) -> datetime:
        if self.since is None:
            raise BadRequest("Send the start of the period: from, or hours.", param="from")
        return self.since


class UnusedKey(BaseModel):
    key_id: str
    masked_key: str
    name: str
    org_id: str
    user_id: str
    created_at: Moment
    last_used_at: Moment | None


class KeysReport(BaseModel):
    issued: int
    rotated: int
    disabled: int
    revoked: int
    usable: int = Field(description="How many keys can be used now.")
    never_used: int = Field(description="How many usable keys were never used.")
    unused_90_days: int = Field(description="How many usable keys were used, but not within 90 days.")
    unused: list[UnusedKey] = Field(description="The keys of the two counts above, oldest first, at most 1,000.")


class ReportedActor(BaseModel):
    kind: Literal["user", "console", "system"]
    id: str
    email: str | None
    role: str | None
    status: str | None
    org_id: str | None
    actions: dict[str, int] = Field(description="How often each action was done.", examples=[{"key.created": 2}])
    refused: int


class PeopleReport(BaseModel):
    admins: int = Field(description="How many admins are active now.")
    actors: int
    done: list[ReportedActor] = Field(
        description="Admins first, including those without an action; at most 1,000, the most active."
    )


class ReportedKey(Amounts):
    key_id: str
    masked_key: str | None = Field(description="Null when the key was deleted.")
    name: str | None
    org_id: str | None
    user_id: str | None
    requests: int
    charge_credits: Credits
    charge_nanos: int
    last_request_at: Moment
    last_used_at: Moment | None = Field(description="The last use of any kind, also outside the period.")


class AccessReport(BaseModel):
    keys: int
    requests: int
    used: list[ReportedKey] = Field(description="At most 1,000 keys, those with the most requests.")


class MoneyReport(Amounts):
    in_credits: Credits = Field(description="Paid in by orgs, less corrections.")
    in_nanos: int
    promotions_credits: Credits
    promotions_nanos: int
    written_off_credits: Credits
    written_off_nanos: int
    charged_credits: Credits = Field(description="Charged for the requests of the period.")
    charged_nanos: int
    refunded_credits: Credits
    refunded_nanos: int
    out_credits: Credits = Field(description="Our cost of the requests of the period.")
    out_nanos: int
    margin_credits: Credits = Field(description="Charged, less refunds and cost.")
    margin_nanos: int


class BooksReport(BaseModel):
    audited: bool
    agree: bool | None
    fault_count: int | None
    faults: list[dict[str, Any]] = Field(description="At most 100 faults.")
    orgs: int | None = None
    transfers: int | None = None
    requests: int | None = None
    open_holds: int | None = None
    reason: str | None = Field(description="Why the books were not audited.")


class BooksAudit(BooksReport):
    at: Moment


class AuditOrder(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"books": True}]})

    books: bool | None = Field(None, description="true audits books of any size. Default: those below 200,000 rows.")


class ComplianceReport(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    since: Moment = Field(alias="from")
    until: Moment = Field(alias="to")
    made_at: Moment
    keys: KeysReport
    people: PeopleReport
    access: AccessReport
    money: MoneyReport
    books: BooksReport = Field(description="The books as they are now, whatever the period.")
