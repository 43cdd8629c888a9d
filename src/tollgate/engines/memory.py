"""How much memory a model needs on each GPU. A look-alike, until the real one is merged."""

from typing import Any

from pydantic import BaseModel

from tollgate.engines.facts import Facts
from tollgate.engines.schemas import Capabilities, Spec

GIB = 2**30


class Estimate(BaseModel):
    weights_gb: float
    kv_cache_gb: float
    activations_gb: float
    overhead_gb: float
    total_per_gpu_gb: float
    required_vram_gb: float
    gpu_count: int
    note: str = ""
    on_host_memory: bool = False

    def fits(self, capabilities: Capabilities | dict[str, Any] | None) -> list[int]:
        known = Capabilities.of(capabilities)
        return [
            gpu.index
            for gpu in (known.gpus if known else [])
            if gpu.memory_total_bytes >= self.required_vram_gb * GIB
        ]


def estimate(spec: Spec, facts: Facts, gpu_count: int) -> Estimate:
    weights = facts.weight_bytes / spec.tensor_parallel / GIB
    context = spec.context_length or facts.context_length
    kv = 2 * facts.layers * facts.kv_heads * facts.head_dim * 2 * context / GIB
    total = weights + kv + 0.5
    return Estimate(
        weights_gb=round(weights, 3),
        kv_cache_gb=round(kv, 3),
        activations_gb=0.0,
        overhead_gb=0.5,
        total_per_gpu_gb=round(total, 3),
        required_vram_gb=round(total / (spec.gpu_memory_utilization or 1), 3),
        gpu_count=spec.tensor_parallel,
        on_host_memory=gpu_count == 0,
    )
