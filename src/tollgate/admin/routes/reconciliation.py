"""/admin/reconciliation: each day at OpenRouter by our books, and by its bill."""

from typing import Annotated

from fastapi import Depends, Query
from fastapi import Path as InPath

from tollgate.admin.schemas.reconciliation import ReconciledDay, Reconciliation, ReconciliationQuery
from tollgate.core.errors import ActivityUnavailable, BadRequest, NotFound, ReconciliationNotConfigured
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.reconciliation import store
from tollgate.reconciliation.reconciler import Reconciler
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, Day, refusals

OfDay = Annotated[Day, InPath(description="The day (UTC).", examples=["2026-11-29"])]


def router(gate: Gate, reconciler: Reconciler) -> Routes:
    routes = Routes(prefix="/admin/reconciliation")
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type

    @routes.get(
        "",
        summary="List the days that were reconciled with OpenRouter's bill",
        description="With OPENROUTER_MANAGEMENT_KEY, each day is reconciled three times, from six hours after its end.",
        responses=refusals(BadRequest),
    )
    async def reconciliations(
        door: OpenDoor, query: Annotated[ReconciliationQuery, Query()]
    ) -> CountedPage[ReconciledDay]:
        return CountedPage[ReconciledDay].of(await store.days(door, query.filters(), query.limit))

    @routes.get("/{day}", summary="Get the reconciliation of a day", responses=refusals(BadRequest, NotFound))
    async def reconciliation(door: OpenDoor, day: OfDay) -> Reconciliation:
        """Its models, the largest difference first, and why each may differ, down to requests."""
        return Reconciliation.model_validate(await store.of_day(door, day.date()))

    @routes.post(
        "/{day}/run",
        summary="Reconcile a day now",
        description="The outcome replaces the one before.",
        responses=refusals(BadRequest, ReconciliationNotConfigured, ActivityUnavailable),
    )
    async def run(door: OpenDoor, day: OfDay) -> Reconciliation:
        await reconciler.ask(door, day.date())
        return Reconciliation.model_validate(await store.of_day(door, day.date()))

    return routes
