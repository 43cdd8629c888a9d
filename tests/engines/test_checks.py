"""Each warning, and that a spec without faults has none."""

from typing import Any

import pytest

from engines.specs import gpus, spec
from tollgate.engines.checks import check, is_startable
from tollgate.engines.facts import Facts

FACTS = Facts(
    layers=32, heads=32, kv_heads=8, head_dim=128, hidden=4096, ffn=14336, vocab=128256, context_length=8192,
    weight_bytes=16_060_522_496,
)  # fmt: skip
HOST: dict[str, Any] = {"gpus": gpus(2), "container_runtime": "docker", "memory_total_bytes": 2**36}
E, W, I = "error", "warning", "info"  # noqa: E741
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (E, "Forbidden flag", {"arguments": ["--host", "0.0.0.0"]}, {}, {}),
    (E, "Forbidden flag", {"arguments": ["--api_key=x"]}, {}, {}),
    (E, "Forbidden flag", {"arguments": ["--load-format", "pt"]}, {}, {"allowed_flags": ["--load-format"]}),
    (E, "Flag not allowed", {"arguments": ["--tool-parser-plugin", "/x.py"]}, {}, {}),
    (E, "Flag not allowed", {"arguments": ["--hos", "0.0.0.0"]}, {}, {}),
    (E, "Flag with a field", {"arguments": ["--max-model-len", "10"]}, {}, {}),
    (E, "Not a flag", {"arguments": ["other-model"]}, {}, {}),
    (W, "Sampling option", {"arguments": ["--temperature", "0"]}, {}, {}),
    (E, "Flag not allowed", {"engine": "custom", "arguments": ["--seed", "0"]}, {}, {}),
    (E, "Variable not allowed", {"environment": {"LD_PRELOAD": "/x.so"}}, {}, {}),
    (E, "Too few GPUs", {"tensor_parallel": 4}, {}, {}),
    (E, "No such GPU", {"gpus": [7]}, {}, {}),
    (E, "No GPU", {"engine": "sglang"}, {}, {"gpus": []}),
    (E, "Heads not divisible", {"tensor_parallel": 2}, {"heads": 25}, {}),
    (E, "Context beyond the model's", {"context_length": 9000}, {}, {}),
    (W, "Context beyond the model's", {"engine": "llamacpp", "context_length": 9000}, {}, {}),
    (W, "Long context", {"context_length": 200_000}, {"context_length": 10**6}, {}),
    (E, "AWQ not in the files", {"quantization": "awq"}, {}, {}),
    (E, "GPTQ not in the files", {"quantization": "gptq_marlin"}, {"quantization": "awq"}, {}),
    (W, "FP8 on an older GPU", {"kv_cache_dtype": "fp8"}, {}, {"gpus": gpus(1, capability="8.0")}),
    (E, "BF16 on an older GPU", {"dtype": "bfloat16"}, {}, {"gpus": gpus(1, capability="7.5")}),
    (E, "Custom code not opted in", {}, {"custom_code": True}, {}),
    (E, "Custom code not allowed", {"trust_remote_code": True}, {"custom_code": True}, {}),
    (E, "Quantised V cache without flash attention", {"engine": "llamacpp", "kv_cache_dtype": "q8_0"}, {}, {}),
    (E, "Unknown cache type", {"engine": "llamacpp", "kv_cache_dtype": "fp8"}, {}, {}),
    (E, "Image not allowed", {"container_image": "evil/image"}, {}, {}),
    (E, "No containers", {"container_image": "i"}, {}, {"container_runtime": None, "allowed_images": ["i"]}),
    (E, "Command not allowed", {"engine": "custom", "custom_command": "sh"}, {}, {"allowed_commands": ["mine"]}),
    (E, "No command", {"engine": "custom"}, {}, {}),
    (E, "File is cut", {}, {"missing_bytes": 5}, {}),
    (E, "Does not fit", {}, {}, {"gpus": gpus(1, gib=8)}),
    (E, "Does not fit", {}, {}, {"gpus": gpus(1, used_gib=70)}),
    (E, "Does not fit", {}, {}, {"gpus": [], "memory_total_bytes": 2**30}),
]


@pytest.mark.parametrize(("severity", "title", "change", "files", "host"), CASES)
def test_a_fault_is_found(
    severity: str, title: str, change: dict[str, Any], files: dict[str, Any], host: dict[str, Any]
) -> None:
    faulty = spec(**{"engine": "vllm"} | change)
    found = {warning.title: warning for warning in check(faulty, FACTS.model_copy(update=files), HOST | host)}
    assert title in found, found
    assert found[title].severity == severity
    assert found[title].fix.endswith(".")
    assert is_startable(found.values()) == (severity != E)


@pytest.mark.parametrize(
    ("change", "host"),
    [
        ({}, {}),
        ({"arguments": ["--enforce-eager", "--max-num-batched-tokens=2048"], "tensor_parallel": 2}, {}),
        ({"arguments": ["--chat-template", "/t"]}, {"allowed_flags": ["--chat-template"]}),
        ({"environment": {"MY_SWITCH": "1"}}, {"allowed_flags": ["MY_SWITCH"]}),
        ({"engine": "llamacpp", "kv_cache_dtype": "q8_0", "flash_attention": True}, {}),
        ({"engine": "sglang", "arguments": ["--max-total-tokens", "9"]}, {}),
        ({"engine": "custom", "custom_command": "mine"}, {"allowed_commands": ["mine"]}),
        ({"container_image": "ours:1"}, {"allowed_images": ["ours:1"]}),
        ({"trust_remote_code": True}, {"allowed_flags": ["--trust-remote-code"]}),
    ],
)
def test_a_spec_without_faults_has_no_warning(change: dict[str, Any], host: dict[str, Any]) -> None:
    assert check(spec(**{"engine": "vllm"} | change), FACTS, HOST | host) == []


def test_what_is_not_known_is_said() -> None:
    titles = {warning.title: warning.severity for warning in check(spec("vllm", container_image="i"), None, None)}
    assert titles == {"Files not read": I, "Host not known": I, "Image not allowed": W}
