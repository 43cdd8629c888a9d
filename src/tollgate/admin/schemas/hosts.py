"""Hosts, as operators write and see them."""

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tollgate.fleet.schemas import HostState, IngressUrl, Sample
from tollgate.web.faults import ONE_LINE
from tollgate.web.schemas import ChangeBody, Identifier, Moment, Name, PageQuery

HostId = Annotated[Identifier, Path(description="The id of the host.", examples=["hst_019aa5c1d2e37f60"])]
BaseDir = Annotated[
    str,
    Field(
        max_length=1024,
        pattern=r"^/[^\x00-\x1f\x7f-\x9f]*$",
        description="The folder of the host that models are looked for in. The agent accepts only folders that its own "
        "command line allows.",
        examples=["/srv/models"],
    ),
]
Label = Annotated[str, StringConstraints(max_length=100, pattern=ONE_LINE)]
Labels = Annotated[dict[Label, Label], Field(max_length=32)]
Contact = Literal["never", "seen", "unseen"]
CONTACT = "unseen: the agent has not called for 45 seconds. What runs on the host is left as it is."


class NewHost(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "gpu-1"}]})

    name: Name
    labels: Labels = Field({})
    ingress_url: IngressUrl | None = Field(
        None, description="Where Tollgate reaches the host's ingress. Default: what the agent says."
    )
    base_dir: BaseDir | None = None


class HostChange(ChangeBody):
    """A field that is left out stays as it is; null removes an optional value."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "gpu-1", "labels": {"rack": "b4"}}]})

    name: Name | None = None
    labels: Labels | None = None
    ingress_url: IngressUrl | None = None
    base_dir: BaseDir | None = None


class LastSample(Sample):
    sampled_at: Moment


class HostDetails(BaseModel):
    id: str
    name: str
    state: HostState
    contact: Contact = Field(description=CONTACT)
    labels: dict[str, str]
    base_dir: str | None
    ingress_url: str | None
    agent_version: str | None
    capabilities: dict[str, Any] | None = Field(description="What the host has, and what its command line allows.")
    sample: LastSample | None
    models: int
    running: int
    enrolled_at: Moment | None
    last_seen_at: Moment | None
    created_at: Moment
    updated_at: Moment


class Enrolment(BaseModel):
    token: str = Field(description="Shown only here. It works once, and for an hour.")
    command: str = Field(description="To run on the machine.")
    expires_at: Moment


class CreatedHost(HostDetails):
    enrolment: Enrolment | None = Field(
        description="Null in the repeated answer of an Idempotency-Key: get another with POST …/enrolments."
    )


class EnrolledAnew(HostDetails):
    enrolment: Enrolment


class DeletedHost(BaseModel):
    id: str
    status: Literal["deleted"] = "deleted"
    models: int = Field(description="How many models of it were deleted with it.")


class HostFilters(PageQuery):
    state: HostState | None = None
    sort: Literal["created_at:desc", "created_at:asc", "name:asc", "name:desc"] = "created_at:desc"
