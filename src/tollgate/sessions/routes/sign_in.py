"""Signing in, and the ways to do so."""

import secrets

from fastapi import Response
from starlette.requests import Request

from tollgate.core import errors
from tollgate.database import Json
from tollgate.keys.authentication import Gate
from tollgate.sessions import rules
from tollgate.sessions.first_net import FirstNet, address
from tollgate.sessions.schemas import SignedIn, SignIn, SignInWays
from tollgate.sessions.ways import NewSession, Ways
from tollgate.settings import Settings
from tollgate.web import session_cookie
from tollgate.web.routing import Routes, guard_body
from tollgate.web.schemas import refusals

REFUSALS = (
    errors.BadRequest, errors.SignInFailed, errors.InvalidLink, errors.TooManySignIns, errors.ServerBusy,
    errors.SupabaseUnavailable,
)  # fmt: skip


def ways_router(chosen: Settings) -> Routes:
    routes = Routes()
    project = {"url": chosen.supabase_url, "publishable_key": chosen.supabase_publishable_key}
    ways = {"key": True, "link": True, "password": True, "supabase": project if all(project.values()) else None}

    @routes.get("/auth/ways", summary="List the ways to sign in")
    async def sign_in_ways() -> SignInWays:
        return SignInWays.model_validate(ways)

    return routes


def router(gate: Gate, ways: Ways, net: FirstNet, *, secure: bool) -> Routes:
    routes = Routes(guard=guard_body)

    @routes.post("/auth/sign-in", summary="Sign in", responses=refusals(*REFUSALS))
    async def sign_in(request: Request, body: SignIn, response: Response) -> SignedIn:
        """By a key, by a sign-in link, by email and password, or by an access token of Supabase Auth. Starts a session
        and sets its cookie, which is accepted under /user/, /admin/ and /auth/. The session may do what its user may do
        at the time of each request, and no more than the key that was exchanged. The request must come from a page of
        this host."""
        token = rules.token(secrets.token_bytes(rules.RANDOM_BYTES))
        door = gate.door_to_sign_in(request, body.key)
        new = NewSession(door, address(request), gate.digests(token)[0])
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
    if body.supabase_token is not None:
        return await ways.with_supabase(new, body.supabase_token)
    return await ways.with_password(new, body.email or "", body.password or "")


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
