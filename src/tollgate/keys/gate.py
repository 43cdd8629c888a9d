"""The way from a request's key to the database: every call says who makes it, and the function there decides."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from cachetools import TTLCache
from fastapi import Depends
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.requests import Request
from starlette.types import Scope

from tollgate.core.errors import InvalidApiKey, TollgateError
from tollgate.keys import rules
from tollgate.keys.rules import Environment
from tollgate.runtime import logs, network
from tollgate.runtime.clock import Monotonic
from tollgate.runtime.database import Door, Json
from tollgate.runtime.settings import TrustedProxy

STRANGERS_REMEMBERED = 10_000
STRANGER_SECONDS = 5.0
LONGEST_USER_AGENT = 500

Strangers = TTLCache[str, bool]

IN_THE_DOCUMENT = [
    Depends(HTTPBearer(scheme_name="Bearer", description="Authorization: Bearer <key>", auto_error=False)),
    Depends(APIKeyHeader(name="X-API-Key", scheme_name="X-API-Key", auto_error=False)),
]
"""Tells OpenAPI how a key is sent; the gate is what reads it."""


class Visitor(NamedTuple):
    """Who a request says it is. The database has not looked yet."""

    claims: dict[str, Any]
    """What the database recognises the key by."""
    environment: Environment

    @property
    def digest(self) -> str:
        return str(self.claims["digests"][0])


class CallersDoor:
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
        visitor = self.meet(request.scope)
        return _KeysDoor(self._door, visitor.claims, self._strangers, visitor.digest)

    def meet(self, scope: Scope) -> Visitor:
        """Who comes, for calls that take many callers at once."""
        headers = network.headers_of(scope)
        claims: dict[str, Any] = {
            "ip": network.client_ip(scope, self._trusted_proxy),
            "user_agent": headers.get("user-agent", "")[:LONGEST_USER_AGENT],
            "request_id": scope["state"]["request_id"],
        }
        scope["state"]["caller"] = claims  # for the watch, who wants to know of a key that is none as well
        secret = rules.presented(headers)
        claims["digests"] = [rules.digest(secret, pepper) for pepper in self._peppers]
        claims["pepper"] = self._fingerprint
        return Visitor(claims, rules.environment_of(secret))

    def refuse_strangers(self, visitor: Visitor) -> None:
        if visitor.digest in self._strangers:
            raise InvalidApiKey

    def remember_stranger(self, visitor: Visitor) -> None:
        self._strangers[visitor.digest] = True


class _KeysDoor(CallersDoor):
    """A caller's door that stays shut for a key which the database did not know a moment ago."""

    def __init__(self, door: Door, caller: dict[str, Any], strangers: Strangers, digest: str) -> None:
        super().__init__(door, caller)
        self._strangers = strangers
        self._digest = digest

    async def call(self, function: str, **arguments: Json) -> Json:
        if self._digest in self._strangers:
            raise InvalidApiKey
        try:
            return await super().call(function, **arguments)
        except InvalidApiKey:
            self._strangers[self._digest] = True
            raise


def console(door: Door, command: str) -> Door:
    """A door for an operator at the console, who needs no key."""
    return CallersDoor(door, {"console": command})
