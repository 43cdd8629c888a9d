"""Makes the app: settings → database and HTTP clients → rooms → FastAPI. Nothing here is global."""

import asyncio
import contextlib
import hashlib
import json
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastapi import APIRouter
from starlette.middleware import Middleware
from starlette.routing import Route

from tollgate import __version__, settings
from tollgate.alerts.deliveries import Deliveries
from tollgate.alerts.readings import Readings
from tollgate.audit.security_reporter import SecurityReporter
from tollgate.cache.level import RedisLevel
from tollgate.cache.lookups import Cache
from tollgate.cache.rules import Bounds
from tollgate.catalog.cache import Catalog
from tollgate.catalog.source import OwnServersOnly, Source
from tollgate.completions import batch
from tollgate.completions import routes as completions
from tollgate.completions.admission import Admission
from tollgate.completions.flow import Flow
from tollgate.completions.paid_call import Leaving
from tollgate.completions.routes import PaidEndpoint, UploadEndpoint
from tollgate.completions.settlements import Settlements
from tollgate.completions.sweeper import Sweeper
from tollgate.completions.upkeep import Upkeep
from tollgate.completions.uploads import Uploads
from tollgate.core.models import OPENROUTER, SANDBOX, Upstream
from tollgate.core.redaction import Redactor
from tollgate.database import Door, open_door
from tollgate.keys.authentication import Gate
from tollgate.keys.rules import Environment, fingerprint
from tollgate.process import clock as clocks
from tollgate.process import logs
from tollgate.process.clock import Monotonic, monotonic
from tollgate.process.drain import Drain
from tollgate.process.http_client import Http
from tollgate.process.loop_lag import LoopLag
from tollgate.process.machine import Machine
from tollgate.process.spools import Spools
from tollgate.settings import Settings
from tollgate.upstreams import key_variables
from tollgate.upstreams.address_guard import Guard
from tollgate.upstreams.attempts.routes_in_turn import Attempts
from tollgate.upstreams.client import Upstreams
from tollgate.upstreams.health_checks import Checkup
from tollgate.upstreams.ingress import Ingress
from tollgate.upstreams.openrouter_account import OpenRouterAccount
from tollgate.upstreams.transports import open_transport
from tollgate.vault.rules import Vault
from tollgate.web import front_page, session_cookie
from tollgate.web.application import Application
from tollgate.web.cors import Cors
from tollgate.web.error_responses import HANDLERS
from tollgate.web.middleware import RequestMiddleware
from tollgate.web.request_counts import RequestCounts

if TYPE_CHECKING:
    from tollgate.process.telemetry import Telemetry
    from tollgate.reconciliation.reconciler import Reconciler

CLOSE_SECONDS = 1.5
"""For settling what is left and closing connections, after the drain."""
DOCUMENT = Path(__file__).with_name("openapi.json")
MOST_TEST_CALLS = 32
"""Requests of test keys under way at once in a process. They have their own connections; one org gets at most three
quarters of them."""
DESCRIPTION = (
    "Send a key as `Authorization: Bearer <key>` or `X-API-Key: <key>`. Errors are an `ErrorResponse`, in OpenAI's "
    "shape; under `/api/v1` they are an `OpenRouterErrorResponse`, but for `/api/v1/generate`. Money is in nanos, of "
    "which 1e9 are a credit, and a credit is a US dollar."
)
TAGS = {
    "completions": "Paid calls: they pass through to an upstream, and are charged to the org of the key.",
    "account": "What the owner of a key may see and change.",
    "admin": "What operators may see and change.",
    "sessions": "Signing in and out, in a browser.",
    "models": "The models and their prices.",
    "agents": "What the agents of hosts call.",
    "health": "Whether the server works.",
}
OF_EVERYONE = ("/health", "/readyz", "/v1/models", "/api/v1/providers")
OF_THE_CONSOLE = ("/account", "/admin", "/ui", "/assets/")
OF_PEOPLE = (
    *("/user/", "/admin/", "/metrics"),
    *("/api/v1/credits", "/api/v1/key", "/api/v1/generation", "/api/v1/activity"),
)
OF_SESSIONS = ("/auth/",)
OF_AGENTS = ("/agent/",)
MOST_AGENT_BYTES = 2 * 1024**2
"""In the body of an agent that has a key."""


log = logs.source("application")


