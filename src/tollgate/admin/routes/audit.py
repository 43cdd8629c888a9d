"""GET /admin/audit-logs and POST /admin/audit."""

from typing import Annotated

from fastapi import Depends, Query

from tollgate.admin.schemas.audit import AuditEvent, AuditFilters
from tollgate.admin.schemas.compliance import AuditOrder, BooksAudit
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

    @routes.post(
        "/audit",
        summary="Audit the books",
        description="Proves that the ledger, balances, holds and requests agree, from the tables alone. Large books "
        "are audited only when `books` is true, and may take longer than a call: run `python -m tollgate audit` then.",
        responses=refusals(),
    )
    async def audit_books(door: Annotated[Door, Depends(gate.open)], body: AuditOrder | None = None) -> BooksAudit:
        return BooksAudit.model_validate(await audit.audit(door, body.books if body else None))

    return routes
