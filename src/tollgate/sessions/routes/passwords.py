"""Setting one's password."""

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from tollgate.core import errors
from tollgate.database import Door
from tollgate.keys.authentication import WITH_SESSIONS, Gate
from tollgate.sessions.first_net import FirstNet, address
from tollgate.sessions.schemas import EndedSessions, NewPassword
from tollgate.sessions.ways import Ways
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals

REFUSALS = (
    errors.BadRequest, errors.WeakPassword, errors.SignInFailed, errors.TooManySignIns, errors.ServerBusy,
)  # fmt: skip


def router(gate: Gate, ways: Ways, net: FirstNet) -> Routes:
    routes = Routes(dependencies=WITH_SESSIONS, guard=gate.guard)

    @routes.post("/auth/password", summary="Set your password", responses=refusals(*REFUSALS))
    async def set_password(
        request: Request, door: Annotated[Door, Depends(gate.open)], body: NewPassword
    ) -> EndedSessions:
        """Ends all your other sessions. The first password is set after a sign-in by link, within 15 minutes."""
        client = address(request)
        net.check(client)
        return EndedSessions.model_validate(await ways.change_password(door, client, body.password, body.current))

    return routes
