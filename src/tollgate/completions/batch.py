"""POST /v1/generate/batch: many prompts in one request, each a paid call of its own.

Each prompt goes the way of every paid call, with a row, limits, a hold and a charge of its own. The batch decides only
when each of them begins, and puts their answers into one body.
"""

import asyncio
import heapq
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple

from starlette.types import Message, Receive, Scope, Send

from tollgate.cache.lookups import Cache
from tollgate.completions.flow import Flow
from tollgate.completions.outlet import response_start
from tollgate.completions.paid_call import PaidCall
from tollgate.completions.routes import LONGEST_IDEMPOTENCY_KEY, PaidEndpoint, idempotency_key_of
from tollgate.core import fields, request_body
from tollgate.core.dialects import generate, written
from tollgate.core.dialects.generate import MOST_PROMPTS
from tollgate.core.endpoints import BATCH_PATH, MOUNTS
from tollgate.core.errors import (
    BadRequest,
    InternalError,
    PromptNotSent,
    ServerRestarting,
    TollgateError,
    TooManyInFlight,
)
from tollgate.core.money import with_credits
from tollgate.core.redaction import Redactor
from tollgate.keys.authentication import Gate
from tollgate.process import logs, threads
from tollgate.process.clock import Monotonic
from tollgate.web.client_address import headers_of
from tollgate.web.middleware import new_id

log = logs.source("application")

AT_ONCE: Final = 8
"""Prompts of one batch that are under way together, where the org may have so many."""
BEGINS_WITHIN: Final = 0.75
"""Of the time that a call has. The rest is for the prompts that have begun."""
FIELDS: Final = ("prompts", *(name for name in generate.FIELDS if name != "prompt"))
BETWEEN: Final = "§"
"""Stands between the Idempotency-Key of a batch and the place of a prompt. Clients can send none in a key."""
LONGEST_KEY: Final = LONGEST_IDEMPOTENCY_KEY - len(f"{BETWEEN}{MOST_PROMPTS - 1}")
NOTED: Final = ("refusal", "limit", "key_id", "model")
"""What admission notes of a call that it refuses."""


class Given(NamedTuple):
    """What is read of a batch."""

    model: str
    prompts: Sequence[str]
    shared: Mapping[str, Any]
    """The fields of all prompts."""

    def body(self, place: int) -> bytes:
        """One prompt, as /v1/generate takes it."""
        return written({**self.shared, "prompt": self.prompts[place]})


class Result(NamedTuple):
    """How one prompt ended."""

    shown: Mapping[str, Any]
    charge_nanos: int | None
    """By this batch. A replay was charged before. None while it is not known."""
    failed: tuple[int, Any] | None = None
    """The status and the code of the error."""
    error: TollgateError | None = None
    """The error, where it is ours and not one that an upstream sent."""
    sent: "Sent | None" = None
    notes: Mapping[str, Any] = {}
    """For the log line of the batch, where refused calls are counted."""


class BatchEndpoint(PaidEndpoint):
    def __init__(
        self,
        path: str,
        gate: Gate,
        flow: Flow,
        cache: Cache,
        clock: Monotonic,
        redact: Redactor | None,
        default_model: str | None,
        *,
        total_seconds: float,
    ) -> None:
        """`total_seconds` is the time of one call. A batch has no more, because its host may allow no more."""
        super().__init__(path, "generate", gate, flow, cache, clock, redact, default_model)
        self._total_seconds = total_seconds

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = self._gate.caller(scope)
        self._gate.refuse_unknown(caller)
        body = await self._gate.body(caller, scope, receive)
        if body is None:
            return
        await self._gate.recognise(caller)  # once, and not by each of the prompts
        key = idempotency_key_of(headers_of(scope), LONGEST_KEY)
        asked = await threads.work(len(body), request_body.parse, body)
        if not request_body.names_a_model(asked):
            asked["model"] = await self._default(caller)
        given = await threads.work(len(body), read, asked)
        began = asyncio.get_running_loop().time()

        async def call(place: int) -> PaidCall:
            started, own_key = self._clock(), None if key is None else f"{key}{BETWEEN}{place}"
            prompt = await threads.work(len(given.prompts[place]), given.body, place)
            made = await self.call(new_id(), caller, scope, prompt, own_key, started)
            made.until = began + self._total_seconds
            return made

        batch = Batch(call, self._flow, scope, receive, begins_until=began + BEGINS_WITHIN * self._total_seconds)
        results = await batch.results(len(given.prompts))
        if not batch.client_left:
            await _answer(given, results, send)


class Batch:
    """Says which prompts may still begin, and how each ends."""

    def __init__(
        self,
        call: Callable[[int], Awaitable[PaidCall]],
        flow: Flow,
        scope: Scope,
        receive: Receive,
        *,
        begins_until: float,
    ) -> None:
        self._call = call
        self._flow = flow
        self._scope = scope
        self._receive = receive
        self._begins_until = begins_until
        self._is_restarting = False
        self.client_left = False

    async def results(self, count: int) -> list[Result]:
        watching = asyncio.create_task(self._watch())
        try:
            ended = await in_turn(count, self._run, self._goes_on)
        finally:
            watching.cancel()
        return [result or _failed(PromptNotSent(), 0) for result in ended]

    def _goes_on(self) -> bool:
        is_early = asyncio.get_running_loop().time() < self._begins_until
        return is_early and not (self.client_left or self._is_restarting)

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.client_left = True

    async def _run(self, place: int) -> Result:
        call, sent = None, Sent()
        try:
            call = await self._call(place)
            await self._flow.run(call, self._scope, self._receive, sent)
            return sent.result(call)
        except TollgateError as error:
            self._is_restarting = self._is_restarting or isinstance(error, ServerRestarting)
            return _failed(error, _charge_of(call), call)
        except Exception:  # the last handler of a prompt: the others are answered
            log.exception("unexpected_error")
            return _failed(InternalError(), _charge_of(call), call)


