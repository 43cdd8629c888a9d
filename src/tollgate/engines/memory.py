"""How much memory a model will need, from what its files say. A unit named `gb` is GiB, as in the tools of vendors.

vLLM and its like: weights, the largest activation, the KV cache of one sequence of full length, and an overhead. What
the GPU has beyond that they fill with more KV cache. llama.cpp allocates the KV cache of all sequences when it starts.
"""

from dataclasses import dataclass
from typing import Any, Final

from tollgate.engines.arguments import value_of
from tollgate.engines.facts import Facts
from tollgate.engines.schemas import Capabilities, Spec

GIB: Final = 2**30
UTILIZATION: Final = 0.92
"""vLLM's default: the share of a GPU that it takes."""
BATCHED_TOKENS: Final = 8192
SEQUENCES: Final = 256
OVERHEAD: Final = int(0.5 * GIB)
OVERHEAD_OF_TENSOR_PARALLEL: Final = int(1.8 * GIB)
CUDA_GRAPHS: Final = int(0.5 * GIB)
LLAMACPP_OVERHEAD: Final = GIB // 4
LLAMACPP_OVERHEAD_ON_CPU: Final = GIB // 32
LLAMACPP_CONTEXT: Final = 4096
UBATCH: Final = 512
CACHE_BYTES: Final = {
    "f32": 4.0, "float32": 4.0, "float": 4.0, "fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0, "q8_0": 34 / 32,
    "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_1": 20 / 32, "q4_0": 18 / 32, "iq4_nl": 18 / 32,
}  # fmt: skip
"""Bytes of one value of the KV cache. All others have two."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one GPU, or of the host's memory where no GPU is used. `required_vram_gb` is what it must have in total."""

    weights_gb: float
    kv_cache_gb: float
    activations_gb: float
    overhead_gb: float
    total_per_gpu_gb: float
    required_vram_gb: float
    gpu_count: int
    note: str
    utilization: float = 1.0
    on_host_memory: bool = False
    chosen: tuple[int, ...] | None = None

    def fits(self, capabilities: Capabilities | dict[str, Any]) -> list[int]:
        """The GPUs that have room now. A host without GPUs has none."""
        host = Capabilities.of(capabilities) or Capabilities()
        return [
            gpu.index
            for gpu in host.gpus
            if (self.chosen is None or gpu.index in self.chosen)
            and min(gpu.memory_total_bytes * self.utilization, gpu.memory_total_bytes - gpu.memory_used_bytes)
            >= self.total_per_gpu_gb * GIB
        ]

    def as_json(self) -> dict[str, Any]:
        numbers = ("weights_gb", "kv_cache_gb", "activations_gb", "overhead_gb", "total_per_gpu_gb", "required_vram_gb")
        return {name: round(getattr(self, name), 2) for name in numbers} | {
            "gpu_count": self.gpu_count,
            "note": self.note,
        }


