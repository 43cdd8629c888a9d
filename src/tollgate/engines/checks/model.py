"""Whether the options fit the model's own files."""

from collections.abc import Iterator
from typing import Final

from tollgate.engines.facts import Facts
from tollgate.engines.schemas import Spec, Warning

GGUF_VALUES: Final = frozenset({"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"})
QUANTISED: Final = GGUF_VALUES - {"f32", "f16", "bf16"}
IN_FILES: Final = ("awq", "gptq")
LONG_CONTEXT: Final = 131_072


def check(spec: Spec, facts: Facts | None) -> Iterator[Warning]:
    yield from _cache_type(spec)
    if spec.context_length and spec.context_length > LONG_CONTEXT:
        yield _of(
            "warning",
            "memory",
            "Long context",
            f"{spec.context_length} tokens need much memory for the KV cache, for each sequence.",
            "Lower context_length unless requests are really that long.",
        )
    if facts is None:
        yield _of(
            "info",
            "memory",
            "Files not read",
            "The host has not read the model's files yet, so nothing was checked against them.",
            "Start the model: the host reads them first. Then ask again.",
        )
        return
    yield from _heads(spec, facts)
    yield from _context(spec, facts)
    yield from _quantization(spec, facts)
    yield from _files(spec, facts)


def _heads(spec: Spec, facts: Facts) -> Iterator[Warning]:
    if facts.heads and facts.heads % spec.tensor_parallel:
        divisors = [str(n) for n in range(1, min(facts.heads, 64) + 1) if facts.heads % n == 0]
        yield _of(
            "error",
            "config",
            "Heads not divisible",
            f"The model has {facts.heads} attention heads: not divisible by tensor_parallel {spec.tensor_parallel}.",
            f"Set tensor_parallel to one of {', '.join(divisors)}.",
        )


def _context(spec: Spec, facts: Facts) -> Iterator[Warning]:
    if not (facts.context_length and spec.context_length and spec.context_length > facts.context_length):
        return
    refuses = spec.engine == "vllm" and "VLLM_ALLOW_LONG_MAX_MODEL_LEN" not in spec.environment
    yield _of(
        "error" if refuses else "warning",
        "config",
        "Context beyond the model's",
        f"context_length is {spec.context_length}; the model was made for {facts.context_length} tokens.",
        f"Lower context_length to {facts.context_length} or less.",
    )


def _quantization(spec: Spec, facts: Facts) -> Iterator[Warning]:
    found = (facts.quantization or "").lower()
    for method in IN_FILES:
        if spec.quantization and method in spec.quantization.lower() and method not in found:
            yield _of(
                "error",
                "config",
                f"{method.upper()} not in the files",
                f"quantization is {spec.quantization}, but the files are {found or 'not quantised'}.",
                "Remove quantization: engines find it in the model's configuration.",
            )


def _files(spec: Spec, facts: Facts) -> Iterator[Warning]:
    if facts.custom_code and not spec.trust_remote_code and spec.engine != "llamacpp":
        yield _of(
            "error",
            "security",
            "Custom code not opted in",
            "The repository brings Python code that the engine would have to run.",
            "Read the code, then set trust_remote_code.",
        )
    if facts.missing_bytes:
        yield _of(
            "error",
            "config",
            "File is cut",
            f"{facts.missing_bytes} bytes of tensors are missing.",
            "Download the file again.",
        )


def _cache_type(spec: Spec) -> Iterator[Warning]:
    if spec.engine != "llamacpp" or not spec.kv_cache_dtype:
        return
    if spec.kv_cache_dtype not in GGUF_VALUES:
        yield _of(
            "error",
            "args",
            "Unknown cache type",
            f"llama.cpp has no cache type {spec.kv_cache_dtype}.",
            f"Use one of {', '.join(sorted(GGUF_VALUES))}.",
        )
    elif spec.kv_cache_dtype in QUANTISED and spec.flash_attention is not True:
        yield _of(
            "error",
            "config",
            "Quantised V cache without flash attention",
            f"kv_cache_dtype {spec.kv_cache_dtype} quantises the V cache, which needs flash attention.",
            "Set flash_attention to true.",
        )


def _of(severity: str, category: str, title: str, message: str, fix: str) -> Warning:
    return Warning.model_validate(
        {"severity": severity, "category": category, "title": title, "message": message, "fix": fix}
    )
