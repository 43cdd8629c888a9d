"""/admin/users."""

from typing import Annotated

from fastapi import Depends, Path, Query, status

from tollgate.admin.schemas.orgs import Lookup
from tollgate.admin.schemas.users import DeletedUser, NewUser, User, UserChanges, UserPicks, UsersAsked
from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.people import store
from tollgate.people.rules import Line, told
from tollgate.web.routing import Routes
from tollgate.web.schemas import Page, refusals

UserId = Annotated[Line, Path(description="The id of a user, such as usr_0193….")]


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
