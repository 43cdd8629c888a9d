"""What agents send, and what they get. Unknown fields are ignored, so that an agent may be newer than the server."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from tollgate.engines.schemas import Spec
from tollgate.fleet import rules
from tollgate.web.faults import ONE_LINE

Phase = Literal["stopped", "downloading", "starting", "loading", "running", "draining", "stopping", "failed", "unknown"]
Wanted = Literal["running", "stopped", "on_demand"]
HostState = Literal["active", "cordoned", "retired"]
TaskKind = Literal["local_folders", "inspect_folder", "facts", "logs", "test", "delete_files", "hub_config"]

Id = Annotated[str, Field(max_length=80, pattern=r"^[a-z]{3}_[a-z0-9]+$")]
Word = Annotated[str, Field(min_length=1, max_length=100, pattern=ONE_LINE)]
LONGEST_TOLD = 4000
LONGEST_TAIL = 8192


def _shortened(value: object) -> object:
    return value[:LONGEST_TOLD] if isinstance(value, str) else value


def _end(value: object) -> object:
    return value[-LONGEST_TAIL:] if isinstance(value, str) else value


Told = Annotated[str, BeforeValidator(_shortened)]
"""Cut rather than refused: a sync that is refused for one text would be refused for ever."""
Tail = Annotated[str, BeforeValidator(_end)]
IngressUrl = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=2000, pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*[^\s/@?#])?$"),
    Field(description="Where Tollgate reaches the ingress of the host, without a slash at the end."),
]
Object = Annotated[dict[str, Any], Field(max_length=200)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Figure = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=86_400 * 7, allow_inf_nan=False)]
MOST_DEPLOYMENTS = 500
"""In one sync."""


class Report(BaseModel):
    """What an agent says. Logs of engines hold anything, so it is made storable rather than refused."""

    model_config = ConfigDict(extra="ignore")

    def stored(self) -> dict[str, Any]:
        made: dict[str, Any] = rules.storable(self.model_dump())
        return made


class Enrolling(Report):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"token": "tge_0123456789abcdef", "agent_version": "0.1.0", "capabilities": {}}]
        }
    )

    token: str = Field(max_length=200, pattern=ONE_LINE)
    name: str | None = Field(None, max_length=200, description="Ignored: an operator names the host.")
    agent_version: Word
    capabilities: Object
    ingress_url: IngressUrl | None = None


class Enrolled(BaseModel):
    host_id: str
    host_key: str = Field(description="For `Authorization: Bearer` of each sync. The ingress accepts the same key.")
    poll_seconds: int


class PhaseChange(Report):
    number: Count = Field(description="Grows within an incarnation. One that was told before is not stored again.")
    before: Phase
    phase: Phase
    why: Told
    seconds_ago: Seconds = 0


class Observation(Report):
    deployment_id: Id
    generation: int = Field(ge=0, le=2**31 - 1)
    phase: Phase
    ready: bool = False
    failures: int = Field(0, ge=0, le=2**31 - 1)
    retry_in_seconds: Seconds | None = None
    detail: Told | None = None
    diagnosis: Object | None = None
    progress: Object | None = None
    measured: Object | None = None
    facts: Object | None = None
    log_tail: Tail | None = None
    changes: list[PhaseChange] = Field([], max_length=200, description="Of the phase, since the last sync.")


class EngineFigures(Report):
    deployment_id: Id
    requests_running: Figure | None = None
    requests_waiting: Figure | None = None
    prompt_tokens_total: Figure | None = None
    generation_tokens_total: Figure | None = None
    ttft_p50_ms: Figure | None = None
    ttft_p95_ms: Figure | None = None
    latency_p50_ms: Figure | None = None
    latency_p95_ms: Figure | None = None
    cache_usage: Figure | None = None
    in_flight: Figure | None = None


class GpuSample(Report):
    index: int = Field(ge=0, le=255)
    name: str = Field("", max_length=200, pattern=ONE_LINE)
    utilization_percent: Figure | None = None
    memory_used_bytes: Count | None = None
    memory_total_bytes: Count | None = None
    temperature_c: float | None = Field(None, ge=-100, le=1000)


class Sample(Report):
    cpu_percent: Figure | None = None
    load_1m: Figure | None = None
    memory_used_bytes: Count | None = None
    memory_total_bytes: Count | None = None
    disk_used_bytes: Count | None = None
    disk_total_bytes: Count | None = None
    network_received_bps: Figure | None = None
    network_sent_bps: Figure | None = None
    gpus: list[GpuSample] = Field([], max_length=64)


class TaskOutcome(Report):
    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "done", "result": {}, "error": None}]})

    status: Literal["done", "failed"]
    result: Any = None
    error: Told | None = None


class TaskResult(TaskOutcome):
    task_id: Id


class Sync(Report):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"incarnation": "5f0c", "seq": 1, "agent_version": "0.1.0"}]}
    )

    incarnation: str = Field(
        pattern=r"^[0-9a-f]{1,64}$",
        description="Which agent this is: it stays while the agent starts again in its place.",
    )
    seq: int = Field(ge=0, le=2**53, description="A number that was seen before changes nothing.")
    known_version: Count | None = Field(None, description="The desired_version that the agent has.")
    agent_version: Word
    ingress_url: IngressUrl | None = None
    capabilities: Object | None = Field(None, description="Only when they have changed.")
    observations: list[Observation] = Field([], max_length=MOST_DEPLOYMENTS)
    metrics: list[EngineFigures] = Field([], max_length=MOST_DEPLOYMENTS)
    sample: Sample | None = None
    task_results: list[TaskResult] = Field([], max_length=100)


class Desired(BaseModel):
    id: str
    generation: int
    wanted: Wanted
    spec: Spec
    drain_seconds: int
    idle_seconds: int | None
    minimum_stay_seconds: int
    load_seconds: int


class HostOrders(BaseModel):
    state: HostState
    base_dir: str | None


class Task(BaseModel):
    id: str
    kind: TaskKind
    arguments: dict[str, Any]


class SyncAnswer(BaseModel):
    desired_version: int
    deployments: list[Desired] | None = Field(
        description="All that should be on the host; null where nothing has changed since known_version."
    )
    host: HostOrders
    tasks: list[Task] = Field(description="Until their result is there, or a minute is over.")
    host_keys: list[str] = Field(
        description="The keys that open the ingress now; the first is for the next sync. They are others while the "
        "server's AGENT_KEY is rotated."
    )
    hub_tokens: dict[str, str] = Field(description="Tokens of Hugging Face for downloads of now, by deployment.")
    poll_seconds: int


class EndedTask(BaseModel):
    id: str
    state: Literal["done", "failed"]
