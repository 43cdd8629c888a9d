"""A load that goes on while the program changes under it, and what it holds against that."""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx

from sandbox.serving import PATIENCE_SECONDS, a_chat

CALLERS = 4
KEPT_SECONDS = 1.0
"""Less than the server keeps a connection. Else it may close one just when a request is sent on it."""


class Load:
    """Customers and an operator who call without a pause, each time whichever server is there."""

    def __init__(self, address: str, operator: str) -> None:
        self.address = address
        self.calls: Counter[str] = Counter()
        self.failures: list[str] = []
        self._under_way: Counter[str] = Counter()
        self._operator = operator
        self._callers: list[asyncio.Task[None]] = []
        self._is_over = False
        self._secret = ""
        self._org_id = ""

    async def begins(self, http: httpx.AsyncClient) -> None:
        """A customer, made as operators make them."""
        org = await self._operates(http, "/admin/orgs", {"name": "Rolling", "plan": "enterprise"})
        who = {"email": f"{secrets.token_hex(4)}@example.com", "org_id": org["id"]}
        user = await self._operates(http, "/admin/users", who)
        key = await self._operates(http, "/admin/keys", {"user_id": user["id"], "name": "Rolling"})
        grant = {"org_id": org["id"], "credits": 100, "reason": "To roll"}
        await self._operates(http, "/admin/credits/grant", grant, **{"idempotency-key": secrets.token_hex(8)})
        self._secret, self._org_id = key["key"], org["id"]

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        limits = httpx.Limits(keepalive_expiry=KEPT_SECONDS)
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS, limits=limits) as http:
            await self.begins(http)
            self._callers = [asyncio.create_task(self._calls(http)) for _ in range(CALLERS)]
            try:
                await self.has_gone_on()
                yield
            finally:
                await self.ends()

    async def ends(self) -> None:
        self._is_over = True
        await asyncio.gather(*self._callers)

    async def has_gone_on(self, many: int = 4 * CALLERS) -> None:
        """Waits for so many more calls where it calls now, and until none is under way elsewhere."""
        enough = self.calls[self.address] + many
        while not self.failures and (self.calls[self.address] < enough or self._is_elsewhere()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def _is_elsewhere(self) -> bool:
        return any(count for address, count in self._under_way.items() if address != self.address)

    async def _calls(self, http: httpx.AsyncClient) -> None:
        ways = (self._plain, self._stream, self._again, self._reads)
        number = 0
        while not self._is_over and not self.failures:
            number += 1
            address = self.address
            self._under_way[address] += 1
            try:
                fault = await ways[number % len(ways)](http, address)
            except httpx.HTTPError as error:
                fault = repr(error)
            self._under_way[address] -= 1
            self.calls[address] += 1
            if fault:
                self.failures.append(fault)

    async def _plain(self, http: httpx.AsyncClient, address: str) -> str | None:
        answer = await self._pays(http, address, a_chat())
        return None if "x-tollgate-charge-nanos" in answer.headers else f"not settled: {_said(answer)}"

    async def _stream(self, http: httpx.AsyncClient, address: str) -> str | None:
        answer = await self._pays(http, address, a_chat(stream=True), **{"x-tollgate-usage": "true"})
        is_whole = answer.text.endswith("data: [DONE]\n\n") and '"charge_nanos"' in answer.text
        return None if is_whole else f"not settled: {_said(answer)}"

    async def _again(self, http: httpx.AsyncClient, address: str) -> str | None:
        """The second may be answered by the newer program from what the older one kept."""
        key = {"idempotency-key": secrets.token_hex(8)}
        first = await self._pays(http, address, a_chat(), **key)
        again = await self._pays(http, self.address, a_chat(), **key)
        same = first.content == again.content and "idempotency-replayed" in again.headers
        return None if same else f"not the same: {_said(first)} / {_said(again)}"

    async def _reads(self, http: httpx.AsyncClient, address: str) -> str | None:
        for path in ("/user/balance", "/user/usage", "/v1/models"):
            answer = await http.get(address + path, headers={"authorization": f"Bearer {self._secret}"})
            if answer.status_code != 200:
                return f"{path}: {_said(answer)}"
        answer = await http.get(f"{address}/admin/orgs/{self._org_id}", headers={"x-api-key": self._operator})
        return None if answer.status_code == 200 else _said(answer)

    async def _pays(self, http: httpx.AsyncClient, address: str, body: Any, **headers: str) -> httpx.Response:
        given = {"authorization": f"Bearer {self._secret}", **headers}
        return await http.post(f"{address}/v1/chat/completions", json=body, headers=given)

    async def _operates(self, http: httpx.AsyncClient, path: str, body: Any, **headers: str) -> Any:
        given = {"x-api-key": self._operator, **headers}
        answer = await http.post(self.address + path, json=body, headers=given)
        assert answer.is_success, _said(answer)
        return answer.json()


def _said(answer: httpx.Response) -> str:
    return f"{answer.status_code} {answer.text[:300]}"
