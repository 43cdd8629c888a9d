"""A lean client of HTTP/1.1 on httptools, for who lives long: a third of what aiohttp costs.

It knows what an upstream needs and no more: no cookies, redirects, decoding or proxies. A connection that was kept
and turns out dead only as a request goes out is no proof that the request was not read, so nothing is sent twice.
"""

import ssl
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tollgate.upstreams.rules import Resolve, Sent, Unreachable, unheard
from tollgate.upstreams.transports.with_httptools.answer import HttptoolsAnswer
from tollgate.upstreams.transports.with_httptools.pool import Place, Pool

PORTS: Final = {"http": 80, "https": 443}


class HttptoolsTransport:
    def __init__(self, places: int, tls: ssl.SSLContext | None = None) -> None:
        """The system's own authorities are asked about a name where no others are given."""
        self.places = places
        self._pool = Pool(places, tls)

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
    ) -> HttptoolsAnswer:
        target = _read(url)
        request = _written(method, target, headers, body)
        place = Place(target.scheme, target.host, target.port, resolve)
        wire = self._pool.kept(place) or await self._pool.another(place, connect_seconds)
        answer = HttptoolsAnswer(wire)
        try:
            wire.ask(request, answer)
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
    """What follows the method: all of a head that is the address's."""


@lru_cache(maxsize=1000)
def _read(url: str) -> Target:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Unreachable("its address cannot be read") from None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # urlsplit drops line ends silently, so the address is looked at as it came.
    if parts.scheme not in PORTS or not host or "@" in parts.netloc or not _is_one_word(url):
        raise Unreachable("its address is not one of http or https")
    return Target(parts.scheme, host, port or PORTS[parts.scheme], f" {path} HTTP/1.1\r\nhost: {parts.netloc}\r\n")


def _is_one_word(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url


def _written(method: str, target: Target, headers: Mapping[str, str], body: bytes) -> bytes:
    length = f"content-length: {len(body)}\r\n" if body or method != "GET" else ""
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not (fields.count("\r") == fields.count("\n") == len(headers)) or "\0" in fields or not method.isalpha():
        raise Unreachable("a header would end its line")
    try:
        return f"{method}{target.line}{fields}{length}\r\n".encode("latin-1") + body
    except UnicodeEncodeError:
        raise Unreachable("a header cannot be written") from None
