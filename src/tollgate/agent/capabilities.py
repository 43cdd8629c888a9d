"""Capabilities: what a host has, and what its owner allows on the agent's command line."""

import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tollgate.process.machine import cpu_count

PROGRAMS: Final = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llama-server",
    "tgi": "text-generation-launcher",
    "whisper": "faster-whisper-server",
}
"""By which an engine is found on the host."""


def capabilities(
    gpus: Sequence[Mapping[str, Any]],
    container_client: Sequence[str],
    roots: Sequence[Path],
    images: Sequence[str],
    flags: Sequence[str],
    commands: Mapping[str, Sequence[str]],
    memory_total_bytes: int | None,
) -> dict[str, Any]:
    """What changes from minute to minute is left out: only a change is sent."""
    return {
        "system": platform.system().lower(),
        "machine": platform.machine(),
        "cpu_count": cpu_count(),
        "memory_total_bytes": memory_total_bytes,
        "accelerator": "cuda" if gpus else "mps" if _is_apple() else "cpu",
        "gpus": [
            {name: gpu[name] for name in ("index", "name", "memory_total_bytes", "compute_capability")} for gpu in gpus
        ],
        "engines": sorted(engine for engine, program in PROGRAMS.items() if shutil.which(program)),
        "container_runtime": Path(container_client[0]).name if container_client else None,
        "allowed_roots": [str(root) for root in roots],
        "allowed_images": list(images),
        "allowed_flags": list(flags),
        "allowed_commands": sorted(commands),
    }


def _is_apple() -> bool:
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def container_client(named: Sequence[str]) -> tuple[str, ...]:
    """The one that the owner named, or docker, or podman; empty if there is none."""
    candidates: Sequence[Sequence[str]] = [named] if named else [("docker",), ("podman",)]
    return next((tuple(one) for one in candidates if shutil.which(one[0])), ())
