"""GET /metrics: the monitor's figures as Prometheus reads them. One call of the database.

Counters begin anew at midnight UTC, which `rate()` and `increase()` take for a restart. What the catalogues and the
breakers say is of this instance alone; all the rest is of the whole house, whichever instance tells it.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import Depends
from starlette.responses import PlainTextResponse

from tollgate.admin.funds import Funds, Left
from tollgate.catalog.cache import Catalog, CatalogState
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.keys.rules import Environment
from tollgate.process.loop_lag import LoopLag
from tollgate.upstreams.client import Upstreams, UpstreamState
from tollgate.usage import monitor as usage
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals

Labels = Mapping[str, str]
Value = int | float | Decimal


class Metric(NamedTuple):
    name: str
    kind: Literal["counter", "gauge"]
    says: str
    samples: Sequence[tuple[Labels, Value | None]]
    """None: not known, and so not told."""


class Exposition(PlainTextResponse):
    media_type = "text/plain; version=0.0.4"


def router(
    gate: Gate, catalogs: Mapping[Environment, Catalog], upstreams: Upstreams, funds: Funds, lag: LoopLag
) -> Routes:
    routes = Routes()

    @routes.get(
        "/metrics",
        summary="The monitor's figures as Prometheus reads them",
        responses=refusals(),
        response_class=Exposition,
        openapi_extra={"x-stability": "experimental"},
    )
    async def metrics(door: Annotated[Door, Depends(gate.open)]) -> Exposition:
        found = await usage.of_all(door)
        left = await funds.left()
        states = {name: catalog.state() for name, catalog in catalogs.items()}
        blocked = _counter(
            "tollgate_loop_blocked_total",
            "How often something held the event loop for more than 50 ms, since this process started.",
            lag.times_blocked,
        )
        of_this_instance = _of_this_instance(states, upstreams.states())
        return Exposition(rendered([*_of_the_house(found, left), *of_this_instance, blocked]))

    return routes


def rendered(metrics: Sequence[Metric]) -> str:
    lines = []
    for metric in metrics:
        known = [(labels, value) for labels, value in metric.samples if value is not None]
        if known:
            lines += [f"# HELP {metric.name} {metric.says}", f"# TYPE {metric.name} {metric.kind}"]
            lines += [f"{metric.name}{_braced(labels)} {_written(value)}" for labels, value in known]
    return "\n".join(lines) + "\n"


def _written(value: Value) -> str:
    """To the last nano, and without an exponent."""
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _braced(labels: Labels) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _of_the_house(found: Any, left: Left) -> Iterator[Metric]:
    yield from _of_today(found["usage"]["today"])
    yield from _of_the_books(found)
    yield from _of_a_day(found["last_24_hours"])
    yield _gauge("tollgate_openrouter_credits", "Left of our own credit at OpenRouter.", _credits(left.nanos))


def _of_today(used: Any) -> Iterator[Metric]:
    since = "since midnight UTC."
    tokens = [({"kind": kind}, used[f"{kind}_tokens"]) for kind in ("prompt", "completion")]
    yield _counter("tollgate_requests_total", f"Requests {since}", used["requests"])
    yield _counter("tollgate_request_errors_total", f"Requests that ended with an error, {since}", used["errors"])
    yield Metric("tollgate_tokens_total", "counter", f"Tokens {since}", tokens)
    yield _counter("tollgate_charge_credits_total", f"Charged to orgs {since}", _credits(used["charge_nanos"]))
    yield _counter("tollgate_cost_credits_total", f"Taken by upstreams {since}", _credits(used["cost_nanos"]))
    margin = used["charge_nanos"] - used["cost_nanos"]
    yield _gauge("tollgate_margin_credits", f"Charge less cost {since} May be below zero.", _credits(margin))


def _of_the_books(found: Any) -> Iterator[Metric]:
    holds, overdrawn = found["open_holds"], found["overdrawn"]
    yield _gauge("tollgate_balances_credits", "All balances above zero.", _credits(found["balances"]["nanos"]))
    yield _gauge("tollgate_overdrawn_credits", "All balances below zero.", _credits(overdrawn["nanos"]))
    yield _gauge("tollgate_overdrawn_orgs", "Orgs whose balance is below zero.", overdrawn["count"])
    suspended = found["paid_suspended"]["count"]
    yield _gauge("tollgate_paid_suspended_orgs", "Orgs whose paid calls are suspended.", suspended)
    yield _gauge("tollgate_open_holds", "Requests that nobody has ended yet.", holds["count"])
    yield _gauge("tollgate_held_credits", "Set aside for them.", _credits(holds["nanos"]))
    yield _gauge("tollgate_unsettled_requests", "Those whose cost the sweeper looks for.", holds["unsettled"])
    yield _gauge("tollgate_oldest_hold_seconds", "Age of the oldest of them.", _age(found["at"], holds["oldest_at"]))
    for kind in ("orgs", "users", "keys"):
        states = [({"state": state}, found[kind][state]) for state in ("total", "usable", "active_today")]
        yield Metric(f"tollgate_{kind}", "gauge", f"How many {kind}; usable are those that may act.", states)


def _of_a_day(day: Any) -> Iterator[Metric]:
    for name, measured in (("duration", day["latency"]), ("first_token", day["first_token"])):
        levels = [({"percentile": str(p)}, _seconds(measured[f"p{p}_ms"])) for p in (50, 90, 95, 99)]
        yield Metric(f"tollgate_{name}_seconds", "gauge", "Of the last 24 hours, within 5 %.", levels)
    for measure in ("requests", "errors"):
        shares = [({"upstream": one["upstream"] or "none"}, one[measure]) for one in day["upstreams"]]
        yield Metric(
            f"tollgate_upstream_{measure}_of_a_day",
            "gauge",
            "Of the last 24 hours; none: it reached no upstream.",
            shares,
        )


def _of_this_instance(
    catalogs: Mapping[Environment, CatalogState], upstreams: Sequence[UpstreamState]
) -> Iterator[Metric]:
    ages = [({"environment": name}, state.age_seconds) for name, state in catalogs.items()]
    models = [({"environment": name}, state.models) for name, state in catalogs.items()]
    yield Metric("tollgate_catalog_age_seconds", "gauge", "Since the list of models was taken.", ages)
    yield Metric("tollgate_catalog_models", "gauge", "Models in it.", models)
    up = [({"upstream": one.id, "breaker": one.breaker}, int(one.breaker == "closed")) for one in upstreams]
    yield Metric("tollgate_upstream_up", "gauge", "1 while no breaker of it is open.", up)
    in_flight = [({"upstream": one.id}, one.in_flight) for one in upstreams]
    yield Metric("tollgate_upstream_in_flight", "gauge", "Requests with it at this moment.", in_flight)
    failures = [({"upstream": one.id}, one.failures) for one in upstreams]
    yield Metric("tollgate_upstream_failures_total", "counter", "Failures since this process started.", failures)


def _counter(name: str, says: str, value: Value | None) -> Metric:
    return Metric(name, "counter", says, [({}, value)])


def _gauge(name: str, says: str, value: Value | None) -> Metric:
    return Metric(name, "gauge", says, [({}, value)])


def _credits(nanos: int | None) -> Decimal | None:
    return None if nanos is None else Decimal(nanos).scaleb(-9)


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _age(now: str, since: str | None) -> float | None:
    return None if since is None else (datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds()
