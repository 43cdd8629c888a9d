"""The hosts of the pictures: one with models in all phases, a silent one, and one that never enrolled."""

import json
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from fleet.agent import Agent, Ingress
from pictured import Names

LOG = Path(__file__).parents[1] / "tests" / "engines" / "logs" / "vllm"
GIB = 2**30
GPUS = [
    {"index": index, "name": "NVIDIA RTX 4090", "memory_total_bytes": 24 * GIB, "compute_capability": "8.9"}
    for index in range(2)
]
CAPABILITIES = {
    "system": "linux",
    "machine": "x86_64",
    "cpu_count": 32,
    "memory_total_bytes": 128 * GIB,
    "accelerator": "cuda",
    "gpus": GPUS,
    "engines": ["llamacpp", "vllm"],
    "container_runtime": "podman",
    "allowed_roots": ["/srv/models", "/data/of/a/long/name/" + "m" * 60],
    "allowed_images": ["docker.io/vllm/vllm-openai:v0.32.0"],
    "allowed_flags": ["--enforce-eager"],
    "allowed_commands": [],
}
FACTS = {
    "architecture": "LlamaForCausalLM", "layers": 32, "heads": 32, "kv_heads": 8, "head_dim": 128, "hidden": 4096,
    "ffn": 14336, "vocab": 128256, "context_length": 131072, "weight_bytes": 16 * GIB, "parameters": 8_030_000_000,
}  # fmt: skip
GGUF = {
    "display_name": "Llama-3.1-8B-Instruct (Q4_K_M)",
    "quant_type": "Q4_K_M",
    "files": ["Llama-3.1-8B-Instruct-Q4_K_M.gguf"],
    "expected_parts": 1,
    "actual_parts": 1,
    "total_size_mb": 4693.5,
    "status": "ready",
    "can_use": True,
    "facts": {**FACTS, "weight_bytes": 5 * GIB, "quantization": "Q4_K_M"},
}
INSPECTED = {
    "path": "/srv/models/llama",
    "safetensor_info": {"file_count": 4, "total_size_gb": 15.0, "torch_dtype": "bfloat16"},
    "gguf_groups": [
        GGUF,
        {
            **GGUF,
            "display_name": "Llama-3.3-70B (Q8_0)",
            "quant_type": "Q8_0",
            "files": ["Llama-3.3-70B-00001-of-00003.gguf"],
            "expected_parts": 3,
            "actual_parts": 2,
            "status": "incomplete",
            "can_use": False,
        },
    ],
    "tokenizer_files": ["tokenizer.json", "tokenizer_config.json"],
    "missing": [],
    "warnings": ["Llama-3.3-70B-00003-of-00003.gguf is missing."],
    "params_b": 8.03,
    "engine_recommendation": {"recommended": "either", "reason": "There are safetensors and GGUF files."},
    "facts": FACTS,
}
PRICES = {"prompt": "0.0000002", "completion": "0.0000006"}
FIGURES = {
    "requests_running": 12,
    "requests_waiting": 3,
    "prompt_tokens_total": 48_120_331,
    "generation_tokens_total": 9_201_118,
    "ttft_p50_ms": 184,
    "ttft_p95_ms": 902,
    "latency_p50_ms": 3120,
    "latency_p95_ms": 11_800,
    "cache_usage": 0.412,
    "in_flight": 14,
}

PROGRESS = {
    "file": "model-00003-of-00008.safetensors",
    "bytes_done": 21_400_000_000,
    "bytes_total": 61_100_000_000,
    "bytes_per_second": 92_000_000.0,
    "seconds_left": 431.5,
}
DIAGNOSIS = {
    "title": "Too little GPU memory for the KV cache",
    "message": "One sequence of 131072 tokens needs 16 GiB.",
    "fixes": ["Lower context_length to 24064, or use kv_cache_dtype fp8."],
}


