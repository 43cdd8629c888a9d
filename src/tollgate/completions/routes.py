"""The paid endpoints of `core/endpoints.py`, each under /v1 and under /api/v1, where OpenRouter has them.

Plain ASGI endpoints, outside FastAPI: its work around an endpoint costs more than the settlement. `openapi.py`
describes them.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tollgate.cache import rules as cache_rules
from tollgate.cache.lookups import Cache
from tollgate.cache.rules import Use, Wish
from tollgate.catalog import store
from tollgate.completions import content
from tollgate.completions.answer_forms import ANSWER_FORMS
from tollgate.completions.content import Content
from tollgate.completions.flow import Flow
from tollgate.completions.paid_call import PaidCall
from tollgate.completions.sweeper import Sweeper
from tollgate.completions.uploads import Uploaded, Uploads
from tollgate.core import request_body, strict_json
from tollgate.core.endpoints import ENDPOINTS, MOUNTS, Endpoint
from tollgate.core.errors import BadRequest, TollgateError
from tollgate.core.redaction import Redactor
from tollgate.core.request_body import Ask
from tollgate.keys.authentication import Caller, Gate
from tollgate.process import threads
from tollgate.process.clock import Monotonic
from tollgate.web.client_address import headers_of
from tollgate.web.error_responses import of_framework, render, shape_of
from tollgate.web.faults import IDEMPOTENCY_KEY

LONGEST_IDEMPOTENCY_KEY = 255


class PaidEndpoint:
    def __init__(
        self,
        path: str,
        endpoint: Endpoint,
        gate: Gate,
        flow: Flow,
        cache: Cache,
        clock: Monotonic,
        redact: Redactor | None,
        default_model: str | None = None,
    ) -> None:
        """`redact` is None where prompts and answers are not kept. `default_model` is the setting."""
        self.path = path
        self._endpoint = endpoint
        self._gate = gate
        self._flow = flow
        self._cache = cache
        self._clock = clock
        self._redact = redact
        self._default_model = default_model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Renders its own errors: Starlette's middleware for that costs as much as reading the body."""
        scope["endpoint"] = self  # the log line names its path
        try:
            await self._serve(scope, receive, send)
        except TollgateError as error:
            await render(error)(scope, receive, send)
        except HTTPException as error:
            await of_framework(error)(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = self._gate.caller(scope)
        self._gate.refuse_unknown(caller)
        call = None
        try:
            call = await self._arrived(caller, scope, receive)
            if call is not None:
                await self._flow.run(call, scope, receive, send)
        except BadRequest:
            await self._gate.recognise(caller)  # a key that is refused must not learn what is wrong with its request
            raise
        finally:
            if call is not None and call.spool is not None:
                call.spool.close()

    async def _arrived(self, caller: Caller, scope: Scope, receive: Receive) -> PaidCall | None:
        """None when the client left before the end of its body."""
        started = self._clock()
        headers = headers_of(scope)
        idempotency_key = idempotency_key_of(headers)
        given = await self._given(caller, scope, receive, headers, has_key=idempotency_key is not None)
        if given is None:
            return None
        return self._made(scope["state"]["own_id"], caller, scope, headers, given, idempotency_key, started)

    async def call(
        self, own_id: str, caller: Caller, scope: Scope, body: bytes, idempotency_key: str | None, started: float
    ) -> PaidCall:
        """The call that this body asks for. Raises BadRequest."""
        headers = headers_of(scope)
        given = await self._read(caller, headers, body, has_key=idempotency_key is not None)
        return self._made(own_id, caller, scope, headers, given, idempotency_key, started)

    def _made(
        self,
        own_id: str,
        caller: Caller,
        scope: Scope,
        headers: Mapping[str, str],
        given: "_Given | Uploaded",
        idempotency_key: str | None,
        started: float,
    ) -> PaidCall:
        return PaidCall(
            id=own_id,
            caller=caller,
            ask=given.ask,
            body=given.body,
            body_hash=given.body_hash,
            headers=headers,
            idempotency_key=idempotency_key,
            content=Content(given.prompt, self._redact, caller.secret) if self._redact else None,
            cache=given.cache,
            error_shape=shape_of(scope),
            clock=self._clock,
            started=started,
            tally=ANSWER_FORMS[self._endpoint].tally(choices=given.ask.choices),
            upload=given.upload,
            spool=given.spool,
        )

    async def _given(
        self, caller: Caller, scope: Scope, receive: Receive, headers: Mapping[str, str], *, has_key: bool
    ) -> "_Given | Uploaded | None":
        body = await self._gate.body(caller, scope, receive)
        return None if body is None else await self._read(caller, headers, body, has_key=has_key)

    async def _read(self, caller: Caller, headers: Mapping[str, str], body: bytes, *, has_key: bool) -> "_Given":
        wish_of = partial(self._wish, caller, headers, cache_rules.in_header(headers, self._cache.bounds))
        reading = _Reading(self._endpoint, has_key, self._redact is not None, wish_of)
        given = await threads.work(len(body), _read, body, reading)
        if given is None:
            named = await self._with_default(caller, body)
            given = await threads.work(len(body), _read_with_default, named, body, reading)
        return given

    async def _with_default(self, caller: Caller, body: bytes) -> bytes:
        name = await self._default(caller)
        return body if name is None else strict_json.edit(body, {"model": json.dumps(name)})

    async def _default(self, caller: Caller) -> str | None:
        """The default model of the caller's org, or of the installation. One more call of the database, which only
        calls without a model pay for."""
        own: str | None = (await store.default_model(self._gate.door_for(caller)))["default_model"]
        caller.recognised = True
        return own or self._default_model

    def _wish(
        self, caller: Caller, headers: Mapping[str, str], in_header: Wish | None, document: Mapping[str, Any]
    ) -> Use | None:
        """What the request wishes of the cache, and its digest."""
        cache = self._cache
        wish = cache_rules.wished(document, self._endpoint, in_header, cache.by_setting(caller.digest), cache.bounds)
        if wish is None:
            return None
        wish = cache_rules.as_marked(wish, headers)
        if not cache.is_on or not (wish.reads or wish.writes):
            return None
        return Use(wish, cache_rules.digest(document), cache.bounds)


class UploadEndpoint(PaidEndpoint):
    """An endpoint that takes a file."""

    def __init__(self, *given: Any, uploads: Uploads) -> None:
        super().__init__(*given)
        self._uploads = uploads

    async def _given(
        self, caller: Caller, scope: Scope, receive: Receive, headers: Mapping[str, str], *, has_key: bool
    ) -> Uploaded | None:
        default = partial(self._default, caller)
        return await self._uploads.read(caller, scope, receive, headers, self._endpoint, default)


class _Given(NamedTuple):
    """What is read of a body, in one go."""

    ask: Ask
    body: bytes
    """Without the member that is for us."""
    cache: Use | None
    body_hash: str | None
    prompt: str
    upload: None = None
    spool: None = None


class _Reading(NamedTuple):
    """What is to be read of a body."""

    endpoint: Endpoint
    has_key: bool
    """An idempotency key."""
    keeps_content: bool
    wish_of: Callable[[Mapping[str, Any]], Use | None]


def _read(body: bytes, reading: _Reading) -> _Given | None:
    """None if the body names no model."""
    document = request_body.parse(body)
    if not request_body.names_a_model(document):
        return None
    return _given(document, body, body, reading)


def _read_with_default(body: bytes, sent: bytes, reading: _Reading) -> _Given:
    """`sent` is the body as the client sent it. Raises BadRequest where there is no default either."""
    return _given(request_body.parse(body), body, sent, reading)


def _given(document: Mapping[str, Any], body: bytes, sent: bytes, reading: _Reading) -> _Given:
    is_ours = isinstance(document.get(cache_rules.FIELD), bool)
    return _Given(
        request_body.read_parsed(document, body, reading.endpoint),
        strict_json.edit(body, {cache_rules.FIELD: None}) if is_ours else body,
        reading.wish_of(document),
        _body_hash(sent, reading.endpoint) if reading.has_key else None,
        content.asked(reading.endpoint, document) if reading.keeps_content else "",
    )


def _body_hash(body: bytes, endpoint: Endpoint) -> str:
    """Tells whether a repetition is of the same request."""
    return hashlib.sha256(endpoint.encode() + b"\n" + body).hexdigest()


def endpoints(
    gate: Gate,
    flow: Flow,
    cache: Cache,
    clock: Monotonic,
    redact: Redactor | None,
    uploads: Uploads,
    default_model: str | None = None,
) -> list[PaidEndpoint]:
    plain, with_file = PaidEndpoint, partial(UploadEndpoint, uploads=uploads)
    return [
        (with_file if form.takes_file else plain)(
            mount + path, endpoint, gate, flow, cache, clock, redact, default_model
        )
        for endpoint, form in ENDPOINTS.items()
        for path in form.paths
        for mount in MOUNTS
    ]


def sweeping(sweeper: Sweeper, cron_secret: str | None) -> Route:
    """For a scheduler. GET is allowed, since Vercel's uses it. Without a secret the path answers 404."""

    async def sweep(request: Request) -> Response:
        offered = request.headers.get("authorization", "").removeprefix("Bearer ")
        if cron_secret is None or not hmac.compare_digest(offered.encode(), cron_secret.encode()):
            raise HTTPException(404)  # as a path that does not exist
        return JSONResponse(await sweeper.sweep())

    return Route("/internal/sweep", sweep, methods=["GET", "POST"])


def idempotency_key_of(headers: Mapping[str, str], longest: int = LONGEST_IDEMPOTENCY_KEY) -> str | None:
    key = headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= longest and key.isascii() and key.isprintable()):
        raise BadRequest(f"Idempotency-Key: {IDEMPOTENCY_KEY.format(longest=longest)}.", param="Idempotency-Key")
    return key
