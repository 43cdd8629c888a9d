"""Writes GGUF files, without numpy: a tiny model that llama.cpp runs and answers text with, and headers of any shape.

The weights are random. A constant channel of the embeddings favours printable tokens, so that answers are text.
"""

import functools
import random
import struct
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HIDDEN, LAYERS, HEADS, KV_HEADS, WIDTH, HEAD = 128, 2, 2, 1, 256, 64
CONTROL = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|tool|>", "<|pad|>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
F32 = 0
SCALE = 0.05 * 3**0.5 / 2**15
"""Of even 16-bit numbers, to a deviation of 0.05."""
ALIGNMENT = 32
Tensor = tuple[str, Sequence[int], int, bytes]
"""Name, dimensions, type, data."""


def text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def value(given: Any) -> bytes:
    """With its type before it."""
    match given:
        case bool():
            return struct.pack("<I?", 7, given)
        case int():
            return struct.pack("<II", 4, given)
        case float():
            return struct.pack("<If", 6, given)
        case str():
            return struct.pack("<I", 8) + text(given)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(given)) + b"".join(map(text, given))
    return struct.pack(f"<IIQ{len(given)}i", 9, 5, len(given), *given)


def gguf(pairs: Mapping[str, Any], tensors: Sequence[Tensor], tensor_count: int | None = None) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors) if tensor_count is None else tensor_count, len(pairs))
    head += b"".join(text(name) + value(given) for name, given in pairs.items())
    offset, body = 0, b""
    for name, shape, kind, data in tensors:
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        body += data + bytes(-len(data) % ALIGNMENT)
        offset = len(body)
    return head + bytes(-len(head) % ALIGNMENT) + body


def printable_bytes() -> list[str]:
    """The alphabet of byte-level BPE: each byte as one printable character."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in kept else next(others)) for byte in range(256)]


@functools.cache
def tiny(architecture: str = "llama", **changes: Any) -> bytes:
    """3 MB less the vocabulary: 263 tokens, two layers. `changes` are members of the metadata, with `__` for a dot."""
    letters = printable_bytes()
    merges = ["Ġ t", "h e", "i n", "e r", "o n", "Ġ a", "r e", "a t", "Ġ s", "e n"]
    tokens = [*CONTROL, *letters, *(merge.replace(" ", "") for merge in merges)]
    pairs: dict[str, Any] = {
        "general.architecture": architecture,
        "general.name": "tiny-random",
        "general.file_type": 0,
        "llama.context_length": 4096,
        "llama.embedding_length": HIDDEN,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": WIDTH,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": HEAD,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL)),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 6,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    pairs |= {name.replace("__", "."): given for name, given in changes.items()}
    return gguf(pairs, weights(tokens))


def weights(tokens: Sequence[str]) -> list[Tensor]:
    chance = random.Random(0)  # noqa: S311

    def noise(rows: int, columns: int) -> array[float]:
        even = array("h", chance.randbytes(2 * rows * columns))
        return array("f", [number * SCALE for number in even])

    def of(name: str, rows: int, columns: int, data: array[float] | None = None) -> Tensor:
        return name, [columns, rows], F32, (data or noise(rows, columns)).tobytes()

    ones = array("f", [1.0] * HIDDEN).tobytes()
    embeddings, output = noise(len(tokens), HIDDEN), noise(len(tokens), HIDDEN)
    for number, token in enumerate(tokens):
        plain = number >= len(CONTROL) and all(letter in "ĠĊ" or "!" <= letter <= "~" for letter in token)
        embeddings[number * HIDDEN] = 1.0
        output[number * HIDDEN] = 0.0 if plain or token == "<|end|>" else -100.0
    tensors = [
        of("token_embd.weight", len(tokens), HIDDEN, embeddings),
        ("output_norm.weight", [HIDDEN], F32, ones),
        of("output.weight", len(tokens), HIDDEN, output),
    ]
    for layer in (f"blk.{number}." for number in range(LAYERS)):
        tensors += [(f"{layer}{name}_norm.weight", [HIDDEN], F32, ones) for name in ("attn", "ffn")]
        tensors += [
            of(f"{layer}attn_q.weight", HEADS * HEAD, HIDDEN),
            of(f"{layer}attn_k.weight", KV_HEADS * HEAD, HIDDEN),
            of(f"{layer}attn_v.weight", KV_HEADS * HEAD, HIDDEN),
            of(f"{layer}attn_output.weight", HIDDEN, HEADS * HEAD),
            of(f"{layer}ffn_gate.weight", WIDTH, HIDDEN),
            of(f"{layer}ffn_up.weight", WIDTH, HIDDEN),
            of(f"{layer}ffn_down.weight", HIDDEN, WIDTH),
        ]
    return tensors


def write_tiny(path: Path, **changes: Any) -> Path:
    path.write_bytes(tiny(**changes))
    return path
