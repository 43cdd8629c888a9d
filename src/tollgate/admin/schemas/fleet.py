"""The figures of hosts."""

from typing import Any

from pydantic import BaseModel, Field

from tollgate.admin.schemas.deployments import HostQuery
from tollgate.web.schemas import Moment, QueryModel


class FleetQuery(QueryModel):
    host_id: str | None = Field(None, max_length=256, pattern=r"^[!-~]+$", description="Default: all hosts together.")


class FleetSummary(BaseModel):
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
    """Of the paid calls that hosts answered: rates of the last minute, percentiles of the last five."""

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
    host_id: str
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
    host_id: str
    cpu: list[TrendPoint] = Field(description="Percent.")
    memory_used_bytes: list[TrendPoint]
    disk_used_bytes: list[TrendPoint]
    network_received_bps: list[TrendPoint]
    network_sent_bps: list[TrendPoint]
    gpus: list[GpuTrends]


class TrendsQuery(HostQuery):
    minutes: int = Field(15, ge=1, le=1440, description="Samples are kept for 24 hours, one a minute.")
    step_s: int = Field(60, ge=5, le=3600, description="The last sample of each step is shown.")


class HostCapabilities(BaseModel):
    host_id: str
    capabilities: dict[str, Any] | None = Field(description="As the agent says; null before it was enrolled.")
