"""Models on hosts, as operators write and see them."""

from typing import Annotated, Any, Literal, Self

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tollgate.admin.schemas import pricing
from tollgate.admin.schemas.hosts import CONTACT, BaseDir, Contact
from tollgate.admin.schemas.pricing import RoutePricing
from tollgate.admin.schemas.registry import Listing, TokenCount
from tollgate.engines.facts import Facts
from tollgate.engines.schemas import Engine, HostPath, Kind, RepoId, Revision, Spec, Warning
from tollgate.fleet import rules
from tollgate.fleet.schemas import EngineFigures, HostState, Phase, Wanted
from tollgate.vault.schemas import TokenName
from tollgate.web.schemas import ChangeBody, Identifier, Moment, Name, PageQuery, QueryModel, Text

DeploymentId = Annotated[Identifier, Path(description="The id of the model.", examples=["dep_019aa5c1d2e37f60"])]
State = Literal["stopped", "starting", "loading", "running", "failed"]
EXAMPLE_SPEC: dict[str, Any] = {
    "engine": "vllm",
    "source": {"type": "hub", "repo_id": "meta-llama/Llama-3.1-8B-Instruct"},
    "served_name": "our/llama",
    "context_length": 20_000,
}
MOST_LINES = 5000
MOST_OF_A_FACT = 2**53


class DeploymentFields(ChangeBody):
    name: Name | None = Field(None, description="For operators. Default: the served name.")
    pricing: RoutePricing | None = Field(
        None, description="The price before the markup. A model without one runs, but is not offered."
    )
    context_tokens: TokenCount | None = Field(None, description="The most tokens of prompt and answer together.")
    most_output: TokenCount | None = Field(None, description="The most tokens of an answer.")
    priority: int | None = Field(None, ge=0, le=1000, description="As of routes. Default: 50.")
    weight: int | None = Field(None, ge=1, le=1000, description="As of routes. Default: 1.")
    listing: Listing | None = Field(None, description="What GET /v1/models shows of it.")
    drain_seconds: int | None = Field(None, ge=0, le=86_400, description="How long calls may end. Default: 60.")
    idle_seconds: int | None = Field(
        None, ge=10, le=604_800, description="Of one that is loaded on demand: unloaded after so long without a call."
    )
    minimum_stay_seconds: int | None = Field(None, ge=0, le=86_400, description="Never unloaded before. Default: 60.")
    load_seconds: int | None = Field(
        None, ge=1, le=3600, description="How long a call may wait while the model is loaded. Default: 60."
    )
    hub_token: TokenName | None = Field(
        None, description="The name of a token of Hugging Face, which the host gets while it downloads."
    )

    def changes(self) -> dict[str, Any]:
        """With all of the spec: its defaults are those of this version."""
        found = super().changes()
        spec: Spec | None = getattr(self, "spec", None)
        return found if spec is None else {**found, "spec": spec.model_dump(mode="json")}

    @model_validator(mode="after")
    def _names_can_be_used(self) -> Self:
        spec: Spec | None = getattr(self, "spec", None)
        if spec and any(name.count("/") > 1 for name in (spec.served_name, *spec.aliases)):
            raise PydanticCustomError("served_name", "The names of a model have at most one slash")
        return self


class NewDeployment(DeploymentFields):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"spec": EXAMPLE_SPEC, "pricing": pricing.EXAMPLE, "wanted": "running"}]}
    )

    host_id: Identifier | None = Field(None, description="Default: the only host.")
    spec: Spec
    wanted: Wanted = Field("stopped", description="on_demand: loaded by the first call.")

    @model_validator(mode="before")
    @classmethod
    def _of_cortex(cls, given: Any) -> Any:
        """Cortex's clients send no spec, and `mode`."""
        is_theirs = isinstance(given, dict) and given.get("mode") in ("online", "offline") and "spec" not in given
        return rules.of_cortex(given) if is_theirs else given

    def changes(self) -> dict[str, Any]:
        given = {name: value for name, value in super().changes().items() if value is not None}
        return {"name": self.spec.served_name, **given}


