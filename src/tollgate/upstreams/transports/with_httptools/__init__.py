"""The transport for long-lived hosts: an HTTP/1.1 client on httptools, at a third of the CPU of aiohttp.

It has no cookies, redirects, decoding or proxies. If a kept connection breaks while a request is sent, the server may
have read it, so no request is sent twice.
"""

import ssl
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tollgate.upstreams.rules import Body, Resolve, Sent, Streamed, Unreachable, unheard
from tollgate.upstreams.transports.with_httptools.answer import HttptoolsAnswer
from tollgate.upstreams.transports.with_httptools.pool import Origin, Pool

PORTS: Final = {"http": 80, "https": 443}


class HttptoolsTransport:
    def __init__(self, places: int, tls: ssl.SSLContext | None = None) -> None:
        """Without `tls`, certificates are verified with the authorities of the system."""
        self.places = places
        self._pool = Pool(places, tls)

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
    ) -> HttptoolsAnswer:
        target = _read(url)
        if isinstance(body, Streamed):
            headers = {**headers, "content-type": body.content_type, "content-length": str(body.size)}
            request = _written(method, target, headers)
        else:
            request = _written(method, target, headers, body)
        origin = Origin(target.scheme, target.host, target.port, resolve)
        connection = self._pool.kept(origin) or await self._pool.another(origin, connect_seconds)
        answer = HttptoolsAnswer(connection)
        try:
            connection.ask(request, answer)
            if isinstance(body, Streamed):
                await connection.send(body.pieces())
            sent()
            await answer.head()
        except BaseException:
            answer.abandon()
            raise
        return answer

    async def close(self) -> None:
        await self._pool.close()


class Target(NamedTuple):
    scheme: str
    host: str
    port: int
    line: str
    """The rest of the request line and the host header."""


@lru_cache(maxsize=1000)
def _read(url: str) -> Target:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Unreachable("its URL is not valid") from None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # urlsplit removes line breaks, so this checks the URL itself.
    if parts.scheme not in PORTS or not host or "@" in parts.netloc or not _is_printable(url):
        raise Unreachable("its URL is not an http or https URL")
    return Target(parts.scheme, host, port or PORTS[parts.scheme], f" {path} HTTP/1.1\r\nhost: {parts.netloc}\r\n")


def _is_printable(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url


def _written(method: str, target: Target, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    is_stated = not body and (method == "GET" or "content-length" in headers)
    length = "" if is_stated else f"content-length: {len(body)}\r\n"
    fields = "\r\n".join([*map(": ".join, headers.items()), ""])
    if not (fields.count("\r") == fields.count("\n") == len(headers)) or "\0" in fields or not method.isalpha():
        raise Unreachable("a header contains a line break")
    try:
        return f"{method}{target.line}{fields}{length}\r\n".encode("latin-1") + body
    except UnicodeEncodeError:
        raise Unreachable("a header is not latin-1") from None
