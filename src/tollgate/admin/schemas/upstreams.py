"""Upstreams of your own, as operators write and see them."""

from typing import Annotated, Any, Literal, Self

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict, JsonValue
from pydantic_core import PydanticCustomError

from tollgate.admin.schemas.registry import BaseUrl, ServingState
from tollgate.catalog.schemas import Visibility
from tollgate.core.models import OwnDialect, VendorDialect
from tollgate.upstreams import key_variables
from tollgate.upstreams.breaker import State as BreakerState
from tollgate.upstreams.presets import PRESETS, PresetName
from tollgate.web.schemas import MOST_ON_A_PAGE, ChangeBody, Identifier, Moment, Name, PageQuery

UpstreamDialect = Literal[OwnDialect, VendorDialect]


def _offered(name: str) -> str:
    if not key_variables.is_offered(name):
        raise ValueError("is a variable that Tollgate uses itself")
    return name


UpstreamId = Annotated[Identifier, Path(description="The id of the upstream.", examples=["ups_019aa5c1d2e37f60"])]
SecretName = Annotated[
    str,
    Field(
        pattern=key_variables.OFFERED,
        description="The environment variable that holds its key. The name must begin with UPSTREAM_, so that no other "
        "secret of the process can be sent to a server. The key itself is not stored.",
        examples=["UPSTREAM_GPU_1_KEY"],
    ),
    AfterValidator(_offered),
]
Concurrency = Annotated[int, Field(ge=1, le=100_000, description="The most concurrent calls of each instance.")]
ConnectSeconds = Annotated[float, Field(ge=0.1, le=60, description="The timeout of a connection attempt.")]
FirstByteSeconds = Annotated[float, Field(ge=0.1, le=86_400, description="The timeout of the first byte of a stream.")]
IdleSeconds = Annotated[float, Field(ge=0.1, le=86_400, description="The timeout between two parts of a stream.")]
HealthPath = Annotated[
    str,
    Field(
        max_length=2000,
        pattern=r"^/[^\s?#\x00-\x1f\x7f]*$",
        description="The path of the server's own health check. Default: /models below the base URL.",
        examples=["/health"],
    ),
]

TakesOrgKeys = Annotated[
    bool,
    Field(
        description="Whether orgs may store keys of their own for it. A call with such a key costs the org only the "
        "fee, so set it only for a server that checks keys."
    ),
]


WITHOUT_ADDRESS: list[JsonValue] = [name for name, preset in PRESETS.items() if preset.base_url is None]
PRESET_OR_SERVER: JsonDict = {
    "oneOf": [
        {"required": ["preset"], "not": {"required": ["dialect"]}},
        {"required": ["dialect", "base_url"], "not": {"required": ["preset"]}},
    ],
    "if": {"properties": {"preset": {"enum": WITHOUT_ADDRESS}}, "required": ["preset"]},
    "then": {"required": ["base_url"]},
}


class NewUpstream(ChangeBody):
    model_config = ConfigDict(
        json_schema_extra={
            **PRESET_OR_SERVER,
            "examples": [
                {
                    "name": "gpu-1",
                    "dialect": "vllm",
                    "base_url": "http://10.0.0.7:8000/v1",
                    "secret_name": "UPSTREAM_GPU_1_KEY",
                    "concurrency": 32,
                    "health_path": "/health",
                }
            ],
        }
    )

    name: Name
    preset: PresetName | None = Field(
        None,
        description="A vendor. It sets dialect and, unless they are given, base_url and secret_name: "
        "GET /admin/upstreams/presets.",
    )
    dialect: UpstreamDialect | None = Field(None, description="The kind of server. Leave it out with a preset.")
    base_url: BaseUrl | None = None
    secret_name: SecretName | None = None
    concurrency: Concurrency | None = None
    connect_seconds: ConnectSeconds = 5
    first_byte_seconds: FirstByteSeconds = 120
    idle_seconds: IdleSeconds = 120
    health_path: HealthPath | None = None
    state: ServingState = "active"
    takes_org_keys: TakesOrgKeys = False

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        """Fills in what the preset says. An upstream keeps no reference to it."""
        preset = PRESETS[self.preset] if self.preset else None
        if preset and self.dialect is not None:
            raise PydanticCustomError("preset", "Send preset or dialect, not both")
        if preset:
            self.dialect = preset.dialect
            self.base_url = self.base_url or preset.base_url
            self.secret_name = self.secret_name or preset.secret_name
        if self.base_url is None and preset:
            raise PydanticCustomError(
                "base_url", "Send base_url, such as {example}", {"example": preset.example_url or ""}
            )
        if self.base_url is None or self.dialect is None:
            raise PydanticCustomError("server", "Send preset, or dialect and base_url")
        return self

    def changes(self) -> dict[str, Any]:
        return {name: value for name, value in super().changes().items() if name != "preset"}


