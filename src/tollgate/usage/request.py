"""Everything that is stored of one request, as answers show it. Pure.

Users see what they pay and what it was for; operators also see prices, our cost, and why an upstream failed.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, Field

from tollgate.core import prices
from tollgate.core.models import OPENROUTER, SANDBOX
from tollgate.core.prices import PPM
from tollgate.usage.schemas import RequestRow
from tollgate.web.schemas import Amounts, Credits, Moment

BASIS_DESCRIPTION = (
    "How the charge was found. `stated_cost`: the upstream stated its cost. `listed_price`: the upstream's tokens at "
    "the route's price. `free`: a test key, or a call that costs nothing. `byok_fee`: the fee for a call with the "
    "org's own upstream key. `cache`: the answer was in the completion cache. `generation_record`: OpenRouter's "
    "record, which was asked for later. Estimates: `no_usage` (the upstream stated no tokens), `abandoned_prefill` "
    "(the client left while the upstream read the prompt), `no_trace` (nothing says what it cost). Quarantined, and "
    "charged at the hold: `unbelievable_usage`, "
    "`out_of_range`, `unreadable_record`. Not charged: `released`, `no_record` (OpenRouter has no record of it). Null "
    "while the request is open."
)
Basis = Literal[
    "stated_cost", "listed_price", "free", "byok_fee", "cache", "generation_record", "no_usage", "abandoned_prefill",
    "no_trace", "unbelievable_usage", "out_of_range", "unreadable_record", "released", "no_record", "unknown",
]  # fmt: skip


class Hold(Amounts):
    amount_nanos: int = Field(description="The worst case, which was set aside at admission.")
    amount_credits: Credits
    is_open: bool
    output_bound: int = Field(description="The most output tokens that it pays for.")
    reserved_tokens: int = Field(description="The tokens that limits counted until the settlement.")
    expires_at: Moment = Field(description="When the sweeper ends the request if nothing else has.")
    next_look_at: Moment | None = Field(description="When the sweeper looks for the cost; null once settled.")
    looks: int | None = Field(description="How often the sweeper has looked; null once settled.")


class PaidHold(Hold):
    """A hold with the two parts of its worst case, before the markup."""

    fixed_cost: str | None = Field(description="The part that does not depend on the output, in credits.")
    output_token_cost: str | None = Field(description="The part of each output token up to output_bound, in credits.")


class Attempt(BaseModel):
    upstream: str
    model: str | None = Field(description="The upstream's name for the model.")
    outcome: Literal["answered", "refused", "failed", "skipped"] = Field(
        description="skipped: the upstream was full, not usable or behind an open breaker. refused: the upstream's own "
        "error was passed on."
    )
    error_code: str | None
    started_ms: int = Field(description="After the start of the request.")
    duration_ms: int | None = Field(
        description="Until the headers of the answer, or the failure. Of the only attempt: until the end of the answer."
    )


class PaidAttempt(Attempt):
    status: int | None = Field(description="The HTTP status of the upstream.")
    why: str | None = Field(description="Why the attempt failed, and so why the next one was made.")


class Settlement(Amounts):
    settled_at: Moment | None
    basis: Basis | None = Field(description=BASIS_DESCRIPTION)
    charge_nanos: int | None
    charge_credits: Credits | None
    refunded_nanos: int = Field(description="What operators have refunded of it.")
    refunded_credits: Credits
    refundable_nanos: int
    refundable_credits: Credits
    usage: dict[str, Any] | None = Field(description="The numbers of the upstream's usage, without costs.")


class PaidSettlement(Settlement):
    cost_nanos: int | None
    cost_credits: Credits | None
    margin_nanos: int | None
    margin_credits: Credits | None
    markup: float = Field(description="The markup at admission: 0.05 is 5 %.")
    price: dict[str, str] = Field(
        description="The prices used, in credits per token, request or piece, before the markup. A cost that the "
        "upstream states is used instead."
    )
    usage: dict[str, Any] | None = Field(description="The numbers of the upstream's usage.")


class Idempotency(BaseModel):
    key: str
    answer: Literal["running", "kept", "not_kept", "gone"] = Field(
        description="not_kept: too large, or broken off; a repetition is refused. gone: older than 24 hours, or "
        "released."
    )
    kept_until: Moment | None
    replays: int = Field(description="How often the stored answer was sent again, as long as it is kept.")
    replayed_at: Moment | None = Field(description="The last time.")


class _Names(BaseModel):
    org_name: str | None
    user_email: str | None
    key_name: str | None


class RequestLife(_Names, RequestRow):
    idempotency: Idempotency | None = Field(description="Null without an Idempotency-Key.")


class Content(BaseModel):
    prompt: str | None = Field(description="The beginning of the prompt, with secrets redacted.")
    answer: str | None = Field(description="The same for the first choice of the answer.")


def life(found: Mapping[str, Any], *, everyone: bool) -> dict[str, Any]:
    """As the schemas read it. `everyone`: with our cost, for operators."""
    hold, settlement = dict(found["hold"]), dict(found["settlement"])
    for part in ("fixed_cost", "output_token_cost"):
        hold[part] = _in_credits(hold[part])
    settlement["basis"] = basis(found)
    settlement["price"] = {name: _in_credits(nanos) for name, nanos in settlement["price"].items()}
    settlement["markup"] = settlement["markup_ppm"] / PPM
    if not everyone:
        settlement["usage"] = without_costs(settlement["usage"])
    return {**found, "hold": hold, "settlement": settlement, "attempts": attempts_of(found)}


def attempts_of(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return found["attempts"] or _only_attempt(found)


def basis(found: Mapping[str, Any]) -> str | None:
    if found["settled_at"] is None:
        return None
    stored = found["settlement"]["basis"]
    if stored is not None:
        return str(stored)
    if found["state"] == "released":
        return "released"
    if found["estimated"] or found["quarantined"]:
        return "unknown"
    if found.get("cached"):
        return "cache"
    if found["upstream"] == SANDBOX or not (found["charge_nanos"] or found["cost_nanos"]):
        return "free"
    states_cost = found["upstream"] == OPENROUTER and (found["settlement"]["usage"] or {}).get("cost") is not None
    return "stated_cost" if states_cost else "listed_price"


def without_costs(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Also without costs inside of other members."""
    if usage is None:
        return None
    return {
        name: without_costs(value) if isinstance(value, Mapping) else value
        for name, value in usage.items()
        if "cost" not in name.lower() and name != "is_byok"
    }


def _only_attempt(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of a request whose first attempt was answered: its row says how that went."""
    if found["upstream"] is None:
        return []
    is_refused = found["error_code"] == "refused_upstream"
    return [
        {
            "upstream": found["upstream"],
            "model": found["served_model"],
            "outcome": "refused" if is_refused else "answered",
            "error_code": found["error_code"],
            "started_ms": 0,
            "duration_ms": found["duration_ms"],
            "status": found["status"] if is_refused else 200,
            "why": None,
        }
    ]


def _in_credits(nanos: str | None) -> str | None:
    return None if nanos is None else prices.in_credits(Decimal(nanos))
