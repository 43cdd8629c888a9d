"""Which flags and variables a spec may add. Lists of what is allowed: a list of what is dangerous is never complete.

An engine can read and write files, load code and open sockets by a flag, so an operator of Tollgate would own
each host. What is not listed here must be named by the host's own command line (`--allow-flag`).
"""

from collections.abc import Iterator, Mapping
from typing import Final

from tollgate.engines.arguments import flags_of
from tollgate.engines.schemas import Capabilities, Engine, Spec, Warning

Flags = frozenset[str]

FORBIDDEN: Final[Flags] = frozenset({
    "--host", "--hostname", "--port", "--uds", "--root-path", "--api-prefix", "--api-key", "--api-key-file",
    "--load-format", "--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-cert-reqs", "--ssl-key-file",
    "--ssl-cert-file", "--disable-log-requests", "--log-level", "--env-vars", "--model", "-m", "--model-path",
    "--model-id", "--model-url", "-mu", "--hf-repo", "-hf", "-hfr", "--hf-token", "-hft", "--served-model-name",
    "--alias", "-a", "--name",
})  # fmt: skip
"""What Tollgate sets itself, or what would open the engine to others. No host can allow these."""

FIELDS: Final[Mapping[str, str]] = {
    "--max-model-len": "context_length", "--context-length": "context_length", "--ctx-size": "context_length",
    "-c": "context_length", "--max-total-tokens": "context_length", "--max-num-seqs": "max_sequences",
    "--max-running-requests": "max_sequences", "--parallel": "max_sequences", "-np": "max_sequences",
    "--max-concurrent-requests": "max_sequences", "--gpu-memory-utilization": "gpu_memory_utilization",
    "--mem-fraction-static": "gpu_memory_utilization", "--cuda-memory-fraction": "gpu_memory_utilization",
    "--tensor-parallel-size": "tensor_parallel", "-tp": "tensor_parallel", "--tp-size": "tensor_parallel",
    "--tp": "tensor_parallel", "--num-shard": "tensor_parallel", "--gpu-layers": "gpu_layers",
    "--n-gpu-layers": "gpu_layers", "-ngl": "gpu_layers", "--dtype": "dtype", "--quantization": "quantization",
    "-q": "quantization", "--quantize": "quantization", "--kv-cache-dtype": "kv_cache_dtype",
    "--cache-type-k": "kv_cache_dtype", "-ctk": "kv_cache_dtype", "--cache-type-v": "kv_cache_dtype",
    "-ctv": "kv_cache_dtype", "--flash-attn": "flash_attention", "-fa": "flash_attention",
    "--trust-remote-code": "trust_remote_code",
}  # fmt: skip
"""Flags that are fields of the spec. Given twice, the estimate and the engine would differ."""

SAMPLING: Final[Flags] = frozenset({
    "--temperature", "--temp", "--top-p", "--top-k", "--min-p", "--repetition-penalty", "--repeat-penalty",
    "--presence-penalty", "--frequency-penalty", "--max-tokens", "--seed", "--logit-bias",
})  # fmt: skip

_HUGGING_FACE: Final[Flags] = frozenset({
    "--max-num-batched-tokens", "--enforce-eager", "--swap-space", "--block-size", "--enable-prefix-caching",
    "--no-enable-prefix-caching", "--enable-chunked-prefill", "--no-enable-chunked-prefill",
    "--pipeline-parallel-size", "-pp", "--kv-cache-memory-bytes", "--cpu-offload-gb", "--enable-auto-tool-choice",
    "--tool-call-parser", "--reasoning-parser", "--disable-custom-all-reduce", "--max-seq-len-to-capture",
    "--shutdown-timeout", "--async-scheduling", "--runner", "--limit-mm-per-prompt", "--attention-backend",

})  # fmt: skip