class Sent:
    """What a call sends, taken instead."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self._messages.append(message)

    async def again(self, send: Send) -> None:
        for message in self._messages:
            await send(message)

    def result(self, call: PaidCall) -> Result:
        begun, *rest = self._messages
        status, headers = begun["status"], dict(begun["headers"])
        answer = json.loads(b"".join(message.get("body", b"") for message in rest))
        if status >= 400:
            shown = _not_answered(status, answer["error"], 0, call)
            return Result(shown, 0, (status, answer["error"].get("code")), sent=self)
        charge = headers.get(b"x-tollgate-charge-nanos")
        shown = answer | ({"replayed": True} if b"idempotency-replayed" in headers else {})
        return Result(shown, None if charge is None else int(charge))


async def in_turn(
    count: int, run: Callable[[int], Coroutine[Any, Any, Result]], goes_on: Callable[[], bool]
) -> list[Result | None]:
    """Runs these in order, AT_ONCE together, or fewer where the org's share is full. None for what did not begin."""
    waiting = list(range(count))
    results: list[Result | None] = [None] * count
    lanes = min(AT_ONCE, count)

    async def lane() -> None:
        nonlocal lanes
        while waiting and goes_on():
            place = heapq.heappop(waiting)
            result = await asyncio.create_task(run(place))  # with notes of its own for the log
            if isinstance(result.error, TooManyInFlight) and lanes > 1:
                heapq.heappush(waiting, place)  # for another lane, when what it has under way has ended
                break
            results[place] = result
        lanes -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(lanes):
            group.create_task(lane())
    return results


def read(asked: Mapping[str, Any]) -> Given:
    """Raises BadRequest for what makes every prompt invalid."""
    generate.refuse_unknown(asked, FIELDS)
    if fields.flag(asked, "stream"):
        raise BadRequest("stream: a batch is answered as a whole. Send a single prompt for a stream.", param="stream")
    prompts = fields.listed(asked, "prompts")
    if not 1 <= len(prompts) <= MOST_PROMPTS or not all(isinstance(one, str) for one in prompts):
        raise BadRequest(f"prompts: send a list of 1 to {MOST_PROMPTS} texts.", param="prompts")
    shared = {name: value for name, value in asked.items() if name not in ("prompts", "stream") and value is not None}
    sample = {**shared, "prompt": ""}
    generate.to_chat(sample)
    return Given(request_body.read(written(sample), "generate").model, prompts, shared)


def endpoints(
    gate: Gate,
    flow: Flow,
    cache: Cache,
    clock: Monotonic,
    redact: Redactor | None,
    default_model: str | None,
    *,
    total_seconds: float,
) -> list[PaidEndpoint]:
    return [
        BatchEndpoint(mount + BATCH_PATH, gate, flow, cache, clock, redact, default_model, total_seconds=total_seconds)
        for mount in MOUNTS
    ]


async def _answer(given: Given, results: Sequence[Result], send: Send) -> None:
    charges = [result.charge_nanos for result in results if result.charge_nanos is not None]
    total = sum(charges) if len(charges) == len(results) else None
    logs.note(model=given.model, prompts=len(results), charge_nanos=total)
    logs.note(**next((result.notes for result in results if result.error), {}))
    if total == 0 and results[0].failed and {result.failed for result in results} == {results[0].failed}:
        await _refuse(results[0], send)
    else:
        shown = {"model": given.model, "results": [result.shown for result in results], "charge_nanos": total}
        size = sum(len(result.shown["output"] or "") for result in results)
        await _send(await threads.work(size, written, with_credits(shown)), total, send)


async def _refuse(alike: Result, send: Send) -> None:
    """All prompts were refused alike, and none costs anything."""
    if alike.error:
        raise alike.error
    assert alike.sent  # noqa: S101
    await alike.sent.again(send)


async def _send(body: bytes, charge_nanos: int | None, send: Send) -> None:
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    charge = {} if charge_nanos is None else {"x-tollgate-charge-nanos": str(charge_nanos)}
    await send(response_start(200, {**headers, **charge}))
    await send({"type": "http.response.body", "body": body})


def _failed(error: TollgateError, charge_nanos: int | None, call: PaidCall | None = None) -> Result:
    facts = logs.noted()
    notes = {"error_code": error.code} | {name: facts[name] for name in NOTED if name in facts}
    shown = _not_answered(error.status, error.body()["error"], charge_nanos, call)
    return Result(shown, charge_nanos, (error.status, error.code), error, notes=notes)


def _not_answered(
    status: int, error: Mapping[str, Any], charge_nanos: int | None, call: PaidCall | None
) -> dict[str, Any]:
    row = {"request_id": call.id} if call and call.was_sent else {}
    about = {"output": None, "cached": False, "prompt_tokens": None, "completion_tokens": None}
    return with_credits({**about, "charge_nanos": charge_nanos}) | {**row, "status": status, "error": error}


def _charge_of(call: PaidCall | None) -> int | None:
    """Of a call that failed. None while it is not known."""
    return call.amounts.charge_nanos if call and call.was_sent else 0
