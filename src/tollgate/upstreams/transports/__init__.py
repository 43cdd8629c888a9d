"""The HTTP client for upstreams. One interface, two implementations: httptools on long-lived hosts, httpx elsewhere."""

from collections.abc import Awaitable, Mapping
from typing import Final, Protocol

from tollgate.process import open_files
from tollgate.process.http_client import Http
from tollgate.upstreams.rules import Body, Resolve, Sent, unheard

MOST_CONNECTIONS: Final = 1000
FILES_OF_A_CALL: Final = 3
"""Open files for each call: the client's connection, the upstream's, and one to spare for idle clients."""
MOST_OF_THE_SHARED: Final = 120
"""Of the 200 connections of the shared httpx client, which the database and the catalog use too."""


class Answer(Protocol):
    """A response whose head has arrived. The body is passed on as it comes, not decoded."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """By lower-case name."""

    def at_hand(self) -> bytes | None:
        """What has arrived; empty at the end, None if nothing has."""

    async def piece(self) -> bytes:
        """Waits for the next part of the body; empty at the end. Raises TransportFailed."""

    async def close(self) -> None:
        """Closes at once, and goes on closing when the caller is cancelled."""


class Transport(Protocol):
    @property
    def places(self) -> int:
        """The most requests under way at once."""

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body,
        *,
        connect_seconds: float,
        resolve: Resolve | None,
        sent: Sent = unheard,
    ) -> Awaitable[Answer]:
        """Sends a request once; follows no redirects and keeps no cookies. `resolve`, if given, finds the addresses
        instead of the system. `sent` is called when the whole request has been sent. A streamed body is sent as fast as
        the server takes it, and not to its end if the server answers before. Raises TransportFailed, NoConnection when
        all connections are in use, and what `resolve` raises."""

    async def close(self) -> None: ...


def open_transport(http: Http, *, long_lived: bool, most: int | None = None) -> Transport:
    """A transport with connections of its own in a long-lived process; elsewhere, one that shares the httpx client."""
    usual = min(MOST_CONNECTIONS, open_files.limit() // FILES_OF_A_CALL) if long_lived else MOST_OF_THE_SHARED
    return _LazyTransport(http, usual if most is None else most, long_lived=long_lived)


class _LazyTransport:
    """Imports its library when the first request is sent, so that a cold start is shorter."""

    def __init__(self, http: Http, places: int, *, long_lived: bool) -> None:
        self.places = places
        self._http = http
        self._long_lived = long_lived
        self._opened: Transport | None = None

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body,
        *,
        connect_seconds: float,
        resolve: Resolve | None,
        sent: Sent = unheard,
    ) -> Awaitable[Answer]:
        opened = self._opened or self._open()
        return opened.send(method, url, headers, body, connect_seconds=connect_seconds, resolve=resolve, sent=sent)

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
