"""What a paid call may use, and what it came to. Pure: the reply's own words in, an item for the books out."""

import base64
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any, Final, NamedTuple

from tollgate.core import strict_json
from tollgate.core.errors import (
    ServerRestarting,
    TooManyInFlight,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbled,
    UpstreamTimeout,
)
from tollgate.core.extras import sent
from tollgate.core.extras.pricing import NO_EXTRAS, Added
from tollgate.core.extras.requested import Extras
from tollgate.core.models import OPENROUTER, SANDBOX, Model, Route
from tollgate.core.prices import COMPONENTS, NOTHING, Price
from tollgate.core.request_body import Ask
from tollgate.core.sse import Tally
from tollgate.credits import rules as credits

LEAST_OUTPUT: Final = 16
"""Some providers refuse a smaller bound."""
MOST_OUTPUT_UNKNOWN: Final = 16_384
"""Where neither the client nor the model's listing bounds the output, we do, and say so upstream."""
MOST_OUTPUT_UNDECLARED: Final = 65_536
MOST_CONTEXT_UNKNOWN: Final = 2_000_000
FIRST_SWEEP_SECONDS: Final = 2
MOST_LOOKS: Final = 12
"""At 2, 4, 8 … seconds: more than an hour in all."""
LONGEST_BETWEEN_LOOKS: Final = 1800
MOST_KEPT_BYTES: Final = 512 * 1024
"""Of an answer kept for its idempotency key."""
MOST_USAGE_FIELDS: Final = 60

LEFT: Final[Mapping[str, Any]] = {"status": 499, "error_code": "client_gone"}
"""How the row remembers a client that did not wait for the end."""

STOPPED: Final[Mapping[str, Any]] = {"status": ServerRestarting.status, "error_code": ServerRestarting.code}
"""And one whose server could not wait for it."""

FAILED: Final[Mapping[str, Any]] = {"error_code": "failed_upstream"}
"""And an answer that says of itself that it failed."""


class Bounds(NamedTuple):
    """The sizes of a call that its price is multiplied with, none of which it can exceed."""

    prompt_tokens: int
    output: int | None
    """The client's own bound for each choice, or None where it left it open."""
    most_output: int
    enforced: bool
    """Whether the model's own maximum is known; if not, even the largest bound must be sent upstream."""


def routes_of(models: Sequence[Model]) -> tuple[Route, ...]:
    """In the order in which the client named the models. OpenRouter comes once: it goes through its part of the list by
    itself."""
    routes: list[Route] = []
    for route in (route for model in models for route in model.routes):
        if route.upstream.id != OPENROUTER or not any(known.upstream.id == OPENROUTER for known in routes):
            routes.append(route)
    return tuple(routes)


def with_known_fallbacks(body: bytes, models: Sequence[Model]) -> bytes:
    """OpenRouter refuses a list with a name that only our own servers know."""
    there = [model for model in models if any(route.upstream.id == OPENROUTER for route in model.routes)]
    if len(there) == len(models) or not there:
        return body
    names = [route.model for model in there for route in model.routes if route.upstream.id == OPENROUTER]
    return strict_json.put(body, "models", json.dumps(names).encode())


def without_search(body: bytes, models: Sequence[Model]) -> bytes:
    """The call of an org that has nothing left must cost nothing, whatever our account's defaults at OpenRouter are."""
    asks_openrouter = any(route.upstream.id == OPENROUTER for model in models for route in model.routes)
    return sent.without_search(body) if asks_openrouter else body


def with_outputs(asked: Extras, models: Sequence[Model]) -> Extras:
    """A model that puts out images may do so without being asked to."""
    if asked.output_images or not any(map(_puts_out_images, models)):
        return asked
    return asked._replace(output_images=True)


def bounds(ask: Ask, models: Sequence[Model], added: Added = NO_EXTRAS) -> Bounds:
    routes = [route for model in models for route in model.routes]
    context = _most([route.context_tokens for route in routes])
    longest = context or MOST_CONTEXT_UNKNOWN
    most_output = _most([_most_output(route) for route in routes])
    one_prompt = ask.endpoint == "chat" or (ask.choices == 1 and ask.endpoint == "completions")
    prompt = longest if ask.prompt.open_ended else ask.prompt.tokens + added.prompt_tokens
    return Bounds(
        prompt_tokens=_of_all_turns(prompt, longest if one_prompt else None, ask.choices, added),
        output=None if ask.bound is None else min(ask.bound, longest),
        most_output=most_output or MOST_OUTPUT_UNKNOWN,
        enforced=most_output is not None,
    )


