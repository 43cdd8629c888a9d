"""The figures of hosts, of processes of Tollgate, and of machines that a Prometheus watches."""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from tollgate.admin.schemas.deployments import HostQuery
from tollgate.web.schemas import Identifier, Moment, QueryModel

THIS = "this"
"""Names the process that answers."""


class FleetQuery(QueryModel):
    host_id: str | None = Field(None, max_length=256, pattern=r"^[!-~]+$", description="Default: all hosts together.")


class MachineQuery(HostQuery):
    host_id: Identifier | None = Field(
        None, description="Default: the only host, or the process that answers where there is none."
    )
    process: Identifier | None = Field(
        None, description="A process of Tollgate instead of a host: its name, or `this` for the one that answers."
    )
    instance: Identifier | None = Field(
        None, description="A machine that the node exporter of PROMETHEUS_URL watches, such as node:9100."
    )

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if [self.host_id, self.process, self.instance].count(None) < 2:
            raise ValueError("name one of host_id, process and instance")
        return self


class FleetSummary(BaseModel):
    """Of all hosts together. Where there is none: of the machine that the process which answers runs on."""

    hosts: int
    hosts_seen: int
    cpu_count: float | None
    load_avg_1m: float | None
    mem_total_mb: float | None
    mem_used_mb: float | None
    disk_total_gb: float | None
    disk_used_gb: float | None
    gpus: int
    cuda_driver: str | None


class Throughput(BaseModel):
    """Of all paid calls, or of those that a host answered: rates of the last minute, percentiles of the last five."""

    req_per_sec: float
    prompt_tokens_per_sec: float
    generation_tokens_per_sec: float
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None


class GpuDetails(BaseModel):
    host_id: str
    index: int
    name: str
    utilization_pct: float | None
    mem_used_mb: float | None
    mem_total_mb: float | None
    temperature_c: float | None
    compute_capability: str | None
    architecture: str | None
    flash_attention_supported: bool | None


class HostSummary(BaseModel):
    host_id: str | None
    process: str | None = Field(None, description="The process of Tollgate that the figures are from.")
    instance: str | None = Field(None, description="The machine in Prometheus that the figures are from.")
    process_mem_mb: float | None = Field(None, description="What the process itself has in memory.")
    process_cpu_pct: float | None = Field(None, description="What the process itself uses, of one processor.")
    loop_delay_ms: float | None = Field(
        None, description="The longest time for which its event loop was kept from running, since the sample before."
    )
    mem_source: Literal["function", "container", "machine"] | None = Field(
        None, description="Whose memory `mem_total_mb` is. Of a process."
    )
    reason: str | None = Field(None, description="Why no figures are known.")
    cpu_util_pct: float | None
    load_avg_1m: float | None
    mem_total_mb: float | None
    mem_used_mb: float | None
    disk_total_gb: float | None
    disk_used_gb: float | None
    disk_used_pct: float | None
    net_rx_bps: float | None
    net_tx_bps: float | None
    sampled_at: Moment | None


class TrendPoint(BaseModel):
    ts: int = Field(description="Seconds since 1970, the beginning of the step.")
    value: float


class GpuTrends(BaseModel):
    index: int
    name: str
    memory_total_bytes: int | None
    utilization_percent: list[TrendPoint]
    memory_used_bytes: list[TrendPoint]


class HostTrends(BaseModel):
    host_id: str | None
    process: str | None = None
    instance: str | None = None
    reason: str | None = Field(None, description="Why no figures are known.")
    cpu: list[TrendPoint] = Field(description="Percent.")
    memory_used_bytes: list[TrendPoint]
    disk_used_bytes: list[TrendPoint]
    network_received_bps: list[TrendPoint]
    network_sent_bps: list[TrendPoint]
    process_cpu: list[TrendPoint] = Field(description="Percent of one processor. Of a process, as the next two.")
    process_memory_bytes: list[TrendPoint]
    loop_delay_ms: list[TrendPoint]
    gpus: list[GpuTrends]


class TrendsQuery(MachineQuery):
    minutes: int = Field(15, ge=1, le=1440, description="Samples are kept for 24 hours, one a minute.")
    step_s: int = Field(60, ge=5, le=3600, description="The last sample of each step is shown.")


class PrometheusState(BaseModel):
    is_up: bool
    instances: list[str] = Field(description="The machines that its node exporter watches.")
    reason: str | None = None


class HostCapabilities(BaseModel):
    host_id: str | None
    process: str | None = None
    capabilities: dict[str, Any] | None = Field(
        description="Of a host, as its agent says; null before it was enrolled. Of a process: its kind of host, limits "
        "and version."
    )
    prometheus: PrometheusState | None = Field(None, description="Of a process, where PROMETHEUS_URL is set.")


class ProcessSeen(BaseModel):
    process: str
    is_this: bool = Field(description="Whether it is the one that answers.")
    sampled_at: Moment
    figures: HostSummary
    version: str | None
    started_at: Moment | None
    kind: str | None = Field(description="Of its host: vercel, railway, heroku, lambda or server.")


class Processes(BaseModel):
    data: list[ProcessSeen] = Field(description="Those that wrote a sample in the last ten minutes.")
