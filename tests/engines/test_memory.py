"""The formula against what others published and what llama.cpp logged here."""

import io
from pathlib import Path

import pytest

from engines.gguf_files import tiny
from engines.headers_of import safetensors_header
from engines.specs import GIB, gpus, spec
from tollgate.engines import headers
from tollgate.engines.diagnosis import summary
from tollgate.engines.facts import Facts
from tollgate.engines.memory import activation_bytes, estimate, kv_cache_bytes, kv_cache_tokens

LOGS = Path(__file__).parent / "logs"
LLAMA_8B = Facts(
    layers=32, heads=32, kv_heads=8, head_dim=128, hidden=4096, ffn=14336, vocab=128256, context_length=131072,
    weight_bytes=8_030_261_248 * 2,
)  # fmt: skip
LLAMA_70B = Facts(
    layers=80, heads=64, kv_heads=8, head_dim=128, hidden=8192, ffn=28672, vocab=128256, context_length=131072,
    weight_bytes=int(39.59 * GIB), embedding_bytes=128256 * 8192 * 9 // 16,
)  # fmt: skip
QWEN_235B = Facts(layers=94, heads=64, kv_heads=4, head_dim=128)
DEEPSEEK_R1 = Facts(layers=61, heads=128, kv_heads=128, head_dim=192, mla_rank=512, mla_rope=64)
MINIMAX_M2 = Facts(layers=62, heads=48, kv_heads=8, head_dim=128)


def cache_left(gpu_gib: float, non_torch_gib: float, batched_tokens: int) -> float:
    """What vLLM leaves for the KV cache of Llama-3 8B at a utilisation of 0.9."""
    activation = activation_bytes(LLAMA_8B, batched_tokens)
    return 0.9 * gpu_gib * GIB - LLAMA_8B.weight_bytes - non_torch_gib * GIB - activation


def llamacpp_gib(context: int) -> float:
    return estimate(spec(context_length=context, flash_attention=False), LLAMA_70B, 1).total_per_gpu_gb


def weights_405b() -> float:
    """Of one GPU of eight, from a header with the shapes and types of Llama-3.1-405B-FP8: not all is quantised."""
    hidden, width, kv, vocab = 16384, 53248, 1024, 128256
    tensors = {"model.embed_tokens.weight": ("BF16", [vocab, hidden]), "lm_head.weight": ("BF16", [vocab, hidden])}
    for layer in range(126):
        kind = "BF16" if layer in {0, 125} else "F8_E4M3"
        for name, shape in {"gate": [width, hidden], "up": [width, hidden], "down": [hidden, width]}.items():
            tensors[f"model.layers.{layer}.mlp.{name}_proj.weight"] = (kind, shape)
        for name, rows in {"q": hidden, "k": kv, "v": kv, "o": hidden}.items():
            tensors[f"model.layers.{layer}.self_attn.{name}_proj.weight"] = ("BF16", [rows, hidden])
    facts = headers.safetensors(safetensors_header(tensors))
    assert facts.parameters == pytest.approx(405.8e9, rel=0.01)
    return estimate(spec("vllm", tensor_parallel=8), facts, 8).weights_gb


PUBLISHED = {
    "Llama-3.1-8B on a 3090, 20k: KV GiB": (cache_left(23.58, 0.35, 20_000) / GIB, 3.81),
    "the same, 29k: tokens": (kv_cache_tokens(LLAMA_8B, cache_left(23.58, 0.35, 29_000)), 23_648),
    "Llama-3-8B on an H100: KV GiB": (cache_left(79.22, 1.79, 8192) / GIB, 53.29),
    "Qwen3-235B, TP 4, 8.11 GiB: tokens": (kv_cache_tokens(QWEN_235B, 8.11 * GIB, None, 4), 178_880),
    "DeepSeek-R1, q8_0, 32k: MiB": (kv_cache_bytes(DEEPSEEK_R1, 32768, "q8_0") / 2**20, 1166.62),
    "Llama-3.1-70B Q4_K_M, 2k: GiB": (llamacpp_gib(2048), 40.49),
    "Llama-3.1-70B Q4_K_M, 131k: GiB": (llamacpp_gib(131_072), 95.86),
    "MiniMax-M2, 196,608, fp8: bytes": (kv_cache_bytes(MINIMAX_M2, 196_608, "fp8"), 24_964_497_408),
    "Llama-3.1-405B-FP8, TP 8: weights GiB": (weights_405b(), 57.75),
    "vLLM on a CPU here, 1 GiB: tokens": (
        kv_cache_tokens(Facts(layers=2, kv_heads=1, head_dim=64), GIB, "float32"),
        1_048_576,
    ),
}


@pytest.mark.parametrize("row", PUBLISHED)
def test_the_formula_is_within_a_tenth_of_each_published_row(row: str) -> None:
    ours, published = PUBLISHED[row]
    assert ours == pytest.approx(published, rel=0.1)


def test_29k_are_refused_where_they_were_refused() -> None:
    assert kv_cache_tokens(LLAMA_8B, cache_left(23.58, 0.35, 20_000)) >= 20_000
    assert kv_cache_tokens(LLAMA_8B, cache_left(23.58, 0.35, 29_000)) < 29_000


def test_the_estimate_is_what_llamacpp_allocates() -> None:
    made = estimate(spec(context_length=1024, max_sequences=2), headers.gguf(io.BytesIO(tiny())), 0)
    measured = summary((LOGS / "llamacpp" / "started.txt").read_text())["buffers_mib"]
    assert made.weights_gb * 1024 == pytest.approx(measured["model"], abs=0.01)
    assert made.kv_cache_gb * 1024 == pytest.approx(measured["KV"], abs=0.01)
    assert made.activations_gb * 1024 < measured["compute"] < (made.activations_gb + made.overhead_gb) * 1024
    assert made.on_host_memory


def test_it_says_on_which_gpus_a_model_fits() -> None:
    made = estimate(spec("vllm", context_length=8192), LLAMA_8B, 1)
    host = {
        "gpus": [
            *gpus(1, 16),
            *({**gpu, "index": 1} for gpu in gpus(1, 24)),
            {**gpus(1, 80, used_gib=70)[0], "index": 2},
        ]
    }
    assert made.fits(host) == [1]
    assert made.fits({}) == []
    assert estimate(spec("vllm", context_length=8192, gpus=[0]), LLAMA_8B, 1).fits(host) == []
    parts = made.as_json()
    assert parts["total_per_gpu_gb"] == pytest.approx(
        sum(parts[name] for name in ("weights_gb", "kv_cache_gb", "activations_gb", "overhead_gb")), abs=0.02
    )
    assert parts["required_vram_gb"] == pytest.approx(parts["total_per_gpu_gb"] / 0.92, abs=0.02)


def test_sliding_windows_and_layers_on_the_host_need_less() -> None:
    sliding = LLAMA_8B.model_copy(update={"sliding_window": 1024, "sliding_layers": 16})
    assert kv_cache_bytes(sliding, 32_768) == kv_cache_bytes(LLAMA_8B, 32_768) * (1 + 1024 / 32_768) / 2
    whole, half = (estimate(spec(gpu_layers=layers), LLAMA_70B, 1) for layers in (None, 40))
    assert half.weights_gb == pytest.approx(whole.weights_gb * 40 / 81)