ALLOWED: Final[Mapping[Engine, Flags]] = {
    "vllm": _HUGGING_FACE,
    "sglang": frozenset({
        "--max-total-tokens", "--chunked-prefill-size", "--max-prefill-tokens", "--schedule-policy",
        "--disable-radix-cache", "--disable-cuda-graph", "--cuda-graph-max-bs", "--attention-backend",
        "--tool-call-parser", "--reasoning-parser", "--random-seed", "--stream-interval",
        "--disable-custom-all-reduce", "--enable-cache-report",
    }),
    "llamacpp": frozenset({
        "--threads", "-t", "--threads-batch", "-tb", "--batch-size", "-b", "--ubatch-size", "-ub", "--split-mode",
        "-sm", "--tensor-split", "-ts", "--main-gpu", "-mg", "--no-mmap", "--mlock", "--cont-batching", "-cb",
        "--no-kv-offload", "-nkvo", "--rope-scaling", "--rope-scale", "--rope-freq-base", "--rope-freq-scale",
        "--yarn-orig-ctx", "--cache-reuse", "--embeddings", "--embedding", "--pooling", "--chat-template",
        "--reasoning-format", "--reasoning-budget", "--no-warmup", "--swa-full", "--defrag-thold", "--numa",
        "--n-cpu-moe", "-ncmoe", "--cpu-moe", "-cmoe", "--no-context-shift", "--cache-ram", "-cram", "--no-repack",
        "--keep",
    }),
    "tgi": frozenset({
        "--max-input-tokens", "--max-input-length", "--max-batch-prefill-tokens", "--max-batch-total-tokens",
        "--max-batch-size", "--max-waiting-tokens", "--waiting-served-ratio", "--max-best-of", "--max-stop-sequences",
        "--sharded", "--cuda-graphs", "--rope-scaling", "--rope-factor",
    }),
    "whisper": frozenset({"--batch-size", "--device", "--compute-type", "--cpu-threads", "--timeout-keep-alive"}),
    "tts": frozenset({"--voice", "--threads"}),
    "custom": frozenset(),
}  # fmt: skip

VARIABLES: Final[Flags] = frozenset({
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF",
    "NCCL_P2P_DISABLE", "NCCL_IB_DISABLE", "NCCL_SHM_DISABLE", "NCCL_DEBUG", "CUDA_DEVICE_ORDER",
    "VLLM_ATTENTION_BACKEND", "VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_LOGGING_LEVEL",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN", "VLLM_USE_FLASHINFER_SAMPLER", "GGML_CUDA_FORCE_MMQ",
    "GGML_CUDA_ENABLE_UNIFIED_MEMORY",
})  # fmt: skip


def check(spec: Spec, host: Capabilities | None) -> Iterator[Warning]:
    host_allows = frozenset(host.allowed_flags if host else ())
    for flag, _ in flags_of(spec.arguments):
        yield from _of_a_flag(spec, flag.replace("_", "-") if flag.startswith("--") else flag, host_allows)
    for name in sorted(spec.environment):
        if name not in VARIABLES | host_allows:
            yield Warning(
                severity="error",
                category="security",
                title="Variable not allowed",
                message=f"{name} is not among the variables that a deployment may set on this host.",
                fix=f"Remove it, or start the agent with --allow-flag={name}.",
            )


def _of_a_flag(spec: Spec, flag: str, host_allows: Flags) -> Iterator[Warning]:
    if not flag:
        yield _error(
            "Not a flag", "The first word of the arguments is not a flag.", "Begin with a flag such as --threads."
        )
    elif flag in FORBIDDEN:
        yield _error("Forbidden flag", f"{flag} is set by Tollgate.", f"Remove {flag}.")
    elif flag in FIELDS and flag not in ALLOWED[spec.engine]:
        field = FIELDS[flag]
        yield _error("Flag with a field", f"{flag} is the field {field}.", f"Set {field} and remove {flag}.")
    elif flag in SAMPLING and spec.engine != "custom" and flag not in ALLOWED[spec.engine] | host_allows:
        yield Warning(
            severity="warning",
            category="args",
            title="Sampling option",
            message=f"{flag} is an option of requests. As a flag the engine may not know it, and clients override it.",
            fix=f"Remove {flag} and send the option with each request.",
        )
    elif flag not in ALLOWED[spec.engine] | host_allows:
        yield Warning(
            severity="error",
            category="security",
            title="Flag not allowed",
            message=f"{flag} is not among the flags of {spec.engine} that every host takes.",
            fix=f"Remove it, or start the agent with --allow-flag={flag}.",
        )


def _error(title: str, message: str, fix: str) -> Warning:
    return Warning(severity="error", category="args", title=title, message=message, fix=fix)
