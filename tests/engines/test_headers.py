"""Headers are read, and hostile ones are refused before they cost anything."""

import contextlib
import io
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.gguf_files import gguf, text, tiny
from engines.headers_of import safetensors_header
from tollgate.engines import headers
from tollgate.engines.facts import Facts, join
from tollgate.engines.headers import BadHeader


def test_a_gguf_header_says_what_the_model_is() -> None:
    file = tiny()
    facts = headers.gguf(io.BytesIO(file), len(file))
    assert facts.model_dump(exclude_defaults=True) == {
        "architecture": "llama", "name": "tiny-random", "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 64,
        "hidden": 128, "ffn": 256, "vocab": 273, "context_length": 4096, "weight_bytes": 1_461_760,
        "embedding_bytes": 273 * 128 * 4, "parameters": 365_440, "quantization": "F32",
    }  # fmt: skip
    assert Facts.model_validate_json(facts.model_dump_json()) == facts
    assert headers.gguf(io.BytesIO(file), len(file) - 1000).missing_bytes == 1000


def test_types_of_tensors_have_their_sizes() -> None:
    kinds = [("a", [4096], 12, b""), ("b", [4096], 8, b""), ("token_embd.weight", [32], 39, b"")]
    facts = headers.gguf(io.BytesIO(gguf({"general.architecture": "qwen3", "general.alignment": 32}, kinds)))
    assert facts.weight_bytes == 4096 // 256 * 144 + 4096 // 32 * 34 + 17
    assert facts.embedding_bytes == 17
    assert facts.tied_embeddings
    assert facts.quantization == "Q4_K"


def test_heads_that_differ_by_layer_and_latent_attention_are_read() -> None:
    pairs = {
        "general.architecture": "deepseek2", "deepseek2.block_count": 61, "deepseek2.attention.head_count": 128,
        "deepseek2.attention.head_count_kv": [0, 8, 4], "deepseek2.attention.kv_lora_rank": 512,
        "deepseek2.rope.dimension_count": 64, "deepseek2.expert_used_count": 8,
        "deepseek2.expert_feed_forward_length": 2048, "split.count": 3,
    }  # fmt: skip
    facts = headers.gguf(io.BytesIO(gguf(pairs, [])))
    assert (facts.kv_heads, facts.mla_rank, facts.mla_rope, facts.ffn, facts.parts) == (8, 512, 64, 16384, 3)


HEAD = b"GGUF" + struct.pack("<I", 3)
PAIR = text("a") + struct.pack("<I", 9)
HOSTILE = {
    "an LFS pointer": b"version https://git-lfs.github.com/spec/v1",
    "a web page": b"<!DOCTYPE html>",
    "nothing": b"",
    "another version": b"GGUF" + struct.pack("<I", 99),
    "more tensors than may be": HEAD + struct.pack("<QQ", 2**63, 0),
    "more pairs than may be": HEAD + struct.pack("<QQ", 0, 2**63),
    "a name of 2**40 bytes": HEAD + struct.pack("<QQQ", 0, 1, 2**40),
    "an array of 2**60 numbers": HEAD + struct.pack("<QQ", 0, 1) + PAIR + struct.pack("<IQ", 4, 2**60),
    "arrays in arrays": HEAD + struct.pack("<QQ", 0, 1) + PAIR + struct.pack("<IQ", 9, 1),
    "an unknown type": HEAD + struct.pack("<QQ", 0, 1) + text("a") + struct.pack("<I", 77),
    "a text that skips past all": HEAD + struct.pack("<QQ", 0, 1) + PAIR + struct.pack("<IQQ", 8, 1, 2**62),
    "many texts that skip far": HEAD
    + struct.pack("<QQ", 0, 1) + PAIR + struct.pack("<IQ", 8, 10**6) + b"\xff\xff\x3f\0\0\0\0\0" * 99,
    "a tensor of 2**100 values": gguf({}, [("a", [2**50, 2**50], 0, b"")]),
    "a tensor of a hundred dimensions": gguf({}, [("a", [1] * 100, 0, b"")]),
    "a tensor of an unknown type": gguf({}, [("a", [1], 250, b"")]),
    "fewer tensors than it says": gguf({}, [], tensor_count=9),
}  # fmt: skip


