"""The way from a request's key to the database: every call says who makes it, and the function there decides."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cachetools import TTLCache
from fastapi import Depends
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope

from tollgate.core import strict_json
from tollgate.core.errors import BadRequest, InvalidApiKey, TollgateError
from tollgate.core.strict_json import NotJson
from tollgate.database import Door, Json
from tollgate.keys import rules, store
from tollgate.keys.rules import Environment
from tollgate.process import logs, threads
from tollgate.process.clock import Monotonic
from tollgate.settings import TrustedProxy
from tollgate.web import client_address
from tollgate.web.routing import Handler

STRANGERS_REMEMBERED = 10_000
STRANGER_SECONDS = 5.0
LONGEST_USER_AGENT = 500
MOST_UNKNOWN_BYTES = 64 * 1024
"""Of a body that are read before the database has recognised the key."""
MOST_ADMIN_VALUES = 5_000
"""In a body of the account and admin API, whose forms look at each."""

Strangers = TTLCache[str, bool]

IN_THE_DOCUMENT = [
    Depends(HTTPBearer(scheme_name="Bearer", description="Authorization: Bearer <key>", auto_error=False)),
    Depends(APIKeyHeader(name="X-API-Key", scheme_name="X-API-Key", auto_error=False)),
]
"""Tells OpenAPI how a key is sent; the gate is what reads it."""


@dataclass(slots=True)
class Caller:
    """Who a request says it is."""

    claims: dict[str, Any]
    """What the database recognises the key by."""
    environment: Environment
    secret: str = field(repr=False)
    """The key itself."""
    recognised: bool = False
    """The database has looked, and did not refuse the key."""
    must_be_operator: bool = False
    """The route is for operators only."""

    @property
    def digest(self) -> str:
        return str(self.claims["digests"][0])


class CallerDoor:
    """A door through which every call names the same caller."""

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
        """Nothing: the door behind belongs to the process."""


class Gate:
    """Turns requests into callers. Unknown keys are remembered for seconds, so that guessing ends here."""

    def __init__(self, door: Door, *, peppers: Sequence[str], trusted_proxy: TrustedProxy, clock: Monotonic) -> None:
        self._door = door
        self._peppers = peppers
        self._fingerprint = rules.fingerprint(peppers[0])
        self._trusted_proxy = trusted_proxy
        self._strangers: Strangers = TTLCache(STRANGERS_REMEMBERED, STRANGER_SECONDS, timer=clock)

    async def open(self, request: Request) -> Door:
        """A door that the request's key opens. Refuses at once what cannot be a key of ours."""
        return self._door_for(self.meet(request.scope))

    async def guard(self, request: Request, handle: Handler, reads_body: bool) -> Response:
        """Around a route: nothing is done for a key that is none, and a key that may not come in is refused before a
        fault of the request is told."""
        visitor = self.meet(request.scope)
        self.refuse_strangers(visitor)
        try:
            return await handle(await self._read(visitor, request) if reads_body else request)
        except (BadRequest, RequestValidationError, HTTPException):
            await self.recognise(visitor)
            raise

    async def guard_operators(self, request: Request, handle: Handler, reads_body: bool) -> Response:
        """As guard(), and a member's key is refused before a fault of the request is told."""
        self.meet(request.scope).must_be_operator = True
        return await self.guard(request, handle, reads_body)

    async def recognise(self, visitor: Caller) -> None:
        """Raises the refusal of a key that may not use the route. Asks the database unless it has looked before."""
        if not visitor.recognised:
            identify = store.identify_operator if visitor.must_be_operator else store.identify
            await identify(self._door_for(visitor))

    async def body(self, visitor: Caller, scope: Scope, receive: Receive) -> bytes | None:
        """None when the client left before its end. Of a large one, no more than its beginning is read for a key that
        the database does not recognise."""
        if client_address.announced_bytes(client_address.headers_of(scope)) > MOST_UNKNOWN_BYTES:
            await self.recognise(visitor)
        pieces = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > MOST_UNKNOWN_BYTES:
                await self.recognise(visitor)
            if not message.get("more_body", False):
                return b"".join(pieces)

    def meet(self, scope: Scope) -> Caller:
        """Who comes: the same for all that ask of one request. Refuses what cannot be a key of ours."""
        state = scope["state"]
        if "visitor" not in state:
            state["visitor"] = self._met(scope)
        known: Caller = state["visitor"]
        return known

    def _met(self, scope: Scope) -> Caller:
        headers = client_address.headers_of(scope)
        claims: dict[str, Any] = {
            "ip": client_address.client_ip(scope, self._trusted_proxy),
            "user_agent": headers.get("user-agent", "")[:LONGEST_USER_AGENT],
            "request_id": scope["state"]["request_id"],
        }
        scope["state"]["caller"] = claims  # for the watch, who wants to know of a key that is none as well
        secret = rules.presented(headers)
        claims["digests"] = [rules.digest(secret, pepper) for pepper in self._peppers]
        claims["pepper"] = self._fingerprint
        return Caller(claims, rules.environment_of(secret), secret)

    def refuse_strangers(self, visitor: Caller) -> None:
        if visitor.digest in self._strangers:
            raise InvalidApiKey

    def remember_stranger(self, visitor: Caller) -> None:
        self._strangers[visitor.digest] = True

    def _door_for(self, visitor: Caller) -> Door:
        return _KeysDoor(self._door, visitor, self._strangers)

    async def _read(self, visitor: Caller, request: Request) -> Request:
        """The request with its body, in which no name stands twice."""
        body = await self.body(visitor, request.scope, request.receive)
        if body is None:
            raise HTTPException(400, "The request ended before its body did.")
        try:
            await threads.work(len(body), strict_json.refuse_ambiguous, body, MOST_ADMIN_VALUES)
        except NotJson as error:
            raise strict_json.refusal(error) from None

        async def again() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        return Request(request.scope, again)


class _KeysDoor(CallerDoor):
    """A caller's door that stays shut for a key which the database did not know a moment ago."""

    def __init__(self, door: Door, visitor: Caller, strangers: Strangers) -> None:
        super().__init__(door, visitor.claims)
        self._visitor = visitor
        self._strangers = strangers

    async def call(self, function: str, **arguments: Json) -> Json:
        if self._visitor.digest in self._strangers:
            raise InvalidApiKey
        try:
            answer = await super().call(function, **arguments)
        except InvalidApiKey:
            self._strangers[self._visitor.digest] = True
            raise
        except BadRequest:  # of a caller who was recognised first
            self._visitor.recognised = True
            raise
        self._visitor.recognised = True
        return answer


def console(door: Door, command: str) -> Door:
    """A door for an operator at the console, who needs no key."""
    return CallerDoor(door, {"console": command})
