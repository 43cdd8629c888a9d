"""Reads what model files say at their beginning: GGUF, safetensors, config.json.

Files come from strangers. Every count and length is bounded before it is used, and what a header claims of the file is
compared with the file's size.
"""

import io
import json
import re
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, Final, NamedTuple

from tollgate.engines.facts import Facts

MOST_HEADER_BYTES: Final = 128 * 2**20
"""Of a GGUF file. Large vocabularies have ten million bytes."""
MOST_SAFETENSORS_BYTES: Final = 16 * 2**20
MOST_CONFIG_BYTES: Final = 2 * 2**20
MOST_PAIRS: Final = 10_000
MOST_TENSORS: Final = 500_000
MOST_DIMENSIONS: Final = 8
MOST_ELEMENTS: Final = 2_000_000
"""Of an array in the metadata."""
MOST_NAME_BYTES: Final = 1024
MOST_STRING_BYTES: Final = 4 * 2**20
MOST_BYTES: Final = 2**60
MOST_SHOWN: Final = 100

_SCALARS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_BLOCKS: Final = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
"""Of each tensor type: its name, values in a block, bytes of a block."""
_FILE_TYPES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
}  # fmt: skip
_BITS: Final = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "U16": 16,
    "U32": 32, "U64": 64, "BOOL": 8, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


class BadHeader(ValueError):
    """The file is not what its name says, or its header claims what cannot be. The message says which."""


