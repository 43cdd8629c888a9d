"""Reads a request: its key, the model and the faults that it asks for."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from tollgate.sandbox import faults
from tollgate.sandbox.catalog import PROVIDER, Catalog, Model
from tollgate.sandbox.client_connection import ClientConnection
from tollgate.sandbox.faults import Faults
from tollgate.sandbox.job import Job
from tollgate.sandbox.parameters import Body, read_object
from tollgate.sandbox.refusals import Refusal, json_response, unavailable
from tollgate.sandbox.state import Barrier, State
from tollgate.sandbox.stream import VLLM_ERROR

REFUSED_KEY = "sandbox-refuses-me"
LONG_FIELDS = frozenset(
    (
        "messages",
        "prompt",
        "input",
        "instructions",
        "system",
        "tools",
        "response_format",
        "documents",
        "query",
        "file",
        "input_audio",
    )
)
SHOWN_FIELDS = ("model", "user", "session_id")
LONGEST_KEPT = 200
"""Of each of these, where little is kept."""
FLAGGED = 100
PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><center>cloudflare</center></body></html>"


class Instead(Exception):
    """A response that replaces a generation."""

    def __init__(self, response: Response) -> None:
        self.response = response


def authorise(headers: Headers) -> None:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Refusal(401)
    if key.strip() == REFUSED_KEY:
        raise Refusal(401, "User not found.")


async def take(
    state: State,
    client: ClientConnection,
    scope: Scope,
    serves: Callable[[Model], bool],
    read: Callable[[bytes], Body] = read_object,
) -> tuple[Job, Body]:
    """Reads a request, and applies the faults that need no generation."""
    headers = Headers(scope=scope)
    authorise(headers)
    body = read(await client.body())
    listed, model, asked_for = _choose(state.catalog, body, faults.parse(headers.get(faults.HEADER, "")), serves)
    parameters = {name: value for name, value in body.items() if name not in LONG_FIELDS}
    if state.habits.bounded:
        asked_for = asked_for.bounded()
        parameters = {name: str(body[name])[:LONGEST_KEPT] for name in SHOWN_FIELDS if body.get(name)}
    job = Job(listed, model, asked_for, parameters, scope["headers"])
    if "stall-before" in job.faults:
        await client.pause(job.faults.number("stall-before"))
    if "hold-until" in job.faults:
        await _hold(state, client, job.faults.whole("hold-until"))
    _strike(job, body, state.clock())
    return job, body


def _choose(
    catalog: Catalog, body: Body, of_header: Faults, serves: Callable[[Model], bool]
) -> tuple[Model, Model, Faults]:
    """The first of the models whose name carries no refusal; when all do, the last."""
    names = _names(body)
    offers = [_offer(catalog, name, names, serves) for name in names]
    listed, of_name = next((offer for offer in offers if not offer[1].any_of(*faults.REFUSING)), offers[-1])
    return listed, catalog.answering(listed), of_header | of_name


def _offer(catalog: Catalog, name: str, names: list[str], serves: Callable[[Model], bool]) -> tuple[Model, Faults]:
    bare, of_name = faults.in_name(name)
    listed = catalog.find(bare)
    if listed is None:
        raise unavailable("model_not_found", 400, f"{name} is not a valid model ID", names)
    if not serves(listed):
        raise unavailable("wrong_endpoint", 400, f"{name} cannot be used on this endpoint", names)
    return listed, of_name


def _names(body: Body) -> list[str]:
    fallbacks = body.get("models")
    first = [body["model"]] if body.get("model") is not None else []
    names = first + (fallbacks if isinstance(fallbacks, list) else [])
    if not names or not all(isinstance(name, str) for name in names):
        raise Refusal(400, "No models provided")
    return names


async def _hold(state: State, client: ClientConnection, enough: int) -> None:
    barrier = state.barriers.setdefault(enough, Barrier())
    event = barrier.enter(enough)
    try:
        if not await client.wait_for(event, state.habits.gate_seconds):
            raise Refusal(504, f"The sandbox held this for {enough} requests at once; {barrier.waiting} came")
    finally:
        barrier.leave(event)


def _strike(job: Job, body: Body, now: float) -> None:
    """The answers that are no generation."""
    struck = job.faults
    if "status" in struck:
        raise _error(job, struck.whole("status"), now)
    if "moderation" in struck:
        raise _flagged(job.model, body)
    if "redirect" in struck:
        raise Instead(Response(status_code=302, headers={"location": struck.word("redirect")}))
    if "garbage" in struck:
        raise Instead(Response(PAGE, media_type="text/html"))
    if "empty" in struck:
        raise Instead(Response(media_type="application/json"))
    if "vllm-error" in struck and not body.get("stream"):
        raise Instead(json_response(VLLM_ERROR, 500))


def _error(job: Job, status: int, now: float) -> Refusal:
    if not 400 <= status <= 599:
        raise Refusal(400, f"The sandbox's fault 'status' is for errors, not for {status}.")
    if status not in {429, 503}:
        wanted = job.faults.any_of("retry-after", "retry-after-date")
        return Refusal(status, headers=_retry_after(job.faults, now) if wanted else None)
    headers = _retry_after(job.faults, now)
    code = "capacity_exhausted" if status == 429 else "temporarily_unavailable"
    message = "Provider returned error"
    refusal = unavailable(code, status, message, [job.listed.id], retry_after=_seconds(job.faults))
    refusal.headers = headers
    refusal.metadata |= {"provider_name": PROVIDER, "raw": f"{job.model.id} is temporarily rate-limited upstream"}
    return refusal


def _seconds(of: Faults) -> int:
    given = of.any_of("retry-after", "retry-after-date")
    return of.whole(given) if given else int(faults.DEFAULTS["retry-after"] or 0)


def _retry_after(of: Faults, now: float) -> dict[str, str]:
    seconds = _seconds(of)
    if "retry-after-date" in of:
        return {"retry-after": format_datetime(datetime.fromtimestamp(now + seconds, UTC), usegmt=True)}
    return {"retry-after": str(seconds)}


def _flagged(model: Model, body: Body) -> Refusal:
    flagged = str(body.get("messages") or body.get("prompt") or body.get("input"))
    shown = flagged if len(flagged) <= FLAGGED else f"{flagged[:48]}...{flagged[-49:]}"
    metadata = {"reasons": ["violence"], "flagged_input": shown, "provider_name": PROVIDER}
    return Refusal(
        403,
        f'{model.id} requires moderation on {PROVIDER}. Your input was flagged for "violence"',
        metadata=metadata | {"model_slug": model.id, "error_type": "content_policy_violation"},
    )
