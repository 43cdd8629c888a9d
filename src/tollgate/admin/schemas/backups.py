"""Backups, as operators see them."""

from typing import Literal

from pydantic import BaseModel, Field

from tollgate.web.schemas import Moment, PageQuery


class BackupQuery(PageQuery):
    is_sound: bool | None = Field(None, description="Only backups whose last verification found this.")
    sort: Literal["created_at:desc", "created_at:asc"] = "created_at:desc"


class BackupCounts(BaseModel):
    orgs: int
    transfers: int
    requests: int


class BackupFile(BaseModel):
    digest: str = Field(description="SHA-256 of the file.")
    file: str = Field(examples=["tollgate-20261130T033000Z.dump"])
    bytes: int
    created_at: Moment = Field(description="When it was created; if not by Tollgate, when it was first verified.")
    made_here: bool
    taken_at: Moment | None = Field(description="The newest moment that a row of it has; null before a verification.")
    schema_version: str | None
    verified_at: Moment | None
    is_sound: bool | None = Field(description="Whether its last verification found nothing; null before one.")
    faults: list[str] = Field(description="What its last verification found.")
    counts: BackupCounts | None = Field(
        description="What it has, as its last verification counted; null before one, and where it could not be read."
    )
