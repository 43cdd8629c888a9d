"""Models of hosts in the shape of the RK server's clients."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tollgate.engines.schemas import RepoFile, RepoId, Revision
from tollgate.web.schemas import ChangeBody, Moment

ModelType = Literal["LLM", "ASR", "TTS"]
KINDS = {"LLM": "text", "ASR": "transcription", "TTS": "speech"}
TYPES = {kind: name for name, kind in KINDS.items()}
OTHER_ENGINES = {"ASR": "whisper", "TTS": "tts"}


class NewRegisteredModel(ChangeBody):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "llama", "repo_id": "meta-llama/Llama-3.1-8B", "model_type": "LLM"}]}
    )

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$", description="Also the name by which clients call it."
    )
    repo_id: RepoId
    revision: Revision | None = None
    model_type: ModelType
    auto_download: bool = False
    files: list[RepoFile] = Field([], max_length=1000, description="GGUF files need model_type LLM.")
    think: bool = Field(False, description="Accepted and ignored: a reasoning model is not told apart.")

    @model_validator(mode="after")
    def _has_one_kind_of_files(self) -> Self:
        if any(file.endswith(".gguf") for file in self.files) and self.model_type != "LLM":
            raise PydanticCustomError("files", "GGUF files need model_type LLM")
        return self

    def deployment(self) -> dict[str, Any]:
        """The same as a model of the only host, with the token of Hugging Face named default."""
        of_text = "llamacpp" if any(file.endswith(".gguf") for file in self.files) else "vllm"
        source = {"type": "hub", "repo_id": self.repo_id, "revision": self.revision or "main", "files": self.files}
        return {
            "name": self.name,
            "spec": {
                "engine": OTHER_ENGINES.get(self.model_type, of_text),
                "kind": KINDS[self.model_type],
                "source": source,
                "served_name": self.name,
            },
            "wanted": "on_demand" if self.auto_download else "stopped",
            "hub_token": "default",
        }


class FilesToDownload(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{}]})

    files: list[RepoFile] | None = Field(None, max_length=1000, description="In place of those that were named before.")


class Instances(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"instances": 1}]})

    instances: Literal[1] = 1


class RegisteredModel(BaseModel):
    id: str
    name: str
    repo_id: str | None
    revision: str | None
    model_type: ModelType
    config_path: None = None
    local_path: str | None
    status: Literal["stopped", "downloaded", "running"]
    last_started_at: Moment | None
    last_stopped_at: Moment | None
    created_at: Moment
    updated_at: Moment

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        source = row["spec"]["source"]
        return cls(
            **{
                name: row[name]
                for name in ("id", "name", "last_started_at", "last_stopped_at", "created_at", "updated_at")
            },
            repo_id=source.get("repo_id"),
            revision=source.get("revision"),
            local_path=source.get("path"),
            model_type=TYPES[row["kind"]],
            status="running" if row["state"] == "running" else "downloaded" if row["facts"] else "stopped",
        )