class Traceable(NamedTuple):
    """The parts that have spans where traces are sent. Elsewhere they are the plain ones, at no cost."""

    middleware: Callable[..., RequestMiddleware] = RequestMiddleware
    admission: Callable[..., Admission] = Admission
    attempts: Callable[..., Attempts] = Attempts
    flow: Callable[..., Flow] = Flow
    counts: Callable[[], RequestCounts] = RequestCounts
    telemetry: "Telemetry | None" = None


PLAIN = Traceable()


class Rooms(NamedTuple):
    """The parts that routes need. No connection is opened before the first call needs it."""

    http: Http
    database: Door
    gate: Gate
    catalogs: Mapping[Environment, Catalog]
    upstreams: Upstreams
    cache: Cache
    checkup: Checkup
    ingress: Ingress
    account: OpenRouterAccount
    deliveries: Deliveries
    settlements: Settlements
    sweeper: Sweeper
    security_reporter: SecurityReporter
    lag: LoopLag
    counts: RequestCounts
    machine: Machine

    async def close(self) -> None:
        await self.settlements.finish()
        await self.security_reporter.finish()
        for catalog in self.catalogs.values():
            await catalog.close()
        await self.upstreams.close()
        await self.cache.close()
        await self.database.close()
        await self.http.close()


def compose(
    chosen: Settings,
    door: Door | None = None,
    clock: Monotonic = monotonic,
    environ: Mapping[str, str] = os.environ,
    parts: Traceable = PLAIN,
) -> Rooms:
    http = Http()
    database = door or open_door(chosen, http)
    if chosen.log_level == "debug":
        from tollgate.completions.debug_lines import DebugDoor  # noqa: PLC0415  # nobody else pays for them

        database = DebugDoor(database, clock)
    settlements = Settlements(database, clock=clock, randomness=random.random)
    long_lived = not settings.is_serverless(environ)
    transport, guard = open_transport(http, long_lived=long_lived), Guard(allow_private=chosen.private_upstreams)
    secrets = {**key_variables.without_ours(environ), **_own_secrets(chosen)}
    upstreams = Upstreams(
        transport,
        of_tests=open_transport(http, long_lived=long_lived, most=MOST_TEST_CALLS),
        secrets=secrets,
        allow_private=chosen.private_upstreams,
        total_seconds=chosen.upstream_timeout_seconds,
        clock=clock,
        randomness=random.random,
        attempts=parts.attempts,
    )
    catalogs = _catalogs(chosen, http, database, clock)
    account = _openrouter_account(chosen, http, clock)
    readings = Readings(
        database, os.urandom(8).hex(), catalogs=catalogs, upstreams=upstreams, account=account, clock=clock
    )
    deliveries = Deliveries(
        database,
        transport,
        Vault(chosen.vault_keys),
        guard=guard,
        guard_of_owners=Guard(allow_private=False),
        clock=clock,
        now=clocks.now,
        randomness=random.random,
    )
    disk = chosen.data_folder if chosen.embedded else Path("/")
    lag = LoopLag(monotonic)
    machine = Machine(environ, clock, kind=settings.host_of(environ), disk=disk, lag=lag)
    upkeep = Upkeep(
        database,
        evaluate=readings.evaluate,
        send_due=deliveries.send_due,
        retention_days=chosen.request_retention_days,
        content_days=chosen.log_content_days,
        clock=clock,
        reconcile=reconciler(chosen, database, http).turn if chosen.openrouter_management_key else None,
        machine=machine,
    )
    return Rooms(
        http=http,
        database=database,
        gate=Gate(
            database,
            peppers=chosen.peppers,
            trusted_proxy=chosen.trusted_proxy,
            clock=clock,
            cookie=session_cookie.name(secure=chosen.production),
        ),
        catalogs=catalogs,
        upstreams=upstreams,
        cache=_cache(chosen, clock),
        checkup=Checkup(transport, guard, secrets),
        ingress=Ingress(transport, guard, secrets),
        account=account,
        deliveries=deliveries,
        settlements=settlements,
        sweeper=Sweeper(database, settlements, upstreams, [_openrouter(chosen)], clock=clock, upkeep=upkeep.turn),
        security_reporter=SecurityReporter(
            database, clock=clock, now=clocks.now, mark_key=fingerprint(chosen.peppers[0]).encode()
        ),
        lag=lag,
        counts=parts.counts(),
        machine=machine,
    )


