"""Instances of Tollgate as processes of their own, which sweep when they are told to and can be killed meanwhile."""

import asyncio
from multiprocessing.connection import Connection

from journeys.commands import PROCESSES
from people import PEPPER
from sandbox.serving import PATIENCE_SECONDS
from tollgate.app import compose
from tollgate.database.postgres import PostgresDoor
from tollgate.settings import read

VAULT_KEY = bytes(range(32))


class Instance:
    def __init__(self, url: str) -> None:
        self._orders, theirs = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=_sweep_on_order, args=(url, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def begin(self) -> None:
        self._orders.send("sweep")

    async def ended(self) -> None:
        assert await asyncio.to_thread(self._orders.poll, PATIENCE_SECONDS)
        assert self._orders.recv() == "swept"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self._orders.close()


def _sweep_on_order(url: str, orders: Connection) -> None:
    asyncio.run(_sweeping(url, orders))


async def _sweeping(url: str, orders: Connection) -> None:
    environ = {
        "KEY_PEPPER": PEPPER,
        "PRIVATE_UPSTREAMS": "true",
        "VAULT_KEY": VAULT_KEY.hex(),
        "LOG_LEVEL": "error",
    }
    door = PostgresDoor(url, pool_size=2, deadline_seconds=PATIENCE_SECONDS)
    rooms = compose(read(environ), door, environ=environ)
    while await asyncio.to_thread(orders.recv):
        await rooms.sweeper.sweep()
        orders.send("swept")