class DeploymentChange(DeploymentFields):
    """A field that is left out stays as it is. A running model keeps its spec until apply; prices follow at once."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"pricing": pricing.EXAMPLE}]})

    spec: Spec | None = Field(None, description="All of it.")
    archived: Literal[False] | None = Field(None, description="false: back from the archive.")

    @model_validator(mode="after")
    def _clears_only_what_is_optional(self) -> Self:
        optional = ("pricing", "context_tokens", "most_output", "idle_seconds", "hub_token")
        for name in self.model_fields_set.difference(optional):
            if getattr(self, name) is None:
                raise PydanticCustomError("cleared", "{name} cannot be null", {"name": name})
        return self


class Start(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"wanted": "running"}]})

    wanted: Literal["running", "on_demand"] = Field("running", description="on_demand: loaded by the first call.")


class HostOfDeployment(BaseModel):
    name: str
    state: HostState
    contact: Contact = Field(description=CONTACT)


class DeploymentDetails(BaseModel):
    id: str
    host_id: str
    host: HostOfDeployment
    name: str
    engine: Engine
    kind: Kind
    served_name: str
    spec: Spec
    generation: int = Field(description="Counts the changes of the spec.")
    applied_generation: int = Field(description="What the host is to run. Less than generation until apply.")
    running_generation: int | None = Field(description="What the host said it has.")
    wanted: Wanted
    phase: Phase
    state: State = Field(description="The phase, in five words.")
    ready: bool
    phase_since: Moment | None
    detail: str | None
    failures: int
    retry_at: Moment | None
    diagnosis: dict[str, Any] | None
    progress: dict[str, Any] | None
    measured: dict[str, Any] | None
    facts: dict[str, Any] | None = Field(description="What the headers of the model's files say.")
    metrics: EngineFigures | None = Field(description="What the engine says of itself, while it runs.")
    pricing: dict[str, Any] | None
    context_tokens: int | None
    most_output: int | None
    priority: int
    weight: int
    listing: dict[str, Any]
    drain_seconds: int
    idle_seconds: int | None
    minimum_stay_seconds: int
    load_seconds: int
    hub_token: str | None
    upstream_id: str | None = Field(description="As which it is called; null before it ran for the first time.")
    offered_as: list[str] = Field(description="The names by which clients can call it now.")
    archived: bool
    archived_at: Moment | None
    last_started_at: Moment | None
    last_stopped_at: Moment | None
    observed_at: Moment | None
    created_at: Moment
    updated_at: Moment


class PhaseChangeDetails(BaseModel):
    id: str
    before: Phase
    phase: Phase
    why: str
    asked_by: str | None = Field(description="The operator who wanted it; null where the host did it by itself.")
    changed_at: Moment


class DeletedDeployment(BaseModel):
    id: str
    status: Literal["deleted"] = "deleted"
    files_preserved: bool
    recipes_deleted: int = Field(0, description="There are no recipes.")
    note: str


class DeploymentFilters(PageQuery):
    host_id: Identifier | None = None
    wanted: Wanted | None = None
    phase: Phase | None = None
    engine: Engine | None = None
    kind: Kind | None = None
    served_name: Text | None = None
    archived: bool = Field(False, description="true: only those in the archive.")
    sort: Literal["created_at:desc", "created_at:asc", "name:asc", "name:desc"] = "created_at:desc"


class VramEstimate(BaseModel):
    params_b: float | None
    model_weights_gb: float
    weights_gb: float
    kv_cache_gb: float
    activations_gb: float
    overhead_gb: float
    total_per_gpu_gb: float
    required_vram_gb: float
    gpu_count: int
    note: str


class GivenFacts(Facts):
    @model_validator(mode="after")
    def _can_be_true(self) -> Self:
        for name, value in self:
            if isinstance(value, int) and not 0 <= value <= MOST_OF_A_FACT:
                raise PydanticCustomError("fact", "{name} must be between 0 and 2**53", {"name": name})
        return self


class DryRunBody(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"spec": EXAMPLE_SPEC}]})

    host_id: Identifier | None = Field(None, description="Default: the only host.")
    spec: Spec
    facts: GivenFacts | None = Field(None, description="What the files of the model say.")


class DryRun(BaseModel):
    command: list[str] = Field(description="What only the host knows is in angle brackets.")
    command_str: str
    valid: bool = Field(description="Whether there is no error among the warnings.")
    warnings: list[Warning]
    vram_estimate_gb: float | None = Field(description="GiB of each GPU; null until the host has read the files.")
    vram_estimate: VramEstimate | None
    fits_gpus: list[int] | None = Field(description="The GPUs that have room; null where that is not known.")


class TestedDeployment(BaseModel):
    model_config = ConfigDict(extra="allow")

    success: bool
    test_type: str | None = None
    request: Any = None
    response: Any = None
    error: str | None = None
    latency_ms: float | None = None
    timestamp: Moment


class DeploymentReadiness(BaseModel):
    status: Literal["ready", "loading", "stopped", "error"]
    detail: str | None


class LogsQuery(QueryModel):
    lines: int = Field(200, ge=1, le=MOST_LINES)
    diagnose: bool = Field(False, description="JSON with a diagnosis, in place of plain text.")


class Diagnosed(BaseModel):
    detected: bool
    title: str | None = None
    message: str | None = None
    fixes: list[str] = []
    severity: str | None = None
    error_type: str | None = None


class DiagnosedLogs(BaseModel):
    logs: str
    diagnosis: Diagnosed
    summary: dict[str, Any]
    state: State


class DeploymentMetrics(BaseModel):
    model_config = ConfigDict(extra="ignore")

    model_id: str
    model_name: str
    served_name: str
    host_id: str
    status: State
    error: str | None
    num_requests_running: float | None
    num_requests_waiting: float | None
    num_requests_swapped: float | None = Field(None, description="No engine of today swaps.")
    in_flight: float | None
    prompt_tokens_total: float | None
    generation_tokens_total: float | None
    time_to_first_token_p50_ms: float | None
    time_to_first_token_p95_ms: float | None
    request_latency_p50_ms: float | None
    request_latency_p95_ms: float | None
    gpu_cache_usage_pct: float | None
    cpu_cache_usage_pct: float | None = Field(None, description="As num_requests_swapped.")
    observed_at: Moment | None


class DeploymentMetricsList(BaseModel):
    data: list[DeploymentMetrics]


class HostQuery(QueryModel):
    host_id: Identifier | None = Field(None, description="Default: the only host.")


class FoldersQuery(HostQuery):
    base: BaseDir | None = Field(None, description="Default: the base-dir of the host.")


class FolderQuery(FoldersQuery):
    folder: HostPath


class HubConfigQuery(HostQuery):
    repo_id: RepoId
    revision: Revision = "main"


class BaseDirBody(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"base_dir": "/srv/models"}]})

    base_dir: BaseDir


class BaseDirDetails(BaseModel):
    host_id: str
    base_dir: str | None


class Told(BaseModel):
    """What the agent of the host answered."""

    model_config = ConfigDict(extra="allow")