def create_app(
    given: Settings | None = None,
    *,
    door: Door | None = None,
    clock: Monotonic = monotonic,
    environ: Mapping[str, str] = os.environ,
    drain: Drain | None = None,
) -> Application:
    """The whole server. It imports and opens what the first request needs, so that a cold start is short."""
    chosen = given or settings.read(environ)
    logs.configure(chosen.log_level, chosen.secrets(), console=not chosen.production)
    parts = traceable(chosen, environ)
    rooms = compose(chosen, door, clock, environ, parts)

    @asynccontextmanager
    async def lifespan(app: Application) -> AsyncIterator[None]:
        sweeping: list[asyncio.Task[None]] = []
        with contextlib.ExitStack() as while_serving:
            if not settings.is_serverless(environ):  # there, the first request would wait for this
                app.load()
                sweeping.append(asyncio.create_task(rooms.sweeper.for_ever()))
                while_serving.enter_context(rooms.lag.watched())
            yield
        for task in sweeping:
            task.cancel()
        with contextlib.suppress(TimeoutError):  # the database does not answer; the sweeper ends what is left
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*sweeping, return_exceptions=True)
                await rooms.close()
        if parts.telemetry:
            await parts.telemetry.close()

    middleware = partial(
        parts.middleware,
        production=chosen.production,
        clock=clock,
        observer=rooms.security_reporter,
        counts=rooms.counts,
        cors=Cors(chosen.allowed_origins),
    )
    around_paid = partial(middleware, max_body_bytes=chosen.max_body_bytes)
    around_uploads = partial(middleware, max_body_bytes=max(chosen.max_body_bytes, chosen.max_upload_bytes))
    leaving = Leaving(
        reads_on=not settings.is_serverless(environ), charges_prefill=chosen.abandoned_prefill == "charge"
    )
    paid = _paid(chosen, rooms, clock, drain or Drain(), leaving, parts)
    return _Application(
        paid={
            endpoint.path: (around_uploads if isinstance(endpoint, UploadEndpoint) else around_paid)(endpoint)
            for endpoint in paid
        },
        lazy={
            OF_EVERYONE: partial(_of_everyone, chosen, rooms, clock),
            OF_THE_CONSOLE: partial(_of_the_console, chosen),
            OF_PEOPLE: partial(_of_people, chosen, rooms, clock, settings.host_of(environ)),
            OF_SESSIONS: partial(_of_sessions, chosen, rooms),
            OF_AGENTS: partial(_of_agents, chosen, rooms),
        },
        title="Tollgate",
        version=__version__,
        servers=[{"url": "/", "description": "The server that this document is from."}],
        summary="A credit-billing proxy in front of OpenRouter and your own model servers.",
        description=DESCRIPTION,
        openapi_tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        lifespan=lifespan,
        redirect_slashes=False,
        exception_handlers=HANDLERS,
        middleware=[
            Middleware(
                middleware,
                max_body_bytes=chosen.max_admin_body_bytes,
                larger_bodies=dict.fromkeys(("/agent/sync", "/agent/tasks/"), MOST_AGENT_BYTES),
            )
        ],
        routes=[
            *(Route(endpoint.path, endpoint, methods=["POST"]) for endpoint in paid),
            completions.sweeping(rooms.sweeper, _cron_secret(chosen)),
            front_page.ROUTE,
        ],
    )


class _Application(Application):
    """Its OpenAPI document is a file: FastAPI takes a second and a half of CPU to describe all routes."""

    def described(self) -> dict[str, Any]:
        return dict(json.loads(DOCUMENT.read_text(encoding="utf-8")))

    def described_from_code(self) -> dict[str, Any]:
        """What `make exports` writes into the file. Adds the paid endpoints, which are plain ASGI."""
        from tollgate.completions import openapi  # noqa: PLC0415  # its schemas cost a cold start

        document = super().described_from_code()
        openapi.add(document)
        return document


def _of_everyone(chosen: Settings, rooms: Rooms, clock: Monotonic) -> list[APIRouter]:
    """Health and models. Imported when they are requested: see web/application.py."""
    from tollgate.catalog import routes as models  # noqa: PLC0415
    from tollgate.health import routes as health  # noqa: PLC0415

    return [
        health.router(chosen, rooms.database, rooms.http, clock),
        models.router(rooms.gate, rooms.catalogs, chosen.markup_ppm, chosen.default_model or None),
    ]


def _of_the_console(chosen: Settings) -> list[APIRouter]:
    """The web pages, which also ask Supabase Auth. Imported when they are requested: see web/application.py."""
    from tollgate.console import routes as console  # noqa: PLC0415

    supabase = chosen.supabase_url if chosen.supabase_publishable_key else None
    return [console.router(*([supabase] if supabase else []))]


