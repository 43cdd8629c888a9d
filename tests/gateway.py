"""Tollgate as its clients meet it: on a real socket, before a sandbox that keeps its own ledger."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from people import PEPPER, Person
from sandbox.serving import PATIENCE_SECONDS, serving
from tollgate import settings
from tollgate.app import create_app
from tollgate.sandbox import API
from tollgate.sandbox.app import Sandbox

CHAT = "/v1/chat/completions"
BOTH_DOORS = pytest.mark.both_doors
"""For the contract of the doors, and for the test that shows a function of the database at work."""
ONE_DOOR = pytest.mark.parametrize("wire", ["postgres"], indirect=True)
"""For many values, in a file where the others go through both doors."""


@dataclass
class Upstream:
    """A sandbox that listens."""

    app: Sandbox
    address: str

    @property
    def url(self) -> str:
        return self.address + API

    @property
    def owed_nanos(self) -> int:
        return self.app.ledger.owed_nanos

    def all_ended(self) -> bool:
        """Whether every generation has ended, and so its cost is known."""
        return all(generation["finished"] for generation in self.generations())

    def generations(self) -> list[dict[str, Any]]:
        return list(self.app.ledger.shown()["generations"])


@dataclass
class Gateway:
    address: str
    upstream: Upstream

    def client(self, someone: Person, **headers: str) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {someone.secret}", **headers}
        return httpx.AsyncClient(base_url=self.address, headers=headers, timeout=PATIENCE_SECONDS)

    async def post(self, someone: Person, body: Any, path: str = CHAT, **headers: str) -> httpx.Response:
        async with self.client(someone) as http:
            return await http.post(path, json=body, headers=headers)


@contextlib.contextmanager
def running(database: Mapping[str, str], upstream: Upstream, **more: str) -> Iterator[Gateway]:
    given = {
        "KEY_PEPPER": PEPPER,
        "OPENROUTER_BASE_URL": upstream.url,
        "OPENROUTER_API_KEY": "sk-or-v1-of-the-tests",
        "SANDBOX_BASE_URL": upstream.url,
        "LOG_LEVEL": "warning",
        **database,
        **more,
    }
    with serving(create_app(settings.read(given), environ=given), lifespan="on") as address:
        yield Gateway(address, upstream)
