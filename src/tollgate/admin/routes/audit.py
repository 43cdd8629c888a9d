"""GET /admin/audit-logs."""

from typing import Annotated

from fastapi import Depends, Query

from tollgate.admin.schemas.audit import AuditEvent, AuditFilters
from tollgate.audit import store as audit
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import Page, refusals


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin")

    @routes.get(
        "/audit-logs",
        summary="List audit events",
        description="Audit events record every change and are append-only. `total` counts at most 10,000.",
        responses=refusals(),
    )
    async def audit_logs(
        door: Annotated[Door, Depends(gate.open)], filters: Annotated[AuditFilters, Query()]
    ) -> Page[AuditEvent]:
        return Page[AuditEvent].of(await audit.events(door, filters.filters(), filters.limit))

    return routes
