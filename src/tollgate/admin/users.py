"""/admin/users: people."""

from typing import Annotated, Literal

from fastapi import Depends, Path, Query, status
from pydantic import BaseModel, ConfigDict, Field

from tollgate.admin.orgs import Deleted, Lookup
from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.people import store
from tollgate.people.rules import Email, Line, told
from tollgate.web.routing import Routes
from tollgate.web.schemas import Listed, Moment, Page, Written, refusals

UserId = Annotated[Line, Path(description="The id of a user, such as usr_0193….")]
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


def router(gate: Gate) -> Routes:
    routes = Routes(prefix="/admin/users", responses=refusals(errors.BadRequest))
    stable = {"x-stability": "stable"}
    one = refusals(errors.BadRequest, errors.NotFound)
    changing = refusals(errors.BadRequest, errors.NotFound, errors.Conflict)

    @routes.get("", summary="Users", openapi_extra=stable)
    async def users(door: Annotated[Door, Depends(gate.open)], asked: Annotated[UsersAsked, Query()]) -> Page[User]:
        return Page[User].of(await store.users(door, asked.filters(), asked.limit))

    @routes.get("/lookup", summary="Ids, names and addresses of users, for a picker", openapi_extra=stable)
    async def lookup(door: Annotated[Door, Depends(gate.open)], asked: Annotated[Lookup, Query()]) -> UserPicks:
        return UserPicks.model_validate(await store.users(door, asked.filters("email:asc"), asked.limit))

    @routes.post(
        "", summary="Make a user", status_code=status.HTTP_201_CREATED, responses=changing, openapi_extra=stable
    )
    async def create(door: Annotated[Door, Depends(gate.open)], said: NewUser) -> User:
        return User.model_validate(await store.create_user(door, told(said.model_dump(mode="json"))))

    @routes.get("/{user_id}", summary="One user", responses=one, openapi_extra=stable)
    async def user(door: Annotated[Door, Depends(gate.open)], user_id: UserId) -> User:
        return User.model_validate(await store.user(door, user_id))

    @routes.patch("/{user_id}", summary="Change a user", responses=changing, openapi_extra=stable)
    async def update(door: Annotated[Door, Depends(gate.open)], user_id: UserId, said: UserChanges) -> User:
        """What is so already changes nothing. Refused where no admin could come in again."""
        return User.model_validate(await store.update_user(door, user_id, told(said.changes())))

    @routes.delete("/{user_id}", summary="Delete a user and revoke all keys", responses=changing, openapi_extra=stable)
    async def delete(door: Annotated[Door, Depends(gate.open)], user_id: UserId) -> DeletedUser:
        """Credits are the org's and stay there, as does what was done. Refused where no admin could come in again."""
        return DeletedUser.model_validate(await store.delete_user(door, user_id))

    return routes
