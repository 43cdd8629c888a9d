"""What sends to receivers of the tests, which are at private addresses: only operators' channels reach them."""

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

from tollgate.alerts.deliveries import Deliveries
from tollgate.database import Door
from tollgate.process.clock import monotonic
from tollgate.process.http_client import Http
from tollgate.upstreams.address_guard import Guard
from tollgate.upstreams.transports import open_transport
from tollgate.vault.rules import Vault


@contextlib.asynccontextmanager
async def a_sender(door: Door) -> AsyncIterator[Callable[[Vault], Deliveries]]:
    http = Http()
    transport = open_transport(http, long_lived=True)

    def sender(vault: Vault) -> Deliveries:
        return Deliveries(
            door,
            transport,
            vault,
            guard=Guard(allow_private=True),
            guard_of_owners=Guard(allow_private=False),
            clock=monotonic,
            now=lambda: datetime.now(UTC),
            randomness=lambda: 0.5,
        )

    yield sender
    await transport.close()
    await http.close()
