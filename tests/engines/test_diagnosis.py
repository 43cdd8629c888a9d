"""Each rule, by a log that an engine wrote here or by the text that it publishes."""

import re
from pathlib import Path

import pytest

from tollgate.engines.diagnosis import OUT_OF_HOST_MEMORY, RULES, diagnose, summary

LOGS = Path(__file__).parent / "logs"
ALL_RULES = (*RULES, OUT_OF_HOST_MEMORY)
SEEN = {
    "llamacpp/bad_flag": "unknown_argument",
    "llamacpp/unknown_architecture": "unknown_architecture",
    "llamacpp/cut_file": "damaged_files",
    "llamacpp/lfs_pointer": "not_a_model_file",
    "llamacpp/login_page": "not_a_model_file",
    "llamacpp/missing_file": "files_not_found",
    "llamacpp/quantised_v": "quantised_v_cache",
    "llamacpp/busy_port": "address_in_use",
    "vllm/bad_flag": "unknown_argument",
    "vllm/heads_not_divisible": "heads_not_divisible",
    "vllm/context_beyond_model": "context_beyond_model",
    "vllm/unknown_architecture": "unknown_architecture",
    "vllm/unknown_type": "unknown_architecture",
    "vllm/custom_code": "custom_code",
    "vllm/quantization_not_in_files": "quantization_not_in_files",
    "vllm/offline": "offline",
    "vllm/gated": "gated",
    "vllm/files_not_found": "files_not_found",
}
"""Logs that were written here, by starting an engine so."""
PUBLISHED = {
    "api_server.py: error: unrecognized arguments: --no-such-flag": "unknown_argument",
    "User-specified max_model_len (9999) is greater than the derived max_model_len (4096)": "context_beyond_model",
    "Based on the available memory, the estimated maximum model length is 22816.": "context_beyond_memory",
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`": "no_cache_memory",
    "Free memory on device cuda:0 (3.1/23.58 GiB) on startup is less than desired GPU memory": "gpu_occupied",
    "AssertionError: Error in memory profiling. Initial free memory 10.2 GiB, current free": "memory_changed",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB": "out_of_gpu_memory",
    "CUDA out of memory occurred when warming up sampler with 1024 dummy requests": "out_of_gpu_memory",
    "Total number of attention heads (25) must be divisible by tensor parallel size (2).": "heads_not_divisible",
    "World size (4) is larger than the number of available GPUs (2) in this node": "too_few_gpus",
    "but Transformers does not recognize this architecture. This could be": "unknown_architecture",
    "ValueError: Model architectures ['Foo'] are not supported for now.": "unknown_architecture",
    "ValueError: Cannot find the config file for awq": "quantization_not_in_files",
    "The quantization method fp8 is not supported for the current GPU. Minimum capability: 89.": "gpu_too_old",
    "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer": "damaged_files",
    "RuntimeError: Cannot find any model weights with `m`": "damaged_files",
    "Invalid repository ID or local directory specified: 'm'": "files_not_found",
    "HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name'": "files_not_found",
    "Cannot access gated repo for url https://huggingface.co/a/b": "gated",
    "OfflineModeIsEnabled: Cannot reach x: outgoing traffic has been disabled": "offline",
    "The repository m contains custom code which must be executed to correctly load the model.": "custom_code",
    "OSError: [Errno 98] Address already in use": "address_in_use",
    "RuntimeError: NCCL error: ncclSystemError: System call (socket, malloc)": "shared_memory",
    "Error while creating shared memory segment /dev/shm/nccl-x (size 9637888)": "shared_memory",
    "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory": "buffer_allocation",
    "llama_kv_cache_init: failed to allocate buffer for kv cache": "buffer_allocation",
    "Failed to initialize NVML: Unknown Error": "nvml_lost",
    "No available shared memory broadcast block found in 60 seconds.": "slow_workers",
}


@pytest.mark.parametrize(("log", "rule"), SEEN.items())
def test_a_log_that_was_written_here_is_understood(log: str, rule: str) -> None:
    found = diagnose((LOGS / f"{log}.txt").read_text(), 1)
    assert found is not None
    assert found.rule == rule
    assert "{" not in "".join(found.fixes)


@pytest.mark.parametrize(("line", "rule"), PUBLISHED.items())
def test_a_published_line_is_understood(line: str, rule: str) -> None:
    found = diagnose(f"INFO starting\n\x1b[31m{line}\x1b[0m\nRuntimeError: Engine core initialization failed.", 1)
    assert found is not None
    assert found.rule == rule
    assert found.message == line


def test_every_rule_has_a_log() -> None:
    assert {rule.name for rule in RULES} == {*SEEN.values(), *PUBLISHED.values()}
    logs = {f"{file.parent.name}/{file.stem}" for file in LOGS.glob("*/*.txt") if file.stem != "started"}
    assert logs == set(SEEN)


def test_the_page_lists_each_rule_and_says_whose_log_was_seen() -> None:
    page = (LOGS.parents[2] / "docs" / "how-to" / "troubleshoot-models.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \|.*\| (seen|published)[^|]* \|$", page, re.MULTILINE))
    assert listed == {rule.name: "seen" if rule.name in SEEN.values() else "published" for rule in ALL_RULES}


def test_the_earliest_error_wins_and_warnings_come_last() -> None:
    slow, cause = "No available shared memory broadcast block", "CUDA out of memory"
    consequence = "Address already in use"
    found = diagnose("\n".join([slow, "WorkerProc initialization failed", cause, consequence]), 1)
    assert found is not None
    assert (found.rule, found.retryable, found.severity) == ("out_of_gpu_memory", False, "error")
    warning = diagnose(slow, None)
    assert warning is not None
    assert (warning.severity, warning.retryable) == ("warning", True)


def test_a_kill_without_a_line_is_host_memory_and_silence_is_nothing() -> None:
    killed = diagnose("loading\n", 137)
    assert killed is not None
    assert (killed.rule, killed.retryable) == ("out_of_host_memory", True)
    assert diagnose("Engine core initialization failed", 1) is None


def test_the_fix_names_what_the_log_names() -> None:
    found = diagnose("the estimated maximum model length is 22816.", 1)
    assert found is not None
    assert found.fixes[0] == "Set context_length to 22816 or less."


def test_a_summary_of_what_an_engine_said_of_itself() -> None:
    said = summary((LOGS / "llamacpp" / "started.txt").read_text())
    assert said["model_path"] == "tiny.gguf"
    assert (said["kv_cache_tokens"], said["buffers_mib"]["model"], said["buffers_mib"]["KV"]) == (2048, 1.39, 1.0)
    assert any("CORS" in line for line in said["warnings"])
    on_a_cpu = summary((LOGS / "vllm" / "started.txt").read_text())
    assert (on_a_cpu["engine_version"], on_a_cpu["kv_cache_tokens"], on_a_cpu["kv_cache_gib"]) == (
        "0.32.0",
        1_048_576,
        1,
    )
    vllm = summary(
        "INFO vLLM API server version 0.32.0\nINFO Starting to load model /m/tiny...\nWARNING slow\n"
        "INFO Model loading took 14.99 GiB and took 3.5 seconds\nINFO Available KV cache memory: 3.81 GiB\n"
        "INFO GPU KV cache size: 31,232 tokens\n"
    )
    assert vllm == {
        "engine_version": "0.32.0", "model_path": "/m/tiny", "loading_seconds": 3.5, "memory_gib": 14.99,
        "kv_cache_gib": 3.81, "kv_cache_tokens": 31232, "warnings": ["WARNING slow"],
    }  # fmt: skip
