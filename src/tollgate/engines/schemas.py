"""What a deployment runs, and what a host can do."""

import re
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

Engine = Literal["vllm", "sglang", "llamacpp", "tgi", "whisper", "tts", "custom"]
Kind = Literal["text", "transcription", "speech"]
ENGINES: Final[tuple[Engine, ...]] = get_args(Engine)

Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""One word of a command line. It cannot begin another flag."""
ServedName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,127}$")]
RepoId = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,95})?$")
]
Revision = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,127}$")]
RepoFile = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00-\x1f][^\\\x00-\x1f]{0,255}$")]
Image = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][A-Za-z0-9_.:/@-]{0,255}$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]{0,63}$")]
Argument = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f]+$")]
HostPath = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f]+$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HubSource(Strict):
    """Files of a repository on the Hugging Face hub."""

    type: Literal["hub"] = "hub"
    repo_id: RepoId
    revision: Revision = "main"
    files: list[RepoFile] = Field(default=[], max_length=1000, description="Empty for all that the engine needs.")


class PathSource(Strict):
    """A file or a folder of the host, inside its base directory or its allowed roots."""

    type: Literal["path"] = "path"
    path: HostPath


Source = Annotated[HubSource | PathSource, Field(discriminator="type")]


class Spec(Strict):
    """A model, the engine that runs it, and with which options."""

    engine: Engine
    kind: Kind = "text"
    source: Source
    served_name: ServedName
    aliases: list[ServedName] = Field(default=[], max_length=16)
    context_length: int | None = Field(default=None, ge=16, le=100_000_000)
    max_sequences: int | None = Field(default=None, ge=1, le=65_536)
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    tensor_parallel: int = Field(default=1, ge=1, le=64)
    gpus: list[Annotated[int, Field(ge=0, le=255)]] | None = Field(default=None, max_length=64)
    gpu_layers: int | None = Field(default=None, ge=0, le=10_000)
    dtype: Word | None = None
    quantization: Word | None = None
    kv_cache_dtype: Word | None = None
    flash_attention: bool | None = None
    arguments: list[Argument] = Field(default=[], max_length=100)
    environment: dict[Variable, Annotated[str, StringConstraints(max_length=1024, pattern=r"^[^\x00]*$")]] = Field(
        default={}, max_length=32
    )
    container_image: Image | None = None
    custom_command: Word | None = Field(default=None, description="A name on the host's own list of commands.")
    trust_remote_code: bool = False


def version_or_none(given: object) -> str | None:
    """What is not known to be one counts as not known."""
    return given if isinstance(given, str) and re.fullmatch(r"\d{1,2}\.\d{1,2}", given) else None


class Gpu(BaseModel):
    """A GPU of a host, as its agent sees it."""

    model_config = ConfigDict(extra="ignore")

    index: int
    name: str = ""
    memory_total_bytes: int = 0
    memory_used_bytes: int = 0
    compute_capability: Annotated[str | None, BeforeValidator(version_or_none)] = None


class Capabilities(BaseModel):
    """What a host has, and what its own command line allows. Unknown members are ignored: agents may be newer."""

    model_config = ConfigDict(extra="ignore")

    gpus: list[Gpu] = []
    cpu_count: int | None = None
    memory_total_bytes: int | None = None
    container_runtime: str | None = None
    """docker or podman; None where neither is there."""
    allowed_images: list[str] = []
    allowed_commands: list[str] = []
    allowed_flags: list[str] = []
    """Flags and variables of engines, besides those that every host takes."""

    @classmethod
    def of(cls, given: "Capabilities | dict[str, Any] | None") -> "Capabilities | None":
        return given if given is None or isinstance(given, Capabilities) else cls.model_validate(given)


class Warning(BaseModel):  # noqa: A001
    """What is wrong or noteworthy about a spec. An error keeps it from starting."""

    severity: Literal["error", "warning", "info"]
    category: Literal["memory", "args", "config", "container", "security"]
    title: str
    message: str
    fix: str
