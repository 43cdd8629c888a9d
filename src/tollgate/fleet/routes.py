"""/agent/*: what the agents of hosts call."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import Depends
from fastapi.security import HTTPBearer
from pydantic import SecretStr
from starlette.requests import Request

from tollgate.core import errors, host_keys
from tollgate.core.errors import TollgateError
from tollgate.core.host_keys import HostKey
from tollgate.database import Door
from tollgate.fleet import rules, store
from tollgate.fleet.authentication import AgentGate
from tollgate.fleet.schemas import EndedTask, Enrolled, Enrolling, Id, Sync, SyncAnswer, TaskOutcome
from tollgate.process import logs
from tollgate.web.routing import Routes
from tollgate.web.schemas import refusals_of

Reread = Callable[[], Awaitable[object]]
"""Makes changed routes visible on this instance."""
OpenSecret = Callable[[Mapping[str, Any]], SecretStr]
"""Decrypts a secret of the vault. Raises VaultLocked."""

IN_THE_DOCUMENT = [
    Depends(HTTPBearer(scheme_name="HostKey", description="Authorization: Bearer <host key>", auto_error=False))
]
ALWAYS = (errors.FleetNotConfigured, errors.DatabaseUnavailable)
OF_HOSTS = (*ALWAYS, errors.HostKeyInvalid, errors.HostRetired)

log = logs.source("application")


def router(
    gate: AgentGate, door: Door, digests: Callable[[str], list[str]], open_secret: OpenSecret, reread: Reread
) -> Routes:
    without_key, with_key = Routes(guard=gate.guard_newcomers), Routes(guard=gate.guard, dependencies=IN_THE_DOCUMENT)
    without_key.take(newcomers(gate, door, digests))
    with_key.take(hosts(gate, door, open_secret, reread))
    routes = Routes(tags=["agents"])
    routes.take(without_key)
    routes.take(with_key)
    return routes


def newcomers(gate: AgentGate, door: Door, digests: Callable[[str], list[str]]) -> Routes:
    routes = Routes(prefix="/agent")

    @routes.post(
        "/enrol",
        summary="Enrol the agent of a host",
        status_code=201,
        responses=refusals_of(*ALWAYS, errors.EnrolmentInvalid),
    )
    async def enrol(body: Enrolling) -> Enrolled:
        """With the token of POST /admin/hosts, once and within an hour. The key that the host had before ends."""
        found = await store.enrol(door, digests(body.token), rules.storable(body.model_dump(exclude={"token", "name"})))
        key = HostKey(found["host_id"], found["key_generation"])
        return Enrolled(host_id=key.host_id, host_key=_made(gate, key)[0], poll_seconds=rules.FIRST_POLL_SECONDS)

    return routes


def hosts(gate: AgentGate, door: Door, open_secret: OpenSecret, reread: Reread) -> Routes:
    routes = Routes(prefix="/agent")

    @routes.post(
        "/sync", summary="Report, and learn what should run", responses=refusals_of(*OF_HOSTS, errors.HostBusy)
    )
    async def sync(request: Request, body: Sync) -> SyncAnswer:
        """The answer always holds all that should be on the host, or nothing new. Repeat a sync that was not answered
        with the same `seq`. Another incarnation is refused for 45 seconds after the last sync."""
        key = gate.key(request)
        found = await store.sync(door, key, body.stored())
        if found["routes_changed"]:
            await reread()
        opened = _opened(found["hub_tokens"], open_secret)
        return SyncAnswer.model_validate({**found, "hub_tokens": opened, "host_keys": _made(gate, key)})

    @routes.post(
        "/tasks/{task_id}", summary="Send the result of a task", responses=refusals_of(*OF_HOSTS, errors.NotFound)
    )
    async def end_task(request: Request, task_id: Id, body: TaskOutcome) -> EndedTask:
        """For results that should not wait for the next sync. The first one counts."""
        return EndedTask.model_validate(await store.end_task(door, gate.key(request), task_id, body.stored()))

    return routes


def _made(gate: AgentGate, key: HostKey) -> list[str]:
    return [host_keys.made(agent_key, key) for agent_key in gate.agent_keys]


def _opened(sealed: Mapping[str, Mapping[str, Any]], open_secret: OpenSecret) -> dict[str, str]:
    """Without those that cannot be decrypted: the host still learns what should run."""
    opened = {}
    for deployment_id, secret in sealed.items():
        try:
            opened[deployment_id] = open_secret(secret).get_secret_value()
        except TollgateError as error:
            log.warning("hub_token_not_sent", deployment_id=deployment_id, error_code=error.code)
    return opened
