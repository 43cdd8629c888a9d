"""What the control plane tells an agent. Unknown fields are ignored, so that either side may be newer."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tollgate.engines.schemas import Spec

TaskKind = Literal["local_folders", "inspect_folder", "logs", "test", "delete_files", "hub_config"]


class Told(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Desired(Told):
    """One deployment, as it should be."""

    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    generation: int
    wanted: Literal["running", "stopped", "on_demand"]
    spec: Spec
    drain_seconds: float = Field(default=30, ge=0)
    idle_seconds: float | None = Field(default=None, ge=0)
    minimum_stay_seconds: float = Field(default=0, ge=0)
    load_seconds: float = Field(default=60, ge=0)


class HostState(Told):
    state: Literal["active", "cordoned", "retired"] = "active"
    base_dir: str | None = None


class Task(Told):
    id: str
    kind: str
    arguments: dict[str, Any] = {}


class Answer(Told):
    """To a sync."""

    desired_version: int
    deployments: list[dict[str, Any]] | None = None
    """One that cannot be read concerns itself only, so each is read alone. None if nothing changed."""
    host: HostState = HostState()
    tasks: list[Task] = []
    host_keys: list[str] = []
    hub_tokens: dict[str, str] = {}
    poll_seconds: float = Field(default=10, gt=0)


class Enrolled(Told):
    """To an enrolment."""

    host_id: str
    host_key: str
    poll_seconds: float = 10
