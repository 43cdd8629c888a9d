"""Enrolment tokens, and what operators see of specs and samples. Pure."""

import math
import shlex
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from tollgate.engines import checks, commands, diagnosis, memory
from tollgate.engines.commands import Place
from tollgate.engines.facts import Facts
from tollgate.engines.schemas import Capabilities, Spec, Warning

RANDOM_BYTES: Final = 32
FIRST_POLL_SECONDS: Final = 2
PLACE: Final = Place("<model>", socket="<socket>", port=0)
"""What only the host knows, in the command that operators see."""
MEBIBYTE: Final = 2**20
GIBIBYTE: Final = 2**30


def token(randomness: bytes) -> str:
    """Of an enrolment."""
    return "tge_" + urlsafe_b64encode(randomness).rstrip(b"=").decode()


def command(server: str, secret: str) -> str:
    """What makes a machine the host."""
    return shlex.join(["python", "-m", "tollgate", "agent", "--server", server, "--token", secret])


OF_CORTEX: Final = {
    "served_model_name": "served_name",
    "max_model_len": "context_length",
    "max_num_seqs": "max_sequences",
    "tp_size": "tensor_parallel",
    "ngl": "gpu_layers",
    "engine_type": "engine",
    **{name: name for name in (
        "gpu_memory_utilization", "dtype", "quantization", "kv_cache_dtype", "flash_attention", "trust_remote_code",
    )},
}  # fmt: skip
"""Our names of what is part of a spec, by those of Cortex."""


def of_cortex(given: Mapping[str, Any]) -> dict[str, Any]:
    """A model as Cortex's clients write it, flat, with its spec. Null means that nothing was chosen."""
    spec = {OF_CORTEX[name]: value for name, value in given.items() if name in OF_CORTEX and value is not None}
    if given["mode"] == "offline":
        source = {"type": "path", "path": given.get("local_path")}
    else:
        source = {"type": "hub", "repo_id": given.get("repo_id")}
    parts = {*OF_CORTEX, "mode", "repo_id", "local_path", "task"}
    return {
        **{name: value for name, value in given.items() if name not in parts},
        "spec": {"engine": "vllm", "source": source, **spec},
    }


def storable(value: Any) -> Any:
    """The value without what Postgres cannot store: NUL, half of a surrogate pair, and numbers that are not finite."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {storable(name): storable(one) for name, one in value.items()}
    if isinstance(value, list):
        return [storable(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dry_run(
    spec: Spec, facts: Mapping[str, Any] | None, capabilities: Mapping[str, Any] | None, unread: str | None = None
) -> dict[str, Any]:
    """The command of a spec, what is wrong with it, and the memory that it needs, as far as the files were read.
    `unread` says why the host could not read them."""
    known = Facts.model_validate(facts) if facts else None
    host = Capabilities.model_validate(capabilities) if capabilities else None
    warnings = [*checks.check(spec, known, host), *([unreadable(unread)] if unread else [])]
    built = commands.build(spec, replace(PLACE, program=_program(spec)))
    return {
        "command": built.argv,
        "command_str": commands.as_string(built.argv),
        "valid": all(warning.severity != "error" for warning in warnings),
        "warnings": [warning.model_dump(mode="json") for warning in warnings],
        **_estimate(spec, known, host),
    }


def unreadable(why: str) -> Warning:
    return Warning(
        severity="warning", category="config", title="The files of the model were not read", message=why,
        fix="Look at the path and at what the agent allows. Without the files, the memory is not known.",
    )  # fmt: skip


def _program(spec: Spec) -> tuple[str, ...]:
    """The program of a custom command is on the host's own list; all others have names that are known here."""
    return (f"<{spec.custom_command}>",) if spec.engine == "custom" else ()


