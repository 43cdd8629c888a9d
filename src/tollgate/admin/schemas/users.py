"""Users, as operators write and see them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tollgate.admin.schemas.orgs import Deleted
from tollgate.people.schemas import Email, Role
from tollgate.web.schemas import ChangeBody, Line, Moment, PageQuery

UserStatus = Literal["active", "disabled"]


class User(BaseModel):
    id: str
    org_id: str
    org_name: str
    email: str
    name: str
    role: Role
    status: UserStatus
    keys: int = Field(description="How many keys the user has that are not revoked.")
    has_password: bool = Field(description="Whether the user can sign in with a password.")
    created_at: Moment
    updated_at: Moment


class NewUser(ChangeBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"email": "ada@example.com", "name": "Ada"}]})

    email: Email
    org_id: Line | None = Field(None, description="By default a personal org on the plan `free` is created.")
    name: Line = ""
    role: Role = Field("member", description="An admin operates the whole installation.")


class UserChanges(ChangeBody):
    """A field that is null or left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Ada L."}, {"status": "disabled"}]})

    email: Email | None = None
    name: Line | None = None
    role: Role | None = None
    status: UserStatus | None = Field(None, description="Disabling a user stops all their keys at once.")
    org_id: Line | None = Field(
        None,
        description="Moves the user, with all keys and their counters, to another org, which pays from the next "
        "request on. An open request is charged to the org that holds credits for it.",
    )


class UserFilters(PageQuery):
    q: Line | None = Field(None, description="Part of the email or name (case-insensitive), or the whole id.")
    org_id: Line | None = Field(None, description="Only users of this org.")
    role: Role | None = None
    status: UserStatus | None = None
    sort: Literal["created_at:desc", "created_at:asc", "email:asc", "email:desc", "name:asc", "name:desc"] = (
        "created_at:desc"
    )


class UserChoice(BaseModel):
    id: str
    name: str
    email: str


class UserChoices(BaseModel):
    data: list[UserChoice]


class DeletedUser(Deleted):
    keys_revoked: int


class SignInLink(BaseModel):
    user_id: str
    email: str
    link: str = Field(description="For the user. Behind a path prefix, put the prefix before /admin.")
    token: str = Field(description="What follows #/sign-in/ in the link.")
    expires_at: Moment


class RemovedPassword(BaseModel):
    user_id: str
    removed: bool = Field(description="False if the user had none.")
    ended: int = Field(description="How many sessions were ended.")
