"""Whether the host has, and allows, what a spec needs."""

from collections.abc import Iterator
from typing import Final

from tollgate.engines.facts import Facts
from tollgate.engines.memory import estimate
from tollgate.engines.schemas import Capabilities, Gpu, Spec, Warning

FP8_CAPABILITY: Final = 8.9
BF16_CAPABILITY: Final = 8.0
NEEDS_GPU: Final = frozenset({"sglang", "tgi"})


def check(spec: Spec, facts: Facts | None, host: Capabilities | None) -> Iterator[Warning]:
    yield from _program(spec, host)
    if host is None:
        yield Warning(
            severity="info",
            category="config",
            title="Host not known",
            message="The host has not said what it has, so nothing was checked against it.",
            fix="Wait for the host's agent, then ask again.",
        )
        return
    yield from _gpu_count(spec, host)
    used = [gpu for gpu in host.gpus if spec.gpus is None or gpu.index in spec.gpus]
    yield from _number_formats(spec, used)
    if facts is not None:
        yield from _memory(spec, facts, host)


def _program(spec: Spec, host: Capabilities | None) -> Iterator[Warning]:
    """What the host's own command line must allow. Of an unknown host it is a warning."""
    unsure = "warning" if host is None else "error"
    allowed = host or Capabilities()
    if spec.engine == "custom" and not spec.custom_command:
        yield _of(
            "error", "No command", "The engine custom needs custom_command.", "Name a command of the host's own list."
        )
    if spec.custom_command and spec.custom_command not in allowed.allowed_commands:
        yield _of(
            unsure,
            "Command not allowed",
            f"The host has no command named {spec.custom_command}.",
            f"Start the agent with --allow-command {spec.custom_command}=<program and words>.",
        )
    if spec.trust_remote_code and "--trust-remote-code" not in allowed.allowed_flags:
        yield _of(
            unsure,
            "Custom code not allowed",
            "The host does not run code that comes with models.",
            "Start the agent with --allow-flag=--trust-remote-code.",
        )
    if spec.container_image:
        if spec.container_image not in allowed.allowed_images:
            yield _of(
                unsure,
                "Image not allowed",
                f"{spec.container_image} is not among the images of the host.",
                f"Start the agent with --allow-image {spec.container_image}.",
            )
        if host and not host.container_runtime:
            yield _of(
                "error",
                "No containers",
                "The host has neither docker nor podman.",
                "Install one of them, or remove container_image.",
                "container",
            )


def _gpu_count(spec: Spec, host: Capabilities) -> Iterator[Warning]:
    there = {gpu.index for gpu in host.gpus}
    if missing := sorted(set(spec.gpus or ()) - there):
        yield _of(
            "error",
            "No such GPU",
            f"The host has no GPU {', '.join(map(str, missing))}.",
            f"Use {', '.join(map(str, sorted(there))) or 'none'}.",
            "config",
        )
    count = len(there if spec.gpus is None else spec.gpus)
    if spec.tensor_parallel > max(1, count):
        yield _of(
            "error",
            "Too few GPUs",
            f"tensor_parallel is {spec.tensor_parallel}, and {count} GPUs may be used.",
            f"Set tensor_parallel to {max(1, count)} or less.",
            "config",
        )
    if not there and spec.engine in NEEDS_GPU:
        yield _of(
            "error",
            "No GPU",
            f"{spec.engine} needs a GPU, and the agent sees none.",
            "Use llamacpp, or vllm's build for CPUs.",
            "config",
        )


def _number_formats(spec: Spec, gpus: list[Gpu]) -> Iterator[Warning]:
    capabilities = [float(gpu.compute_capability) for gpu in gpus if gpu.compute_capability]
    least = min(capabilities, default=None)
    if least is None:
        return
    named = f"{spec.quantization or ''} {spec.kv_cache_dtype or ''}".lower()
    if "fp8" in named and least < FP8_CAPABILITY:
        yield _of(
            "warning",
            "FP8 on an older GPU",
            f"FP8 needs compute capability {FP8_CAPABILITY}; a GPU here has {least}.",
            "Use another quantisation, or a GPU of a newer generation.",
            "config",
        )
    if (spec.dtype or "").lower() in {"bf16", "bfloat16"} and least < BF16_CAPABILITY:
        yield _of(
            "error",
            "BF16 on an older GPU",
            f"bfloat16 needs compute capability {BF16_CAPABILITY}; a GPU here has {least}.",
            "Set dtype to float16.",
            "config",
        )


def _memory(spec: Spec, facts: Facts, host: Capabilities) -> Iterator[Warning]:
    made = estimate(spec, facts, len(host.gpus))
    if host.gpus and not made.on_host_memory:
        fits = made.fits(host)
        if len(fits) < spec.tensor_parallel:
            yield _of(
                "error",
                "Does not fit",
                f"{made.required_vram_gb:.1f} GiB are needed on each of {spec.tensor_parallel} GPUs; "
                f"{len(fits)} have that much.",
                "Lower context_length or max_sequences, or use more GPUs.",
                "memory",
            )
    elif host.memory_total_bytes and made.required_vram_gb * 2**30 > host.memory_total_bytes:
        yield _of(
            "error",
            "Does not fit",
            f"{made.required_vram_gb:.1f} GiB are needed, and the host has "
            f"{host.memory_total_bytes / 2**30:.1f} GiB of memory.",
            "Use a smaller model or a stronger quantisation.",
            "memory",
        )


def _of(severity: str, title: str, message: str, fix: str, category: str = "security") -> Warning:
    return Warning.model_validate(
        {"severity": severity, "category": category, "title": title, "message": message, "fix": fix}
    )
