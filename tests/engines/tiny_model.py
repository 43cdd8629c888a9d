"""A language model of a megabyte that recites, written here as llama.cpp and as vLLM read it.

Each token leads to one other, whatever the temperature, so what a real engine answers is known: a sentence, a thought
before it, the call of a tool, or numbers without an end. The chat template chooses by the first token of the answer.
"""

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

SENTENCE: Final = ("The", " sea", " is", " wide", ",", " and", " nobody", " counts", " its", " waves", ".")
THOUGHT: Final = ("<think>", "Waves", " come", " and go", "</think>")
CALL: Final = ("<tool_call>\n", '{"name": "weather", ', '"arguments": {"city": ', '"Ulm"}}', "\n</tool_call>")
NUMBERS: Final = tuple(f" {number}" for number in range(10, 42))

SAYS: Final = "".join(SENTENCE)
THINKS: Final = "".join(THOUGHT[1:-1])
ARGUMENTS: Final = {"city": "Ulm"}
ENDLESS, THINKING = "forever", "think"
"""Words of a last message that ask for numbers without an end, and for a thought."""

BEGIN, END, ROLE, SAY, CALL_IT, THINK, COUNT = SPECIAL = (
    "<|begin|>", "<|end|>", "<|role|>", "<|say|>", "<|call|>", "<|think|>", "<|count|>",
)  # fmt: skip

TEMPLATE: Final = """{{ bos_token }}{% for message in messages -%}
<|role|>{{ message.role }}
{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif -%}
{% if message.content is string %}{{ message.content }}
{%- elif message.content %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif -%}
{% for one in message.tool_calls or [] %}<tool_call>
{"name": "{{ one.function.name }}", "arguments": {{ one.function.arguments | tojson }}}
</tool_call>{% endfor %}<|end|>
{% endfor %}{% for tool in tools or [] %}{{ tool | tojson }}
{% endfor %}{% if add_generation_prompt %}{% set last = messages[-1] -%}
{% if 'forever' in (last.content | string) %}<|count|>
{%- elif tools and last.role != 'tool' %}<|call|>
{%- elif 'think' in (last.content | string) %}<|think|>
{%- else %}<|say|>{% endif %}{% endif %}"""

CONTEXT: Final = 4096
WIDTH, HEAD, INNER = 384, 64, 64


def _alphabet() -> list[str]:
    """The characters by which GPT-2's tokenizer writes the 256 bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte if byte in shown else next(hidden)) for byte in range(256)]


def _written(text: str) -> str:
    letters = _alphabet()
    return "".join(letters[byte] for byte in text.encode())


PIECES: Final = tuple(dict.fromkeys((*SENTENCE, *THOUGHT, *CALL, *NUMBERS)))
VOCABULARY: Final = (*SPECIAL, *_alphabet(), *(one for one in map(_written, PIECES) if one not in _alphabet()))
"""A piece of one byte is the token of that byte."""
NUMBER_OF: Final = {token: number for number, token in enumerate(VOCABULARY)}


def _followers() -> dict[int, int]:
    """Of each token, the one that follows. What is in no recitation leads to the sentence."""
    chains = (
        (SAY, *SENTENCE, END),
        (CALL_IT, *CALL, END),
        (THINK, *THOUGHT, SENTENCE[0]),
        (COUNT, *NUMBERS, NUMBERS[0]),
    )
    number_of = {**{piece: NUMBER_OF[_written(piece)] for piece in PIECES}, **{one: NUMBER_OF[one] for one in SPECIAL}}
    followers = dict.fromkeys(range(len(VOCABULARY)), number_of[SENTENCE[0]])
    for chain in chains:
        followers |= {number_of[one]: number_of[after] for one, after in pairwise(chain)}
    return followers


def _matrix(rows: int, columns: int, entries: Iterable[tuple[int, int]] = (), value: float = 1.0) -> bytes:
    made = bytearray(4 * rows * columns)
    for row, column in entries:
        struct.pack_into("<f", made, 4 * (row * columns + column), value)
    return bytes(made)


def _ones() -> bytes:
    return struct.pack("<f", 1.0) * WIDTH


class _Tensor:
    def __init__(self, gguf: str, hf: str, shape: Sequence[int], content: bytes) -> None:
        self.gguf, self.hf, self.shape, self.content = gguf, hf, shape, content


def _tensors() -> list[_Tensor]:
    """One layer that changes nothing: the last token alone decides about the next."""
    size, layer = len(VOCABULARY), "model.layers.0."
    same, leads = ((number, number) for number in range(size)), ((after, one) for one, after in _followers().items())
    nothing = (
        ("attn_q", "self_attn.q_proj", HEAD, WIDTH),
        ("attn_k", "self_attn.k_proj", HEAD, WIDTH),
        ("attn_v", "self_attn.v_proj", HEAD, WIDTH),
        ("attn_output", "self_attn.o_proj", WIDTH, HEAD),
        ("ffn_gate", "mlp.gate_proj", INNER, WIDTH),
        ("ffn_up", "mlp.up_proj", INNER, WIDTH),
        ("ffn_down", "mlp.down_proj", WIDTH, INNER),
    )
    norms = (("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm"))
    return [
        _Tensor("token_embd.weight", "model.embed_tokens.weight", (size, WIDTH), _matrix(size, WIDTH, same)),
        _Tensor("output_norm.weight", "model.norm.weight", (WIDTH,), _ones()),
        _Tensor("output.weight", "lm_head.weight", (size, WIDTH), _matrix(size, WIDTH, leads, 2.0)),
        *(_Tensor(f"blk.0.{gguf}.weight", f"{layer}{hf}.weight", (WIDTH,), _ones()) for gguf, hf in norms),
        *(
            _Tensor(f"blk.0.{gguf}.weight", f"{layer}{hf}.weight", (rows, columns), _matrix(rows, columns))
            for gguf, hf, rows, columns in nothing
        ),
    ]


def write_gguf(file: Path) -> Path:
    """For llama.cpp: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""
    _write(file, _facts(), _tensors())
    return file


