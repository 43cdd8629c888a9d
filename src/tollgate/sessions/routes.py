"""/auth: signing in and out, one's password, and the list of one's sessions."""

import secrets
from typing import Annotated

from fastapi import Depends, Path, Query, Response
from starlette.requests import Request

from tollgate.audit.rules import address_of
from tollgate.core import errors
from tollgate.database import Door, Json
from tollgate.keys.authentication import WITH_SESSIONS, Gate
from tollgate.sessions import rules, store
from tollgate.sessions.first_net import FirstNet
from tollgate.sessions.passwords import Passwords
from tollgate.sessions.schemas import EndedSessions, NewPassword, Session, SessionFilters, SignedIn, SignIn
from tollgate.sessions.ways import NewSession, Ways
from tollgate.web import session_cookie
from tollgate.web.routing import Routes
from tollgate.web.schemas import Line, Page, refusals

FORGET = '"cache", "cookies", "storage"'
"""Clear-Site-Data: what a browser deletes when its user signs out."""
OF_PASSWORDS = (errors.SignInFailed, errors.TooManySignIns, errors.ServerBusy)
SessionId = Annotated[Line, Path(description="The id of the session.")]


def router(gate: Gate, *, secure: bool) -> Routes:
    ways, net = Ways(Passwords(), gate.digests), FirstNet()
    routes = Routes(tags=["sessions"])
    routes.take(_signing_in(gate, ways, net, secure=secure))
    routes.take(_signed_in(gate))
    routes.take(_password(gate, ways, net))
    return routes


def _signing_in(gate: Gate, ways: Ways, net: FirstNet, *, secure: bool) -> Routes:
    routes = Routes()

    @routes.post(
        "/auth/sign-in",
        summary="Sign in with a key, a sign-in link, or email and password",
        responses=refusals(
            errors.BadRequest, errors.SignInFailed, errors.InvalidLink, errors.TooManySignIns, errors.ServerBusy
        ),
    )
    async def sign_in(request: Request, body: SignIn, response: Response) -> SignedIn:
        """Starts a session and sets its cookie, which is accepted under /user/, /admin/ and /auth/. The session may do
        what its user may do at the time of each request, and no more than the key that was exchanged. The request must
        come from a page of this host."""
        token = rules.token(secrets.token_bytes(rules.RANDOM_BYTES))
        door = gate.door_to_sign_in(request, body.key)
        new = NewSession(door, _address(request), gate.digests(token)[0])
        started = await _started(ways, net, new, body)
        _set_cookie(response, token, started.pop("lifetime_seconds"), secure=secure)
        return SignedIn.model_validate(started)

    return routes


async def _started(ways: Ways, net: FirstNet, new: NewSession, body: SignIn) -> Json:
    if body.key is not None:
        return await ways.with_key(new)
    net.check(new.address)
    if body.link is not None:
        return await ways.with_link(new, body.link)
    return await ways.with_password(new, body.email or "", body.password or "")


def _address(request: Request) -> str:
    """The client's address, as failures are counted. All unknown ones count together."""
    ip = request.state.claims["ip"]
    return address_of(ip) if ip else "unknown"


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


def _password(gate: Gate, ways: Ways, net: FirstNet) -> Routes:
    routes = Routes(dependencies=WITH_SESSIONS, guard=gate.guard)
    faults = (errors.BadRequest, errors.WeakPassword, *OF_PASSWORDS)

    @routes.post("/auth/password", summary="Set your password", responses=refusals(*faults))
    async def set_password(
        request: Request, door: Annotated[Door, Depends(gate.open)], body: NewPassword
    ) -> EndedSessions:
        """Ends all your other sessions. The first password is set after a sign-in by link, within 15 minutes."""
        address = _address(request)
        net.check(address)
        return EndedSessions.model_validate(await ways.change_password(door, address, body.password, body.current))

    return routes
