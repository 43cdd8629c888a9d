"""Samples: a host's figures of one minute, and its GPUs. From psutil and NVML, or from Prometheus' exporters where the
agent is told their addresses. What is not there is left out."""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from tollgate.agent.claims import Gpu
from tollgate.agent.engine_metrics import series
from tollgate.process.clock import Monotonic
from tollgate.process.machine import Counters, memory_of_cgroup, rates

SAMPLE_SECONDS: Final = 60.0
GPU_SECONDS: Final = 5.0
MIB: Final = 1024**2


class Sampler:
    def __init__(self, disk: Path, clock: Monotonic, http: httpx.AsyncClient, exporters: Mapping[str, str]) -> None:
        self._disk = disk
        self._clock = clock
        self._http = http
        self._exporters = exporters
        """The addresses of `dcgm` and `node`, where they are configured."""
        self._nvml = _Nvml()
        self._counters: Counters | None = None
        self._sampled_at: float | None = None
        self._unsent: dict[str, Any] | None = None
        self.gpus: list[dict[str, Any]] = []
        self.memory_total_bytes: int | None = None

    async def keep(self) -> None:
        """Until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(GPU_SECONDS)

    async def look(self) -> None:
        self.gpus = await self._seen_gpus()
        now = self._clock()
        if self._sampled_at is None or now - self._sampled_at >= SAMPLE_SECONDS:
            self._sampled_at = now
            self._unsent = {**await self._host(now), "gpus": [_of_sample(gpu) for gpu in self.gpus]}

    def take(self) -> dict[str, Any] | None:
        """The sample of this minute, once."""
        taken, self._unsent = self._unsent, None
        return taken

    def claimable(self) -> list[Gpu]:
        return [Gpu(gpu["index"], gpu["memory_total_bytes"], gpu["memory_used_bytes"] or 0) for gpu in self.gpus]

    async def _seen_gpus(self) -> list[dict[str, Any]]:
        if "dcgm" in self._exporters:
            return gpus_of_dcgm(await self._scraped("dcgm"))
        return await asyncio.to_thread(self._nvml.gpus)

    async def _host(self, now: float) -> dict[str, Any]:
        if "node" in self._exporters:
            readings, counters = host_of_node_exporter(await self._scraped("node"))
        else:
            readings, counters = await asyncio.to_thread(host_here, self._disk)
        self.memory_total_bytes = readings["memory_total_bytes"]
        before, self._counters = self._counters, counters._replace(at=now)
        return {**readings, **rates(before, self._counters)}

    async def _scraped(self, exporter: str) -> str:
        with contextlib.suppress(httpx.HTTPError):
            return (await self._http.get(self._exporters[exporter], timeout=3)).raise_for_status().text
        return ""


def host_here(disk: Path) -> tuple[dict[str, Any], Counters]:
    import psutil

    memory, space = psutil.virtual_memory(), psutil.disk_usage(str(disk))
    limit, used = memory_of_cgroup()
    total = min(memory.total, limit or memory.total)
    times, network = psutil.cpu_times(), psutil.net_io_counters()
    idle = times.idle + getattr(times, "iowait", 0.0)
    readings = {
        "load_1m": round(os.getloadavg()[0], 2),
        "memory_used_bytes": used if limit and used is not None else memory.total - memory.available,
        "memory_total_bytes": total,
        "disk_used_bytes": space.used,
        "disk_total_bytes": space.total,
    }
    busy = sum(times[:8]) - idle  # guests are counted in user time already
    return readings, Counters(
        busy, idle, network.bytes_recv if network else None, network.bytes_sent if network else None
    )


def host_of_node_exporter(text: str) -> tuple[dict[str, Any], Counters]:
    values: dict[str, float] = {}
    for name, labels, value in series(text):
        key = name
        if name == "node_cpu_seconds_total":
            key = "idle" if labels.get("mode") in {"idle", "iowait"} else "busy"
            if labels.get("mode", "").startswith("guest"):
                continue
        elif (name.startswith("node_filesystem_") and labels.get("mountpoint") != "/") or (
            name.startswith("node_network_") and labels.get("device") == "lo"
        ):
            continue
        values[key] = values.get(key, 0.0) + value
    total, available = values.get("node_memory_MemTotal_bytes"), values.get("node_memory_MemAvailable_bytes")
    size, free = values.get("node_filesystem_size_bytes"), values.get("node_filesystem_avail_bytes")
    readings = {
        "load_1m": values.get("node_load1"),
        "memory_used_bytes": None if total is None or available is None else int(total - available),
        "memory_total_bytes": None if total is None else int(total),
        "disk_used_bytes": None if size is None or free is None else int(size - free),
        "disk_total_bytes": None if size is None else int(size),
    }
    network = ("node_network_receive_bytes_total", "node_network_transmit_bytes_total")
    received, sent = (values.get(name) for name in network)
    return readings, Counters(values.get("busy"), values.get("idle"), received, sent)


def gpus_of_dcgm(text: str) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for name, labels, value in series(text):
        if name in _DCGM and labels.get("gpu", "").isdigit():
            gpu = found.setdefault(int(labels["gpu"]), {"name": labels.get("modelName", "")})
            gpu[_DCGM[name]] = value
    return [
        {
            "index": index,
            "name": gpu["name"],
            "utilization_percent": gpu.get("utilization"),
            "memory_used_bytes": int(gpu.get("used", 0) * MIB),
            "memory_total_bytes": int((gpu.get("used", 0) + gpu.get("free", 0) + gpu.get("reserved", 0)) * MIB),
            "temperature_c": gpu.get("temperature"),
            "compute_capability": None,
        }
        for index, gpu in sorted(found.items())
    ]


_DCGM: Final = {
    "DCGM_FI_DEV_GPU_UTIL": "utilization",
    "DCGM_FI_DEV_FB_USED": "used",
    "DCGM_FI_DEV_FB_FREE": "free",
    "DCGM_FI_DEV_FB_RESERVED": "reserved",
    "DCGM_FI_DEV_GPU_TEMP": "temperature",
}


class _Nvml:
    """NVIDIA's library. Without its module or a driver there are no GPUs."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._is_absent = False

    def gpus(self) -> list[dict[str, Any]]:
        if not self._opened():
            return []
        try:
            return [self._gpu(index) for index in range(self._nvml.nvmlDeviceGetCount())]
        except self._nvml.NVMLError:
            return []

    def _opened(self) -> bool:
        if self._nvml is None and not self._is_absent:
            try:
                import pynvml

                pynvml.nvmlInit()
                self._nvml = pynvml
            except ImportError:
                self._is_absent = True
            except pynvml.NVMLError:
                self._is_absent = True
        return self._nvml is not None

    def _gpu(self, index: int) -> dict[str, Any]:
        nvml = self._nvml
        device = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
        name = nvml.nvmlDeviceGetName(device)
        capability = self._asked(nvml.nvmlDeviceGetCudaComputeCapability, device)
        utilization = self._asked(nvml.nvmlDeviceGetUtilizationRates, device)
        return {
            "index": index,
            "name": name.decode() if isinstance(name, bytes) else name,
            "utilization_percent": utilization.gpu if utilization else None,
            "memory_used_bytes": memory.used,
            "memory_total_bytes": memory.total,
            "temperature_c": self._asked(nvml.nvmlDeviceGetTemperature, device, nvml.NVML_TEMPERATURE_GPU),
            "compute_capability": ".".join(map(str, capability)) if capability else None,
        }

    def _asked(self, question: Any, *arguments: Any) -> Any:
        """None for what a device does not say; parts of a GPU (MIG) say little."""
        try:
            return question(*arguments)
        except self._nvml.NVMLError:
            return None


def _of_sample(gpu: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in gpu.items() if name != "compute_capability"}
