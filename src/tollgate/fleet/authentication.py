"""Which agent is calling. Its key is checked without the database, before the body is read."""

from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response

from tollgate.core import host_keys
from tollgate.core.errors import FleetNotConfigured, HostKeyInvalid
from tollgate.core.host_keys import HostKey
from tollgate.process import logs
from tollgate.settings import TrustedProxy
from tollgate.web import client_address
from tollgate.web.routing import Handler, guard_body

MOST_VALUES = 100_000
"""In the body of one request."""


class AgentGate:
    def __init__(self, agent_keys: Sequence[str], trusted_proxy: TrustedProxy) -> None:
        self._agent_keys = agent_keys
        self._trusted_proxy = trusted_proxy

    @property
    def agent_keys(self) -> Sequence[str]:
        """Newest first. Raises FleetNotConfigured."""
        if not self._agent_keys:
            raise FleetNotConfigured
        return self._agent_keys

    def key(self, request: Request) -> HostKey:
        """Raises HostKeyInvalid, or FleetNotConfigured."""
        return host_keys.read(self.agent_keys, _bearer(client_address.headers_of(request.scope)))

    async def guard(self, request: Request, handle: Handler, reads_body: bool) -> Response:
        """Wraps the routes of enrolled agents."""
        self._claim(request)
        logs.note(host_id=self.key(request).host_id)
        return await self.guard_newcomers(request, handle, reads_body)

    async def guard_newcomers(self, request: Request, handle: Handler, reads_body: bool) -> Response:
        """Wraps the route of agents that have no key yet. Refuses a body that is too complex."""
        _ = self.agent_keys
        self._claim(request)
        return await guard_body(request, handle, reads_body, most_values=MOST_VALUES)

    def _claim(self, request: Request) -> None:
        """For the security reporter, which counts refusals by address."""
        request.scope["state"]["claims"] = {"ip": client_address.client_ip(request.scope, self._trusted_proxy)}


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, key = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() != "bearer":
        raise HostKeyInvalid
    return key.strip()
