"""A TCP relay that can be told to misbehave: the network between Tollgate and its database."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator


class Relay:
    """Passes bytes to `target` until it is told otherwise. What it is told holds at once, for open connections too."""

    def __init__(self, target: int, path_prefix: bytes = b"") -> None:
        self.target = target
        self.path_prefix = path_prefix
        self.port = 0
        self.cut = False
        self.canned: bytes | None = None
        self.seen: list[bytes] = []
        self.stopped = asyncio.Event()
        self._flowing = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stall(self) -> None:
        """Lets nothing through, and closes nothing."""
        self._in_its_loop(self._flowing.clear)

    def restore(self) -> None:
        """Ends the connections that met with its misbehaviour, and no others."""
        if self.cut or self.canned is not None or not self._flowing.is_set():
            self.cut, self.canned = False, None
            self._in_its_loop(self._flowing.set)
            self.drop_connections()

    def drop_connections(self) -> None:
        """Ends what is open, as a restart of the server would."""
        self._in_its_loop(self._abort_all)
        self._in_its_loop(lambda: None)  # by then the sockets are closed

    def stop(self) -> None:
        self._in_its_loop(self.stopped.set)

    def _in_its_loop(self, act: object) -> None:
        assert self._loop is not None
        assert callable(act)
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (act(), done.set()))
        assert done.wait(60)

    def _abort_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._flowing.set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self.stopped.wait()
        server.close()
        self._flowing.set()
        while self._open:
            self._abort_all()
            await asyncio.sleep(0.01)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with contextlib.AsyncExitStack() as ends:
            ends.callback(self._leave, writer)
            self._open.add(writer)
            if self.cut:
                return
            with contextlib.suppress(OSError):
                server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
                ends.callback(self._leave, server_writer)
                self._open.add(server_writer)
                there = asyncio.create_task(self._pass_requests(reader, server_writer, writer))
                back = asyncio.create_task(self._pass_answers(server_reader, writer))
                await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
                for task in (there, back):
                    task.cancel()
                await asyncio.gather(there, back, return_exceptions=True)

    def _leave(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        self._open.discard(writer)

    async def _pass_requests(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            self.seen.append(data)
            await self._flowing.wait()
            if self.cut:
                return
            if self.canned is not None:
                client.write(self.canned)
            else:
                server.write(data.replace(b" " + self.path_prefix + b"/", b" /", 1) if self.path_prefix else data)

    async def _pass_answers(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flowing.wait()
            client.write(data)


@contextlib.contextmanager
def relay(target: int, path_prefix: bytes = b"") -> Iterator[Relay]:
    """A relay in a thread of its own, so that tests with loops of their own can share it."""
    made = Relay(target, path_prefix)
    started = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(made.serve(started)), daemon=True)
    thread.start()
    assert started.wait(60)
    try:
        yield made
    finally:
        made.stop()
        thread.join(5)
