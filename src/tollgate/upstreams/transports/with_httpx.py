"""The transport for serverless hosts. It costs more CPU, but shares the httpx client that the process has anyway."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import httpx

from tollgate.process.http_client import Http
from tollgate.upstreams.rules import (
    Body,
    ConnectionLost,
    ConnectTimeout,
    NoConnection,
    NotHttp,
    Resolve,
    Sent,
    TransportFailed,
    Unreachable,
    unheard,
)
from tollgate.upstreams.transports.local_failures import is_local

BEGUN: Final = "http11.send_request_headers.started"
SENT: Final = "http11.send_request_body.complete"

_NOTHING_SENT = (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL)


class HttpxTransport:
    def __init__(self, http: Http, places: int) -> None:
        self.places = places
        self._http = http
        self._free = asyncio.Semaphore(places)
        """Limits our share of the client's connections, which the database and the catalog use too."""
        self._abandoned: set[asyncio.Future[None]] = set()

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body,
        *,
        connect_seconds: float,
        resolve: Resolve | None,
        sent: Sent = unheard,
    ) -> "HttpxAnswer":
        try:
            async with asyncio.timeout(connect_seconds):
                await self._free.acquire()
        except TimeoutError as error:
            raise NoConnection("every connection is taken") from error
        try:
            response = await self._request(method, url, headers, body, connect_seconds, resolve, sent)
        except BaseException:
            self._free.release()
            raise
        return HttpxAnswer(response, self._free.release)

    async def close(self) -> None:
        """Waits for abandoned requests. The client belongs to the process."""
        if self._abandoned:
            await asyncio.wait(self._abandoned)

    async def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body,
        connect_seconds: float,
        resolve: Resolve | None,
        sent: Sent,
    ) -> httpx.Response:
        waits = httpx.Timeout(None, connect=connect_seconds, pool=connect_seconds).as_dict()
        content = body if isinstance(body, bytes) else body.pieces()
        if not isinstance(body, bytes):  # with its length, or httpx would send it in chunks
            headers = {**headers, "content-type": body.content_type, "content-length": str(body.size)}
        try:
            if resolve is None:
                request = httpx.Request(method, url, headers=headers, content=content, extensions={"timeout": waits})
            else:
                async with asyncio.timeout(connect_seconds):
                    request = await _pinned(method, url, headers, content, waits, resolve)
            return await self._sent(request, sent)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise _translated(error) from error

    async def _sent(self, request: httpx.Request, sent: Sent) -> httpx.Response:
        """Sends in a task of its own. httpcore 1.0.9 leaks a connection when it is cancelled between taking it from the
        pool and using it, so the task is cancelled only when it uses the connection."""
        begun = asyncio.Event()

        async def trace(event: str, info: object) -> None:
            if event == BEGUN:
                begun.set()
            elif event == SENT:
                sent()

        request.extensions["trace"] = trace
        # The request was made without the client, so it carries none of its cookies.
        sending = asyncio.ensure_future(
            self._http.client().send(request, stream=True, auth=None, follow_redirects=False)
        )
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            abandoning = asyncio.ensure_future(_abandon(sending, begun))
            self._abandoned.add(abandoning)
            abandoning.add_done_callback(self._abandoned.discard)
            raise


async def _abandon(sending: "asyncio.Future[httpx.Response]", begun: asyncio.Event) -> None:
    beginning = asyncio.ensure_future(begun.wait())
    await asyncio.wait((sending, beginning), return_when=asyncio.FIRST_COMPLETED)
    beginning.cancel()
    sending.cancel()
    await asyncio.wait((sending,))
    if not sending.cancelled() and sending.exception() is None:
        await sending.result().aclose()


class HttpxAnswer:
    def __init__(self, response: httpx.Response, at_end: Callable[[], None]) -> None:
        self._response = response
        self._at_end = at_end
        self._pieces = response.aiter_raw()
        self._closing: asyncio.Future[None] | None = None
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    def at_hand(self) -> bytes | None:
        return None

    async def piece(self) -> bytes:
        try:
            return await anext(self._pieces, b"")
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise ConnectionLost(type(error).__name__) from error

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._response.aclose())
            self._closing.add_done_callback(lambda _: self._at_end())
        await asyncio.shield(self._closing)


async def _pinned(
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: bytes | AsyncIterator[bytes],
    waits: dict[str, float | None],
    resolve: Resolve,
) -> httpx.Request:
    """A request to the address that was checked. The server gets, and TLS verifies, the host name. Two names with one
    address may share a connection."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        address = (await resolve(host, port))[0]
    except OSError as error:
        raise httpx.ConnectError(type(error).__name__) from error
    place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return httpx.Request(
        method,
        urlunsplit((parts.scheme, place, parts.path, parts.query, "")),
        headers={**headers, "host": parts.netloc},
        content=content,
        extensions={"timeout": waits, "sni_hostname": host},
    )


def _translated(error: Exception) -> TransportFailed:
    """The error as ours. A request may be sent again only if nothing was sent."""
    name = type(error).__name__
    if isinstance(error, httpx.PoolTimeout) or (isinstance(error, _NOTHING_SENT) and is_local(error)):
        return NoConnection(name)
    if isinstance(error, (httpx.ConnectTimeout, TimeoutError)):
        return ConnectTimeout(name)
    if isinstance(error, _NOTHING_SENT):
        return Unreachable(name)
    if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error):
        return NotHttp(name)
    return ConnectionLost(name)
