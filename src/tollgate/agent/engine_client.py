"""How the agent talks to an engine: over its UNIX socket or loopback port, with the secret that it was started with."""

import base64
from typing import Any

import httpx

PROBE_SECONDS = 120.0
HEALTH_SECONDS = 5.0


class EngineClient:
    def __init__(self, socket: str | None, port: int | None, secret: str) -> None:
        self.headers = [(b"authorization", f"Bearer {secret}".encode())]
        self.http = httpx.AsyncClient(
            base_url="http://engine" if socket else f"http://127.0.0.1:{port}",
            transport=httpx.AsyncHTTPTransport(uds=socket, limits=httpx.Limits(max_connections=None)),
            headers=[*self.headers, (b"accept-encoding", b"identity")],
            timeout=httpx.Timeout(None, connect=HEALTH_SECONDS),
            trust_env=False,
        )

    async def is_healthy(self, path: str) -> bool:
        return (await self.http.get(path, timeout=HEALTH_SECONDS)).status_code == httpx.codes.OK

    async def probe(self, probe: dict[str, Any]) -> httpx.Response:
        """The smallest request that the model can answer."""
        file = probe.get("file")
        files = {file["field"]: (file["name"], base64.b64decode(file["base64"]))} if file else None
        return await self.http.request(
            probe["method"],
            probe["path"],
            json=probe.get("json"),
            data=probe.get("form"),
            files=files,
            timeout=PROBE_SECONDS,
        )

    async def metrics(self, path: str) -> str:
        return (await self.http.get(path, timeout=HEALTH_SECONDS)).raise_for_status().text

    async def close(self) -> None:
        await self.http.aclose()
