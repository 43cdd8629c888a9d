"""Why an engine failed, from the log of its start.

The earliest line that a rule knows wins: what follows an error is mostly its consequence. Lines that only say that
something else failed are in no rule.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

ErrorType = Literal["arguments", "memory", "gpu", "model", "files", "access", "network", "host"]
MOST_LOG: Final = 1_000_000
"""Characters of a log that are read: its end."""
MOST_LINE: Final = 2_000
MOST_QUOTED: Final = 300
KILLED: Final = 137


class Diagnosis(BaseModel):
    model_config = ConfigDict(frozen=True)

    rule: str
    title: str
    message: str
    fixes: list[str] = []
    severity: Literal["error", "warning"] = "error"
    error_type: ErrorType = "model"
    retryable: bool = False
    """The same spec may start at the next attempt."""


class Rule(NamedTuple):
    name: str
    pattern: str
    title: str
    fixes: tuple[str, ...]
    """`{1}` is what the first group of the pattern matched."""
    error_type: ErrorType
    retryable: bool = False
    severity: Literal["error", "warning"] = "error"


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "unknown_argument",
        r"unrecognized arguments: (.+)|invalid argument: (.+)",
        "The engine does not know an argument",
        ("Remove {1} from the arguments.", "Or use a version of the engine that has it."),
        "arguments",
    ),
    Rule(
        "context_beyond_model",
        r"User-specified max_model_len \((\d+)\) is greater than the derived",
        "The context is longer than the model's",
        ("Lower context_length below {1}, to what the model was made for.",),
        "arguments",
    ),
    Rule(
        "context_beyond_memory",
        r"estimated maximum model length is (\d+)",
        "The KV cache of one full context does not fit",
        ("Set context_length to {1} or less.", "Or set kv_cache_dtype to fp8."),
        "memory",
    ),
    Rule(
        "no_cache_memory",
        r"No available memory for the cache blocks",
        "Nothing is left for the KV cache",
        ("Raise gpu_memory_utilization.", "Use more GPUs: raise tensor_parallel.", "Lower max_sequences."),
        "memory",
    ),
    Rule(
        "gpu_occupied",
        r"Free memory on device .*\(([\d.]+)/([\d.]+) GiB\) on startup is less than desired",
        "Others use the GPU's memory",
        ("Only {1} of {2} GiB are free: stop what else runs on the GPU.", "Or lower gpu_memory_utilization."),
        "gpu",
    ),
    Rule(
        "memory_changed",
        r"Error in memory profiling. Initial free memory",
        "Another program freed or took GPU memory during the start",
        ("It is tried again, while nothing else starts on the GPU.",),
        "gpu",
        retryable=True,
    ),
    Rule(
        "out_of_gpu_memory",
        r"CUDA out of memory|warming up sampler with (\d+)",
        "The GPU's memory is full",
        ("Lower max_sequences.", "Lower context_length.", "Use a stronger quantisation, or more GPUs."),
        "memory",
    ),
    Rule(
        "heads_not_divisible",
        r"attention heads \((\d+)\) must be divisible by tensor parallel size",
        "tensor_parallel does not divide the attention heads",
        ("Set tensor_parallel to a divisor of {1}.",),
        "arguments",
    ),
    Rule(
        "too_few_gpus",
        r"World size \((\d+)\) is larger than the number of available GPUs",
        "More GPUs are asked for than there are",
        ("Lower tensor_parallel below {1}.",),
        "gpu",
    ),
    Rule(
        "unknown_architecture",
        r"does not recognize this architecture|are not supported for now|unknown model architecture: '(.+?)'",
        "The engine does not know this kind of model",
        ("Use a newer version of the engine, or another engine.",),
        "model",
    ),
    Rule(
        "quantization_not_in_files",
        r"Cannot find the config file for (\w+)",
        "The files are not quantised in this way",
        ("Remove quantization ({1}): the files have no settings for it.",),
        "arguments",
    ),
    Rule(
        "gpu_too_old",
        r"not supported for the current GPU. Minimum capability: (\d+)",
        "The GPU cannot compute with this quantisation",
        ("Use another quantisation: this one needs compute capability {1}.",),
        "gpu",
    ),
    Rule(
        "damaged_files",
        r"SafetensorError|Cannot find any model weights|data is not within the file bounds",
        "Model files are missing or cut",
        ("Delete the files and download them again: what is there does not match its header.",),
        "files",
    ),
    Rule(
        "not_a_model_file",
        r"invalid magic characters: '(.{1,8}?)'",
        "The file is not a GGUF file",
        (
            "It begins with {1}. 'vers' is a pointer of Git LFS, '<!DO' a web page: download the file itself.",
            "Name a file that ends with .gguf.",
        ),
        "files",
    ),
    Rule(
        "files_not_found",
        r"Invalid repository ID or local directory|Repo id must be|failed to open GGUF file",
        "The engine does not find the model's files",
        ("Check the path of the source.", "In a container: check that the folder is mounted."),
        "files",
    ),
    Rule(
        "gated",
        r"Cannot access gated repo",
        "The repository is gated",
        ("Accept its terms on the hub.", "Store a token of that account."),
        "access",
    ),
    Rule(
        "offline",
        r"outgoing traffic has been disabled",
        "A file is missing, and engines never download",
        (
            "Check the path of the source: what is not there, engines take for a repository of the hub.",
            "Or name the file in the source's files: it is downloaded before the start.",
        ),
        "files",
    ),
    Rule(
        "custom_code",
        r"contains custom code which must be executed",
        "The repository brings code of its own",
        ("Read the code, then set trust_remote_code.", "Allow it on the host: --allow-flag=--trust-remote-code."),
        "model",
    ),
    Rule(
        "address_in_use",
        r"[Aa]ddress already in use|couldn't bind HTTP server socket",
        "The address of the engine is taken",
        ("It is tried again with another one.",),
        "host",
        retryable=True,
    ),
    Rule(
        "shared_memory",
        r"ncclSystemError|creating shared memory segment /dev/shm",
        "The container has too little shared memory",
        ("Start it with --ipc=host, as Tollgate does.", "Or with a larger --shm-size."),
        "host",
    ),
    Rule(
        "quantised_v_cache",
        r"quantized V cache requires flash_attn|V cache quantization requires flash_attn",
        "A quantised V cache needs flash attention",
        ("Set flash_attention to true.", "Or remove kv_cache_dtype."),
        "arguments",
    ),
    Rule(
        "buffer_allocation",
        r"cudaMalloc failed: out of memory|failed to allocate buffer for kv cache",
        "The GPU's memory is full",
        ("Lower context_length or max_sequences.", "Lower gpu_layers: the rest stays in the host's memory."),
        "memory",
    ),
    Rule(
        "nvml_lost",
        r"Failed to initialize NVML: Unknown Error",
        "The container lost its GPUs",
        ("Stop and start the deployment: a reload of systemd takes GPUs away from running containers.",),
        "host",
        retryable=True,
    ),
    Rule(
        "slow_workers",
        r"No available shared memory broadcast block",
        "Workers are slow",
        ("Nothing needs to be done: the engine waits.",),
        "host",
        retryable=True,
        severity="warning",
    ),
)
OUT_OF_HOST_MEMORY: Final = Rule(
    "out_of_host_memory",
    "",
    "The system killed the engine, most likely for want of host memory",
    ("Use a smaller model or context.", "Give the host, or the container, more memory."),
    "memory",
    retryable=True,
)
"""Tried again: another program may have had the memory, and a person may have sent the signal."""

_COMPILED: Final = {rule.name: re.compile(rule.pattern) for rule in RULES}
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def diagnose(log: str, exit_code: int | None) -> Diagnosis | None:
    """A warning counts only where there is no error. Exit code 137 alone, without a line of its own, is a kill."""
    warning = None
    for line in _ESCAPES.sub("", log[-MOST_LOG:]).splitlines():
        for rule in RULES:
            if found := _COMPILED[rule.name].search(line[:MOST_LINE]):
                if rule.severity == "error":
                    return _diagnosis(rule, line, found)
                warning = warning or _diagnosis(rule, line, found)
    if exit_code == KILLED:
        return _diagnosis(OUT_OF_HOST_MEMORY, "The engine ended with exit code 137 (SIGKILL).", None)
    return warning


def _diagnosis(rule: Rule, line: str, found: re.Match[str] | None) -> Diagnosis:
    groups = [group[:MOST_QUOTED] for group in (found.groups() if found else ()) if group is not None]
    return Diagnosis(
        rule=rule.name,
        title=rule.title,
        message=line.strip()[:MOST_QUOTED],
        fixes=[_filled(fix, groups) for fix in rule.fixes],
        severity=rule.severity,
        error_type=rule.error_type,
        retryable=rule.retryable,
    )


def _filled(fix: str, groups: list[str]) -> str:
    for number, group in enumerate(groups, 1):
        fix = fix.replace(f"{{{number}}}", group)
    return re.sub(r"\{\d\}", "it", fix)


_SUMMARY: Final[Mapping[str, re.Pattern[str]]] = {
    "engine_version": re.compile(r"vLLM API server version (\S+)|LLM engine \(v([^)]+)\)|build: (\S+ \(\w+\))"),
    "model_path": re.compile(r"[Ss]tarting to load model (\S+?)(?:\.\.\.|\s|$)|loading model '([^']+)'"),
    "loading_seconds": re.compile(
        r"[Ll]oading (?:model )?weights took ([\d.]+) s|and took ([\d.]+) s|took ([\d.]+) seconds"
    ),
    "memory_gib": re.compile(r"[Mm]odel loading took ([\d.]+) Gi?B"),
    "kv_cache_gib": re.compile(r"Available KV cache memory: ([\d.]+) GiB|set \(([\d.]+)/[\d.]+\) GiB for KV cache"),
    "kv_cache_tokens": re.compile(r"KV cache size: ([\d,]+) tokens"),
}
_BUFFER: Final = re.compile(r"(model|KV|compute|output) buffer size\s*=\s*([\d.]+) MiB")
_CONTEXT: Final = re.compile(r"llama_context: n_ctx\s*=\s*(\d+)")
_WARNING: Final = re.compile(r"(?:\bWARNING\b|^[\d.]+ W )")
MOST_WARNINGS: Final = 20


def summary(log: str) -> dict[str, Any]:
    """What an engine says of itself while it starts: version, time, and memory as measured."""
    text = _ESCAPES.sub("", log[-MOST_LOG:])
    said: dict[str, Any] = {name: _last(pattern, text) for name, pattern in _SUMMARY.items()}
    for name in ("loading_seconds", "memory_gib", "kv_cache_gib"):
        said[name] = float(said[name]) if said[name] else None
    said["kv_cache_tokens"] = int(said["kv_cache_tokens"].replace(",", "")) if said["kv_cache_tokens"] else None
    warnings = [line.strip()[:MOST_QUOTED] for line in text.splitlines() if _WARNING.search(line[:MOST_LINE])]
    return said | _buffers(text) | {"warnings": warnings[:MOST_WARNINGS]}


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = [match for match in pattern.finditer(text) if any(match.groups())]
    return next(group for group in found[-1].groups() if group) if found else None


def _buffers(text: str) -> dict[str, Any]:
    """llama.cpp's sum of buffers, on all devices. It may load twice, first to see what fits: the last load counts."""
    start = text.rfind("load_tensors: loading model tensors")
    sizes: dict[str, float] = {}
    for kind, mib in _BUFFER.findall(text[max(0, start) :]):
        sizes[kind] = sizes.get(kind, 0.0) + float(mib)
    if not sizes:
        return {}
    context = _CONTEXT.findall(text)
    return {
        "memory_gib": round(sum(sizes.values()) / 1024, 4),
        "buffers_mib": sizes,
        "kv_cache_gib": round(sizes.get("KV", 0.0) / 1024, 4),
        "kv_cache_tokens": int(context[-1]) if context else None,
    }
