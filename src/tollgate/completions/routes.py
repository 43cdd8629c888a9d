"""POST /v1/chat/completions, /v1/completions and /v1/embeddings, and the same where OpenRouter has them.

Plain ASGI endpoints, reached past FastAPI: what it does around one costs more than the money does. `document.py`
describes them.
"""

import hmac
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tollgate.completions import plain, rules
from tollgate.completions.admission import Admission, Call, Replay
from tollgate.completions.content import Content
from tollgate.completions.paid_call import Leaving, PaidCall
from tollgate.completions.settlements import Books
from tollgate.completions.stream import Stream
from tollgate.completions.sweeper import Sweeper
from tollgate.core import request_body
from tollgate.core.errors import BadRequest, NotFound
from tollgate.core.redaction import Redactor
from tollgate.core.request_body import Endpoint
from tollgate.keys import rules as keys
from tollgate.keys.authentication import Caller, Gate
from tollgate.process import threads
from tollgate.process.clock import Monotonic
from tollgate.process.drain import Drain
from tollgate.upstreams.client import Upstreams
from tollgate.web.client_address import headers_of

PATHS: dict[str, Endpoint] = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/embeddings": "embeddings",
}
MOUNTS = ("/v1", "/api/v1")
LONGEST_IDEMPOTENCY_KEY = 255


class Completions:
    """One of the paid endpoints."""

    def __init__(
        self,
        path: str,
        endpoint: Endpoint,
        gate: Gate,
        admission: Admission,
        books: Books,
        upstreams: Upstreams,
        clock: Monotonic,
        drain: Drain,
        redact: Redactor | None,
        leaving: Leaving,
    ) -> None:
        self.path = path
        self._endpoint = endpoint
        self._gate = gate
        self._admission = admission
        self._books = books
        self._upstreams = upstreams
        self._clock = clock
        self._drain = drain
        self._redact = redact
        """None where nothing is kept of what is said."""
        self._leaving = leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["endpoint"] = self  # for the log line, which names the path
        visitor = self._gate.meet(scope)
        self._gate.refuse_strangers(visitor)
        try:
            call = await self._call(visitor, scope, receive)
            if call is None:
                return
            admitted = await self._admission.admit(call)
        except BadRequest:
            await self._gate.recognise(visitor)  # whoever may not come in is told that first
            raise
        if isinstance(admitted, Replay):
            await _replayed(admitted)(scope, receive, send)
            return
        passage = PaidCall(
            call, admitted, self._books, self._upstreams, self._clock, self._drain, self._content(call), self._leaving
        )
        if call.ask.stream:
            await Stream(passage, scope, receive, send, self._clock).run()
        else:
            await (await plain.answered(passage))(scope, receive, send)

    async def _call(self, visitor: Caller, scope: Scope, receive: Receive) -> Call | None:
        """None when the client left before it had said what it wants."""
        started = self._clock()
        headers = headers_of(scope)
        idempotency_key = _idempotency_key(headers)
        body = await self._gate.body(visitor, scope, receive)
        if body is None:
            return None
        return Call(
            id=scope["state"]["own_id"],
            visitor=visitor,
            ask=await threads.work(len(body), request_body.read, body, self._endpoint),
            body=body,
            headers=headers,
            started=started,
            idempotency_key=idempotency_key,
            wants_charge=headers.get("x-tollgate-usage", "").lower() == "true",
        )

    def _content(self, call: Call) -> Content | None:
        if self._redact is None:
            return None
        return Content(self._endpoint, call.body, self._redact, keys.presented(call.headers))


def endpoints(
    gate: Gate,
    admission: Admission,
    books: Books,
    upstreams: Upstreams,
    clock: Monotonic,
    drain: Drain,
    redact: Redactor | None,
    leaving: Leaving,
) -> list[Completions]:
    return [
        Completions(mount + path, endpoint, gate, admission, books, upstreams, clock, drain, redact, leaving)
        for path, endpoint in PATHS.items()
        for mount in MOUNTS
    ]


def sweeping(sweeper: Sweeper, cron_secret: str | None) -> Route:
    """For a scheduler: by GET too, since that is how Vercel's calls. Without a secret there is nothing here."""

    async def sweep(request: Request) -> Response:
        offered = request.headers.get("authorization", "").removeprefix("Bearer ")
        if cron_secret is None or not hmac.compare_digest(offered.encode(), cron_secret.encode()):
            raise NotFound
        return JSONResponse(await sweeper.sweep())

    return Route("/internal/sweep", sweep, methods=["GET", "POST"])


def _idempotency_key(headers: Mapping[str, str]) -> str | None:
    key = headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= LONGEST_IDEMPOTENCY_KEY and key.isascii() and key.isprintable()):
        raise BadRequest(
            f"Idempotency-Key: send 1 to {LONGEST_IDEMPOTENCY_KEY} printable ASCII characters.", param="Idempotency-Key"
        )
    return key


def _replayed(replay: Replay) -> Response:
    status, content_type, body = rules.kept(replay.answer)
    headers = {"content-type": content_type, "idempotency-replayed": "true", "x-tollgate-charge-nanos": "0"}
    return Response(body, status, headers)