def _of_all_turns(prompt_tokens: int, longest: int | None, choices: int, added: Added) -> int:
    """What is read in all: in a loop of tools, each turn reads the prompt again, with all results so far."""
    if not added.steps:
        return prompt_tokens if longest is None else min(prompt_tokens, longest)
    turns = [prompt_tokens + step * added.step_tokens for step in range(added.turns)]
    return choices * sum(turn if longest is None else min(turn, longest) for turn in turns)


def worst_case(ask: Ask, sizes: Bounds, price: Price, added: Added = NO_EXTRAS) -> credits.WorstCase:
    return credits.worst_case(
        price,
        prompt_tokens=sizes.prompt_tokens,
        images=ask.prompt.images + ask.extras.images,
        choices=ask.choices,
        added=added,
    )


def bound_to_send(ask: Ask, sizes: Bounds, granted: int) -> int | None:
    """A granted bound below the maximum goes upstream. Never one that need not: OpenRouter skips providers for it."""
    if ask.bound is not None or (sizes.enforced and granted >= sizes.most_output):
        return None
    return granted


def kept_price(price: Price, worst: credits.WorstCase) -> dict[str, Any]:
    """The price of the hold, for whoever must estimate: nanos as decimal strings."""
    parts = {name: str(value) for name in COMPONENTS if (value := getattr(price, name)) != NOTHING}
    return {"fixed_nanos": str(worst.fixed_nanos), "output_nanos": str(worst.output_nanos), **parts}


def outcome(
    tally: Tally,
    route: Route,
    price: Price,
    *,
    hold_nanos: int,
    markup_ppm: int,
    delivered: int,
    prompt_tokens: int,
    context_tokens: int | None,
) -> dict[str, Any]:
    """How a call that an upstream answered is settled. `delivered` counts the events that had something in them."""
    known = {
        "upstream": route.upstream.id,
        "served_model": tally.model,
        "generation_id": tally.generation_id,
        "usage": kept_usage(tally.usage),
        **(FAILED if tally.ending == "failed" else {}),
    }
    try:
        usage = credits.read_usage(tally.usage)
        if usage and route.upstream.id != OPENROUTER:
            usage = usage._replace(cost_nanos=None)  # of our own servers, tokens times the route's price is the cost
        elif usage and _says_nothing(usage):
            usage = None
        if usage is None:
            return known | _without_usage(tally, route, price, hold_nanos, markup_ppm, delivered, prompt_tokens)
        most_nanos = credits.BEYOND_BELIEF * hold_nanos
        bill = credits.bill(usage, price, markup_ppm=markup_ppm, most_nanos=most_nanos, context_tokens=context_tokens)
    except credits.Nonsense:
        if route.upstream.id == OPENROUTER and tally.generation_id:
            return known | unsettled()  # its own record is asked before anything is final
        return known | billed(credits.at_the_hold(hold_nanos, markup_ppm))
    return known | billed(bill, usage)


def billed(bill: credits.Bill, usage: credits.Usage | None = None) -> dict[str, Any]:
    tokens = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens} if usage else {}
    return tokens | {
        "outcome": "settled",
        "charge_nanos": bill.charge_nanos,
        "cost_nanos": bill.cost_nanos,
        "estimated": bill.estimated,
        "quarantined": bill.quarantined,
    }


def failed(error: UpstreamError | TooManyInFlight, routes: Sequence[Route]) -> dict[str, Any]:
    """When no upstream gave a reply. One that was at work and is paid for may still want its money."""
    facts = error.facts
    known = {"upstream": facts.get("upstream"), "generation_id": facts.get("generation_id")}
    paid_for = known["upstream"] == OPENROUTER if known["upstream"] else _may_cost(routes)
    at_work = isinstance(error, (UpstreamCut, UpstreamTimeout)) and facts.get("phase") != "connect"
    ending = unsettled() if paid_for and (at_work or known["generation_id"]) else {"outcome": "released"}
    return known | ending | {"status": error.status, "error_code": error.code}


def abandoned(routes: Sequence[Route]) -> dict[str, Any]:
    """When the client left, or we were stopped, before there was a reply."""
    return unsettled() if _may_cost(routes) else {"outcome": "released"}


