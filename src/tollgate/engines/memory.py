"""Look-alike: the estimate of a model's memory."""

from dataclasses import dataclass

from tollgate.engines.facts import Facts
from tollgate.engines.schemas import Spec


@dataclass(frozen=True)
class Estimate:
    total_per_gpu_gb: float


def estimate(spec: Spec, facts: Facts, gpu_count: int) -> Estimate:
    return Estimate(facts.weight_bytes / 1024**3 / max(gpu_count, 1))
