"""Specs of the tests: one that needs nothing, changed by what a test is about."""

from typing import Any

from tollgate.engines.schemas import Spec

GIB = 2**30


def spec(engine: str = "llamacpp", **changes: Any) -> Spec:
    given = {"engine": engine, "source": {"type": "path", "path": "m"}, "served_name": "tiny"}
    return Spec.model_validate(given | changes)


def gpus(count: int, gib: float = 80, capability: str = "9.0", used_gib: float = 0) -> list[dict[str, Any]]:
    return [
        {
            "index": index,
            "memory_total_bytes": int(gib * GIB),
            "memory_used_bytes": int(used_gib * GIB),
            "compute_capability": capability,
        }
        for index in range(count)
    ]
