"""The list of one's sessions, and ending them."""

from typing import Annotated

from fastapi import Depends, Path, Query, Response

from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import WITH_SESSIONS, Gate
from tollgate.sessions import store
from tollgate.sessions.schemas import EndedSessions, Session, SessionFilters, SignedIn
from tollgate.web.routing import Routes
from tollgate.web.schemas import Line, Page, refusals

FORGET = '"cache", "cookies", "storage"'
"""Clear-Site-Data: what a browser deletes when its user signs out."""
SessionId = Annotated[Line, Path(description="The id of the session.")]


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/auth", dependencies=WITH_SESSIONS, guard=gate.guard)
    OpenDoor = Annotated[Door, Depends(gate.open)]  # noqa: N806  # it is a type

    @routes.post("/sign-out", summary="Sign out", responses=refusals())
    async def sign_out(door: OpenDoor, response: Response) -> EndedSessions:
        """Ends the session of this request. A request with a key has none, and changes nothing."""
        response.headers["clear-site-data"] = FORGET
        return EndedSessions.model_validate(await store.end(door, None))

    @routes.get("/me", summary="Get who is signed in", responses=refusals())
    async def me(door: OpenDoor) -> SignedIn:
        return SignedIn.model_validate(await store.signed_in(door))

    @routes.get("/sessions", summary="List your sessions, newest first", responses=refusals(errors.BadRequest))
    async def sessions(door: OpenDoor, query: Annotated[SessionFilters, Query()]) -> Page[Session]:
        return Page[Session].of(await store.sessions(door, query.filters(), query.limit))

    @routes.delete("/sessions", summary="End all your sessions, this one included", responses=refusals())
    async def end_sessions(door: OpenDoor) -> EndedSessions:
        return EndedSessions.model_validate(await store.end_all(door))

    @routes.delete("/sessions/{session_id}", summary="End a session", responses=refusals(errors.NotFound))
    async def end_session(door: OpenDoor, session_id: SessionId) -> EndedSessions:
        """One of your own, or any for operators."""
        return EndedSessions.model_validate(await store.end(door, session_id))

    return routes