def broken_off(route: Route, generation_id: str | None) -> dict[str, Any]:
    """When that happened while a reply came."""
    return {"upstream": route.upstream.id, "generation_id": generation_id} | abandoned([route])


def prefill(route: Route, price: Price, *, hold_nanos: int, markup_ppm: int, prompt_tokens: int) -> dict[str, Any]:
    """When that happened while a server of our own read the prompt: its work so far, as an estimate."""
    return {"upstream": route.upstream.id} | _estimated(price, hold_nanos, markup_ppm, prompt_tokens, 0)


def is_own(route: Route) -> bool:
    """A server whose operator is ours: its work is priced by its route, and it cannot be asked later."""
    return route.upstream.id not in (OPENROUTER, SANDBOX)


def not_asked() -> dict[str, Any]:
    """When it happened before anybody was asked."""
    return {"outcome": "released"}


def refused(status: int) -> dict[str, Any]:
    return {"outcome": "released", "status": status, "error_code": "refused_upstream"}


def garbled(route: Route, generation_id: str | None) -> dict[str, Any]:
    """An answer that nobody can read. Whether it cost something, only OpenRouter could tell."""
    known = {"upstream": route.upstream.id, "generation_id": generation_id}
    ending = unsettled() if generation_id and route.upstream.id == OPENROUTER else {"outcome": "released"}
    return known | ending | {"status": UpstreamGarbled.status, "error_code": UpstreamGarbled.code}


def unsettled() -> dict[str, Any]:
    """The upstream may have been at work, and only it knows what that cost."""
    return {"outcome": "unsettled", "sweep_in_seconds": FIRST_SWEEP_SECONDS}


def free(tally: Tally, route: Route) -> dict[str, Any]:
    """A test key's call: counted, and charged nothing."""
    counted = {"outcome": "settled", "charge_nanos": 0, "cost_nanos": 0, "upstream": route.upstream.id}
    try:
        usage = credits.read_usage(tally.usage)
    except credits.Nonsense:
        usage = None
    return counted | (billed(credits.Bill(0, 0), usage) if usage else {})


