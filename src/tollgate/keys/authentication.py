"""Who is calling. Reads the key of a request; the SQL function that a route calls decides whether the key may act."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cachetools import TTLCache
from fastapi import Depends
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope

from tollgate.core.errors import BadRequest, InvalidApiKey, SessionEnded, TollgateError, Unauthenticated
from tollgate.database import Door, Json
from tollgate.keys import rules, store
from tollgate.keys.rules import Environment
from tollgate.process import logs
from tollgate.process.clock import Monotonic
from tollgate.settings import TrustedProxy
from tollgate.web import client_address, session_cookie
from tollgate.web.routing import CUT_SHORT, Handler, refuse_ambiguous

UNKNOWN_REMEMBERED = 10_000
UNKNOWN_SECONDS = 5.0
LONGEST_USER_AGENT = 500
MOST_UNKNOWN_BYTES = 64 * 1024
"""The most bytes of a body that are read before the database has recognised the key."""

UnknownKeys = TTLCache[str, bool]

IN_THE_DOCUMENT = [
    Depends(HTTPBearer(scheme_name="Bearer", description="Authorization: Bearer <key>", auto_error=False)),
    Depends(APIKeyHeader(name="X-API-Key", scheme_name="X-API-Key", auto_error=False)),
]
"""For OpenAPI only: how a key is sent. `Gate` reads it."""
WITH_SESSIONS = [
    *IN_THE_DOCUMENT,
    Depends(APIKeyCookie(name=session_cookie.SECURE_NAME, scheme_name="Session", auto_error=False)),
]


@dataclass(slots=True)
class Caller:
    """The caller of a request, as the request claims."""

    claims: dict[str, Any]
    """What the database needs to recognise the key or session: digests, address, user agent, request id."""
    environment: Environment
    secret: str = field(repr=False)
    """The key itself, or the token of the session."""
    recognised: bool = False
    """The database has accepted the key for this request."""
    must_be_operator: bool = False
    """The route is for operators only."""
    digest: str = field(init=False)
    """The first of those in the claims."""

    def __post_init__(self) -> None:
        self.digest = (self.claims.get("digests") or self.claims["session"])[0]

    @property
    def unknown(self) -> type[Unauthenticated]:
        """The refusal when the database does not know the digest."""
        return InvalidApiKey if "digests" in self.claims else SessionEnded


class ClientLeft(Exception):
    """The client left before the end of its body."""


class CallerDoor:
    """A door that adds the same caller to every call."""

    def __init__(self, door: Door, caller: dict[str, Any]) -> None:
        self._door = door
        self._caller = caller

    async def call(self, function: str, **arguments: Json) -> Json:
        try:
            answer = await self._door.call(function, caller=self._caller, **arguments)
        except TollgateError as refusal:
            if "key_id" in refusal.facts:
                logs.note(key_id=refusal.facts["key_id"])
            raise
        logs.note(**answer.pop("caller"))
        return answer

    async def close(self) -> None:
        """Does nothing: the inner door belongs to the process."""


class Gate:
    """Turns requests into callers. Unknown keys are remembered for seconds, so guesses do not reach the database."""

    def __init__(
        self,
        door: Door,
        *,
        peppers: Sequence[str],
        trusted_proxy: TrustedProxy,
        clock: Monotonic,
        cookie: str = session_cookie.SECURE_NAME,
    ) -> None:
        self._door = door
        self._cookie = cookie
        self._peppers = peppers
        self._fingerprint = rules.fingerprint(peppers[0])
        self._trusted_proxy = trusted_proxy
        self._unknown: UnknownKeys = TTLCache(UNKNOWN_REMEMBERED, UNKNOWN_SECONDS, timer=clock)

    async def open(self, request: Request) -> Door:
        """A door for the caller of the request. Refuses a malformed key without the database."""
        return self.door_for(self.caller(request.scope))

    async def guard(self, request: Request, handle: Handler, reads_body: bool) -> Response:
        """Wraps a route. A key that is malformed, unknown or not allowed is refused before any fault of the request."""
        caller = self.caller(request.scope)
        self.refuse_unknown(caller)
        try:
            return await handle(await self._read(caller, request) if reads_body else request)
        except (BadRequest, RequestValidationError, HTTPException):
            await self.recognise(caller)
            raise

    async def guard_operators(self, request: Request, handle: Handler, reads_body: bool) -> Response:
        """As guard(), for routes of operators: a member's key is refused too."""
        self.caller(request.scope).must_be_operator = True
        return await self.guard(request, handle, reads_body)

    async def recognise(self, caller: Caller) -> None:
        """Raises the refusal of a key that may not use the route. Asks the database once a request."""
        if not caller.recognised:
            identify = store.identify_operator if caller.must_be_operator else store.identify
            await identify(self.door_for(caller))

    async def body(self, caller: Caller, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None when the client left before its end. A large one is read on only for a recognised key."""
        pieces: list[bytes] = []
        size, more = 0, True
        try:
            if self._announces_much(scope):
                await self.recognise(caller)
            while more:
                piece, more = await self._piece(caller, receive, size)
                pieces.append(piece)
                size += len(piece)
        except ClientLeft:
            return None
        return b"".join(pieces)

    async def pieces(self, caller: Caller, scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ClientLeft."""
        size, more = 0, True
        if self._announces_much(scope):
            await self.recognise(caller)
        while more:
            piece, more = await self._piece(caller, receive, size)
            yield piece
            size += len(piece)

    def _announces_much(self, scope: Scope) -> bool:
        return client_address.announced_bytes(client_address.headers_of(scope)) > MOST_UNKNOWN_BYTES

    async def _piece(self, caller: Caller, receive: Receive, size: int) -> tuple[bytes, bool]:
        """The next piece of a body that has so many bytes already, and whether more follow."""
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        piece: bytes = message.get("body", b"")
        if size + len(piece) > MOST_UNKNOWN_BYTES:
            await self.recognise(caller)
        return piece, message.get("more_body", False)

    def caller(self, scope: Scope) -> Caller:
        """The caller, read once a request. Refuses a malformed key."""
        state = scope["state"]
        if "caller" not in state:
            state["caller"] = self._read_caller(scope)
        known: Caller = state["caller"]
        return known

    def _read_caller(self, scope: Scope) -> Caller:
        headers = client_address.headers_of(scope)
        claims = self._claims(scope, headers)
        if token := session_cookie.token_of(scope, headers, self._cookie):
            return Caller(claims | {"session": self.digests(token)}, "live", token)
        return self._with_key(claims, rules.presented(headers))

    def door_to_sign_in(self, request: Request, key: str | None = None) -> Door:
        """A door for someone who signs in, with a key or without. Refuses a request that another site caused."""
        headers = client_address.headers_of(request.scope)
        claims = self._claims(request.scope, headers)
        session_cookie.refuse_cross_site(request.method, headers)
        if token := session_cookie.sent(headers, self._cookie):
            claims["session"] = self.digests(token)
        if key is None:
            return CallerDoor(self._door, claims)
        caller = self._with_key(claims, rules.checked(key))
        self.refuse_unknown(caller)
        return self.door_for(caller)

    def _with_key(self, claims: dict[str, Any], secret: str) -> Caller:
        claims["digests"] = self.digests(secret)
        claims["pepper"] = self._fingerprint
        return Caller(claims, rules.environment_of(secret), secret)

    def digests(self, secret: str) -> list[str]:
        """The digests under which a secret may be stored; a new one is stored under the first."""
        return [rules.digest(secret, pepper) for pepper in self._peppers]

    def _claims(self, scope: Scope, headers: Mapping[str, str]) -> dict[str, Any]:
        claims: dict[str, Any] = {
            "ip": client_address.client_ip(scope, self._trusted_proxy),
            "user_agent": headers.get("user-agent", "")[:LONGEST_USER_AGENT],
            "request_id": scope["state"]["request_id"],
        }
        scope["state"]["claims"] = claims  # the security reporter counts malformed keys too
        return claims

    def refuse_unknown(self, caller: Caller) -> None:
        if caller.digest in self._unknown:
            raise caller.unknown

    def remember_unknown(self, caller: Caller) -> None:
        self._unknown[caller.digest] = True

    def door_for(self, caller: Caller) -> Door:
        return _KeysDoor(self._door, caller, self._unknown)

    async def _read(self, caller: Caller, request: Request) -> Request:
        """The request with its body. Refuses a body in which a name occurs twice."""
        body = await self.body(caller, request.scope, request.receive)
        if body is None:
            raise BadRequest(CUT_SHORT)
        await refuse_ambiguous(body)

        async def again() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        return Request(request.scope, again)


class _KeysDoor(CallerDoor):
    """A caller's door that refuses a key which the database did not know a moment ago."""

    def __init__(self, door: Door, caller: Caller, unknown: UnknownKeys) -> None:
        super().__init__(door, caller.claims)
        self._caller_of_request = caller
        self._unknown = unknown

    async def call(self, function: str, **arguments: Json) -> Json:
        if self._caller_of_request.digest in self._unknown:
            raise self._caller_of_request.unknown
        try:
            answer = await super().call(function, **arguments)
        except (InvalidApiKey, SessionEnded):
            self._unknown[self._caller_of_request.digest] = True
            raise
        except BadRequest:  # SQL functions recognise the caller before they validate
            self._caller_of_request.recognised = True
            raise
        self._caller_of_request.recognised = True
        return answer


def console(door: Door, command: str) -> Door:
    """A door for a command at the console, which needs no key."""
    return CallerDoor(door, {"console": command})