def write_parts(folder: Path) -> Path:
    """The same in two files. Answers the first, which names the other by its own name."""
    tensors = _tensors()
    half = len(tensors) // 2
    files = [folder / f"tiny-{number:05}-of-00002.gguf" for number in (1, 2)]
    for number, (file, some) in enumerate(zip(files, (tensors[:half], tensors[half:]), strict=True)):
        split = {"split.no": Short(number), "split.count": Short(2), "split.tensors.count": Signed(len(tensors))}
        _write(file, {**({} if number else _facts()), **split}, some)
    return files[0]


class Short(int):
    """Of 16 bits."""


class Signed(int):
    """Of 32 bits."""


def _facts() -> dict[str, Any]:
    return {
        "general.architecture": "llama",
        "general.name": "reciting",
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.block_count": 1,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": 1,
        "llama.attention.head_count_kv": 1,
        "llama.attention.key_length": HEAD,
        "llama.attention.value_length": HEAD,
        "llama.attention.layer_norm_rms_epsilon": 1e-6,
        "llama.rope.dimension_count": HEAD,
        "llama.vocab_size": len(VOCABULARY),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": list(VOCABULARY),
        "tokenizer.ggml.token_type": [3 if token in SPECIAL else 1 for token in VOCABULARY],
        "tokenizer.ggml.merges": [" ".join(_written(NUMBERS[0])[:2])],
        "tokenizer.ggml.bos_token_id": NUMBER_OF[BEGIN],
        "tokenizer.ggml.eos_token_id": NUMBER_OF[END],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }


def _write(file: Path, facts: dict[str, Any], tensors: "list[_Tensor]") -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    head += b"".join(_text(name) + _fact(value) for name, value in facts.items())
    place = 0
    for one in tensors:
        head += _text(one.gguf) + struct.pack("<I", len(one.shape))
        head += struct.pack(f"<{len(one.shape)}QIQ", *reversed(one.shape), 0, place)
        place += len(_aligned(one.content))
    file.write_bytes(_aligned(head) + b"".join(_aligned(one.content) for one in tensors))


def _aligned(content: bytes) -> bytes:
    return content + bytes(-len(content) % 32)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _fact(value: Any) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case Short():
            return struct.pack("<IH", 2, value)
        case Signed():
            return struct.pack("<Ii", 5, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _text(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
        case _:
            return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)


def write_folder(folder: Path) -> None:
    """For vLLM: a folder as Hugging Face's libraries read it."""
    folder.mkdir(exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
        "vocab_size": len(VOCABULARY),
        "bos_token_id": NUMBER_OF[BEGIN],
        "eos_token_id": NUMBER_OF[END],
        "torch_dtype": "float32",
    }
    bytes_as_letters = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True, "type": "ByteLevel"}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": NUMBER_OF[one], "content": one, **plain} for one in SPECIAL],
        "pre_tokenizer": bytes_as_letters,
        "decoder": bytes_as_letters,
        "model": {"type": "BPE", "vocab": NUMBER_OF, "merges": []},
    }
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
    for name, content in (("config", config), ("tokenizer", tokenizer), ("tokenizer_config", about)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "model.safetensors").write_bytes(_safetensors(_tensors()))


def _safetensors(tensors: Sequence[_Tensor]) -> bytes:
    head: dict[str, Mapping[str, Any]] = {}
    place = 0
    for one in tensors:
        head[one.hf] = {"dtype": "F32", "shape": one.shape, "data_offsets": (place, place + len(one.content))}
        place += len(one.content)
    written = json.dumps(head).encode()
    return struct.pack("<Q", len(written)) + written + b"".join(one.content for one in tensors)
