"""The dashboards of deploy/grafana/dashboards. `make exports` writes them.

Figures of the whole installation are the same in every instance, so they are taken with `max`; those of a process with
`sum`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

FOLDER: Final = "deploy/grafana/dashboards"
SOURCE: Final = {"type": "prometheus", "uid": "prometheus"}
WIDTH: Final = 24
USD: Final = "currencyUSD"


@dataclass(frozen=True)
class Panel:
    title: str
    queries: Mapping[str, str]
    """Expressions by their legend."""
    unit: str = "short"
    width: int = 8
    description: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "timeseries"
    height: int = 8


def stat(
    title: str, expression: str, unit: str = "short", description: str = "", red_from: float | None = None
) -> Panel:
    steps = [{"color": "green", "value": None}, {"color": "red", "value": red_from}]
    defaults = {} if red_from is None else {"thresholds": {"mode": "absolute", "steps": steps}}
    decimals = {"decimals": 4} if unit == USD else {}
    return Panel(title, {"": expression}, unit, 4, description, defaults | decimals, "stat", 4)


def percentiles(title: str, metric: str, width: int = 12) -> Panel:
    queries = {"p{{percentile}}": f"max by (percentile) ({metric})"}
    return Panel(title, queries, "s", width, "Of the last 24 hours, within 5 %")


OPERATOR: Final = (
    stat("Requests today", "max(tollgate_requests_total)"),
    stat("Errors today", "max(tollgate_request_errors_total)"),
    stat("Charged today", "max(tollgate_charge_credits_total)", USD),
    stat("Margin today", "max(tollgate_margin_credits)", USD),
    stat("Left at OpenRouter", "max(tollgate_openrouter_credits)", USD, "Needs OPENROUTER_MANAGEMENT_KEY"),
    stat("Oldest hold", "max(tollgate_oldest_hold_seconds)", "s", "Above two hours nothing sweeps", 7200),
    Panel(
        "Requests and errors",
        {
            "requests": "max(rate(tollgate_requests_total[5m]))",
            "errors": "max(rate(tollgate_request_errors_total[5m]))",
        },
        "reqps",
        12,
    ),
    Panel(
        "Charge and cost an hour",
        {
            "charge": "max(increase(tollgate_charge_credits_total[1h]))",
            "cost": "max(increase(tollgate_cost_credits_total[1h]))",
        },
        USD,
        12,
    ),
    Panel(
        "Requests over HTTP by status",
        {"{{status}}": "sum by (status) (rate(tollgate_http_requests_total[5m]))"},
        "reqps",
    ),
    Panel(
        "Duration over HTTP, 95 % of requests",
        {
            "{{route}}": "histogram_quantile(0.95, "
            "sum by (le, route) (rate(tollgate_http_request_duration_seconds_bucket[5m])))"
        },
        "s",
        description="By route; to the last byte, streams included",
    ),
    Panel("Refusals and errors by code", {"{{code}}": "sum by (code) (rate(tollgate_http_errors_total[5m]))"}, "reqps"),
    Panel(
        "Upstreams up",
        {"{{upstream}}": "min by (upstream) (tollgate_upstream_up)"},
        description="0: a breaker is open or half open",
        defaults={"min": 0, "max": 1},
    ),
    Panel("Requests with an upstream now", {"{{upstream}}": "sum by (upstream) (tollgate_upstream_in_flight)"}),
    Panel(
        "Failures of upstreams an hour",
        {"{{upstream}}": "sum by (upstream) (increase(tollgate_upstream_failures_total[1h]))"},
    ),
    Panel(
        "Open holds",
        {"open": "max(tollgate_open_holds)", "of them unsettled": "max(tollgate_unsettled_requests)"},
    ),
    Panel(
        "Memory",
        {
            "{{instance}} process": "tollgate_process_memory_bytes",
            "{{instance}} machine": 'tollgate_machine_memory_bytes{kind="used"}',
        },
        "bytes",
        description="Of each process, and of its machine or container",
    ),
    Panel(
        "Event loop blocked an hour",
        {"{{instance}}": "increase(tollgate_loop_blocked_total[1h])"},
        description="Times that it was blocked for more than 50 ms",
    ),
)
CUSTOMERS: Final = (
    stat("Orgs that used something today", 'max(tollgate_orgs{state="active_today"})'),
    stat("Orgs", 'max(tollgate_orgs{state="usable"})'),
    stat("Keys that may act", 'max(tollgate_keys{state="usable"})'),
    stat("Keys used today", 'max(tollgate_keys{state="active_today"})'),
    stat("Orgs overdrawn", "max(tollgate_overdrawn_orgs)", red_from=1),
    stat("Orgs suspended", "max(tollgate_paid_suspended_orgs)", red_from=1),
    Panel(
        "What customers have left",
        {"balances": "max(tollgate_balances_credits)", "held": "max(tollgate_held_credits)"},
        USD,
        12,
    ),
    Panel("What customers owe", {"overdrawn": "max(tollgate_overdrawn_credits)"}, USD, 12),
    Panel(
        "Refused by a limit",
        {
            "{{code}}": "sum by (code) (increase(tollgate_http_errors_total{code=~"
            '"rate_limit_exceeded|too_many_in_flight|quota_exhausted|key_budget_exhausted"}[5m]))'
        },
        width=12,
        description="Rate limits, open requests, quotas and budgets",
    ),
    Panel(
        "Windows that were full",
        {"{{limit}}": "sum by (limit) (increase(tollgate_http_rate_limited_total[5m]))"},
        width=12,
    ),
    Panel("Users", {"{{state}}": "max by (state) (tollgate_users)"}, width=12),
    Panel("Keys", {"{{state}}": "max by (state) (tollgate_keys)"}, width=12),
)
MODELS: Final = (
    percentiles("Whole time of a request", "tollgate_duration_seconds"),
    percentiles("First token of a stream", "tollgate_first_token_seconds"),
    Panel(
        "Charged today by model",
        {"{{model}}": "topk(10, max by (model) (tollgate_model_charge_credits_total))"},
        USD,
        description="The ten highest",
    ),
    Panel(
        "Requests by model",
        {"{{model}}": "topk(10, max by (model) (rate(tollgate_model_requests_total[5m])))"},
        "reqps",
        description="The ten highest",
    ),
    Panel(
        "Tokens by model",
        {"{{model}} {{kind}}": "topk(10, max by (model, kind) (rate(tollgate_model_tokens_total[5m])))"},
        description="A second; the ten highest",
    ),
    Panel("Tokens", {"{{kind}}": "max by (kind) (rate(tollgate_tokens_total[5m]))"}, description="A second"),
    Panel(
        "Errors of upstreams, share of a day",
        {
            "{{upstream}}": "max by (upstream) (tollgate_upstream_errors_of_a_day)"
            " / max by (upstream) (tollgate_upstream_requests_of_a_day)"
        },
        "percentunit",
    ),
    Panel(
        "Age of the list of models",
        {"{{environment}}": "max by (environment) (tollgate_catalog_age_seconds)"},
        "s",
        description="Fresh below 5 minutes",
    ),
    Panel("Models listed", {"{{environment}}": "max by (environment) (tollgate_catalog_models)"}, width=12),
    Panel(
        "Hits of the model catalog",
        {
            "hits": 'sum(rate(tollgate_catalog_lookups_total{result="hit"}[5m]))'
            " / sum(rate(tollgate_catalog_lookups_total[5m]))"
        },
        "percentunit",
        12,
        "Share of look-ups that are answered from memory",
    ),
)
DATABASE: Final = (
    stat("Size", "max(tollgate_database_bytes)", "bytes"),
    stat("Connections", 'max(tollgate_database_connections{kind="used"})'),
    stat("Most connections", 'max(tollgate_database_connections{kind="most"})'),
    stat("Oldest transaction", "max(tollgate_database_oldest_transaction_seconds)", "s", red_from=300),
    stat("Open holds", "max(tollgate_open_holds)"),
    stat("Deadlocks", "max(tollgate_database_deadlocks_total)", red_from=1),
    Panel(
        "Connections in use",
        {"share": 'max(tollgate_database_connections{kind="used"}) / max(tollgate_database_connections{kind="most"})'},
        "percentunit",
        12,
        defaults={"min": 0, "max": 1},
    ),
    Panel("Size over time", {"bytes": "max(tollgate_database_bytes)"}, "bytes", 12),
    Panel(
        "Transactions a second",
        {"{{outcome}}": "max by (outcome) (rate(tollgate_database_transactions_total[5m]))"},
        width=12,
    ),
    Panel(
        "Blocks that were in memory",
        {
            "share": 'max(rate(tollgate_database_blocks_total{from="memory"}[5m]))'
            ' / (max(rate(tollgate_database_blocks_total{from="memory"}[5m]))'
            ' + max(rate(tollgate_database_blocks_total{from="disk"}[5m])))'
        },
        "percentunit",
        12,
    ),
)
CACHE: Final = (
    stat("Answers", "max(tollgate_cache_entries)"),
    stat("Size", "max(tollgate_cache_bytes)", "bytes"),
    stat("Saved today", "max(tollgate_cache_saved_credits_total)", USD, "What hits were not charged"),
    stat("Hits today", 'sum(max by (model) (tollgate_cache_lookups_total{result="hit"}))'),
    stat("Misses today", 'sum(max by (model) (tollgate_cache_lookups_total{result="miss"}))'),
    Panel(
        "Hits of all look-ups",
        {
            "share": 'sum(max by (model) (rate(tollgate_cache_lookups_total{result="hit"}[5m])))'
            " / sum(max by (model, result) (rate(tollgate_cache_lookups_total[5m])))"
        },
        "percentunit",
        12,
    ),
    Panel(
        "Hits by model",
        {"{{model}}": 'topk(10, max by (model) (rate(tollgate_cache_lookups_total{result="hit"}[5m])))'},
        "reqps",
        12,
    ),
    Panel("Answers over time", {"answers": "max(tollgate_cache_entries)"}, width=12),
    Panel("Saved an hour", {"saved": "max(increase(tollgate_cache_saved_credits_total[1h]))"}, USD, 12),
)
DASHBOARDS: Final = {
    "tollgate": ("Tollgate", OPERATOR),
    "customers": ("Tollgate: customers", CUSTOMERS),
    "models": ("Tollgate: models", MODELS),
    "database": ("Tollgate: database", DATABASE),
    "cache": ("Tollgate: cache", CACHE),
}


def written() -> Iterator[tuple[str, str]]:
    """Each file and its text."""
    for name, (title, panels) in DASHBOARDS.items():
        yield f"{FOLDER}/{name}.json", json.dumps(dashboard(name, title, panels), indent=1, ensure_ascii=False) + "\n"


def dashboard(name: str, title: str, panels: tuple[Panel, ...]) -> dict[str, Any]:
    return {
        "uid": "tollgate" if name == "tollgate" else f"tollgate-{name}",
        "title": title,
        "tags": ["tollgate"],
        "timezone": "utc",
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "editable": True,
        "links": [{"type": "dashboards", "title": "Tollgate", "tags": ["tollgate"], "asDropdown": False}],
        "panels": [_panel(number, panel, place) for number, (panel, place) in enumerate(_placed(panels), 1)],
    }


def _placed(panels: tuple[Panel, ...]) -> Iterator[tuple[Panel, dict[str, int]]]:
    """From left to right, in rows."""
    x = y = height = 0
    for panel in panels:
        if x + panel.width > WIDTH or (x and panel.height != height):
            x, y = 0, y + height
        height = panel.height
        yield panel, {"x": x, "y": y, "w": panel.width, "h": panel.height}
        x += panel.width


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    shown = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for index, (legend, expression) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {"defaults": {"unit": panel.unit, **panel.defaults}, "overrides": []},
        **({"options": shown} if panel.kind == "stat" else {}),
    }
