"""Figures of hosts and engines, as exporters and engines write them; logs that stay short."""

from pathlib import Path

from tollgate.agent import engine_metrics, samples
from tollgate.agent.engine_logs import MOST_BYTES, STARTS_KEPT, EngineLogs
from tollgate.core.redaction import Redactor
from tollgate.process.machine import Counters

VLLM = """# HELP vllm:num_requests_running Number of requests
vllm:num_requests_running{model_name="m"} 2.0
vllm:num_requests_waiting{model_name="m"} 1.0
vllm:kv_cache_usage_perc{model_name="m"} 0.25
vllm:prompt_tokens_total{model_name="m"} 1e3
vllm:generation_tokens_total{engine="0"} 40.0
vllm:generation_tokens_total{engine="1"} 2.0
vllm:other NaN
"""
DCGM = """DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-x",modelName="NVIDIA H100"} 97
DCGM_FI_DEV_FB_USED{gpu="1",modelName="NVIDIA H100"} 1000
DCGM_FI_DEV_FB_FREE{gpu="1",modelName="NVIDIA H100"} 80000
DCGM_FI_DEV_GPU_TEMP{gpu="1",modelName="NVIDIA H100"} 61
"""
NODE = """node_load1 1.5
node_memory_MemTotal_bytes 8e9
node_memory_MemAvailable_bytes 6e9
node_filesystem_size_bytes{device="/dev/sda",mountpoint="/"} 100
node_filesystem_size_bytes{device="/dev/sdb",mountpoint="/mnt"} 900
node_filesystem_avail_bytes{device="/dev/sda",mountpoint="/"} 40
node_cpu_seconds_total{cpu="0",mode="idle"} 70
node_cpu_seconds_total{cpu="0",mode="user"} 30
node_cpu_seconds_total{cpu="0",mode="guest"} 30
node_network_receive_bytes_total{device="eth0"} 1000
node_network_receive_bytes_total{device="lo"} 5000
node_network_transmit_bytes_total{device="eth0"} 500
"""


def test_the_metrics_of_engines_are_read_by_their_own_names() -> None:
    read = engine_metrics.read(VLLM)
    assert (read.requests_running, read.requests_waiting, read.cache_usage) == (2, 1, 0.25)
    assert (read.generation_tokens_total, read.tokens) == (42, 1042)
    assert engine_metrics.read("llamacpp:tokens_predicted_total 7\n").tokens == 7
    assert engine_metrics.read("<html>").tokens is None


def test_the_exporter_of_dcgm_stands_in_for_nvml() -> None:
    (gpu,) = samples.gpus_of_dcgm(DCGM)
    assert (gpu["index"], gpu["name"], gpu["utilization_percent"], gpu["temperature_c"]) == (1, "NVIDIA H100", 97, 61)
    assert gpu["memory_total_bytes"] == 81_000 * 1024**2


def test_the_node_exporter_stands_in_for_the_agents_own_view() -> None:
    readings, counters = samples.host_of_node_exporter(NODE)
    assert readings["memory_used_bytes"] == 2_000_000_000
    assert (readings["disk_used_bytes"], readings["disk_total_bytes"], readings["load_1m"]) == (60, 100, 1.5)
    assert counters == Counters(30, 70, 1000, 500)


def test_logs_of_the_last_starts_are_kept_short_and_without_secrets(tmp_path: Path) -> None:
    kept, redact = EngineLogs(tmp_path), Redactor(["a-known-secret"])
    for number in range(STARTS_KEPT + 2):
        kept.begin().write_text(f"start {number}\n")
    assert [file.read_text() for file in kept.files()] == [f"start {number}\n" for number in range(2, STARTS_KEPT + 2)]
    newest = kept.files()[-1]
    newest.write_text("first error\n" + "x" * MOST_BYTES + "\nthe key is a-known-secret\n")
    assert "a-known-secret" not in kept.tail(redact)
    kept.bound()
    assert newest.stat().st_size < MOST_BYTES
    assert kept.text(redact).startswith("first error")
    kept.finish(redact)
    assert "a-known-secret" not in newest.read_text()
    assert newest.read_text().endswith("the key is [hidden: known]\n")
