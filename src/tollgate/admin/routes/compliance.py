"""GET /admin/compliance/report."""

from typing import Annotated, Any

from fastapi import Depends, Query
from starlette.responses import Response

from tollgate.admin.schemas.compliance import ComplianceReport, ReportQuery
from tollgate.audit import rules, store
from tollgate.audit.compliance_report import as_csv, as_markdown
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.process import clock
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals, rfc3339

RENDERERS = {"csv": ("text/csv; charset=utf-8", as_csv), "md": ("text/markdown; charset=utf-8", as_markdown)}


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin/compliance")
    answers = refusals()
    answers[200] = {
        "content": {kind.partition(";")[0]: {"schema": {"type": "string"}} for kind, _ in RENDERERS.values()}
    }

    @routes.get(
        "/report",
        summary="Report on keys, people, access, money and books",
        response_model=ComplianceReport,
        responses=answers,
    )
    async def compliance_report(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[ReportQuery, Query()]
    ) -> dict[str, Any] | Response:
        ending = query.until or clock.now()
        rules.check_span(query.start, ending)
        since, until = rfc3339(query.start), rfc3339(ending)
        found: dict[str, Any] = await store.compliance_report(door, since, until, query.books)
        if query.form == "json":
            return found
        kind, render = RENDERERS[query.form]
        name = f"tollgate-compliance-{since[:10]}-{until[:10]}.{query.form}"
        return Response(
            render(found), media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'}
        )

    return routes