def found(row: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """A swept request whose generation OpenRouter knows: the actual cost, which may be zero.

    A cost that the answer stated too is charged in full, whatever the hold was. One that only the record states is
    believed as far as the tokens and extras of a call could cost it.
    """
    markup_ppm, hold_nanos = row["markup_ppm"], row["hold_nanos"]
    try:
        usage = credits.read_generation(record)
        confirmed = usage.cost_nanos == credits.stated_cost(row.get("usage"))
        conceivable = max(credits.BEYOND_BELIEF * hold_nanos, credits.charge_for(credits.most_for(usage), markup_ppm))
        bill = credits.bill(usage, Price(), markup_ppm=markup_ppm, most_nanos=None if confirmed else conceivable)
    except credits.Nonsense:
        return billed(credits.at_the_hold(hold_nanos, markup_ppm))
    return billed(bill, usage) | {"usage": _recorded(row, record)}


def not_found(row: Mapping[str, Any]) -> dict[str, Any]:
    """A generation appears within a minute; one that has not for many was never paid for."""
    return {"outcome": "released"} if row["sweeps"] >= MOST_LOOKS else asked_again(row)


def unreadable(row: Mapping[str, Any]) -> dict[str, Any]:
    """A record that is none, or an answer of somebody before OpenRouter. That may pass; if not, it is quarantined."""
    if row["sweeps"] < MOST_LOOKS:
        return asked_again(row)
    return billed(credits.at_the_hold(row["hold_nanos"], row["markup_ppm"]))


def asked_again(row: Mapping[str, Any]) -> dict[str, Any]:
    """Later and later, but never given up: while OpenRouter cannot be asked, the truth is still there."""
    return {"outcome": "unsettled", "sweep_in_seconds": min(2 ** min(row["sweeps"], 30), LONGEST_BETWEEN_LOOKS)}


def without_a_trace(row: Mapping[str, Any]) -> dict[str, Any]:
    """Nobody can say what it cost, or whether it ever went upstream: the prompt is charged, marked as an estimate."""
    fixed = Decimal(row["price"].get("fixed_nanos", 0))
    charge = min(credits.charge_for(fixed, row["markup_ppm"]), row["hold_nanos"])
    return billed(credits.Bill(min(int(fixed), row["hold_nanos"]), charge, estimated=True))


def kept_usage(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The numbers of a usage, fit for a row: no text that an upstream chose, no number that JSON could not carry."""
    if usage is None:
        return None
    kept: dict[str, Any] = {}
    for name, value in islice(usage.items(), MOST_USAGE_FIELDS):
        if isinstance(value, int):
            kept[strict_json.printable(name, 64)] = value
        elif isinstance(value, Decimal):
            kept[strict_json.printable(name, 64)] = str(value)
        elif isinstance(value, dict):
            kept[strict_json.printable(name, 64)] = kept_usage(value)
    return kept


def kept_answer(status: int, content_type: str, body: bytes) -> dict[str, Any]:
    if len(body) > MOST_KEPT_BYTES:
        return {"kept": False}
    return {
        "kept": True,
        "status": status,
        "content_type": content_type,
        "body": base64.b64encode(body).decode(),
    }


def kept(answer: Mapping[str, Any]) -> tuple[int, str, bytes]:
    """Status, content type and body of an answer that was kept."""
    return answer["status"], answer["content_type"], base64.b64decode(answer["body"])


def with_charge(data: bytes, charge: Mapping[str, Any]) -> bytes:
    """The last usage chunk, with what it came to here."""
    usage = strict_json.get(data, "usage") or b"{}"
    marked = strict_json.put(usage, "tollgate", json.dumps(charge, separators=(",", ":")).encode())
    return b"data: " + strict_json.put(data, "usage", marked) + b"\n\n"


def _recorded(row: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The usage that the row keeps: what the record states, and the cost that the answer stated where it differs."""
    stated = (row.get("usage") or {}).get("cost")
    kept = kept_usage({"cost": record["total_cost"], "is_byok": record.get("is_byok")})
    return kept if kept is None or stated in (None, kept.get("cost")) else {**kept, "stated_cost": stated}


def _without_usage(
    tally: Tally, route: Route, price: Price, hold_nanos: int, markup_ppm: int, delivered: int, prompt_tokens: int
) -> dict[str, Any]:
    """Absent usage is not zero: OpenRouter is asked later. A server that cannot be asked is paid for no less than it
    counted: the most that the prompt and its texts may be, within the hold. A mere failure is not paid for."""
    if route.upstream.id == OPENROUTER:
        return unsettled() if tally.generation_id or not tally.failure else {"outcome": "released"}
    said = max(delivered - (tally.failure is not None), tally.said_tokens)  # a failure's own words are not paid for
    if said <= 0 and tally.ending != "complete":
        return {"outcome": "released"}
    return _estimated(price, hold_nanos, markup_ppm, prompt_tokens, max(0, said))


def _estimated(
    price: Price, hold_nanos: int, markup_ppm: int, prompt_tokens: int, completion_tokens: int
) -> dict[str, Any]:
    counted = credits.Usage(prompt_tokens, completion_tokens, None)
    cost = credits.at_listed_price(counted, price)
    charge = min(credits.charge_for(cost, markup_ppm), hold_nanos)
    return billed(credits.Bill(min(int(cost), hold_nanos), charge, estimated=True), counted)


def _puts_out_images(model: Model) -> bool:
    architecture = model.listing.get("architecture")
    outputs = architecture.get("output_modalities") if isinstance(architecture, Mapping) else None
    return isinstance(outputs, list) and "image" in outputs


def _may_cost(routes: Sequence[Route]) -> bool:
    return any(route.upstream.id == OPENROUTER for route in routes)


def _says_nothing(usage: credits.Usage) -> bool:
    """All zero and no cost: OpenRouter sends that for answers that did cost."""
    return not usage.prompt_tokens and not usage.completion_tokens and usage.cost_nanos is None


def _most_output(route: Route) -> int | None:
    """A model that declares no maximum may fill its context, but none does: so much held would refuse half of all
    calls, and so large a bound, where a balance is smaller, finds no provider."""
    return route.most_output or (min(route.context_tokens, MOST_OUTPUT_UNDECLARED) if route.context_tokens else None)


def _most(numbers: Sequence[int | None]) -> int | None:
    """None where any is unknown: then there is no bound."""
    known = [number for number in numbers if number]
    return max(known) if known and len(known) == len(numbers) else None
