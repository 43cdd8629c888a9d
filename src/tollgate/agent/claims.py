"""Claims on GPU memory. A start gets its GPUs only if its estimate fits beside the claims of the others, and only one
engine starts on a GPU at a time: those that measure free memory while another loads would mis-size themselves."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    index: int
    total_bytes: int
    used_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    gpus: tuple[int, ...]
    bytes_of_each: int
    starts: bool
    """The engine still loads."""


@dataclass(frozen=True, slots=True)
class Refusal:
    why: str
    for_memory: bool
    """Another engine's end would help."""


NOTHING = Claim((), 0, starts=False)
"""What a host without GPUs grants."""


def grant(
    gpus: Sequence[Gpu], held: Mapping[str, Claim], count: int, need: int, only: Iterable[int] | None = None
) -> Claim | Refusal:
    """`count` GPUs with `need` bytes each: of `only`, or else those with the most free memory. `held` are the claims of
    the other deployments."""
    if not gpus:
        return NOTHING
    named = None if only is None else set(only)
    allowed = [gpu for gpu in gpus if named is None or gpu.index in named]
    if len(allowed) < count:
        return Refusal(f"needs {count} GPUs, and the host offers {len(allowed)}", for_memory=False)
    fitting = [gpu for gpu in allowed if free_bytes(gpu, held.values()) >= need]
    if len(fitting) < count:
        return Refusal(f"needs {need / 1024**3:.1f} GiB free on each of {count} GPUs", for_memory=True)
    idle = [gpu for gpu in fitting if not any(claim.starts and gpu.index in claim.gpus for claim in held.values())]
    if len(idle) < count:
        return Refusal("waits until another model has loaded on this GPU", for_memory=False)
    chosen = sorted(idle, key=lambda gpu: -free_bytes(gpu, held.values()))[:count]
    return Claim(tuple(sorted(gpu.index for gpu in chosen)), need, starts=True)


def free_bytes(gpu: Gpu, claims: Iterable[Claim]) -> int:
    """What is neither claimed nor in use. An engine that has not yet taken what it claimed is counted by its claim, a
    foreign program by what it uses."""
    claimed = sum(claim.bytes_of_each for claim in claims if gpu.index in claim.gpus)
    return gpu.total_bytes - max(claimed, gpu.used_bytes)
