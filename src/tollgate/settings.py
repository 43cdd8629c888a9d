"""The settings. Each is declared here once, with the sentence that documents it.

`.env.example` and `docs/reference/settings.md` are written from this file by `make exports`.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from tollgate.core.extras import register
from tollgate.core.extras.register import Register
from tollgate.core.money import NANOS_PER_CREDIT

DEVELOPMENT_PEPPER = "development-pepper-not-for-production"
SHORTEST_PEPPER = 32
VAULT_KEY = re.compile(r"[0-9a-fA-F]{64}")
SHORTEST_SECRET = 16
OTLP_BY_DEFAULT = "http://localhost:4318"
SERVERLESS_MARKS = ("VERCEL", "AWS_LAMBDA_FUNCTION_NAME")
SERVERLESS_TIMEOUT_SECONDS = "280"
"""Serverless hosts end a request after 300 s. This leaves time to settle."""

TrustedProxy = Literal["none", "vercel", "railway", "heroku", "digitalocean", "lambda", "alb", "proxy"]
PROXY_MARKS: Mapping[str, TrustedProxy] = {
    "VERCEL": "vercel",
    "RAILWAY_ENVIRONMENT_NAME": "railway",
    "DYNO": "heroku",
    "AWS_LAMBDA_FUNCTION_NAME": "lambda",
}
"""Variables that only a certain host sets, and the proxy in front of that host."""


class SettingsError(Exception):
    """Has one line for each invalid setting, which begins with its name."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        super().__init__("\n".join(lines))


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    environment: Literal["development", "production"] = Field(
        "development",
        alias="TOLLGATE_ENV",
        description="development or production. Production refuses to start with default or missing secrets.",
    )
    host: str = Field(
        "",
        alias="HOST",
        description="The address to listen on. Default: 127.0.0.1 in development, 0.0.0.0 in production.",
    )
    port: int = Field(8000, alias="PORT", ge=0, le=65535, description="The port to listen on; 0 picks a free one.")
    workers: int = Field(
        1,
        alias="WEB_CONCURRENCY",
        ge=1,
        le=64,
        description="The number of processes that `serve` runs, at most one for each core. Limits hold across them.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", alias="LOG_LEVEL", description="The least severe level to log: debug, info, warning or error."
    )
    log_content: Literal["none", "redacted"] = Field(
        "none",
        alias="LOG_CONTENT",
        description="`none` stores no prompts or answers. `redacted` stores the first 2,000 characters of each, with "
        "secrets and personal data replaced; operators read them at /admin/logs?include=content.",
    )
    log_content_days: int = Field(
        30,
        alias="LOG_CONTENT_DAYS",
        ge=1,
        le=36_500,
        description="How many days stored prompts and answers are kept; at most as long as their request.",
    )
    trusted_proxy: TrustedProxy = Field(
        "none",
        alias="TRUSTED_PROXY",
        description="Where the client's address comes from: none (the connection itself), or a header that one proxy "
        "sets: vercel, railway, heroku, digitalocean, lambda, alb, or proxy (your own, which appends to "
        "X-Forwarded-For). All other headers are ignored. Default: detected on Vercel, Railway, Heroku and Lambda, "
        "else none.",
    )
    cors_origins: str = Field(
        "",
        alias="CORS_ORIGINS",
        description="The origins whose web pages may call /v1, /api/v1 and /user from a browser, separated by commas, "
        "such as https://app.example.com. Default: none.",
    )
    max_body_bytes: int = Field(
        20 * 1024 * 1024,
        alias="MAX_BODY_BYTES",
        ge=1024,
        le=1024**3,
        description="The largest body of a request to a paid endpoint, in bytes; larger ones get 413.",
    )
    max_upload_bytes: int = Field(
        26 * 1024 * 1024,
        alias="MAX_UPLOAD_BYTES",
        ge=1024,
        le=1024**3,
        description="The largest form with a file, such as a recording to transcribe, in bytes; larger ones get 413. "
        "It is kept in a temporary file, not in memory.",
    )
    max_admin_body_bytes: int = Field(
        256 * 1024,
        alias="MAX_ADMIN_BODY_BYTES",
        ge=1024,
        le=16 * 1024**2,
        description="The largest body of any other request, in bytes; larger ones get 413.",
    )
    max_head_bytes: int = Field(
        32 * 1024,
        alias="MAX_HEAD_BYTES",
        ge=4096,
        le=1024**2,
        description="The largest request line and headers together, in bytes; larger ones get 431. Only `serve` "
        "enforces this and the next five settings; serverless hosts have their own limits.",
    )
    head_timeout_seconds: float = Field(
        10.0,
        alias="HEAD_TIMEOUT_SECONDS",
        ge=1,
        le=600,
        description="How long a client may take to send the request line and headers; then it gets 408.",
    )
    body_idle_seconds: float = Field(
        20.0,
        alias="BODY_IDLE_SECONDS",
        ge=1,
        le=600,
        description="The longest pause while a client sends a body; then it gets 408. A body that takes longer "
        "than this in all must arrive at 1 KB a second or more.",
    )
    max_unfinished_bytes: int = Field(
        512 * 1024**2,
        alias="MAX_UNFINISHED_BYTES",
        ge=1024**2,
        description="The most bytes of incomplete bodies that one process keeps, and of uploads in temporary files, of "
        "which one key may have a quarter; beyond it, clients get 503.",
    )
    max_unfinished_bytes_per_address: int = Field(
        128 * 1024**2,
        alias="MAX_UNFINISHED_BYTES_PER_ADDRESS",
        ge=1024**2,
        description="The most bytes of incomplete bodies from one address. Ignored when TRUSTED_PROXY is set, since "
        "all connections come from the proxy then.",
    )
    keep_alive_seconds: int = Field(
        5,
        alias="KEEP_ALIVE_SECONDS",
        ge=1,
        le=600,
        description="How long an idle connection stays open. "
        "Set it above the idle timeout of a load balancer that keeps connections to Tollgate.",
    )

    database_url: SecretStr | None = Field(
        None,
        alias="DATABASE_URL",
        description="Postgres 15 or newer, as postgresql://user:password@host:port/name. It may point to a transaction "
        "pooler (Supavisor, PgBouncer). Takes precedence over SUPABASE_URL.",
    )
    database_pool_size: int = Field(
        16,
        alias="DATABASE_POOL_SIZE",
        ge=1,
        le=1000,
        description="The most connections to Postgres that each process opens; WEB_CONCURRENCY multiplies it.",
    )
    database_timeout_seconds: float = Field(
        4.0,
        alias="DATABASE_TIMEOUT_SECONDS",
        ge=0.5,
        le=5,
        description="How long a database call may take; then the client gets 503.",
    )
    supabase_url: str | None = Field(
        None,
        alias="SUPABASE_URL",
        description="A Supabase project, as https://<ref>.supabase.co, called over HTTP. For serverless hosts.",
    )
    supabase_secret_key: SecretStr | None = Field(
        None,
        alias="SUPABASE_SECRET_KEY",
        description="The secret key of the project, sb_secret_…. Default: the value of SUPABASE_SERVICE_ROLE_KEY.",
    )
    supabase_publishable_key: str | None = Field(
        None,
        alias="SUPABASE_PUBLISHABLE_KEY",
        description="The publishable key of the project, sb_publishable_…. With it, users of Supabase Auth sign in to "
        "the console and their account by their verified email: see docs/how-to/sign-in.md.",
    )
    data_dir: Path | None = Field(
        None,
        alias="TOLLGATE_DATA_DIR",
        description="The folder of the embedded Postgres, which runs when neither DATABASE_URL nor SUPABASE_URL is "
        "set. Default: .tollgate. In production, the embedded Postgres runs only when this is set.",
    )
    redis_url: SecretStr | None = Field(
        None,
        alias="REDIS_URL",
        description="redis:// or rediss://: a second level of the completion cache, which spares Postgres reading the "
        "answers. Nothing fails while it cannot be reached; /readyz says so.",
    )

    cache_ttl_seconds: int = Field(
        3600,
        alias="CACHE_TTL_SECONDS",
        ge=1,
        le=31_536_000,
        description="How long the completion cache keeps an answer whose request names no ttl; at most "
        "CACHE_MAX_TTL_SECONDS.",
    )
    cache_max_ttl_seconds: int = Field(
        604_800,
        alias="CACHE_MAX_TTL_SECONDS",
        ge=1,
        le=31_536_000,
        description="The longest ttl that a request may name for its answer in the cache.",
    )
    cache_max_answer_bytes: int = Field(
        262_144,
        alias="CACHE_MAX_ANSWER_BYTES",
        ge=0,
        le=512 * 1024,
        description="The largest answer that the cache stores, in bytes.",
    )
    cache_max_org_bytes: int = Field(
        64 * 1024**2,
        alias="CACHE_MAX_ORG_BYTES",
        ge=0,
        le=64 * 1024**3,
        description="The most bytes of answers that the cache keeps for one org; the oldest make room. 0 turns the "
        "cache off.",
    )
    cache_hit_share: Decimal = Field(
        Decimal(0),
        alias="CACHE_HIT_SHARE",
        ge=0,
        le=1,
        description="What an answer from the cache costs, as a share of what it was charged when it was new: 0 is "
        "nothing, 0.1 is 10 %.",
    )
    cache_wait_seconds: float = Field(
        20.0,
        alias="CACHE_WAIT_SECONDS",
        ge=0,
        le=300,
        description="How long a request waits for the answer to an identical one that is under way; then it goes "
        "upstream itself. 0 never waits.",
    )

    key_pepper: SecretStr = Field(
        SecretStr(DEVELOPMENT_PEPPER),
        alias="KEY_PEPPER",
        description="The secret that API keys are hashed with, at least 32 characters, such as from "
        "`openssl rand -hex 32`. If it is lost, no key works any more.",
    )
    key_pepper_previous: SecretStr | None = Field(
        None,
        alias="KEY_PEPPER_PREVIOUS",
        description="The former KEY_PEPPER, during a rotation. Keys hashed with it still work, and are hashed with "
        "KEY_PEPPER when they are used.",
    )

    vault_key: SecretStr | None = Field(
        None,
        alias="VAULT_KEY",
        description="The key that stored secrets are encrypted with: 64 hexadecimal digits, from "
        "`openssl rand -hex 32`. Without it, no org can store a key of its own, and no channel of alerts has a secret. "
        "If it is lost, all stored secrets must be stored again.",
    )
    vault_key_previous: SecretStr | None = Field(
        None,
        alias="VAULT_KEY_PREVIOUS",
        description="The former VAULT_KEY, during a rotation. `python -m tollgate rotate-vault` encrypts with "
        "VAULT_KEY what is still encrypted with it.",
    )

    agent_key: SecretStr | None = Field(
        None,
        alias="AGENT_KEY",
        description="The secret that the keys of hosts are made from, at least 32 characters, such as from "
        "`openssl rand -hex 32`. Without it, there are no hosts. If it is lost, each host must be enrolled again. "
        "`make up` makes one.",
    )
    agent_key_previous: SecretStr | None = Field(
        None,
        alias="AGENT_KEY_PREVIOUS",
        description="The former AGENT_KEY, during a rotation. Keys of hosts that are made from it still work, and each "
        "agent gets its next key with its next sync. Paid calls are sent with the former ones until it is removed.",
    )

    openrouter_api_key: SecretStr | None = Field(
        None,
        alias="OPENROUTER_API_KEY",
        description="The OpenRouter key that pays for completions. Without it, development uses the built-in sandbox.",
    )
    openrouter_base_url: str = Field(
        "https://openrouter.ai/api/v1", alias="OPENROUTER_BASE_URL", description="The address of OpenRouter's API."
    )

    sandbox_base_url: str | None = Field(
        None,
        alias="SANDBOX_BASE_URL",
        description="The address of the sandbox, which serves test keys. Default: `serve` and `demo` start one.",
    )
    private_upstreams: bool = Field(
        False,
        alias="PRIVATE_UPSTREAMS",
        description="true allows self-hosted upstreams, and operators' receivers of alerts, at private and loopback "
        "addresses. Link-local addresses are never allowed, because clouds serve credentials there.",
    )
    upstream_timeout_seconds: float = Field(
        600.0,
        alias="UPSTREAM_TIMEOUT_SECONDS",
        ge=1,
        le=86_400,
        description="How long a completion may take, to its last byte. "
        "On Vercel and AWS Lambda the default is 280; keep it 20 s below the timeout of your function.",
    )
    abandoned_prefill: Literal["charge", "free"] = Field(
        "charge",
        alias="ABANDONED_PREFILL",
        description="What a client pays that disconnects before a self-hosted server has begun to answer: "
        "`charge` for the prompt, or `free`.",
    )
    openrouter_management_key: SecretStr | None = Field(
        None,
        alias="OPENROUTER_MANAGEMENT_KEY",
        description="An OpenRouter management key. With it, /admin/monitor shows your credit at OpenRouter and for how "
        "many days it will last, an alert tells when it runs low, and each day is reconciled with OpenRouter's "
        "bill.",
    )
    reconciliation_tolerance: Decimal = Field(
        Decimal("0.001"),
        alias="RECONCILIATION_TOLERANCE",
        ge=0,
        le=1,
        decimal_places=6,
        description="How far OpenRouter's bill of a day may be from what it cost by our books, as a share: 0.001 is "
        "0.1 %.",
    )
    reconciliation_scope: Literal["key", "account"] = Field(
        "key",
        alias="RECONCILIATION_SCOPE",
        description="What of OpenRouter's bill is compared: that of OPENROUTER_API_KEY alone (`key`), or that of all "
        "keys of the `account`, for one that pays for nothing but Tollgate. Use `account` for days on which you "
        "changed the key.",
    )
    request_retention_days: int | None = Field(
        None,
        alias="REQUEST_RETENTION_DAYS",
        ge=1,
        le=36_500,
        description="Requests older than this are deleted; usage statistics and the ledger stay. "
        "Default: all requests are kept.",
    )

    markup: Decimal = Field(
        Decimal(0),
        alias="MARKUP",
        ge=0,
        le=100,
        description="The markup on cost, unless the plan or the org has its own: 0.05 is 5 %.",
    )
    byok_fee: Decimal = Field(
        Decimal("0.001"),
        alias="BYOK_FEE",
        ge=0,
        le=1000,
        decimal_places=9,
        description="What a request costs that goes upstream with the org's own key, in credits, unless the org has "
        "its own fee.",
    )
    show_cost: Literal["charge", "both"] = Field(
        "charge",
        alias="SHOW_COST",
        description="What `usage.cost` in an answer states where a markup applies: `charge` states what the org is "
        "charged instead of what the upstream charges you; `both` adds the latter as `usage.upstream_cost`.",
    )
    default_model: str = Field(
        "",
        alias="DEFAULT_MODEL",
        max_length=256,
        pattern=r"^[!-~]*$",
        description="The model or alias of a paid call that names none, unless the org has a default of its own. "
        "Default: none, and such a call is refused.",
    )
    extra_prices: str = Field(
        "",
        alias="EXTRA_PRICES",
        description="Prices of extras, which OpenRouter bills beside tokens, as a JSON object of US dollars a use, "
        'such as {"search:firecrawl": "0.01"}. They add to and override those in docs/how-to/price-extras.md; '
        "a request for an extra without a price is refused.",
    )
    hold_ttl_seconds: int = Field(
        900,
        alias="HOLD_TTL_SECONDS",
        ge=60,
        le=172_800,
        description="How long credits are held for a request that does not end; then the sweeper ends it. "
        "Must be longer than UPSTREAM_TIMEOUT_SECONDS.",
    )
    grant_cap: Decimal = Field(
        Decimal(10_000),
        alias="GRANT_CAP",
        ge=0,
        le=100_000_000,
        decimal_places=9,
        description="The most credits that one grant or adjustment through the API may add. Commands have no cap.",
    )
    grant_cap_per_day: Decimal = Field(
        Decimal(100_000),
        alias="GRANT_CAP_PER_DAY",
        ge=0,
        le=100_000_000,
        decimal_places=9,
        description="The most credits that one operator may add in a day (UTC) through the API.",
    )
    cron_secret: SecretStr | None = Field(
        None,
        alias="CRON_SECRET",
        description="The secret that a scheduler sends to POST /internal/sweep as `Authorization: Bearer …`, "
        "at least 16 characters. When not set, the endpoint refuses all calls.",
    )

    metrics_token: SecretStr | None = Field(
        None,
        alias="METRICS_TOKEN",
        description="The secret that Prometheus sends to GET /metrics as `Authorization: Bearer …`, at least 16 "
        "characters. It opens nothing else. An operator's key works too.",
    )
    metrics_networks: str = Field(
        "",
        alias="METRICS_NETWORKS",
        description="The networks that may read GET /metrics without a key, separated by commas, such as 10.0.0.0/8. "
        "Behind a proxy, set TRUSTED_PROXY too: otherwise all clients have the proxy's address. Default: none.",
    )
    prometheus_url: str | None = Field(
        None,
        alias="PROMETHEUS_URL",
        description="The address of a Prometheus with a node exporter, such as http://127.0.0.1:9090. With it, "
        "/admin/system/host shows the machines that it watches.",
    )
    otel_endpoint: str | None = Field(
        None,
        alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="The address of an OTLP/HTTP receiver, such as http://127.0.0.1:4318. With it, traces and metrics "
        "go there; the extra `otel` must be installed. Other variables of OpenTelemetry, such as OTEL_TRACES_SAMPLER, "
        "are read from the environment.",
    )
    otel_headers: SecretStr | None = Field(
        None,
        alias="OTEL_EXPORTER_OTLP_HEADERS",
        description="Headers for that receiver, as name=value pairs, separated by commas, with percent-encoded values.",
    )
    otel_service_name: str = Field(
        "tollgate",
        alias="OTEL_SERVICE_NAME",
        max_length=256,
        pattern=r"^[!-~]+$",
        description="The name of this service in traces and metrics.",
    )
    otel_traces: Literal["otlp", "none"] | None = Field(
        None,
        alias="OTEL_TRACES_EXPORTER",
        description="none sends no traces. otlp sends them to http://localhost:4318 where no receiver is named. "
        "Default: otlp if OTEL_EXPORTER_OTLP_ENDPOINT is set.",
    )
    otel_metrics: Literal["otlp", "none"] | None = Field(
        None,
        alias="OTEL_METRICS_EXPORTER",
        description="The same for metrics.",
    )
    trace_vendors: bool = Field(
        False,
        alias="TRACE_VENDORS",
        description="true sends `traceparent` to OpenRouter and other vendors too. Servers of your own get it whenever "
        "traces are sent.",
    )
    health_user_count: bool = Field(
        True, alias="HEALTH_USER_COUNT", description="Whether /health, which is public, shows the number of users."
    )

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value and _address(value.get_secret_value()).scheme not in ("postgres", "postgresql"):
            raise ValueError("must begin with postgresql://")
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value and _address(value.get_secret_value()).scheme not in ("redis", "rediss"):
            raise ValueError("must begin with redis:// or rediss://")
        return value

    @field_validator("supabase_url", "openrouter_base_url", "sandbox_base_url", "prometheus_url", "otel_endpoint")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is None:
            return None
        address = _address(value)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("must be a web address such as https://example.com")
        return value.rstrip("/")

    @field_validator(
        "supabase_secret_key", "openrouter_api_key", "openrouter_management_key", "cron_secret", "metrics_token"
    )
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not (value.get_secret_value().isascii() and value.get_secret_value().isprintable()):
            raise ValueError("has characters that no key has; check that it was copied completely")
        return value

    @field_validator("otel_headers")
    @classmethod
    def _are_pairs(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not all(one.partition("=")[0].strip() and "=" in one for one in _listed(value.get_secret_value())):
            raise ValueError("must be name=value pairs, separated by commas")
        return value

    @field_validator("supabase_secret_key")
    @classmethod
    def _is_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value and _is_public_key(value.get_secret_value()):
            raise ValueError("this is a public key; use the secret one (sb_secret_… or service_role)")
        return value

    @field_validator("supabase_publishable_key")
    @classmethod
    def _is_publishable(cls, value: str | None) -> str | None:
        if value and not _is_public_key(value):
            raise ValueError("this is not a publishable key (sb_publishable_… or anon); every visitor would get it")
        return value

    @field_validator("key_pepper", "key_pepper_previous", "agent_key", "agent_key_previous")
    @classmethod
    def _is_long(cls, value: SecretStr | None) -> SecretStr | None:
        if value and len(value.get_secret_value()) < SHORTEST_PEPPER:
            raise ValueError(f"must have at least {SHORTEST_PEPPER} characters; try `openssl rand -hex 32`")
        return value

    @field_validator("vault_key", "vault_key_previous")
    @classmethod
    def _is_of_256_bits(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not VAULT_KEY.fullmatch(value.get_secret_value()):
            raise ValueError("must be 64 hexadecimal digits; try `openssl rand -hex 32`")
        return value

    @field_validator("cron_secret", "metrics_token")
    @classmethod
    def _is_no_guess(cls, value: SecretStr | None) -> SecretStr | None:
        if value and len(value.get_secret_value()) < SHORTEST_SECRET:
            raise ValueError(f"must have at least {SHORTEST_SECRET} characters; try `openssl rand -hex 16`")
        return value

    @field_validator("metrics_networks")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        try:
            _networks(value)
        except ValueError:
            raise ValueError("must be networks such as 10.0.0.0/8, separated by commas") from None
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        for origin in _listed(value):
            address = _address(origin)
            if not address.hostname or origin != f"{address.scheme}://{address.netloc.lower()}":
                raise ValueError("must be origins such as https://app.example.com, without a path and without *")
        return value

    @field_validator("extra_prices")
    @classmethod
    def _are_prices(cls, value: str) -> str:
        if value:
            register.extended(value)
        return value

    @field_validator("markup")
    @classmethod
    def _is_whole_ppm(cls, value: Decimal) -> Decimal:
        if value * 1_000_000 % 1:
            raise ValueError("has more than six places")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        wrong = [*self._wrong_anywhere(), *(self._wrong_in_production() if self.production else [])]
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    def _wrong_anywhere(self) -> list[str]:
        wrong = []
        if self.supabase_url and not self.supabase_secret_key:
            wrong.append("SUPABASE_SECRET_KEY: is missing; SUPABASE_URL needs it")
        if self.supabase_publishable_key and not self.supabase_url:
            wrong.append("SUPABASE_URL: is missing; SUPABASE_PUBLISHABLE_KEY needs it")
        if self.hold_ttl_seconds <= self.upstream_timeout_seconds:
            wrong.append("HOLD_TTL_SECONDS: must be longer than UPSTREAM_TIMEOUT_SECONDS")
        if self.key_pepper == self.key_pepper_previous:
            wrong.append("KEY_PEPPER_PREVIOUS: is the same as KEY_PEPPER")
        if self.agent_key_previous and not self.agent_key:
            wrong.append("AGENT_KEY: is missing; AGENT_KEY_PREVIOUS needs it")
        if self.agent_key and self.agent_key == self.agent_key_previous:
            wrong.append("AGENT_KEY_PREVIOUS: is the same as AGENT_KEY")
        if self.vault_key_previous and not self.vault_key:
            wrong.append("VAULT_KEY: is missing; VAULT_KEY_PREVIOUS needs it")
        if len(set(self.vault_keys)) < len(self.vault_keys):
            wrong.append("VAULT_KEY_PREVIOUS: is the same as VAULT_KEY")
        return wrong

    def _wrong_in_production(self) -> list[str]:
        wrong = []
        if self.key_pepper.get_secret_value() == DEVELOPMENT_PEPPER:
            wrong.append("KEY_PEPPER: is missing; production needs one, try `openssl rand -hex 32`")
        if self.embedded and not self.data_dir:
            wrong.append(
                "DATABASE_URL: is missing; production needs it or SUPABASE_URL "
                "(or TOLLGATE_DATA_DIR, to use the embedded Postgres)"
            )
        return wrong

    @property
    def proxy_may_be_bypassed(self) -> bool:
        """Whether a client that connects without the proxy could claim any address."""
        return self.trusted_proxy == "proxy" and self.bind_host in ("0.0.0.0", "::")

    @property
    def production(self) -> bool:
        return self.environment == "production"

    @property
    def on_sandbox(self) -> bool:
        """Whether requests to OpenRouter go to the sandbox instead."""
        return self.openrouter_base_url == self.sandbox_base_url

    @property
    def embedded(self) -> bool:
        """Whether Tollgate runs its own Postgres."""
        return not self.database_url and not self.supabase_url

    @property
    def data_folder(self) -> Path:
        return (self.data_dir or Path(".tollgate")).absolute()

    @property
    def bind_host(self) -> str:
        return self.host or ("0.0.0.0" if self.production else "127.0.0.1")

    @property
    def allowed_origins(self) -> list[str]:
        return _listed(self.cors_origins)

    @property
    def networks_of_metrics(self) -> list[IPv4Network | IPv6Network]:
        return _networks(self.metrics_networks)

    @property
    def markup_ppm(self) -> int:
        return int(self.markup * 1_000_000)

    @property
    def reconciliation_tolerance_ppm(self) -> int:
        return int(self.reconciliation_tolerance * 1_000_000)

    @property
    def cache_hit_share_ppm(self) -> int:
        return int(self.cache_hit_share * 1_000_000)

    @property
    def extras_register(self) -> Register:
        return register.extended(self.extra_prices) if self.extra_prices else register.REGISTER

    @property
    def grant_cap_nanos(self) -> int:
        return int(self.grant_cap * NANOS_PER_CREDIT)

    @property
    def grant_cap_per_day_nanos(self) -> int:
        return int(self.grant_cap_per_day * NANOS_PER_CREDIT)

    @property
    def peppers(self) -> tuple[str, ...]:
        """The active peppers, newest first."""
        both = (self.key_pepper, self.key_pepper_previous)
        return tuple(pepper.get_secret_value() for pepper in both if pepper)

    @property
    def agent_keys(self) -> tuple[str, ...]:
        """What the keys of hosts are made from, newest first."""
        both = (self.agent_key, self.agent_key_previous)
        return tuple(key.get_secret_value() for key in both if key)

    @property
    def vault_keys(self) -> tuple[bytes, ...]:
        """The keys of the vault, newest first."""
        both = (self.vault_key, self.vault_key_previous)
        return tuple(bytes.fromhex(key.get_secret_value()) for key in both if key)

    @property
    def byok_fee_nanos(self) -> int:
        return int(self.byok_fee * NANOS_PER_CREDIT)

    @property
    def traces_to(self) -> str | None:
        """The address that traces are sent to."""
        return self._otlp(self.otel_traces, "traces")

    @property
    def metrics_to(self) -> str | None:
        """The address that metrics are sent to."""
        return self._otlp(self.otel_metrics, "metrics")

    def _otlp(self, exporter: Literal["otlp", "none"] | None, what: str) -> str | None:
        chosen = exporter or ("otlp" if self.otel_endpoint else "none")
        return None if chosen == "none" else f"{self.otel_endpoint or OTLP_BY_DEFAULT}/v1/{what}"

    def secrets(self) -> list[str]:
        """All secret values that are set, for redaction."""
        values = [getattr(self, name) for name in type(self).model_fields]
        return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]


def read(environ: Mapping[str, str], env_file: Path | None = None) -> Settings:
    """Reads the settings. The environment takes precedence over the file; an empty value counts as not set."""
    given = environment(environ, env_file)
    if "SUPABASE_SECRET_KEY" not in given and "SUPABASE_SERVICE_ROLE_KEY" in given:
        given["SUPABASE_SECRET_KEY"] = given["SUPABASE_SERVICE_ROLE_KEY"]
    given.setdefault("TRUSTED_PROXY", _proxy_of_host(environ))
    if is_serverless(given):
        given.setdefault("UPSTREAM_TIMEOUT_SECONDS", SERVERLESS_TIMEOUT_SECONDS)
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        raise SettingsError([line for fault in error.errors() for line in _lines(fault)]) from None
    if settings.embedded and is_serverless(given):
        raise SettingsError(["SUPABASE_URL: is missing; a serverless host needs it, or DATABASE_URL"])
    return settings


def environment(environ: Mapping[str, str], env_file: Path | None = None) -> dict[str, str]:
    """All variables of the environment and the file. The keys of self-hosted upstreams are among them."""
    return _set(_from_file(env_file)) | _set(environ)


def is_serverless(environ: Mapping[str, str]) -> bool:
    """Whether this host may freeze the process after a response."""
    return any(environ.get(mark) for mark in SERVERLESS_MARKS)


def host_of(environ: Mapping[str, str]) -> str:
    """vercel, railway, heroku or lambda; server anywhere else."""
    return next((proxy for mark, proxy in PROXY_MARKS.items() if environ.get(mark)), "server")


def _proxy_of_host(environ: Mapping[str, str]) -> TrustedProxy:
    """Ignores the file, which may come from another host (`vercel env pull`)."""
    return next((proxy for mark, proxy in PROXY_MARKS.items() if environ.get(mark)), "none")


def _set(values: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value.strip()}


def _from_file(env_file: Path | None) -> dict[str, str]:
    if env_file is None:
        return {}
    from dotenv import dotenv_values  # serverless hosts read no file

    try:
        return {name: value for name, value in dotenv_values(env_file).items() if value is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"ENV_FILE: {env_file} cannot be read: {error}"]) from None


def _lines(fault: Any) -> list[str]:
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not fault["loc"]:
        return message.split("\n")
    return [f"{fault['loc'][0]}: {message[0].lower()}{message[1:]}"]


def _listed(value: str) -> list[str]:
    return [one.strip() for one in value.split(",") if one.strip()]


def _networks(value: str) -> list[IPv4Network | IPv6Network]:
    return [ip_network(one) for one in _listed(value)]


def _address(value: str) -> SplitResult:
    """The parts of a URL. The error does not repeat the URL, which may hold a password."""
    try:
        address = urlsplit(value)
        well_formed = address.port != 0 and not address.fragment
    except ValueError:
        well_formed = False
    if not well_formed:
        raise ValueError("is not a valid URL; percent-encode special characters of a password, such as # as %23")
    return address


def _is_public_key(key: str) -> bool:
    if key.startswith("sb_publishable_"):
        return True
    try:
        claims = key.split(".")[1]
        return bool(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["role"] == "anon")
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return False  # not a JSON web token
