"""A tiny model for llama.cpp: a Llama of random weights in the GGUF format, written without any library. It answers
with ASCII text of no meaning: the weights have a constant channel, by which other tokens are made unlikely."""

import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

HIDDEN, LAYERS, HEADS, KV_HEADS, FFN, HEAD_DIM = 64, 2, 2, 1, 128, 32
SPECIAL = ("<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
WORDS = ("the", "and", "model", "answers", "with", "words", "of", "no", "meaning", "at", "all", "here")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ALIGNMENT = 32
UINT32, FLOAT32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
NORMAL, CONTROL = 1, 3
UNLIKELY = -100.0


def write(path: Path, context: int = 4096) -> Path:
    tokens = vocabulary()
    path.write_bytes(encoded(metadata(tokens, context), tensors(tokens)))
    return path


def vocabulary() -> list[str]:
    """The special tokens, each byte as GPT-2 writes it, and words that begin with a space."""
    return [*SPECIAL, *(byte_character(byte) for byte in range(256)), *(f"\u0120{word}" for word in WORDS)]


def byte_character(byte: int) -> str:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [one for one in range(256) if one not in printable]
    return chr(byte) if byte in printable else chr(256 + others.index(byte))


def merges() -> list[str]:
    """Those by which the words are made, letter by letter."""
    made: dict[str, None] = {}
    for word in WORDS:
        whole = f"\u0120{word}"
        for end in range(1, len(whole)):
            made[f"{whole[:end]} {whole[end]}"] = None
    return list(made)


def metadata(tokens: Sequence[str], context: int) -> list[tuple[str, int, object]]:
    types = [CONTROL if token in SPECIAL else NORMAL for token in tokens]
    return [
        ("general.architecture", STRING, "llama"),
        ("general.name", STRING, "tiny"),
        ("general.file_type", UINT32, 0),
        ("llama.context_length", UINT32, context),
        ("llama.embedding_length", UINT32, HIDDEN),
        ("llama.block_count", UINT32, LAYERS),
        ("llama.feed_forward_length", UINT32, FFN),
        ("llama.attention.head_count", UINT32, HEADS),
        ("llama.attention.head_count_kv", UINT32, KV_HEADS),
        ("llama.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5),
        ("llama.rope.dimension_count", UINT32, HEAD_DIM),
        ("llama.vocab_size", UINT32, len(tokens)),
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, "gpt-2"),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        ("tokenizer.ggml.token_type", ARRAY, (5, types)),
        ("tokenizer.ggml.merges", ARRAY, (STRING, merges())),
        ("tokenizer.ggml.bos_token_id", UINT32, 0),
        ("tokenizer.ggml.eos_token_id", UINT32, 1),
        ("tokenizer.ggml.add_bos_token", BOOL, False),
        ("tokenizer.chat_template", STRING, TEMPLATE),
    ]


def tensors(tokens: Sequence[str]) -> list[tuple[str, tuple[int, ...], list[float]]]:
    """With the shape as GGUF has it: the fastest dimension first."""
    chance = random.Random(0)  # noqa: S311 the same weights each time

    def weights(rows: int, columns: int) -> list[float]:
        return [chance.gauss(0, 0.05) for _ in range(rows * columns)]

    def ones(count: int) -> list[float]:
        return [1.0] * count

    embedding, output = weights(len(tokens), HIDDEN), weights(len(tokens), HIDDEN)
    for number, token in enumerate(tokens):
        embedding[number * HIDDEN] = 1.0
        output[number * HIDDEN] = 0.0 if is_plain(token) or token == "<|end|>" else UNLIKELY
    made: list[tuple[str, tuple[int, ...], list[float]]] = [
        ("token_embd.weight", (HIDDEN, len(tokens)), embedding),
        ("output_norm.weight", (HIDDEN,), ones(HIDDEN)),
        ("output.weight", (HIDDEN, len(tokens)), output),
    ]
    for layer in range(LAYERS):
        shapes: dict[str, tuple[int, int]] = {
            "attn_q": (HEADS * HEAD_DIM, HIDDEN),
            "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_output": (HIDDEN, HEADS * HEAD_DIM),
            "ffn_gate": (FFN, HIDDEN),
            "ffn_up": (FFN, HIDDEN),
            "ffn_down": (HIDDEN, FFN),
        }
        made += [(f"blk.{layer}.{name}.weight", (HIDDEN,), ones(HIDDEN)) for name in ("attn_norm", "ffn_norm")]
        made += [
            (f"blk.{layer}.{name}.weight", (columns, rows), weights(rows, columns))
            for name, (rows, columns) in shapes.items()
        ]
    return made


def is_plain(token: str) -> bool:
    return token not in SPECIAL and all(
        (character.isascii() and character.isprintable()) or character == "\u0120" for character in token
    )


def encoded(
    pairs: Sequence[tuple[str, int, object]], given: Sequence[tuple[str, tuple[int, ...], list[float]]]
) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(given), len(pairs))
    head += b"".join(string(name) + struct.pack("<I", kind) + value(kind, what) for name, kind, what in pairs)
    data = b""
    for name, shape, numbers in given:
        head += string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", 0, len(data))
        data += padded(struct.pack(f"<{len(numbers)}f", *numbers))
    return padded(head) + data


def string(text: str) -> bytes:
    read = text.encode()
    return struct.pack("<Q", len(read)) + read


def value(kind: int, what: object) -> bytes:
    if kind == ARRAY:
        inner, items = what  # type: ignore[misc]
        return struct.pack("<IQ", inner, len(items)) + b"".join(_SCALARS[inner](item) for item in items)
    return _SCALARS[kind](what)


_SCALARS: dict[int, Callable[..., bytes]] = {
    5: lambda number: struct.pack("<i", number),
    UINT32: lambda number: struct.pack("<I", number),
    FLOAT32: lambda number: struct.pack("<f", number),
    BOOL: lambda yes: struct.pack("<?", yes),
    STRING: string,
}


def padded(read: bytes) -> bytes:
    return read + bytes(-len(read) % ALIGNMENT)
