"""What an operator should look at, in words, and the page of the console that shows it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from string import Template
from typing import Any, Final, Literal, NamedTuple

from tollgate.core.money import with_credits

FEW_DAYS: Final = 7.0
VERY_FEW_DAYS: Final = 2.0
Severity = Literal["critical", "warning", "info"]
SEVERITIES: Final[Sequence[Severity]] = ("critical", "warning", "info")


class Kind(NamedTuple):
    message: str
    where: str


KINDS: Final[Mapping[str, Kind]] = {
    "audit_failed": Kind("Faults that the last audit of the books found: $count.", "system?panel=books"),
    "quarantined": Kind(
        "Requests of the last 7 days charged their hold, since the upstream's figures cannot be true: $count.",
        "usage?quarantined=true",
    ),
    "expired_holds": Kind(
        "Holds that expired and were not ended: $count. Check that the sweeper runs.", "usage?state=held"
    ),
    "unsettled": Kind("Requests whose cost is unknown for more than 10 minutes: $count.", "usage?state=unsettled"),
    "paid_suspended": Kind("Orgs whose paid calls are suspended: $count.", "security?kind=org_paid_suspended"),
    "overdrawn": Kind("Orgs that owe credits: $count, together $overdrawn_credits.", "orgs?sort=credits:asc"),
    "upstream_down": Kind("Upstreams whose last health check failed: $count.", "upstreams"),
    "alerts_firing": Kind("Alerts firing: $count.", "alerts"),
    "security_event": Kind(
        "Security events that were not acknowledged: $count.", "security?acknowledged=false&severity=$severity"
    ),
    "breaker_open": Kind("Upstreams that fail and are not called for now: $count.", "upstreams"),
    "stale_catalog": Kind("The list of models could not be refreshed for $age_seconds seconds.", "models"),
    "openrouter_credit_low": Kind("The credit at OpenRouter lasts $days_left days at today's rate.", "upstreams"),
}


def item(kind: str, severity: Severity, count: int = 1, **facts: Any) -> dict[str, Any]:
    """As the database makes them."""
    return {"kind": kind, "severity": severity, "count": count, "facts": facts}


def of_orgs(found: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Orgs whose paid calls are suspended, and orgs that owe, as the overview counts them."""
    suspended, overdrawn = found["paid_suspended"], found["overdrawn"]
    if suspended["count"]:
        yield item("paid_suspended", "critical", suspended["count"])
    if overdrawn["count"]:
        yield item("overdrawn", "warning", overdrawn["count"], overdrawn_nanos=overdrawn["overdrawn_nanos"])


def of_instance(
    *, failing: Sequence[str], stale_seconds: float | None, days_left: float | None
) -> Iterable[dict[str, Any]]:
    """What this process knows: upstreams with an open breaker, the age of a stale catalog, our credit at OpenRouter."""
    if failing:
        yield item("breaker_open", "critical", len(failing), names=list(failing))
    if stale_seconds is not None:
        yield item("stale_catalog", "warning", age_seconds=round(stale_seconds))
    if days_left is not None and days_left < FEW_DAYS:
        severity: Severity = "critical" if days_left < VERY_FEW_DAYS else "warning"
        yield item("openrouter_credit_low", severity, days_left=round(days_left, 1))


def shown(items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The most severe first."""
    return sorted(map(_shown, items), key=lambda one: SEVERITIES.index(one["severity"]))


def _shown(one: Mapping[str, Any]) -> dict[str, Any]:
    kind = KINDS[one["kind"]]
    facts = with_credits(one["facts"])
    words = {**_grouped(facts), "count": f"{one['count']:,}", "severity": one["severity"]}
    message = Template(kind.message).substitute(words)
    return {**one, "facts": facts, "message": message, "where": "/admin#/" + Template(kind.where).substitute(words)}


def _grouped(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Credits as people read them: 1,000,000.00."""
    return {name: f"{Decimal(fact):,}" if name.endswith("_credits") else fact for name, fact in facts.items()}