def kv_cache_bytes(facts: Facts, tokens: int, dtype: str | None = None, tensor_parallel: int = 1) -> float:
    """The KV cache of so many tokens of one sequence, on one GPU."""
    size = CACHE_BYTES.get((dtype or "").lower(), 2.0)
    if facts.mla_rank:
        return facts.layers * (facts.mla_rank + facts.mla_rope) * size * tokens
    one_layer = 2 * max(1, facts.kv_heads // tensor_parallel) * facts.head_dim * size
    sliding = facts.sliding_layers if facts.sliding_window else 0
    kept = (facts.layers - sliding) * tokens + sliding * min(tokens, facts.sliding_window or tokens)
    return one_layer * kept


def kv_cache_tokens(facts: Facts, given_bytes: float, dtype: str | None = None, tensor_parallel: int = 1) -> int:
    """How many tokens fit into so many bytes of one GPU, without sliding windows."""
    whole = facts.model_copy(update={"sliding_layers": 0})
    return int(given_bytes / (kv_cache_bytes(whole, 1, dtype, tensor_parallel) or 1))


def activation_bytes(facts: Facts, batched_tokens: int, sequences: int = SEQUENCES, tensor_parallel: int = 1) -> float:
    """Fitted to the peaks that vLLM's users published: a layer at its largest batch, or the sampler."""
    layer = batched_tokens * 2 * (3 * facts.ffn / tensor_parallel + 3.5 * facts.hidden)
    return max(layer, 41 * sequences * facts.vocab)


def estimate(spec: Spec, facts: Facts, gpu_count: int) -> Estimate:
    """With `gpu_count` GPUs on the host, of which the spec may choose some, or none."""
    count = gpu_count if spec.gpus is None else min(gpu_count, len(spec.gpus))
    return _llamacpp(spec, facts, count) if spec.engine == "llamacpp" else _paged(spec, facts, count)


def _paged(spec: Spec, facts: Facts, gpu_count: int) -> Estimate:
    parallel = spec.tensor_parallel
    context = spec.context_length or facts.context_length
    batched = value_of(spec.arguments, "--max-num-batched-tokens", "--chunked-prefill-size") or BATCHED_TOKENS
    sequences = spec.max_sequences or SEQUENCES
    eager = not gpu_count or "--enforce-eager" in spec.arguments
    utilization = spec.gpu_memory_utilization or UTILIZATION
    speech = spec.kind != "text"
    return _of(
        spec,
        weights=facts.weight_bytes / parallel,
        kv_cache=0 if speech else kv_cache_bytes(facts, context, spec.kv_cache_dtype or spec.dtype, parallel),
        activations=0 if speech else activation_bytes(facts, batched, sequences, parallel),
        overhead=OVERHEAD + (OVERHEAD_OF_TENSOR_PARALLEL if parallel > 1 else 0) + (0 if eager else CUDA_GRAPHS),
        gpu_count=parallel if gpu_count else 0,
        utilization=utilization if gpu_count and not speech else 1.0,
        note="The engine's memory is that of its files and about half a GiB."
        if speech
        else f"KV cache of one sequence of {context} tokens."
        + (f" The engine fills {utilization:.0%} of each GPU." if gpu_count else ""),
    )


def _llamacpp(spec: Spec, facts: Facts, gpu_count: int) -> Estimate:
    """All layers on one GPU; or the share of `gpu_layers`, and the rest in the host's memory, which is not counted."""
    on_gpu = bool(gpu_count) and spec.gpu_layers != 0
    share = min(1.0, spec.gpu_layers / (facts.layers + 1)) if on_gpu and spec.gpu_layers and facts.layers else 1.0
    spread = gpu_count if on_gpu else 1
    context = spec.context_length or LLAMACPP_CONTEXT
    sequences = spec.max_sequences or 1
    ubatch = value_of(spec.arguments, "--ubatch-size", "-ub") or UBATCH
    scores = 0 if spec.flash_attention is not False else 4 * ubatch * context * facts.heads
    weights = facts.weight_bytes - (facts.embedding_bytes if on_gpu and not facts.tied_embeddings else 0)
    return _of(
        spec,
        weights=weights * share / spread,
        kv_cache=kv_cache_bytes(facts, context, spec.kv_cache_dtype) * sequences * share / spread,
        activations=4 * ubatch * (facts.vocab + facts.hidden) + scores,
        overhead=LLAMACPP_OVERHEAD if on_gpu else LLAMACPP_OVERHEAD_ON_CPU,
        gpu_count=spread if on_gpu else 0,
        utilization=1.0,
        note=f"KV cache of {sequences} × {context} tokens, allocated at the start"
        + (f"; {share:.0%} of the layers on GPUs." if share < 1 else "."),
    )


def _of(
    spec: Spec,
    *,
    weights: float,
    kv_cache: float,
    activations: float,
    overhead: float,
    gpu_count: int,
    utilization: float,
    note: str,
) -> Estimate:
    total = weights + kv_cache + activations + overhead
    return Estimate(
        weights / GIB, kv_cache / GIB, activations / GIB, overhead / GIB, total / GIB, total / utilization / GIB,
        gpu_count=gpu_count,
        note=note if gpu_count else f"{note} In the host's memory.",
        utilization=utilization,
        on_host_memory=not gpu_count,
        chosen=None if spec.gpus is None else tuple(spec.gpus),
    )  # fmt: skip