class Fleet:
    """Made through the API, as an operator and an agent would."""

    def __init__(self, http: httpx.AsyncClient, ingress: Ingress, ingress_url: str, names: Names) -> None:
        self.http = http
        self.names = names
        self.ingress = ingress
        self.ingress_url = ingress_url

    async def fill(self, url: str) -> None:
        big = await self._enrolled("gpu-1", self.ingress_url)
        self.ingress.key = big.key
        self.ingress.results = {
            "local_folders": ["llama", "qwen", "whisper-large-v3", "<b>x</b>" + "m" * 60],
            "inspect_folder": INSPECTED,
            "logs": {"lines": sorted(LOG.glob("*.txt"))[0].read_text().splitlines()},
            "hub_config": {"repo_id": "x", "files": [], "facts": FACTS},
        }
        silent = await self._enrolled(self.names.host, None)
        await self._host("gpu-3")
        await self._models(big, silent)
        connection = await asyncpg.connect(url)
        for number, agent in enumerate((big, silent)):
            await connection.executemany(
                "insert into tollgate.host_samples (host_id, sampled_at, sample) values ($1, $2, $3)",
                [(agent.host_id, at, json.dumps(sample)) for at, sample in _samples(number)],
            )
        await connection.execute(
            "update tollgate.hosts set last_seen_at = now() + interval '1 day' where id = $1", big.host_id
        )
        await connection.execute(
            "update tollgate.hosts set last_seen_at = now() - interval '1 day' where id = $1", silent.host_id
        )
        await connection.close()

    async def _host(self, name: str) -> Any:
        return await self._asked("POST", "/admin/hosts", {"name": name, "labels": {"rack": "b4"}})

    async def _enrolled(self, name: str, ingress_url: str | None) -> Agent:
        made = await self._host(name)
        body = {"token": made["enrolment"]["token"], "agent_version": "0.1.0", "capabilities": CAPABILITIES}
        found = await self._asked("POST", "/agent/enrol", {**body, "ingress_url": ingress_url})
        return Agent(self.http, found["host_id"], found["host_key"], ingress_url)

    async def _models(self, big: Agent, silent: Agent) -> None:
        running = await self._model(big, "our/llama", pricing=PRICES, context_tokens=20_000)
        fetching = await self._model(big, self.names.deployment)
        failed = await self._model(big, "our/too-large")
        await self._model(big, "our/stopped", wanted="stopped")
        lost = await self._model(silent, "our/on-the-silent-host", pricing=PRICES)
        await big.sync(
            observations=[
                _seen(running, "running", facts=FACTS, measured={"loading_seconds": 26.4, "memory_gib": 15.02}),
                _seen(fetching, "downloading", progress=PROGRESS),
                _seen(failed, "failed", failures=3, detail="The engine ended with exit code 1.", diagnosis=DIAGNOSIS),
            ],
            metrics=[{"deployment_id": running, **FIGURES}],
        )
        await silent.sync(observations=[_seen(lost, "running", facts=FACTS)])

    async def _model(self, agent: Agent, name: str, **given: Any) -> str:
        spec = {
            "engine": "vllm",
            "source": {"type": "hub", "repo_id": "meta-llama/Llama-3.1-8B-Instruct"},
            "served_name": name[:100],
            "context_length": 20_000,
        }
        made = await self._asked(
            "POST", "/admin/models", {"host_id": agent.host_id, "spec": spec, "wanted": "running", **given}
        )
        return str(made["id"])

    async def _asked(self, method: str, path: str, body: Any) -> Any:
        return (await self.http.request(method, path, json=body)).raise_for_status().json()


def _seen(deployment_id: str, phase: str, **said: Any) -> dict[str, Any]:
    return {"deployment_id": deployment_id, "generation": 1, "phase": phase, "ready": phase == "running", **said}


def _samples(seed: int) -> list[tuple[datetime, dict[str, Any]]]:
    """A day, with two hours in which nothing was sent."""
    chance = random.Random(seed)  # noqa: S311
    now = datetime.now(UTC)
    return [
        (now - timedelta(minutes=minute), _sample(chance, minute))
        for minute in range(1, 1430)
        if not 500 < minute < 620
    ]


def _sample(chance: random.Random, minute: int) -> dict[str, Any]:
    load = 0.5 + 0.4 * math.sin(minute / 180) + chance.uniform(-0.08, 0.08)
    return {
        "cpu_percent": round(max(0.0, 60 * load), 1),
        "load_1m": round(max(0.0, 18 * load), 2),
        "memory_used_bytes": int((38 + 6 * load) * GIB),
        "memory_total_bytes": 128 * GIB,
        "disk_used_bytes": int(1_400_000_000_000 - 100_000_000 * minute),
        "disk_total_bytes": 2_000_000_000_000,
        "network_received_bps": int(4_000_000 * abs(load)),
        "network_sent_bps": int(60_000_000 * abs(load)),
        "gpus": [
            {
                **{name: gpu[name] for name in ("index", "name", "memory_total_bytes")},
                "utilization_percent": round(min(100.0, max(0.0, 90 * load - 20 * index)), 1),
                "memory_used_bytes": int((20 - 9 * index) * GIB),
                "temperature_c": 61 + index,
            }
            for index, gpu in enumerate(GPUS)
        ],
    }
