"""The forms of /admin/upstreams: what is written of a server of our own, and what is shown of it."""

from typing import Annotated, Literal

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tollgate.admin.visibility import Visibility
from tollgate.upstreams import key_variables
from tollgate.upstreams.breaker import State as BreakerState
from tollgate.web.schemas import MOST_ON_A_PAGE, Listed, Moment, Written

Dialect = Literal["vllm", "sglang", "llamacpp", "tgi", "openai"]
State = Literal["active", "disabled"]


def _offered(name: str) -> str:
    if not key_variables.is_offered(name):
        raise ValueError("is a variable of Tollgate's own")
    return name


def _without_end(url: str) -> str:
    return url.rstrip("/")


Word = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[!-~]+$")]
UpstreamId = Annotated[Word, Path(description="The upstream's id.", examples=["ups_019aa5c1d2e37f60"])]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["gpu-1"])]
BaseUrl = Annotated[
    str,
    Field(
        max_length=2000,
        pattern=r"^https?://[!-~]+$",
        description="Where its API is; paths such as /chat/completions are put behind it. Private addresses need "
        "PRIVATE_UPSTREAMS; those where clouds keep credentials are never allowed.",
        examples=["http://10.0.0.7:8000/v1"],
    ),
    AfterValidator(_without_end),
]
SecretName = Annotated[
    str,
    Field(
        pattern=key_variables.OFFERED,
        description="The environment variable that holds its key. Only those whose name begins with UPSTREAM_ can be "
        "named, so that no other secret of the process is sent anywhere. The key itself is never here.",
        examples=["UPSTREAM_GPU_1_KEY"],
    ),
    AfterValidator(_offered),
]
Concurrency = Annotated[int, Field(ge=1, le=100_000, description="Most calls at once, for each instance.")]
ConnectSeconds = Annotated[float, Field(ge=0.1, le=60, description="For a connection to be made.")]
FirstByteSeconds = Annotated[float, Field(ge=0.1, le=86_400, description="For a stream to begin.")]
IdleSeconds = Annotated[float, Field(ge=0.1, le=86_400, description="The longest silence within a stream.")]
HealthPath = Annotated[
    str,
    Field(
        max_length=2000,
        pattern=r"^/[^\s?#\x00-\x1f\x7f]*$",
        description="A path of the server that says whether it lives. Default: /models below the base URL.",
        examples=["/health"],
    ),
]


class NewUpstream(Written):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "gpu-1",
                    "dialect": "vllm",
                    "base_url": "http://10.0.0.7:8000/v1",
                    "secret_name": "UPSTREAM_GPU_1_KEY",
                    "concurrency": 32,
                    "health_path": "/health",
                }
            ]
        }
    )

    name: Name
    dialect: Dialect
    base_url: BaseUrl
    secret_name: SecretName | None = None
    concurrency: Concurrency | None = None
    connect_seconds: ConnectSeconds = 5
    first_byte_seconds: FirstByteSeconds = 120
    idle_seconds: IdleSeconds = 120
    health_path: HealthPath | None = None
    state: State = "active"


class UpstreamChange(Written):
    """What is left out stays; null takes away what need not be there."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"state": "disabled"}]})

    name: Name | None = None
    dialect: Dialect | None = None
    base_url: BaseUrl | None = None
    secret_name: SecretName | None = None
    concurrency: Concurrency | None = None
    connect_seconds: ConnectSeconds | None = None
    first_byte_seconds: FirstByteSeconds | None = None
    idle_seconds: IdleSeconds | None = None
    health_path: HealthPath | None = None
    state: State | None = None


class Probe(BaseModel):
    status: Literal["up", "down"]
    http_status: int | None
    latency_ms: int | None = Field(description="Until the head of its answer came.")
    error: str | None
    probed_at: Moment


class Seen(BaseModel):
    breaker: BreakerState = Field(description="The worst of its models'.")
    breakers: dict[str, BreakerState] = Field(description="By the model's name there; only of those that fail.")
    in_flight: int
    failures: int = Field(description="Since the process started.")
    last_error: str | None


class Upstream(BaseModel):
    id: str
    name: str
    dialect: Dialect
    base_url: str
    secret_name: str | None
    secret_is_set: bool | None = Field(
        description="Whether the variable holds anything here; null where none is named."
    )
    concurrency: int | None
    connect_seconds: float
    first_byte_seconds: float
    idle_seconds: float
    health_path: str | None
    state: State
    routes: int = Field(description="How many lead there. Priority and weight are theirs: GET /admin/models/registry.")
    health: Probe | None = Field(description="When it was last probed; null when it never was.")
    here: Seen | None = Field(description="How calls from the instance that answered went; null before the first.")
    created_at: Moment
    updated_at: Moment


class WrittenUpstream(Upstream):
    visible: Visibility


class RemovedUpstream(BaseModel):
    id: str
    routes: int = Field(description="How many routes went with it.")
    visible: Visibility


class Probed(Probe):
    upstream_id: str


class Round(BaseModel):
    data: list[Probed]
    left_out: list[str] = Field(description="Upstreams whose turn did not come before the time was over.")
    took_ms: int


class RoundOf(Written):
    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": ["ups_019aa5c1d2e37f60"]}]})

    ids: list[Word] | None = Field(None, max_length=MOST_ON_A_PAGE, description="Only these. Default: all.")


class UpstreamFilters(Listed):
    state: State | None = None
    dialect: Dialect | None = None
    sort: Literal["created_at:desc", "created_at:asc", "name:asc", "name:desc"] = "created_at:desc"
