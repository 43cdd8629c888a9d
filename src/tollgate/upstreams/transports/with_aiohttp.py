"""Through aiohttp: a fifth of what httpx costs, without its extras: no cookies, redirects, decoding or proxies."""

import socket
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from tollgate.upstreams.rules import ConnectionLost, ConnectTimeout, NotHttp, Resolve, TransportFailed, Unreachable

MOST_CONNECTIONS: Final = 1000
KEPT_ALIVE_SECONDS: Final = 30.0
MOST_URLS: Final = 1000

_NOTHING_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)


class AiohttpTransport:
    """Two sessions at most, opened when they are first needed: one finds its hosts by the system, one by a guard."""

    def __init__(self) -> None:
        self._sessions: dict[Resolve | None, aiohttp.ClientSession] = {}
        self._urls: dict[str, URL] = {}
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        connect_seconds: float,
        resolve: Resolve | None,
    ) -> "AiohttpAnswer":
        session = self._sessions.get(resolve) or self._open(resolve)
        try:
            response = await session.request(
                method,
                self._read(url),
                headers=headers,
                data=body or None,
                allow_redirects=False,
                timeout=self._timeout(connect_seconds),
            )
        except (aiohttp.ClientError, OSError) as error:
            raise _translated(error) from error
        return AiohttpAnswer(response)

    async def close(self) -> None:
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.close()

    def _open(self, resolve: Resolve | None) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=MOST_CONNECTIONS,
            keepalive_timeout=KEPT_ALIVE_SECONDS,
            resolver=None if resolve is None else _Resolver(resolve),
        )
        session = self._sessions[resolve] = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return session

    def _read(self, url: str) -> URL:
        known = self._urls.get(url)
        if known is None:
            if len(self._urls) >= MOST_URLS:
                self._urls.clear()
            known = self._urls[url] = URL(url, encoded=True)
        return known

    def _timeout(self, connect_seconds: float) -> aiohttp.ClientTimeout:
        """Only for the connection; how long an answer may take, whoever waits for it decides."""
        known = self._timeouts.get(connect_seconds)
        if known is None:
            known = self._timeouts[connect_seconds] = aiohttp.ClientTimeout(total=None, connect=connect_seconds)
        return known


class AiohttpAnswer:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    def at_hand(self) -> bytes | None:
        content = self._content
        if content._buffer:
            return content._read_nowait(-1)
        return b"" if content.is_eof() and content.exception() is None else None

    async def piece(self) -> bytes:
        """What came before the connection broke is an answer's last piece, and is not lost to the news of it."""
        content = self._content
        if content._buffer:
            return content._read_nowait(-1)
        try:
            return await content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionLost(type(error).__name__) from error

    async def close(self) -> None:
        self._response.close()


class _Resolver(AbstractResolver):
    """Hands aiohttp the addresses that were looked at. It connects to these, and verifies TLS by the name."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolve(host, port)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Nothing."""


def _translated(error: Exception) -> TransportFailed:
    """Whether anything had been sent decides whether it may be sent again. A connection that was kept alive and turns
    out dead only now is no proof: the request may have been read before the end came."""
    name = type(error).__name__
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ConnectTimeout(name)
    if isinstance(error, _NOTHING_SENT):
        return Unreachable(name)
    return NotHttp(name) if isinstance(error, aiohttp.ClientResponseError) else ConnectionLost(name)