class PresetDetails(BaseModel):
    """A vendor that can be added as an upstream."""

    preset: PresetName
    title: str
    dialect: UpstreamDialect
    base_url: str | None = Field(description="Null where each customer has an address of its own.")
    example_url: str | None = Field(description="The form of such an address.")
    secret_name: str = Field(description="The environment variable that holds the key, unless another is named.")
    documentation: str
    endpoints: list[str] = Field(description="The paths that it serves itself, without a translation.")


class PresetList(BaseModel):
    data: list[PresetDetails]


class UpstreamChange(ChangeBody):
    """A field that is left out stays as it is; null removes an optional value."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"state": "disabled"}]})

    name: Name | None = None
    dialect: UpstreamDialect | None = None
    base_url: BaseUrl | None = None
    secret_name: SecretName | None = None
    concurrency: Concurrency | None = None
    connect_seconds: ConnectSeconds | None = None
    first_byte_seconds: FirstByteSeconds | None = None
    idle_seconds: IdleSeconds | None = None
    health_path: HealthPath | None = None
    state: ServingState | None = None
    takes_org_keys: TakesOrgKeys | None = None


class HealthCheckResult(BaseModel):
    status: Literal["up", "down"]
    http_status: int | None
    latency_ms: int | None = Field(description="Until the headers of the response.")
    error: str | None
    probed_at: Moment


class UpstreamActivity(BaseModel):
    breaker: BreakerState = Field(description="The worst of the breakers of its models.")
    breakers: dict[str, BreakerState] = Field(description="By the name of the model there; only models that fail.")
    in_flight: int
    failures: int = Field(description="Since the process started.")
    last_error: str | None


class UpstreamDetails(BaseModel):
    id: str
    name: str
    dialect: UpstreamDialect
    base_url: str
    secret_name: str | None
    secret_is_set: bool | None = Field(
        description="Whether the variable is set on this instance; null when none is named."
    )
    concurrency: int | None
    connect_seconds: float
    first_byte_seconds: float
    idle_seconds: float
    health_path: str | None
    state: ServingState
    takes_org_keys: bool
    host_id: str | None = Field(description="The host whose model this is: change it at /admin/models.")
    routes: int = Field(
        description="How many routes it has. They carry priority and weight: GET /admin/models/registry."
    )
    health: HealthCheckResult | None = Field(description="The last health check; null before the first.")
    here: UpstreamActivity | None = Field(description="The calls of the instance that answered; null before the first.")
    created_at: Moment
    updated_at: Moment


class UpstreamWithHistory(UpstreamDetails):
    checks: list[HealthCheckResult] = Field(description="The last 50 health checks, newest first.")


class ChangedUpstream(UpstreamDetails):
    visible: Visibility


class RemovedUpstream(BaseModel):
    id: str
    routes: int = Field(description="How many routes were deleted with it.")
    visible: Visibility


class UpstreamHealthCheck(HealthCheckResult):
    upstream_id: str


class HealthChecks(BaseModel):
    data: list[UpstreamHealthCheck]
    left_out: list[str] = Field(description="Upstreams that were not checked in time.")
    took_ms: int


class HealthChecksOf(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": ["ups_019aa5c1d2e37f60"]}]})

    ids: list[Identifier] | None = Field(
        None, max_length=MOST_ON_A_PAGE, description="Only these upstreams. Default: all."
    )


class UpstreamFilters(PageQuery):
    state: ServingState | None = None
    dialect: UpstreamDialect | None = None
    sort: Literal["created_at:desc", "created_at:asc", "name:asc", "name:desc"] = "created_at:desc"
