"""GET /admin/compliance/report."""

from typing import Annotated, Any

from fastapi import Depends, Query
from starlette.responses import Response

from tollgate.admin.schemas.compliance import ComplianceReport, Period
from tollgate.audit import rules, store
from tollgate.audit.compliance_report import as_csv, as_markdown
from tollgate.core.money import with_credits
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.process import clock
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals, rfc3339

RENDERED = {
    "csv": ("text/csv; charset=utf-8", as_csv),
    "md": ("text/markdown; charset=utf-8", as_markdown),
}


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
            used = [with_credits(key) for key in found["access"]["used"]]
            return {
                **found,
                "access": {**found["access"], "used": used},
                "money": with_credits(found["money"]),
            }
        kind, rendered = RENDERED[period.form]
        name = f"tollgate-compliance-{since[:10]}-{until[:10]}.{period.form}"
        return Response(
            rendered(found), media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'}
        )

    return routes
