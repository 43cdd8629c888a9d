"""How bytes get there and back. One seam, two clients: a lean one where a process lives long, httpx elsewhere."""

from collections.abc import Mapping
from typing import Final, Protocol

from tollgate.process import open_files
from tollgate.process.http_client import Http
from tollgate.upstreams.rules import Resolve, Sent, unheard

MOST_CONNECTIONS: Final = 1000
FILES_OF_A_CALL: Final = 3
"""Its client's connection, its upstream's, and room for clients that are idle."""
MOST_OF_THE_SHARED: Final = 120
"""Of httpx's 200, which the database and the list of models use too."""


class Answer(Protocol):
    """An answer whose head has come. Neither decoded nor cut anew."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """By their names in lower case."""

    def at_hand(self) -> bytes | None:
        """What has come already; empty at the end, None when one would have to wait."""

    async def piece(self) -> bytes:
        """What comes next, as it comes; empty at the end. Raises TransportFailed."""

    async def close(self) -> None:
        """At once, whatever is still under way. Nobody can keep it from closing by cancelling."""


class Transport(Protocol):
    @property
    def places(self) -> int:
        """How many requests it can have under way at once."""

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        connect_seconds: float,
        resolve: Resolve | None,
        sent: Sent = unheard,
    ) -> Answer:
        """Once, without a redirect or a cookie. Whom `resolve` is given for is found by it alone; for others the
        system's own way does. `sent` is called when all of it is. Raises TransportFailed, NoConnection when there is
        none to spare, and what `resolve` raises."""

    async def close(self) -> None: ...


def open_transport(http: Http, *, long_lived: bool, most: int | None = None) -> Transport:
    """With connections of its own where the process is long-lived; elsewhere with some of the process's one client."""
    usual = min(MOST_CONNECTIONS, open_files.limit() // FILES_OF_A_CALL) if long_lived else MOST_OF_THE_SHARED
    return _Unopened(http, usual if most is None else most, long_lived=long_lived)


class _Unopened:
    """Imports its library when something is first sent, so that a cold start does not pay for it."""

    def __init__(self, http: Http, places: int, *, long_lived: bool) -> None:
        self.places = places
        self._http = http
        self._long_lived = long_lived
        self._opened: Transport | None = None

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        connect_seconds: float,
        resolve: Resolve | None,
        sent: Sent = unheard,
    ) -> Answer:
        opened = self._opened or self._open()
        return await opened.send(
            method, url, headers, body, connect_seconds=connect_seconds, resolve=resolve, sent=sent
        )

    async def close(self) -> None:
        if self._opened:
            await self._opened.close()

    def _open(self) -> Transport:
        self._opened = self._of_httptools() if self._long_lived else self._of_httpx()
        return self._opened

    def _of_httptools(self) -> Transport:
        from tollgate.upstreams.transports.with_httptools import HttptoolsTransport  # noqa: PLC0415

        return HttptoolsTransport(self.places)

    def _of_httpx(self) -> Transport:
        from tollgate.upstreams.transports.with_httpx import HttpxTransport  # noqa: PLC0415

        return HttpxTransport(self._http, self.places)