@pytest.mark.parametrize("file", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_gguf_header_is_refused(file: bytes) -> None:
    with pytest.raises(BadHeader):
        headers.gguf(io.BytesIO(file), len(file))


def test_a_safetensors_header_gives_the_bytes_of_its_tensors() -> None:
    file = safetensors_header({"model.embed_tokens.weight": ("BF16", [100, 8]), "b": ("F8_E4M3", [10])})
    facts = headers.safetensors(file, len(file.getvalue()) + 1600)
    assert facts == Facts(weight_bytes=1610, embedding_bytes=1600, parameters=810, dtype="BF16", missing_bytes=10)


def packed(header: object, length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded


@pytest.mark.parametrize(
    "file",
    [
        b"GGUF",
        b"<!DOCTYPE html>",
        packed(b"{}", 2**40),
        packed(b"{}", 100),
        packed(b"[" * 100_000),
        packed([]),
        packed({"a": 1}),
        packed({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}),
        packed({"a": {"dtype": "F32", "shape": [2**50, 2**50], "data_offsets": [0, 4]}}),
        packed({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**50]}}),
        packed({"a": {"dtype": "X", "shape": [1], "data_offsets": [0, 4]}}),
    ],
)
def test_a_hostile_safetensors_header_is_refused(file: bytes) -> None:
    with pytest.raises(BadHeader):
        headers.safetensors(io.BytesIO(file))


def test_config_json_of_a_model_of_several_parts() -> None:
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"], "auto_map": {"AutoModel": "x.py"},
        "quantization_config": {"quant_method": "awq"},
        "text_config": {
            "model_type": "gemma3_text", "hidden_size": 3840, "num_hidden_layers": 48, "num_attention_heads": 16,
            "num_key_value_heads": 8, "head_dim": 256, "intermediate_size": 15360, "vocab_size": 262208,
            "max_position_embeddings": 131072, "sliding_window": 1024, "tie_word_embeddings": True, "dtype": "bfloat16",
        },
    }  # fmt: skip
    facts = headers.config_json(json.dumps(config).encode())
    assert (facts.layers, facts.kv_heads, facts.head_dim, facts.context_length) == (48, 8, 256, 131072)
    assert (facts.sliding_window, facts.sliding_layers) == (1024, 40)
    assert (facts.custom_code, facts.quantization, facts.architecture) == (True, "awq", config["architectures"][0])  # type: ignore[index]
    assert facts.billions == pytest.approx(11.8, rel=0.03)


@pytest.mark.parametrize("config", [b"[]", b"no", b'{"a":' * 5000, b" " * 3_000_000])
def test_a_hostile_config_is_refused(config: bytes) -> None:
    with pytest.raises(BadHeader):
        headers.config_json(config)


SMALL = gguf(
    {"general.architecture": "llama", "llama.block_count": 2, "general.name": "n", "tokenizer.ggml.tokens": ["a", "b"]},
    [("token_embd.weight", [32, 2], 0, bytes(256)), ("b", [256], 12, bytes(144))],
)


@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_a_damaged_gguf_header_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    file = bytearray(SMALL)
    for at, byte in changes:
        file[at] = byte
    with contextlib.suppress(BadHeader):
        headers.gguf(io.BytesIO(file), len(file)).model_dump_json()


TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
VALUES: list[object] = [
    None, True, -1, 10**30, 1.5, "x", "é" * 10_000, [], [None], ["sliding_attention", 1], {}, {"quant_method": []},
    TENSOR, TENSOR | {"shape": "x"}, TENSOR | {"shape": [1.5]}, TENSOR | {"data_offsets": [4, 0]}, {"head_dim": [[1]]},
]  # fmt: skip
NAMES = [
    "architectures", "model_type", "text_config", "num_hidden_layers", "num_attention_heads", "head_dim", "layer_types",
    "sliding_window", "quantization_config", "dtype", "hidden_act", "num_experts", "moe_intermediate_size", "auto_map",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES)))
@settings(max_examples=100, deadline=None)
def test_any_json_is_a_config_or_refused(config: dict[str, object]) -> None:
    headers.config_json(config).model_dump_json()
    with contextlib.suppress(BadHeader):
        headers.safetensors(io.BytesIO(packed(config)))


def test_numbers_of_a_config_that_cannot_be_are_left_out() -> None:
    facts = headers.config_json(
        {"num_hidden_layers": -1, "hidden_size": 10**30, "vocab_size": "many", "head_dim": True}
    )
    assert facts == Facts()


def test_the_files_of_one_model_are_joined() -> None:
    whole = join(
        [
            headers.config_json({"num_hidden_layers": 3}),
            Facts(weight_bytes=5, parameters=7),
            Facts(weight_bytes=6, parameters=8),
        ]
    )
    assert (whole.layers, whole.weight_bytes, whole.parameters) == (3, 11, 15)