def readiness(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a model takes calls."""
    phase, detail = deployment["phase"], deployment["detail"]
    if deployment["offered_as"] and phase != "running":
        return {"status": "ready", "detail": "The first call loads it."}
    if phase == "running" and not deployment["offered_as"]:
        return {
            "status": "ready",
            "detail": "It runs, but is not offered: it has no price, or its host is cordoned.",
        }
    return {"status": READINESS[phase], "detail": detail}


READINESS: Final = {
    "running": "ready",
    **dict.fromkeys(("downloading", "starting", "loading", "unknown"), "loading"),
    **dict.fromkeys(("stopped", "draining", "stopping"), "stopped"),
    "failed": "error",
}


def metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of an engine, by the names that clients of older servers know."""
    usage = row.get("cache_usage")
    return {
        **row,
        **{shown: row.get(name) for shown, name in FIGURES.items()},
        "in_flight": row.get("in_flight"),
        "gpu_cache_usage_pct": None if usage is None else round(100 * usage, 2),
    }


FIGURES: Final = {
    "num_requests_running": "requests_running",
    "num_requests_waiting": "requests_waiting",
    "prompt_tokens_total": "prompt_tokens_total",
    "generation_tokens_total": "generation_tokens_total",
    "time_to_first_token_p50_ms": "ttft_p50_ms",
    "time_to_first_token_p95_ms": "ttft_p95_ms",
    "request_latency_p50_ms": "latency_p50_ms",
    "request_latency_p95_ms": "latency_p95_ms",
}


def log_text(result: Any) -> str:
    """The lines of a log, as an agent answers them."""
    lines = result.get("lines", "") if isinstance(result, Mapping) else result
    return "\n".join(map(str, lines)) if isinstance(lines, list) else str(lines or "")


def diagnosed(log: str, state: str) -> dict[str, Any]:
    """A log with what its earliest error means."""
    found = diagnosis.diagnose(log, None)
    told = found.model_dump(mode="json") if found else {}
    return {
        "logs": log,
        "diagnosis": {"detected": found is not None, **told},
        "summary": diagnosis.summary(log),
        "state": state,
    }


def _estimate(spec: Spec, facts: Facts | None, host: Capabilities | None) -> dict[str, Any]:
    if facts is None:
        return {"vram_estimate_gb": None, "vram_estimate": None, "fits_gpus": None}
    made = memory.estimate(spec, facts, len(spec.gpus or (host.gpus if host else ())))
    sizes = made.as_json()
    return {
        "vram_estimate_gb": sizes["total_per_gpu_gb"],
        "vram_estimate": {"params_b": facts.billions, "model_weights_gb": sizes["weights_gb"], **sizes},
        "fits_gpus": list(made.fits(host)) if host else None,
    }


def summary(hosts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All hosts as if they were one."""
    samples = [host["sample"] or {} for host in hosts]
    abilities = [host["capabilities"] or {} for host in hosts]
    return {
        "hosts": len(hosts),
        "hosts_seen": sum(host["contact"] == "seen" for host in hosts),
        "cpu_count": _sum(abilities, "cpu_count"),
        "load_avg_1m": _sum(samples, "load_1m"),
        "mem_total_mb": _in(MEBIBYTE, _sum(samples, "memory_total_bytes")),
        "mem_used_mb": _in(MEBIBYTE, _sum(samples, "memory_used_bytes")),
        "disk_total_gb": _in(GIBIBYTE, _sum(samples, "disk_total_bytes")),
        "disk_used_gb": _in(GIBIBYTE, _sum(samples, "disk_used_bytes")),
        "gpus": sum(len(one.get("gpus") or ()) for one in abilities),
        "cuda_driver": next((driver for one in abilities if (driver := _text(one.get("cuda_driver")))), None),
    }


def host_summary(host: Mapping[str, Any]) -> dict[str, Any]:
    sample = host["sample"] or {}
    total, used = sample.get("disk_total_bytes"), sample.get("disk_used_bytes")
    return {
        "host_id": host["id"],
        "cpu_util_pct": sample.get("cpu_percent"),
        "process_cpu_pct": sample.get("process_cpu_percent"),
        "loop_delay_ms": sample.get("loop_delay_ms"),
        "mem_source": sample.get("memory_source"),
        "load_avg_1m": sample.get("load_1m"),
        "mem_total_mb": _in(MEBIBYTE, sample.get("memory_total_bytes")),
        "mem_used_mb": _in(MEBIBYTE, sample.get("memory_used_bytes")),
        "disk_total_gb": _in(GIBIBYTE, total),
        "disk_used_gb": _in(GIBIBYTE, used),
        "disk_used_pct": round(100 * used / total, 1) if total and used is not None else None,
        "net_rx_bps": sample.get("network_received_bps"),
        "net_tx_bps": sample.get("network_sent_bps"),
        "sampled_at": sample.get("sampled_at"),
    }


def gpus(hosts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The GPUs of all hosts: what their agents found at the start, and how they are now."""
    return [_gpu(host["id"], gpu, _now(host, gpu)) for host in hosts for gpu in Capabilities.model_validate(
        host["capabilities"] or {}
    ).gpus]  # fmt: skip


def _now(host: Mapping[str, Any], gpu: Any) -> Mapping[str, Any]:
    sampled = (host["sample"] or {}).get("gpus") or ()
    return next((one for one in sampled if one["index"] == gpu.index), {})


def _gpu(host_id: str, gpu: Any, now: Mapping[str, Any]) -> dict[str, Any]:
    capability = float(gpu.compute_capability) if gpu.compute_capability else None
    return {
        "host_id": host_id,
        "index": gpu.index,
        "name": gpu.name,
        "utilization_pct": now.get("utilization_percent"),
        "mem_used_mb": _in(MEBIBYTE, now.get("memory_used_bytes", gpu.memory_used_bytes)),
        "mem_total_mb": _in(MEBIBYTE, now.get("memory_total_bytes") or gpu.memory_total_bytes),
        "temperature_c": now.get("temperature_c"),
        "compute_capability": gpu.compute_capability,
        "architecture": _architecture(capability),
        "flash_attention_supported": None if capability is None else capability >= FLASH_ATTENTION,
    }


FLASH_ATTENTION: Final = 8.0
"""The least compute capability."""
ARCHITECTURES: Final = ((12.0, "Blackwell"), (10.0, "Blackwell"), (9.0, "Hopper"), (8.9, "Ada"), (8.0, "Ampere"),
                        (7.5, "Turing"), (7.0, "Volta"), (6.0, "Pascal"))  # fmt: skip


def _architecture(capability: float | None) -> str | None:
    return next((name for least, name in ARCHITECTURES if capability is not None and capability >= least), None)


SERIES: Final = {
    "cpu": "cpu_percent",
    "memory_used_bytes": "memory_used_bytes",
    "disk_used_bytes": "disk_used_bytes",
    "network_received_bps": "network_received_bps",
    "network_sent_bps": "network_sent_bps",
    "process_cpu": "process_cpu_percent",
    "process_memory_bytes": "process_memory_bytes",
    "loop_delay_ms": "loop_delay_ms",
}


def trends(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A series for each figure of the host, and of each GPU. A moment without the figure is left out."""
    by_gpu: dict[int, list[dict[str, Any]]] = {}
    for one in samples:
        for gpu in one.get("gpus") or ():
            by_gpu.setdefault(gpu["index"], []).append({**gpu, "ts": one["ts"]})
    return {
        **{name: _series(samples, field) for name, field in SERIES.items()},
        "gpus": [_gpu_trends(of_one) for _, of_one in sorted(by_gpu.items())],
    }


def _gpu_trends(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    series = {name: _series(samples, name) for name in ("utilization_percent", "memory_used_bytes")}
    return {name: samples[-1].get(name) for name in ("index", "name", "memory_total_bytes")} | series


def _series(samples: Sequence[Mapping[str, Any]], field: str) -> list[dict[str, Any]]:
    return [{"ts": one["ts"], "value": one[field]} for one in samples if one.get(field) is not None]


def _sum(given: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """None where no host says it."""
    found = [value for one in given if isinstance(value := one.get(name), int | float)]
    return sum(found) if found else None


def _in(unit: int, size: float | None) -> float | None:
    return None if size is None else round(size / unit, 1)


def mebibytes(size: float | None) -> float | None:
    return _in(MEBIBYTE, size)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
