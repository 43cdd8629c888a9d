"""Users, as operators write and see them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tollgate.admin.schemas.orgs import Deleted
from tollgate.people.rules import Email, Line
from tollgate.web.schemas import Listed, Moment, Written

Role = Literal["member", "admin"]


UserStatus = Literal["active", "disabled"]


class User(BaseModel):
    id: str
    org_id: str
    email: str
    name: str
    role: Role
    status: UserStatus
    keys: int = Field(description="How many keys that are not revoked.")
    created_at: Moment
    updated_at: Moment


class NewUser(Written):
    model_config = ConfigDict(json_schema_extra={"examples": [{"email": "ada@example.com", "name": "Ada"}]})

    email: Email
    org_id: Line | None = Field(None, description="Without one, a personal org on the plan free is made as well.")
    name: Line = ""
    role: Role = Field("member", description="An admin operates the whole installation.")


class UserChanges(Written):
    """What is left out or null stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Ada L."}, {"status": "disabled"}]})

    email: Email | None = None
    name: Line | None = None
    role: Role | None = None
    status: UserStatus | None = Field(None, description="Disabling stops all keys of the user at once.")
    org_id: Line | None = Field(
        None,
        description="Moves the user, with keys and what they have counted, to another org, which pays from the next "
        "request on. What is running is charged to the org that holds credits for it.",
    )


class UsersAsked(Listed):
    q: Line | None = Field(None, description="Part of the address or name, in capitals or not, or the whole id.")
    org_id: Line | None = Field(None, description="Only users of this org.")
    role: Role | None = None
    status: UserStatus | None = None
    sort: Literal["created_at:desc", "created_at:asc", "email:asc", "email:desc", "name:asc", "name:desc"] = (
        "created_at:desc"
    )


class UserPick(BaseModel):
    id: str
    name: str
    email: str


class UserPicks(BaseModel):
    data: list[UserPick]


class DeletedUser(Deleted):
    keys_revoked: int
