"""/admin/users."""

import secrets
from typing import Annotated

from fastapi import Depends, Path, Query, status
from starlette.requests import Request

from tollgate.admin.schemas.orgs import LookupQuery
from tollgate.admin.schemas.users import (
    DeletedUser,
    NewUser,
    RemovedPassword,
    SignInLink,
    User,
    UserChanges,
    UserChoices,
    UserFilters,
)
from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import Gate
from tollgate.keys.idempotency_keys import once
from tollgate.people import store
from tollgate.people.rules import as_stored
from tollgate.sessions import rules as session_rules
from tollgate.sessions import store as sessions
from tollgate.web.routing import Routes
from tollgate.web.schemas import CountedPage, Line, refusals

UserId = Annotated[Line, Path(description="The id of a user, such as usr_0193….")]


def router(gate: Gate, *, secure: bool) -> Routes:
    routes = Routes(prefix="/admin/users", responses=refusals(errors.BadRequest))
    one = refusals(errors.BadRequest, errors.NotFound)
    creating = refusals(errors.BadRequest, errors.NotFound, errors.Conflict, errors.IdempotencyKeyReused)
    changing = refusals(errors.BadRequest, errors.NotFound, errors.Conflict)

    @routes.get("", summary="List users")
    async def users(
        door: Annotated[Door, Depends(gate.open)], query: Annotated[UserFilters, Query()]
    ) -> CountedPage[User]:
        return CountedPage[User].of(await store.users(door, query.filters(), query.limit))

    @routes.get("/lookup", summary="List ids, names and emails of users, for a picker")
    async def lookup(door: Annotated[Door, Depends(gate.open)], query: Annotated[LookupQuery, Query()]) -> UserChoices:
        return UserChoices.model_validate(await store.users(door, query.filters("email:asc"), query.limit))

    @routes.post("", summary="Create a user", status_code=status.HTTP_201_CREATED, responses=creating)
    async def create(door: Annotated[Door, Depends(once(gate))], body: NewUser) -> User:
        return User.model_validate(await store.create_user(door, as_stored(body.model_dump(mode="json"))))

    @routes.get("/{user_id}", summary="Get a user", responses=one)
    async def user(door: Annotated[Door, Depends(gate.open)], user_id: UserId) -> User:
        return User.model_validate(await store.user(door, user_id))

    @routes.patch("/{user_id}", summary="Change a user", responses=changing)
    async def update(door: Annotated[Door, Depends(gate.open)], user_id: UserId, body: UserChanges) -> User:
        """Setting a value that is already set changes nothing. A change after which no admin could sign in is
        refused."""
        return User.model_validate(await store.update_user(door, user_id, as_stored(body.changes())))

    @routes.delete("/{user_id}", summary="Delete a user and revoke all keys", responses=changing)
    async def delete(door: Annotated[Door, Depends(gate.open)], user_id: UserId) -> DeletedUser:
        """The org keeps its credits, requests, transfers and audit events. The last admin who can sign in cannot be
        deleted."""
        return DeletedUser.model_validate(await store.delete_user(door, user_id))

    @routes.post(
        "/{user_id}/sign-in-link",
        summary="Create a sign-in link for a user",
        responses=one,
        status_code=status.HTTP_201_CREATED,
    )
    async def sign_in_link(request: Request, door: Annotated[Door, Depends(gate.open)], user_id: UserId) -> SignInLink:
        """The user signs in with it once, within 10 minutes, and can set a password then. The link is shown only here.
        A key cannot create a link for its own user. With a session, this needs a sign-in within the last 15
        minutes."""
        token = session_rules.token(secrets.token_bytes(session_rules.RANDOM_BYTES))
        made = await sessions.create_link(door, {"user_id": user_id}, gate.digests(token)[0])
        base_url = f"{'https' if secure else 'http'}://{request.url.netloc}"
        return SignInLink(**made, token=token, link=session_rules.link(base_url, token))

    @routes.delete("/{user_id}/password", summary="Remove the password of a user", responses=one)
    async def remove_password(door: Annotated[Door, Depends(gate.open)], user_id: UserId) -> RemovedPassword:
        """Ends all sessions of the user and their unused sign-in links too."""
        return RemovedPassword.model_validate(await sessions.remove_password(door, user_id))

    return routes
