"""A pool of connections: a limited number, each to one origin, and kept for a while."""

import asyncio
import ssl
from collections import deque
from typing import Final, NamedTuple

from tollgate.upstreams.rules import ConnectTimeout, NoConnection, Resolve, Unreachable
from tollgate.upstreams.transports.local_failures import is_local
from tollgate.upstreams.transports.with_httptools.connection import Connection

KEPT_ALIVE_SECONDS: Final = 30.0


class Origin(NamedTuple):
    """Where a connection leads, and how its name is resolved."""

    scheme: str
    host: str
    port: int
    resolve: Resolve | None


class Pool:
    """When the pool is full, callers queue. A freed connection, or permission to open one, goes to the oldest."""

    def __init__(self, most: int, tls: ssl.SSLContext | None) -> None:
        self._most = most
        self._tls = tls
        self._origins: dict[Connection, Origin] = {}
        """The origin of every connection, those being opened included."""
        self._free: dict[Origin, list[Connection]] = {}
        self._queue: deque[tuple[Origin, asyncio.Future[Connection | None]]] = deque()
        self._promised = 0
        """How many callers may open a connection and have not begun to."""
        self._sweep: asyncio.TimerHandle | None = None

    def kept(self, origin: Origin) -> Connection | None:
        """A kept connection: the one used last, so that the others reach their idle time."""
        free = self._free.get(origin)
        while free:
            connection = free.pop()
            if connection.is_open and asyncio.get_running_loop().time() - connection.free_since < KEPT_ALIVE_SECONDS:
                return connection
            connection.abort()
        return None

    async def another(self, origin: Origin, seconds: float) -> Connection:
        """Waits at most `seconds` for its turn, and as long again to connect."""
        try:
            async with asyncio.timeout(seconds):
                connection = await self._turn(origin)
        except TimeoutError as error:
            raise NoConnection("every connection is taken") from error
        if connection:
            return connection
        try:
            async with asyncio.timeout(seconds):
                return await self._opened(origin)
        except TimeoutError as error:
            raise ConnectTimeout(type(error).__name__) from error
        except (OSError, UnicodeError) as error:
            raise (NoConnection if is_local(error) else Unreachable)(type(error).__name__) from error

    async def close(self) -> None:
        if self._sweep:
            self._sweep.cancel()
            self._sweep = None
        self._free.clear()
        for connection in list(self._origins):
            connection.abort()
        for _ in range(2):  # iterations of the event loop, in which their sockets are closed
            await asyncio.sleep(0)

    async def _turn(self, origin: Origin) -> Connection | None:
        """A connection, or None if the caller may open one."""
        if len(self._origins) + self._promised < self._most:
            return None
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._queue.append((origin, turn))
        self._make_room()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._take_back(turn.result())
            raise
        connection = turn.result()
        if connection is None:
            self._promised -= 1
        return connection

    def _take_back(self, given: Connection | None) -> None:
        """Called when a caller was cancelled just as it got its turn."""
        if given is None:
            self._promised -= 1
            self._offer()
        elif given.is_open:
            self._keep(given)

    async def _opened(self, origin: Origin) -> Connection:
        connection = Connection(is_free=self._keep, is_gone=self._forget)
        self._origins[connection] = origin
        try:
            await self._connect(connection, origin)
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _connect(self, connection: Connection, origin: Origin) -> None:
        """Connects to one of the resolved addresses. TLS verifies the host name in any case."""
        scheme, host, port, resolve = origin
        failure: OSError = OSError("no address")
        for address in [host] if resolve is None else await resolve(host, port):
            try:
                await asyncio.get_running_loop().create_connection(
                    lambda: connection,
                    address,
                    port,
                    ssl=self._context() if scheme == "https" else None,
                    server_hostname=host if scheme == "https" else None,
                )
            except OSError as error:
                failure = error
            else:
                return
        raise failure

    def _context(self) -> ssl.SSLContext:
        """Made once, since it reads all certificate authorities of the system."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _keep(self, connection: Connection) -> None:
        origin, first = self._origins[connection], self._first()
        if first is None:
            loop = asyncio.get_running_loop()
            connection.free_since = loop.time()
            self._free.setdefault(origin, []).append(connection)
            self._sweep = self._sweep or loop.call_later(KEPT_ALIVE_SECONDS, self._swept)
        elif first[0] == origin:
            first[1].set_result(connection)
        else:
            connection.abort()

    def _forget(self, connection: Connection) -> None:
        del self._origins[connection]
        self._offer()

    def _offer(self) -> None:
        if first := self._first():
            self._promised += 1
            first[1].set_result(None)

    def _first(self) -> tuple[Origin, asyncio.Future[Connection | None]] | None:
        """The oldest caller that still waits."""
        while self._queue and self._queue[0][1].done():
            self._queue.popleft()
        return self._queue[0] if self._queue else None

    def _make_room(self) -> None:
        """Closes the oldest idle connection, which leads to another origin."""
        for free in self._free.values():
            for connection in free:
                if connection.is_open:
                    connection.abort()
                    return

    def _swept(self) -> None:
        """Closes idle connections. `kept` checks the idle time again."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - KEPT_ALIVE_SECONDS
        for origin, free in list(self._free.items()):
            young = [connection for connection in free if connection.is_open and connection.free_since > oldest]
            for connection in set(free).difference(young):
                connection.abort()
            if young:
                self._free[origin] = young
            else:
                del self._free[origin]
        self._sweep = loop.call_later(KEPT_ALIVE_SECONDS, self._swept) if self._free else None
