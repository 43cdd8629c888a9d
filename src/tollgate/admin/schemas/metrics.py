"""The figures of the monitor in Prometheus' text format."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from tollgate.catalog.rules import CatalogState
from tollgate.keys.rules import Environment
from tollgate.upstreams.client import UpstreamState
from tollgate.upstreams.openrouter_account import AccountCredit

Labels = Mapping[str, str]
Value = int | float | Decimal


class Metric(NamedTuple):
    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: Sequence[tuple[Labels, Value | None]]
    """A sample of None is unknown and left out."""


def render(metrics: Sequence[Metric]) -> str:
    lines = []
    for metric in metrics:
        known = [(labels, value) for labels, value in metric.samples if value is not None]
        if known:
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
            lines += [f"{metric.name}{_braced(labels)} {_written(value)}" for labels, value in known]
    return "\n".join(lines) + "\n"


def _written(value: Value) -> str:
    """Exact, and without an exponent."""
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _braced(labels: Labels) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def of_database(found: Any, credit: AccountCredit) -> Iterator[Metric]:
    yield from _of_today(found["usage"]["today"])
    yield from _of_balances(found)
    yield from _of_a_day(found["last_24_hours"])
    yield _gauge("tollgate_openrouter_credits", "Credit left on our own OpenRouter account.", _credits(credit.nanos))


def _of_today(used: Any) -> Iterator[Metric]:
    since = "since midnight UTC."
    tokens = [({"kind": kind}, used[f"{kind}_tokens"]) for kind in ("prompt", "completion")]
    yield _counter("tollgate_requests_total", f"Requests {since}", used["requests"])
    yield _counter("tollgate_request_errors_total", f"Requests that ended with an error, {since}", used["errors"])
    yield Metric("tollgate_tokens_total", "counter", f"Tokens {since}", tokens)
    yield _counter("tollgate_charge_credits_total", f"Charged to orgs {since}", _credits(used["charge_nanos"]))
    yield _counter("tollgate_cost_credits_total", f"Our cost {since}", _credits(used["cost_nanos"]))
    margin = used["charge_nanos"] - used["cost_nanos"]
    yield _gauge("tollgate_margin_credits", f"Charge less cost {since} May be below zero.", _credits(margin))


def _of_balances(found: Any) -> Iterator[Metric]:
    holds, overdrawn = found["open_holds"], found["overdrawn"]
    balances, debts = _credits(found["balances"]["credits_nanos"]), _credits(overdrawn["overdrawn_nanos"])
    yield _gauge("tollgate_balances_credits", "Sum of all balances above zero.", balances)
    yield _gauge("tollgate_overdrawn_credits", "Sum of all balances below zero.", debts)
    yield _gauge("tollgate_overdrawn_orgs", "Orgs whose balance is below zero.", overdrawn["count"])
    suspended = found["paid_suspended"]["count"]
    yield _gauge("tollgate_paid_suspended_orgs", "Orgs whose paid calls are suspended.", suspended)
    yield _gauge("tollgate_open_holds", "Open holds.", holds["count"])
    yield _gauge("tollgate_held_credits", "Credits that open holds set aside.", _credits(holds["held_nanos"]))
    yield _gauge("tollgate_unsettled_requests", "Open holds without a known cost, for the sweeper.", holds["unsettled"])
    yield _gauge("tollgate_oldest_hold_seconds", "Age of the oldest open hold.", _age(found["at"], holds["oldest_at"]))
    for kind in ("orgs", "users", "keys"):
        states = [({"state": state}, found[kind][state]) for state in ("total", "usable", "active_today")]
        yield Metric(f"tollgate_{kind}", "gauge", f"Number of {kind}; usable ones are active.", states)


def _of_a_day(day: Any) -> Iterator[Metric]:
    for name, measured in (("duration", day["latency"]), ("first_token", day["first_token"])):
        levels = [({"percentile": str(p)}, _seconds(measured[f"p{p}_ms"])) for p in (50, 90, 95, 99)]
        yield Metric(f"tollgate_{name}_seconds", "gauge", "Over the last 24 hours, accurate to 5 %.", levels)
    for measure in ("requests", "errors"):
        shares = [({"upstream": one["upstream"] or "none"}, one[measure]) for one in day["upstreams"]]
        yield Metric(
            f"tollgate_upstream_{measure}_of_a_day",
            "gauge",
            "Over the last 24 hours; none: no upstream was reached.",
            shares,
        )


def of_instance(
    catalogs: Mapping[Environment, CatalogState], upstreams: Sequence[UpstreamState], times_blocked: int
) -> Iterator[Metric]:
    ages = [({"environment": name}, state.age_seconds) for name, state in catalogs.items()]
    models = [({"environment": name}, state.models) for name, state in catalogs.items()]
    yield Metric("tollgate_catalog_age_seconds", "gauge", "Time since the list of models was fetched.", ages)
    yield Metric("tollgate_catalog_models", "gauge", "Models in the list.", models)
    up = [({"upstream": one.id, "breaker": one.breaker}, int(one.breaker == "closed")) for one in upstreams]
    yield Metric("tollgate_upstream_up", "gauge", "1 while all its breakers are closed.", up)
    in_flight = [({"upstream": one.id}, one.in_flight) for one in upstreams]
    yield Metric("tollgate_upstream_in_flight", "gauge", "Requests that it is serving now.", in_flight)
    failures = [({"upstream": one.id}, one.failures) for one in upstreams]
    yield Metric("tollgate_upstream_failures_total", "counter", "Failures since this process started.", failures)
    yield _counter(
        "tollgate_loop_blocked_total",
        "How often the event loop was blocked for more than 50 ms since this process started.",
        times_blocked,
    )


def _counter(name: str, text: str, value: Value | None) -> Metric:
    return Metric(name, "counter", text, [({}, value)])


def _gauge(name: str, text: str, value: Value | None) -> Metric:
    return Metric(name, "gauge", text, [({}, value)])


def _credits(nanos: int | None) -> Decimal | None:
    return None if nanos is None else Decimal(nanos).scaleb(-9)


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _age(now: str, since: str | None) -> float | None:
    return None if since is None else (datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds()
