"""/admin/audit-logs and POST /admin/audit."""

from typing import Annotated

from fastapi import Depends, Query
from fastapi import Path as InPath

from tollgate.admin.schemas.audit import AuditEvent, AuditFilters
from tollgate.admin.schemas.compliance import AuditOrder, BooksAudit
from tollgate.audit import store as audit
from tollgate.core.errors import BadRequest, NotFound
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.web.routing import Routes
from tollgate.web.schemas import Identifier, Page, refusals


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

    @routes.get("/audit-logs/{event_id}", summary="Get an audit event", responses=refusals(BadRequest, NotFound))
    async def audit_log(
        door: Annotated[Door, Depends(gate.open)],
        event_id: Annotated[Identifier, InPath(description="The id of the event.")],
    ) -> AuditEvent:
        return AuditEvent.model_validate(await audit.event(door, event_id))

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
