"""Models, routes and upstreams, as values that every room may hold."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, get_args

from tollgate.core.host_keys import HostKey
from tollgate.core.prices import Price

OwnDialect = Literal["vllm", "sglang", "llamacpp", "tgi", "openai"]
VendorDialect = Literal["openai-platform", "azure-openai", "anthropic", "groq", "mistral", "together"]
Dialect = Literal["openrouter", OwnDialect, VendorDialect]

VENDORS: Final[frozenset[Dialect]] = frozenset(get_args(VendorDialect))
"""Servers of others that bill by tokens. They may bill what they began, and they bill extras apart."""

OPENROUTER: Final = "openrouter"
OPENROUTER_NAME: Final = "OpenRouter"
SANDBOX: Final = "sandbox"


class Upstream(NamedTuple):
    """A server that we forward to. Paths such as /chat/completions are appended to its base URL."""

    id: str
    dialect: Dialect
    base_url: str
    secret_name: str | None = None
    """The environment variable that holds its key. The database never holds the key itself."""
    is_sandbox: bool = False
    """Clients' headers that ask for faults are forwarded to a sandbox only."""
    trusted: bool = False
    """Its address comes from the operator's settings, so the address guard does not check it."""
    concurrency: int | None = None
    connect_seconds: float = 5.0
    first_byte_seconds: float = 120.0
    """For streams. A plain answer has until the total deadline."""
    idle_seconds: float = 120.0
    """The longest pause between two pieces of a stream."""
    health_path: str | None = None
    takes_org_keys: bool = False
    """Orgs may store keys of their own for it."""
    host_key: HostKey | None = None
    """Its key, where it is the ingress of a host of our own."""


class Retirement(NamedTuple):
    """When a model is given up, and for what."""

    deprecated_on: str | None = None
    """Since when clients are asked to leave it, as an ISO date."""
    retires_on: str | None = None
    """The last day on which it is served; None for no end."""
    replacement: str | None = None

    def is_over(self, today: str) -> bool:
        return self.retires_on is not None and self.retires_on < today


class Route(NamedTuple):
    """One upstream that can serve a model, with its price."""

    upstream: Upstream
    model: str
    """The upstream's name for the model."""
    price: Price | None
    """None without a usable price. Then only the client's max_price bounds the cost."""
    context_tokens: int | None = None
    most_output: int | None = None
    priority: int = 100
    """Lower ones first."""
    weight: int = 1
    retirement: Retirement | None = None


class Model(NamedTuple):
    """A name that clients use, and its routes: in order of priority, and by weight within one priority."""

    id: str
    routes: tuple[Route, ...]
    listing: Mapping[str, Any] = MappingProxyType({})
    """As OpenRouter lists it. Models that it does not list get the same shape."""
    retirement: Retirement | None = None
    alias_of: tuple[str, ...] = ()
    """The models that may answer, where the name is an alias."""


class Target(NamedTuple):
    """What an alias may stand for."""

    model: Model
    """With the routes to the upstream that the target names, if it names one."""
    upstream_id: str | None = None
    weight: int = 1


class Alias(NamedTuple):
    """A name of the operator's for models."""

    name: str
    targets: tuple[Target, ...]
    """One of them serves a call."""
    fallbacks: tuple[Model, ...] = ()
    """Tried in this order after it."""
    retirement: Retirement | None = None
    description: str = ""
