"""/auth: signing in and out, and the list of one's sessions."""

import secrets
from typing import Annotated

from fastapi import Depends, Path, Query, Response
from starlette.requests import Request

from tollgate.core import errors
from tollgate.database import Door, Json
from tollgate.keys.authentication import WITH_SESSIONS, Gate
from tollgate.sessions import rules, store
from tollgate.sessions.schemas import EndedSessions, Session, SessionFilters, SignedIn, SignIn
from tollgate.web import session_cookie
from tollgate.web.routing import Routes
from tollgate.web.schemas import Line, Page, refusals

FORGET = '"cache", "cookies", "storage"'
"""Clear-Site-Data: what a browser deletes when its user signs out."""
SessionId = Annotated[Line, Path(description="The id of the session.")]


def router(gate: Gate, *, secure: bool) -> Routes:
    routes = Routes(tags=["sessions"])
    routes.take(_signing_in(gate, secure=secure))
    routes.take(_signed_in(gate))
    return routes


def _signing_in(gate: Gate, *, secure: bool) -> Routes:
    routes = Routes()

    @routes.post(
        "/auth/sign-in",
        summary="Sign in with a key or a sign-in link",
        responses=refusals(errors.BadRequest, errors.SignInFailed, errors.InvalidLink),
    )
    async def sign_in(request: Request, body: SignIn, response: Response) -> SignedIn:
        """Starts a session and sets its cookie, which is accepted under /user/, /admin/ and /auth/. The session may do
        what its user may do at the time of each request, and no more than the key that was exchanged. The request must
        come from a page of this host."""
        token = rules.token(secrets.token_bytes(rules.RANDOM_BYTES))
        door = gate.door_to_sign_in(request, body.key)
        started = await _started(gate, door, body, gate.digests(token)[0])
        _set_cookie(response, token, started.pop("lifetime_seconds"), secure=secure)
        return SignedIn.model_validate(started)

    return routes


async def _started(gate: Gate, door: Door, body: SignIn, digest: str) -> Json:
    if body.link is not None:
        return await store.sign_in_with_link(door, gate.digests(body.link), digest)
    return await store.sign_in_with_key(door, digest)


def _set_cookie(response: Response, token: str, seconds: int, *, secure: bool) -> None:
    response.set_cookie(
        session_cookie.name(secure=secure),
        token,
        max_age=seconds,
        path="/",
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def _signed_in(gate: Gate) -> Routes:
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
