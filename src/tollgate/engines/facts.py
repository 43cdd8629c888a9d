"""What a model's own files say of it."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict


class Facts(BaseModel):
    """Read from headers, never guessed from a name. 0 and None mean that the files do not say."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    architecture: str | None = None
    name: str | None = None
    layers: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    hidden: int = 0
    ffn: int = 0
    """Width of the feed-forward layers that one token passes; of all experts that it is sent to."""
    vocab: int = 0
    context_length: int = 0
    weight_bytes: int = 0
    """The sum of all tensors."""
    embedding_bytes: int = 0
    """Of the input embeddings, which llama.cpp keeps in host memory."""
    parameters: int = 0
    quantization: str | None = None
    dtype: str | None = None
    mla_rank: int = 0
    mla_rope: int = 0
    """Multi-head latent attention: what is cached is a latent vector and a rotary part."""
    sliding_window: int = 0
    sliding_layers: int = 0
    custom_code: bool = False
    tied_embeddings: bool = False
    parts: int = 1
    missing_bytes: int = 0
    """What the header says should be there, and is not: a file that was cut."""

    @property
    def billions(self) -> float | None:
        return round(self.parameters / 1e9, 2) if self.parameters else None


def join(parts: Iterable[Facts]) -> Facts:
    """One model of several files: the parts of a GGUF file, or the configuration and its safetensors files."""
    given = list(parts)
    fields: dict[str, object] = {}
    for part in given:
        fields |= {name: value for name, value in part if value and not fields.get(name)}
    sums = ("weight_bytes", "embedding_bytes", "missing_bytes")
    fields |= {name: sum(getattr(part, name) for part in given) for name in sums}
    counted = sum(part.parameters for part in given if part.weight_bytes)
    return Facts(**fields | {"parameters": counted or fields.get("parameters", 0)})