def _of_people(chosen: Settings, rooms: Rooms, clock: Monotonic, host: str) -> list[APIRouter]:
    """The account and admin API. Imported when they are requested: see web/application.py."""
    from tollgate.account import routes as account  # noqa: PLC0415
    from tollgate.admin import routes as admin  # noqa: PLC0415
    from tollgate.admin.routes import metrics  # noqa: PLC0415
    from tollgate.alerts.channels import Channels  # noqa: PLC0415
    from tollgate.fleet.tasks import Tasks  # noqa: PLC0415
    from tollgate.health.node_exporter import NodeExporter  # noqa: PLC0415

    vault, strict, guard = (
        Vault(chosen.vault_keys),
        Guard(allow_private=False),
        Guard(allow_private=chosen.private_upstreams),
    )
    figures = metrics.Figures(rooms.catalogs, rooms.upstreams, rooms.account, rooms.lag, rooms.counts, rooms.machine)
    return [
        account.router(rooms.gate, chosen, Channels(vault, strict, rooms.deliveries, "keys")),
        admin.router(
            rooms.gate,
            chosen,
            catalogs=rooms.catalogs,
            outward=rooms.upstreams,
            checkup=rooms.checkup,
            account=rooms.account,
            completion_cache=rooms.cache,
            tasks=Tasks(rooms.database, rooms.ingress),
            channels=Channels(vault, guard, rooms.deliveries, "admin"),
            host=host,
            reconciler=reconciler(chosen, rooms.database, rooms.http),
            machine=rooms.machine,
            prometheus=NodeExporter(rooms.http, chosen.prometheus_url) if chosen.prometheus_url else None,
        ),
        metrics.router(rooms.gate, rooms.database, chosen, figures),
    ]


def _openrouter_account(chosen: Settings, http: Http, clock: Monotonic) -> OpenRouterAccount:
    key = chosen.openrouter_management_key
    return OpenRouterAccount(http, chosen.openrouter_base_url, key.get_secret_value() if key else None, clock=clock)


def _of_sessions(chosen: Settings, rooms: Rooms) -> list[APIRouter]:
    from tollgate.sessions import routes as sessions  # noqa: PLC0415

    return [sessions.router(rooms.gate, chosen, rooms.http)]


def _of_agents(chosen: Settings, rooms: Rooms) -> list[APIRouter]:
    from tollgate.fleet import routes as fleet  # noqa: PLC0415
    from tollgate.fleet.authentication import AgentGate  # noqa: PLC0415

    vault = Vault(chosen.vault_keys)
    reread = rooms.catalogs["live"].reread
    gate = AgentGate(chosen.agent_keys, chosen.trusted_proxy)
    return [fleet.router(gate, rooms.database, rooms.gate.digests, vault.open, reread)]


def traceable(chosen: Settings, environ: Mapping[str, str]) -> Traceable:
    """Plain parts, unless the settings name a receiver of traces or metrics."""
    if not (chosen.traces_to or chosen.metrics_to):
        return PLAIN
    try:
        from tollgate.process import telemetry  # noqa: PLC0415
    except ImportError:
        log.warning("telemetry_not_installed", change="install tollgate[otel], or unset OTEL_EXPORTER_OTLP_ENDPOINT")
        return PLAIN
    from tollgate.completions.spans import TracedAdmission, TracedFlow  # noqa: PLC0415
    from tollgate.upstreams.attempts.spans import TracedAttempts  # noqa: PLC0415
    from tollgate.web.spans import TracedCounts, TracedMiddleware  # noqa: PLC0415

    made = telemetry.Telemetry(chosen, may_freeze=settings.is_serverless(environ))
    logs.configure(chosen.log_level, chosen.secrets(), console=not chosen.production, adding=[telemetry.with_ids])
    return Traceable(
        partial(TracedMiddleware, telemetry=made),
        partial(TracedAdmission, made),
        partial(TracedAttempts, made),
        partial(TracedFlow, made),
        TracedCounts if chosen.traces_to else RequestCounts,
        made,
    )


