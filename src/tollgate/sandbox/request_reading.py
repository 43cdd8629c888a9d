"""From a request to an order: who asks, for which model, and with which faults."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from tollgate.sandbox import asked, faults
from tollgate.sandbox.asked import Body
from tollgate.sandbox.catalog import PROVIDER, Catalog, Model
from tollgate.sandbox.faults import Faults
from tollgate.sandbox.line import Line
from tollgate.sandbox.order import Order
from tollgate.sandbox.refusals import Refusal, json_response, unavailable
from tollgate.sandbox.state import Gate, House
from tollgate.sandbox.stream import VLLM_ERROR

REFUSED_KEY = "sandbox-refuses-me"
LONG_FIELDS = {"messages", "prompt", "input", "tools", "response_format"}
SHOWN_FIELDS = ("model", "user", "session_id")
LONGEST_KEPT = 200
"""Of each of these, where little is kept."""
FLAGGED = 100
PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><center>cloudflare</center></body></html>"


class Instead(Exception):
    """An answer that is given in place of a generation."""

    def __init__(self, response: Response) -> None:
        self.response = response


def authorise(headers: Headers) -> None:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Refusal(401)
    if key.strip() == REFUSED_KEY:
        raise Refusal(401, "User not found.")


async def take(house: House, line: Line, scope: Scope, serves: Callable[[Model], bool]) -> tuple[Order, Body]:
    """Reads a request, and lets the faults strike that need no generation."""
    headers = Headers(scope=scope)
    authorise(headers)
    body = asked.read_object(await line.body())
    listed, model, asked_for = _choose(house.catalog, body, faults.parse(headers.get(faults.HEADER, "")), serves)
    parameters = {name: value for name, value in body.items() if name not in LONG_FIELDS}
    if house.habits.bounded:
        asked_for = asked_for.bounded()
        parameters = {name: str(body[name])[:LONGEST_KEPT] for name in SHOWN_FIELDS if body.get(name)}
    order = Order(listed, model, asked_for, parameters, scope["headers"])
    if "stall-before" in order.faults:
        await line.pause(order.faults.number("stall-before"))
    if "hold-until" in order.faults:
        await _hold(house, line, order.faults.whole("hold-until"))
    _strike(order, body, house.clock())
    return order, body


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


async def _hold(house: House, line: Line, enough: int) -> None:
    gate = house.gates.setdefault(enough, Gate())
    event = gate.enter(enough)
    try:
        if not await line.wait_for(event, house.habits.gate_seconds):
            raise Refusal(504, f"The sandbox held this for {enough} requests at once; {gate.waiting} came")
    finally:
        gate.leave(event)


def _strike(order: Order, body: Body, now: float) -> None:
    """The answers that are no generation."""
    struck = order.faults
    if "status" in struck:
        raise _error(order, struck.whole("status"), now)
    if "moderation" in struck:
        raise _flagged(order.model, body)
    if "redirect" in struck:
        raise Instead(Response(status_code=302, headers={"location": struck.word("redirect")}))
    if "garbage" in struck:
        raise Instead(Response(PAGE, media_type="text/html"))
    if "empty" in struck:
        raise Instead(Response(media_type="application/json"))
    if "vllm-error" in struck and not body.get("stream"):
        raise Instead(json_response(VLLM_ERROR, 500))


def _error(order: Order, status: int, now: float) -> Refusal:
    if not 400 <= status <= 599:
        raise Refusal(400, f"The sandbox's fault 'status' is for errors, not for {status}.")
    if status not in {429, 503}:
        wanted = order.faults.any_of("retry-after", "retry-after-date")
        return Refusal(status, headers=_retry_after(order.faults, now) if wanted else None)
    headers = _retry_after(order.faults, now)
    code = "capacity_exhausted" if status == 429 else "temporarily_unavailable"
    message = "Provider returned error"
    refusal = unavailable(code, status, message, [order.listed.id], retry_after=_seconds(order.faults))
    refusal.headers = headers
    refusal.metadata |= {"provider_name": PROVIDER, "raw": f"{order.model.id} is temporarily rate-limited upstream"}
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
