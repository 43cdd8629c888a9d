"""GET /admin/compliance/report."""

from typing import Annotated, Any, Literal

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from tollgate.audit import report, rules, store
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.process import clock
from tollgate.web.routing import Routes
from tollgate.web.schemas import Moment, refusals, rfc3339

RENDERED = {
    "csv": ("text/csv; charset=utf-8", report.as_csv),
    "md": ("text/markdown; charset=utf-8", report.as_markdown),
}


class Period(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    since: Moment = Field(alias="from", description="The report begins here.", examples=["2026-01-01T00:00:00Z"])
    until: Moment | None = Field(
        None, alias="to", description=f"And ends before this: now, unless told. At most {rules.MOST_DAYS} days later."
    )
    form: Literal["json", "csv", "md"] = Field("json", alias="format", description="How to write it.")
    books: bool | None = Field(
        None, description="Whether to audit the books. Left out, they are unless they are too large for one call."
    )


class UnusedKey(BaseModel):
    key_id: str
    key: str = Field(description="Masked.")
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
    usable: int = Field(description="How many may be used at this moment.")
    never_used: int = Field(description="Of those.")
    unused_90_days: int = Field(description="Of those, used before but not within 90 days.")
    unused: list[UnusedKey] = Field(description="The 1,000 oldest of both.")


class Actor(BaseModel):
    kind: Literal["user", "console", "system"]
    id: str
    email: str | None
    role: str | None
    status: str | None
    org_id: str | None
    actions: dict[str, int] = Field(description="How often each.", examples=[{"key.created": 2}])
    refused: int


class PeopleReport(BaseModel):
    admins: int = Field(description="Active ones, at this moment.")
    actors: int
    done: list[Actor] = Field(description="Admins first, idle ones too; the 1,000 busiest.")


class KeyUse(BaseModel):
    key_id: str
    key: str | None = Field(description="Masked; null when the key is gone.")
    name: str | None
    org_id: str | None
    user_id: str | None
    requests: int
    charge_credits: float
    charge_nanos: int
    last_request_at: Moment
    last_used_at: Moment | None = Field(description="For anything, at any time.")


class AccessReport(BaseModel):
    keys: int
    requests: int
    used: list[KeyUse] = Field(description="The 1,000 busiest.")


class MoneyReport(BaseModel):
    in_credits: float = Field(description="Funded by payments, less what was taken back.")
    in_nanos: int
    promotions_credits: float
    promotions_nanos: int
    written_off_credits: float
    written_off_nanos: int
    charged_credits: float = Field(description="For requests made in this time.")
    charged_nanos: int
    refunded_credits: float
    refunded_nanos: int
    out_credits: float = Field(description="What upstreams cost for the same requests.")
    out_nanos: int
    margin_credits: float = Field(description="Charged less refunded and out.")
    margin_nanos: int


class BooksReport(BaseModel):
    audited: bool
    agree: bool | None
    fault_count: int | None
    faults: list[dict[str, Any]] = Field(description="The first hundred.")
    orgs: int | None = None
    transfers: int | None = None
    requests: int | None = None
    open_holds: int | None = None
    reason: str | None = Field(description="Why they were not audited.")


class ComplianceReport(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    since: Moment = Field(alias="from")
    until: Moment = Field(alias="to")
    made_at: Moment
    keys: KeysReport
    people: PeopleReport
    access: AccessReport
    money: MoneyReport
    books: BooksReport = Field(description="At the moment of the report, whatever its time.")


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin/compliance")
    answers = refusals()
    answers[200] = {
        "content": {kind.partition(";")[0]: {"schema": {"type": "string"}} for kind, _ in RENDERED.values()}
    }

    @routes.get(
        "/report",
        summary="What an auditor asks: keys, people, access, money, books",
        response_model=ComplianceReport,
        responses=answers,
        openapi_extra={"x-stability": "stable"},
    )
    async def compliance_report(
        door: Annotated[Door, Depends(gate.open)], period: Annotated[Period, Query()]
    ) -> dict[str, Any] | Response:
        ending = period.until or clock.now()
        rules.check_span(period.since, ending)
        since, until = rfc3339(period.since), rfc3339(ending)
        found = await store.compliance_report(door, since, until, period.books)
        if period.form == "json":
            used = [report.with_credits(key) for key in found["access"]["used"]]
            return {**found, "access": {**found["access"], "used": used}, "money": report.with_credits(found["money"])}
        kind, rendered = RENDERED[period.form]
        name = f"tollgate-compliance-{since[:10]}-{until[:10]}.{period.form}"
        return Response(
            rendered(found), media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'}
        )

    return routes
