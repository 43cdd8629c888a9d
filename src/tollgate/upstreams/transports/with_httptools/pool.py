"""The connections of a process: kept for a while, each for its own place, and never more than a number of them."""

import asyncio
import ssl
from collections import deque
from typing import Final, NamedTuple

from tollgate.upstreams.rules import ConnectTimeout, NoConnection, Resolve, Unreachable
from tollgate.upstreams.transports.local_failures import is_local
from tollgate.upstreams.transports.with_httptools.wire import Wire

KEPT_ALIVE_SECONDS: Final = 30.0


class Place(NamedTuple):
    """Where a connection leads, and by whose leave."""

    scheme: str
    host: str
    port: int
    resolve: Resolve | None


class Pool:
    """When all connections are taken, callers queue. What becomes free goes to the first: a wire, or room for one."""

    def __init__(self, most: int, tls: ssl.SSLContext | None) -> None:
        self._most = most
        self._tls = tls
        self._places: dict[Wire, Place] = {}
        """Of all there are, and of those that are being opened."""
        self._free: dict[Place, list[Wire]] = {}
        self._line: deque[tuple[Place, asyncio.Future[Wire | None]]] = deque()
        self._promised = 0
        """How many were told that there is room, and have not taken it yet."""
        self._sweep: asyncio.TimerHandle | None = None

    def kept(self, place: Place) -> Wire | None:
        """The one used last, so that the others may grow old."""
        free = self._free.get(place)
        while free:
            wire = free.pop()
            if wire.is_open and asyncio.get_running_loop().time() - wire.free_since < KEPT_ALIVE_SECONDS:
                return wire
            wire.abort()
        return None

    async def another(self, place: Place, seconds: float) -> Wire:
        """Waits that long for room, and then that long for the other side."""
        try:
            async with asyncio.timeout(seconds):
                wire = await self._turn(place)
        except TimeoutError as error:
            raise NoConnection("every connection is taken") from error
        if wire:
            return wire
        try:
            async with asyncio.timeout(seconds):
                return await self._opened(place)
        except TimeoutError as error:
            raise ConnectTimeout(type(error).__name__) from error
        except (OSError, UnicodeError) as error:
            raise (NoConnection if is_local(error) else Unreachable)(type(error).__name__) from error

    async def close(self) -> None:
        if self._sweep:
            self._sweep.cancel()
            self._sweep = None
        self._free.clear()
        for wire in list(self._places):
            wire.abort()
        for _ in range(2):  # turns of the loop, in which their sockets are closed
            await asyncio.sleep(0)

    async def _turn(self, place: Place) -> Wire | None:
        """None is room for one more."""
        if len(self._places) + self._promised < self._most:
            return None
        turn: asyncio.Future[Wire | None] = asyncio.get_running_loop().create_future()
        self._line.append((place, turn))
        self._make_room()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._take_back(turn.result())
            raise
        wire = turn.result()
        if wire is None:
            self._promised -= 1
        return wire

    def _take_back(self, given: Wire | None) -> None:
        """From one who left the line in the moment in which it came to be its turn."""
        if given is None:
            self._promised -= 1
            self._offer()
        elif given.is_open:
            self._keep(given)

    async def _opened(self, place: Place) -> Wire:
        wire = Wire(is_free=self._keep, is_gone=self._forget)
        self._places[wire] = place
        try:
            await self._connect(wire, place)
        except BaseException:
            wire.abort()
            raise
        return wire

    async def _connect(self, wire: Wire, place: Place) -> None:
        """To those addresses and no other where somebody looked at them. TLS is by the name in any case."""
        scheme, host, port, resolve = place
        failure: OSError = OSError("no address")
        for address in [host] if resolve is None else await resolve(host, port):
            try:
                await asyncio.get_running_loop().create_connection(
                    lambda: wire,
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
        """Made once; it reads every authority of the system."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _keep(self, wire: Wire) -> None:
        place, first = self._places[wire], self._first()
        if first is None:
            loop = asyncio.get_running_loop()
            wire.free_since = loop.time()
            self._free.setdefault(place, []).append(wire)
            self._sweep = self._sweep or loop.call_later(KEPT_ALIVE_SECONDS, self._swept)
        elif first[0] == place:
            first[1].set_result(wire)
        else:
            wire.abort()

    def _forget(self, wire: Wire) -> None:
        del self._places[wire]
        self._offer()

    def _offer(self) -> None:
        if first := self._first():
            self._promised += 1
            first[1].set_result(None)

    def _first(self) -> tuple[Place, asyncio.Future[Wire | None]] | None:
        """Whose turn it is, of those who still wait."""
        while self._line and self._line[0][1].done():
            self._line.popleft()
        return self._line[0] if self._line else None

    def _make_room(self) -> None:
        """At the cost of whoever needs it least: another place's, kept the longest."""
        for free in self._free.values():
            for wire in free:
                if wire.is_open:
                    wire.abort()
                    return

    def _swept(self) -> None:
        """Closes what grew old. No wire is used that did, whether it was swept or not."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - KEPT_ALIVE_SECONDS
        for place, free in list(self._free.items()):
            young = [wire for wire in free if wire.is_open and wire.free_since > oldest]
            for wire in set(free).difference(young):
                wire.abort()
            if young:
                self._free[place] = young
            else:
                del self._free[place]
        self._sweep = loop.call_later(KEPT_ALIVE_SECONDS, self._swept) if self._free else None
