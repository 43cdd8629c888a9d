"""The figures of the monitor in Prometheus' text format, or in OpenMetrics, which has exemplars."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from tollgate.catalog.rules import CatalogState
from tollgate.keys.rules import Environment
from tollgate.upstreams.client import UpstreamState
from tollgate.upstreams.openrouter_account import AccountCredit
from tollgate.web.request_counts import BOUNDS_SECONDS, Durations, Exemplar, RequestCounts

Labels = Mapping[str, str]
Value = int | float | Decimal


class Metric(NamedTuple):
    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: Sequence[tuple[Labels, Value | None]]
    """A sample of None is unknown and left out."""

    def lines(self, *, open_metrics: bool = False) -> list[str]:
        known = [(labels, value) for labels, value in self.samples if value is not None]
        lines = [f"{self.name}{_braced(labels)} {_written(value)}" for labels, value in known]
        family = self.name.removesuffix("_total") if open_metrics else self.name
        return [*_head(family, self.kind, self.help), *lines] if lines else []


class Histogram(NamedTuple):
    name: str
    help: str
    samples: Sequence[tuple[Labels, Durations]]

    def lines(self, *, open_metrics: bool = False) -> list[str]:
        lines = [line for labels, durations in self.samples for line in self._sample(labels, durations, open_metrics)]
        return [*_head(self.name, "histogram", self.help), *lines] if lines else []

    def _sample(self, labels: Labels, durations: Durations, with_exemplars: bool) -> Iterator[str]:
        counts = list(accumulate(durations.counts))
        exemplars = durations.exemplars if with_exemplars else {}
        for bucket, (bound, count) in enumerate(zip([*map(str, BOUNDS_SECONDS), "+Inf"], counts, strict=True)):
            told = _exemplar(exemplars[bucket]) if bucket in exemplars else ""
            yield f"{self.name}_bucket{_braced({**labels, 'le': bound})} {count}{told}"
        yield f"{self.name}_sum{_braced(labels)} {durations.total_seconds:.6f}"
        yield f"{self.name}_count{_braced(labels)} {counts[-1]}"


def render(metrics: Iterable[Metric | Histogram], *, open_metrics: bool = False) -> str:
    lines = [line for metric in metrics for line in metric.lines(open_metrics=open_metrics)]
    return "\n".join([*lines, *(["# EOF"] if open_metrics else [])]) + "\n"


def _exemplar(one: Exemplar) -> str:
    return f' # {{trace_id="{one.trace_id}"}} {one.seconds:.6f} {one.at:.3f}'


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


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
    yield from _of_models(found["models_today"])
    yield from _of_balances(found)
    yield from _of_a_day(found["last_24_hours"])
    yield from _of_cache(found["cache"])
    yield from _of_postgres(found["database"])
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


def _of_models(used: Any) -> Iterator[Metric]:
    since = "since midnight UTC, by model. `other` are those beyond the 50 that were charged most."
    counted = [({"model": one["model"]}, one) for one in used]
    tokens = [
        ({**labels, "kind": kind}, one[f"{kind}_tokens"])
        for labels, one in counted
        for kind in ("prompt", "completion")
    ]
    charges = [(labels, _credits(one["charge_nanos"])) for labels, one in counted]
    requests = [(labels, one["requests"]) for labels, one in counted]
    yield Metric("tollgate_model_requests_total", "counter", f"Requests {since}", requests)
    yield Metric("tollgate_model_tokens_total", "counter", f"Tokens {since}", tokens)
    yield Metric("tollgate_model_charge_credits_total", "counter", f"Charged to orgs {since}", charges)


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


def _of_cache(cache: Any) -> Iterator[Metric]:
    since = "since midnight UTC, by model. The 50 models with most look-ups."
    looked = [
        ({"model": one["model"], "result": result}, one[of_result])
        for one in cache["models"]
        for result, of_result in (("hit", "hits"), ("miss", "misses"))
    ]
    yield Metric("tollgate_cache_lookups_total", "counter", f"Look-ups in the completion cache {since}", looked)
    saved = _credits(cache["saved_nanos"])
    yield _counter("tollgate_cache_saved_credits_total", "What hits were not charged, since midnight UTC.", saved)
    yield _gauge("tollgate_cache_entries", "Answers in the completion cache.", cache["entries"])
    yield _gauge("tollgate_cache_bytes", "Their size together.", cache["bytes"])


def _of_postgres(load: Any) -> Iterator[Metric]:
    connections = [({"kind": "used"}, load["connections"]), ({"kind": "most"}, load["most_connections"])]
    transactions = [({"outcome": "committed"}, load["committed"]), ({"outcome": "rolled_back"}, load["rolled_back"])]
    blocks = [({"from": "memory"}, load["blocks_hit"]), ({"from": "disk"}, load["blocks_read"])]
    yield _gauge("tollgate_database_bytes", "Size of the database.", load["bytes"])
    yield Metric("tollgate_database_connections", "gauge", "Connections to the server of the database.", connections)
    yield Metric("tollgate_database_transactions_total", "counter", "Transactions, as Postgres counts.", transactions)
    yield Metric("tollgate_database_blocks_total", "counter", "Blocks read, as Postgres counts.", blocks)
    yield _counter("tollgate_database_deadlocks_total", "Deadlocks, as Postgres counts.", load["deadlocks"])
    yield _gauge(
        "tollgate_database_oldest_transaction_seconds",
        "Age of the oldest transaction, this one apart.",
        load["oldest_transaction_seconds"],
    )


def of_machine(sample: Mapping[str, Any]) -> Iterator[Metric]:
    """Of this process, and of the machine or container that it runs on."""
    yield _gauge("tollgate_process_memory_bytes", "Memory of this process.", sample.get("process_memory_bytes"))
    for what in ("memory", "disk"):
        kinds = [({"kind": kind}, sample.get(f"{what}_{kind}_bytes")) for kind in ("used", "total")]
        yield Metric(f"tollgate_machine_{what}_bytes", "gauge", f"{what.capitalize()} of the machine.", kinds)
    yield _gauge("tollgate_machine_load", "Processes that want to run, over a minute.", sample.get("load_1m"))
    yield _gauge("tollgate_machine_cpus", "Processors that this process may use.", sample.get("cpu_count"))


def of_instance(
    catalogs: Mapping[Environment, CatalogState], upstreams: Sequence[UpstreamState], times_blocked: int
) -> Iterator[Metric]:
    ages = [({"environment": name}, state.age_seconds) for name, state in catalogs.items()]
    models = [({"environment": name}, state.models) for name, state in catalogs.items()]
    yield Metric("tollgate_catalog_age_seconds", "gauge", "Time since the list of models was fetched.", ages)
    yield Metric("tollgate_catalog_models", "gauge", "Models in the list.", models)
    lookups = [
        ({"environment": name, "result": result}, count)
        for name, state in catalogs.items()
        for result, count in (("hit", state.hits), ("miss", state.misses))
    ]
    text = "Look-ups of models since this process started; a hit is answered from memory."
    yield Metric("tollgate_catalog_lookups_total", "counter", text, lookups)
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


def of_http(counts: RequestCounts) -> Iterator[Metric | Histogram]:
    since = "since this process started"
    requests = [
        ({"method": method, "route": route, "status": str(status)}, count)
        for (method, route, status), count in sorted(counts.requests.items())
    ]
    limits = [({"limit": limit}, count) for limit, count in sorted(counts.limits.items())]
    errors = [({"code": code}, count) for code, count in sorted(counts.errors.items())]
    durations = [({"route": route}, durations) for route, durations in sorted(counts.durations.items())]
    yield Metric("tollgate_http_requests_total", "counter", f"Requests over HTTP {since}.", requests)
    yield Metric("tollgate_http_errors_total", "counter", f"Refusals and errors over HTTP by code {since}.", errors)
    yield Metric("tollgate_http_rate_limited_total", "counter", f"Refusals by the limit of a window {since}.", limits)
    text = f"Durations to the last byte, streams included, {since}."
    yield Histogram("tollgate_http_request_duration_seconds", text, durations)


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
