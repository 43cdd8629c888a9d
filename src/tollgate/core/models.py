"""What can be asked for, and who can answer: models, routes and upstreams, as values that every floor may hold."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from tollgate.core.prices import Price

Dialect = Literal["openrouter", "vllm", "sglang", "llamacpp", "tgi", "openai"]

OPENROUTER: Final = "openrouter"
SANDBOX: Final = "sandbox"


class Upstream(NamedTuple):
    """A server that we forward to. Paths such as /chat/completions are put behind its address."""

    id: str
    dialect: Dialect
    base_url: str
    secret_name: str | None = None
    """The environment variable that holds its key; the key itself is never kept in the database."""
    is_sandbox: bool = False
    """Only a sandbox is told which faults a client asks for."""
    trusted: bool = False
    """Named by the operator's own settings, so its address needs no guard."""
    concurrency: int | None = None
    connect_seconds: float = 5.0
    first_byte_seconds: float = 120.0
    """Of a stream; a whole reply has until the total deadline."""
    idle_seconds: float = 120.0
    """Longest silence between two pieces of a stream."""
    health_path: str | None = None


class Route(NamedTuple):
    """One upstream that can serve a model, with its price."""

    upstream: Upstream
    model: str
    """The model's name there."""
    price: Price | None
    """None where it has no price that arithmetic may touch: then only the client's max_price bounds it."""
    context_tokens: int | None = None
    most_output: int | None = None
    priority: int = 100
    """Lower ones first."""
    weight: int = 1


class Model(NamedTuple):
    """A name that clients use, and its routes: by priority, and at random by weight within one."""

    id: str
    routes: tuple[Route, ...]
    listing: Mapping[str, Any] = MappingProxyType({})
    """As OpenRouter lists it; what is not listed there is filled in the same shape."""