class Tensor(NamedTuple):
    name: str
    elements: int
    type_number: int
    offset: int

    def bytes(self) -> int:
        if self.type_number not in _BLOCKS:
            raise BadHeader(f"A tensor has the type {self.type_number}, which is not known here.")
        _, values, size = _BLOCKS[self.type_number]
        return -(-self.elements // values) * size


class _Reader:
    """Little-endian values from a bounded part of a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = MOST_HEADER_BYTES

    def take(self, count: int) -> bytes:
        self._spend(count)
        read = self._file.read(count)
        if len(read) != count:
            raise BadHeader("The file ends within its header.")
        return read

    def skip(self, count: int) -> None:
        self._spend(count)
        self._file.seek(count, io.SEEK_CUR)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def count(self, form: str, most: int, what: str) -> int:
        found: int = self.number(form)
        if found > most:
            raise BadHeader(f"The header claims {found} {what}; {most} are the most.")
        return found

    def text(self, most: int = MOST_STRING_BYTES) -> str:
        return self.take(self.count("<Q", most, "bytes in a text")).decode("utf-8", "replace")

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise BadHeader(f"The header is longer than {MOST_HEADER_BYTES} bytes.")


def gguf(file: BinaryIO, size: int | None = None) -> Facts:
    """Facts of one GGUF file. With its size, what is missing of a cut file is known too."""
    reader = _Reader(file)
    magic = reader.take(4)
    if magic != b"GGUF":
        raise BadHeader(f"The file begins with {magic!r}, not with b'GGUF'.")
    version = reader.number("<I")
    if version not in (2, 3):
        raise BadHeader(f"GGUF version {version} is not known here.")
    tensor_count = reader.count("<Q", MOST_TENSORS, "tensors")
    pairs = dict(_pair(reader) for _ in range(reader.count("<Q", MOST_PAIRS, "pairs of metadata")))
    tensors = [_tensor(reader) for _ in range(tensor_count)]
    facts = _gguf_facts(pairs, tensors)
    if size is None or not tensors:
        return facts
    alignment = _whole(pairs.get("general.alignment")) or 32
    start = -(-(MOST_HEADER_BYTES - reader._left) // alignment) * alignment
    end = start + max(tensor.offset + tensor.bytes() for tensor in tensors)
    return facts.model_copy(update={"missing_bytes": max(0, end - size)})


def _pair(reader: _Reader) -> tuple[str, Any]:
    return reader.text(MOST_NAME_BYTES), _value(reader, reader.number("<I"))


def _value(reader: _Reader, kind: int) -> Any:
    """Of an array only the length is kept, but for short lists of numbers: heads may differ from layer to layer."""
    if kind == _STRING:
        return reader.text()
    if kind != _ARRAY:
        return reader.number(_scalar(kind))
    inner = reader.number("<I")
    length = reader.count("<Q", MOST_ELEMENTS, "elements in an array")
    if inner == _STRING:
        for _ in range(length):
            reader.skip(reader.count("<Q", MOST_STRING_BYTES, "bytes in a text"))
        return length
    form = _scalar(inner)
    if length > MOST_NAME_BYTES:
        reader.skip(length * struct.calcsize(form))
        return length
    return [reader.number(form) for _ in range(length)]


def _scalar(kind: int) -> str:
    if kind not in _SCALARS:
        raise BadHeader(f"The metadata has a value of type {kind}, which is not known here.")
    return _SCALARS[kind]


def _tensor(reader: _Reader) -> Tensor:
    name = reader.text(MOST_NAME_BYTES)
    elements = 1
    for _ in range(reader.count("<I", MOST_DIMENSIONS, "dimensions of a tensor")):
        elements *= reader.number("<Q")
        if elements > MOST_BYTES:
            raise BadHeader(f"The tensor {name!r} is too large.")
    return Tensor(name, elements, reader.number("<I"), reader.count("<Q", MOST_BYTES, "bytes before a tensor"))


def _gguf_facts(pairs: Mapping[str, Any], tensors: list[Tensor]) -> Facts:
    architecture = _word(pairs.get("general.architecture"))
    of = {name: pairs.get(f"{architecture}.{name}") for name in _GGUF_NAMES}
    heads = _whole(of["attention.head_count"])
    layers = _whole(of["block_count"])
    hidden = _whole(of["embedding_length"])
    window = _whole(of["attention.sliding_window"])
    rank = _whole(of["attention.kv_lora_rank"])
    vocab = _whole(of["vocab_size"]) or _whole(pairs.get("tokenizer.ggml.tokens"))
    names = {tensor.name for tensor in tensors}
    return Facts(
        architecture=architecture,
        name=_word(pairs.get("general.name")),
        layers=layers,
        heads=heads,
        kv_heads=_whole(of["attention.head_count_kv"]) or heads,
        head_dim=_whole(of["attention.key_length"]) or (hidden // heads if heads else 0),
        hidden=hidden,
        ffn=max(
            _whole(of["feed_forward_length"]),
            _whole(of["expert_feed_forward_length"]) * _whole(of["expert_used_count"]),
        ),
        vocab=vocab,
        context_length=_whole(of["context_length"]),
        weight_bytes=sum(tensor.bytes() for tensor in tensors),
        embedding_bytes=sum(tensor.bytes() for tensor in tensors if tensor.name == "token_embd.weight"),
        parameters=sum(tensor.elements for tensor in tensors),
        quantization=_quantization(pairs, tensors),
        mla_rank=rank,
        mla_rope=_whole(of["rope.dimension_count"]) if rank else 0,
        sliding_window=window,
        sliding_layers=_sliding_layers(architecture or "", layers, window),
        tied_embeddings=bool(names) and "token_embd.weight" in names and "output.weight" not in names,
        parts=_whole(pairs.get("split.count")) or 1,
    )


_GGUF_NAMES: Final = (
    "block_count", "attention.head_count", "attention.head_count_kv", "attention.key_length", "embedding_length",
    "feed_forward_length", "expert_feed_forward_length", "expert_used_count", "vocab_size", "context_length",
    "attention.kv_lora_rank", "rope.dimension_count", "attention.sliding_window",
)  # fmt: skip


def _quantization(pairs: Mapping[str, Any], tensors: list[Tensor]) -> str | None:
    """The type that the file states, else the type of most of its values."""
    stated = pairs.get("general.file_type")
    if isinstance(stated, int) and stated in _FILE_TYPES:
        return _FILE_TYPES[stated]
    by_type: dict[int, int] = {}
    for tensor in tensors:
        by_type[tensor.type_number] = by_type.get(tensor.type_number, 0) + tensor.elements
    return _BLOCKS[max(by_type, key=by_type.__getitem__)][0] if by_type else None


def _sliding_layers(architecture: str, layers: int, window: int) -> int:
    """Which layers slide depends on the architecture. Of an unknown one, none do: that is the larger estimate."""
    if not window:
        return 0
    one_full_of = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "gptoss": 2, "cohere2": 4, "llama4": 4}
    name = architecture.lower().removesuffix("_text")
    every = one_full_of.get(name) or one_full_of.get(name.replace("_", "-"))
    return layers - layers // every if every else 0


def safetensors(file: BinaryIO, size: int | None = None) -> Facts:
    """The bytes, values and types of the tensors of one safetensors file."""
    length = file.read(8)
    if len(length) < 8:
        raise BadHeader("The file ends within its header.")
    count = int.from_bytes(length, "little")
    if count > MOST_SAFETENSORS_BYTES:
        raise BadHeader(
            f"The header claims {count} bytes; {MOST_SAFETENSORS_BYTES} are the most. It is no safetensors file."
        )
    tensors = _json_object(file.read(count), count)
    tensors.pop("__metadata__", None)
    if len(tensors) > MOST_TENSORS:
        raise BadHeader(f"The header claims {len(tensors)} tensors; {MOST_TENSORS} are the most.")
    sizes = {name: _of_safetensors(name, tensor) for name, tensor in tensors.items()}
    by_type: dict[str, int] = {}
    for elements, bits, _, kind in sizes.values():
        by_type[kind] = by_type.get(kind, 0) + elements * bits
    end = max((end for _, _, end, _ in sizes.values()), default=0) + 8 + count
    return Facts(
        weight_bytes=sum(elements * bits // 8 for elements, bits, _, _ in sizes.values()),
        embedding_bytes=sum(
            elements * bits // 8 for name, (elements, bits, _, _) in sizes.items() if "embed_tokens.weight" in name
        ),
        parameters=sum(elements for elements, _, _, _ in sizes.values()),
        dtype=max(by_type, key=by_type.__getitem__) if by_type else None,
        missing_bytes=0 if size is None else max(0, end - size),
    )


def _of_safetensors(name: str, tensor: Any) -> tuple[int, int, int, str]:
    """Its elements, the bits of each, where it ends, and its type."""
    match tensor:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(start), int(end)]} if kind in _BITS:
            elements = 1
            for dimension in shape:
                elements *= dimension if isinstance(dimension, int) and dimension >= 0 else MOST_BYTES + 1
                if elements > MOST_BYTES:
                    raise BadHeader(f"The tensor {name[:80]!r} is too large.")
            if end - start == elements * _BITS[kind] // 8 and 0 <= start <= end <= MOST_BYTES:
                return elements, _BITS[kind], end, kind
    raise BadHeader(f"The tensor {name[:80]!r} is not described as it should be.")


def _json_object(read: bytes, expected: int | None = None) -> dict[str, Any]:
    if expected is not None and len(read) < expected:
        raise BadHeader("The file ends within its header.")
    try:
        found = json.loads(read)
    except (ValueError, RecursionError) as error:
        raise BadHeader("The header is not JSON.") from error
    if not isinstance(found, dict):
        raise BadHeader("The header is not a JSON object.")
    return found


def config_json(given: bytes | Mapping[str, Any]) -> Facts:
    """Facts of a model from its config.json, of its language model where it has several."""
    if isinstance(given, bytes) and len(given) > MOST_CONFIG_BYTES:
        raise BadHeader(f"config.json is longer than {MOST_CONFIG_BYTES} bytes.")
    whole = _json_object(given) if isinstance(given, bytes) else given
    inner: dict[str, Any] = next((whole[name] for name in _NESTED if isinstance(whole.get(name), dict)), {})
    config = {**whole, **inner}
    heads = _first(config, "num_attention_heads", "n_head", "num_heads", "encoder_attention_heads")
    hidden = _first(config, "hidden_size", "n_embd", "d_model")
    layers = _first(config, "num_hidden_layers", "n_layer", "num_layers", "decoder_layers")
    window = 0 if config.get("use_sliding_window") is False else _first(config, "sliding_window")
    kinds = config.get("layer_types")
    architectures = whole.get("architectures")
    return Facts(
        architecture=_word(architectures[0]) if isinstance(architectures, list) and architectures else None,
        name=_word(config.get("model_type")),
        layers=layers,
        heads=heads,
        kv_heads=_first(config, "num_key_value_heads", "multi_query_group_num", "n_head_kv") or heads,
        head_dim=_first(config, "head_dim") or (hidden // heads if heads else 0),
        hidden=hidden,
        ffn=_ffn(config, hidden),
        vocab=_first(config, "vocab_size"),
        context_length=_first(config, "max_position_embeddings", "n_positions", "seq_length", "max_target_positions"),
        quantization=_stated_quantization(whole),
        dtype=_word(config.get("dtype") or config.get("torch_dtype")),
        mla_rank=_first(config, "kv_lora_rank"),
        mla_rope=_first(config, "qk_rope_head_dim"),
        sliding_window=window,
        sliding_layers=_listed(kinds)
        if isinstance(kinds, list)
        else _sliding_layers(str(config.get("model_type", "")), layers, window),
        custom_code=bool(whole.get("auto_map")),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        parameters=_parameters(config, layers, hidden, heads),
    )


_NESTED: Final = ("text_config", "llm_config", "language_config", "thinker_config")


def _whole(value: object) -> int:
    """A count that may be; of a list the largest. 0 for all else."""
    if isinstance(value, list):
        return max((_whole(one) for one in value), default=0)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**9 else 0


def _word(value: object) -> str | None:
    """A name, as far as it is shown."""
    return value[:MOST_SHOWN] or None if isinstance(value, str) else None


def _first(config: Mapping[str, Any], *names: str) -> int:
    return next((found for name in names if (found := _whole(config.get(name)))), 0)


def _listed(kinds: list[Any]) -> int:
    return sum(kind == "sliding_attention" for kind in kinds)


def _ffn(config: Mapping[str, Any], hidden: int) -> int:
    experts = _first(config, "moe_intermediate_size") * _first(config, "num_experts_per_tok", "num_experts_per_token")
    dense = _first(config, "intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim")
    return max(dense, experts) or 4 * hidden


def _stated_quantization(config: Mapping[str, Any]) -> str | None:
    stated = config.get("quantization_config") or config.get("compression_config")
    return _word(stated.get("quant_method")) if isinstance(stated, dict) else None


def _parameters(config: Mapping[str, Any], layers: int, hidden: int, heads: int) -> int:
    """Of attention, feed-forward layers and embeddings: within some percent of what is published."""
    head_dim = _first(config, "head_dim") or (hidden // heads if heads else 0)
    kv_heads = _first(config, "num_key_value_heads") or heads
    attention = 2 * hidden * head_dim * (heads + kv_heads)
    experts = _first(config, "num_experts", "num_local_experts", "n_routed_experts") or 1
    width = _first(config, "moe_intermediate_size") if experts > 1 else 0
    gated = (
        2
        if re.fullmatch(r"gelu(_new)?|relu", str(config.get("hidden_act", config.get("activation_function", ""))))
        else 3
    )
    feed_forward = gated * hidden * (width or _ffn(config, hidden)) * experts
    embeddings = hidden * _first(config, "vocab_size") * (1 if config.get("tie_word_embeddings") else 2)
    return layers * (attention + feed_forward) + embeddings