def _paid(
    chosen: Settings, rooms: Rooms, clock: Monotonic, drain: Drain, leaving: Leaving, parts: Traceable
) -> list[PaidEndpoint]:
    admission = parts.admission(
        rooms.gate,
        rooms.settlements,
        rooms.catalogs,
        rooms.upstreams,
        rooms.cache,
        markup_ppm=chosen.markup_ppm,
        ttl_seconds=chosen.hold_ttl_seconds,
        register=chosen.extras_register,
        byok_fee_nanos=chosen.byok_fee_nanos,
        vault=Vault(chosen.vault_keys),
    )
    redact = Redactor(chosen.secrets()) if chosen.log_content == "redacted" else None
    flow = parts.flow(
        admission,
        rooms.settlements,
        rooms.upstreams,
        drain,
        leaving,
        rooms.cache,
        shows_cost=chosen.show_cost == "both",
    )
    own_default = chosen.default_model or None
    uploads = Uploads(
        rooms.gate,
        Spools(chosen.max_unfinished_bytes),
        most_form_bytes=chosen.max_upload_bytes,
        most_json_bytes=chosen.max_body_bytes,
    )
    return [
        *completions.endpoints(rooms.gate, flow, rooms.cache, clock, redact, uploads, own_default),
        *batch.endpoints(
            rooms.gate,
            flow,
            rooms.cache,
            clock,
            redact,
            own_default,
            total_seconds=chosen.upstream_timeout_seconds,
        ),
    ]


def _cache(chosen: Settings, clock: Monotonic) -> Cache:
    """The completion cache."""
    bounds = Bounds(
        chosen.cache_ttl_seconds,
        chosen.cache_max_ttl_seconds,
        chosen.cache_max_answer_bytes,
        chosen.cache_max_org_bytes,
        chosen.cache_hit_share_ppm,
        chosen.cache_wait_seconds,
    )
    redis = RedisLevel(chosen.redis_url.get_secret_value(), clock) if chosen.redis_url else None
    return Cache(bounds, chosen.peppers[0], redis, clock=clock)


def reconciler(chosen: Settings, door: Door, http: Http) -> "Reconciler":
    """Imported where it is used: only installations with a management key reconcile."""
    from tollgate.reconciliation.activity import Activity  # noqa: PLC0415
    from tollgate.reconciliation.reconciler import Reconciler  # noqa: PLC0415

    management, paying = chosen.openrouter_management_key, chosen.openrouter_api_key
    of_key = paying if chosen.reconciliation_scope == "key" else None
    key_hash = hashlib.sha256(of_key.get_secret_value().encode()).hexdigest() if of_key else None
    secret = management.get_secret_value() if management else None
    activity = Activity(http, chosen.openrouter_base_url, secret, key_hash) if secret else None
    return Reconciler(door, activity, tolerance_ppm=chosen.reconciliation_tolerance_ppm, now=clocks.now)


def _cron_secret(chosen: Settings) -> str | None:
    return chosen.cron_secret.get_secret_value() if chosen.cron_secret else None


def _openrouter(chosen: Settings) -> Upstream:
    """In a demo, this is the sandbox."""
    base_url = chosen.openrouter_base_url
    is_sandbox = base_url == chosen.sandbox_base_url
    return Upstream(
        OPENROUTER,
        "openrouter",
        base_url,
        "OPENROUTER_API_KEY",
        is_sandbox=is_sandbox,
        trusted=True,
        takes_org_keys=True,
    )


def _catalogs(chosen: Settings, http: Http, door: Door, clock: Monotonic) -> dict[Environment, Catalog]:
    """The models for live keys, and the sandbox's models for test keys if there is a sandbox."""
    key = chosen.openrouter_api_key.get_secret_value() if chosen.openrouter_api_key else None
    source = Source(http, chosen.openrouter_base_url, key) if key or not chosen.production else OwnServersOnly(http)
    made: dict[Environment, Catalog] = {"live": Catalog(_openrouter(chosen), source, door, clock=clock, now=clocks.now)}
    if chosen.sandbox_base_url:
        home = Upstream(
            SANDBOX, "openrouter", chosen.sandbox_base_url, "SANDBOX_API_KEY", is_sandbox=True, trusted=True
        )
        made["test"] = Catalog(
            home, Source(http, chosen.sandbox_base_url, "sandbox"), None, clock=clock, now=clocks.now
        )
    return made


def _own_secrets(chosen: Settings) -> dict[str, str]:
    """Takes precedence over the environment, since settings may come from a file."""
    key = chosen.openrouter_api_key
    own = {"SANDBOX_API_KEY": "sandbox"}
    if key:
        own["OPENROUTER_API_KEY"] = key.get_secret_value()
    if chosen.agent_keys:  # during a rotation all agents have the former one still
        own[key_variables.OF_HOSTS] = chosen.agent_keys[-1]
    return own
