"""Models, routes and upstreams, as values that every room may hold."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from tollgate.core.prices import Price

Dialect = Literal["openrouter", "vllm", "sglang", "llamacpp", "tgi", "openai"]

OPENROUTER: Final = "openrouter"
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


class Model(NamedTuple):
    """A name that clients use, and its routes: in order of priority, and by weight within one priority."""

    id: str
    routes: tuple[Route, ...]
    listing: Mapping[str, Any] = MappingProxyType({})
    """As OpenRouter lists it. Models that it does not list get the same shape."""
