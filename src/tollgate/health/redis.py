"""Pings a Redis server. That takes three lines of its protocol, so no client library."""

import asyncio
from urllib.parse import unquote, urlsplit

DEFAULT_PORT = 6379


class RedisRefused(Exception):
    """The server refused the password, or is not Redis."""


async def ping(url: str) -> None:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(
        address.hostname, address.port or DEFAULT_PORT, ssl=address.scheme == "rediss" or None
    )
    try:
        if address.password:
            user = [unquote(address.username)] if address.username else []
            await _ask(reader, writer, b"+OK", "AUTH", *user, unquote(address.password))
        await _ask(reader, writer, b"+PONG", "PING")
    finally:
        writer.close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, expected: bytes, *words: str) -> None:
    encoded = [word.encode() for word in words]
    writer.write(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded))
    answer = await reader.readline()
    if answer.rstrip() != expected:
        raise RedisRefused
