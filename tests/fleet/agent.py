"""The agent of a host, as far as the control plane meets it: it enrols, syncs, and answers at its ingress."""

import json
import secrets
from typing import Any

import httpx
from starlette.types import Receive, Scope, Send

from admin.api_client import ApiClient

CAPABILITIES = {
    "cpu_count": 8,
    "memory_total_bytes": 64 * 2**30,
    "gpus": [{"index": 0, "name": "RTX", "memory_total_bytes": 24 * 2**30, "compute_capability": "8.6"}],
}
TWO_HOURS_AHEAD = {"date": "Mon, 30 Nov 2099 02:00:00 GMT"}
SPEC = {"engine": "vllm", "source": {"type": "hub", "repo_id": "meta-llama/Llama-3.1-8B"}}
PRICING = {"prompt": "0.000001", "completion": "0.000002"}


COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
}


class Agent:
    """Its clock is wrong, and it says so with each sync: nothing depends on it."""

    def __init__(self, http: httpx.AsyncClient, host_id: str, key: str, ingress_url: str | None) -> None:
        self.http = http
        self.host_id = host_id
        self.key = key
        self.ingress_url = ingress_url
        self.incarnation = secrets.token_hex(16)
        self.seq = 0
        self.version: int | None = None

    async def post(self, path: str, body: Any, status: int = 200) -> Any:
        headers = {"authorization": f"Bearer {self.key}", **TWO_HOURS_AHEAD}
        answer = await self.http.post(path, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def sync(self, status: int = 200, **said: Any) -> Any:
        self.seq += 1
        body = {
            "incarnation": self.incarnation,
            "seq": self.seq,
            "known_version": self.version,
            "agent_version": "0.1.0",
            "ingress_url": self.ingress_url,
            **said,
        }
        answer = await self.post("/agent/sync", body, status)
        self.version = answer.get("desired_version", self.version)
        return answer

    async def observe(self, deployment_id: str, phase: str, generation: int = 1, **said: Any) -> Any:
        seen = {"deployment_id": deployment_id, "generation": generation, "phase": phase, "ready": phase == "running"}
        return await self.sync(observations=[{**seen, **said}])


async def tasks_of(agent: Agent) -> list[Any]:
    """What an operator has just asked of the host, as soon as it is there."""
    while not (found := (await agent.sync())["tasks"]):
        pass
    return list(found)


async def enrolled(api: ApiClient, ingress_url: str | None = None, **host: Any) -> Agent:
    made = await api.ask("POST", "/admin/hosts", 201, json={"name": "gpu", **host})
    return await enrol(api, made["enrolment"]["token"], ingress_url)


async def enrol(api: ApiClient, token: str, ingress_url: str | None = None, status: int = 201) -> Agent:
    body = {"token": token, "agent_version": "0.1.0", "capabilities": CAPABILITIES, "ingress_url": ingress_url}
    answer = await api.http.post("/agent/enrol", json=body)
    assert answer.status_code == status, answer.text
    found = answer.json()
    return Agent(api.http, found.get("host_id", ""), found.get("host_key", ""), ingress_url)


async def model(api: ApiClient, agent: Agent, **given: Any) -> Any:
    """A model of this host, with a name of its own."""
    spec = {**SPEC, "served_name": f"ours/{secrets.token_hex(6)}", **given.pop("spec", {})}
    body = {"host_id": agent.host_id, "spec": spec, "pricing": PRICING, "wanted": "running", **given}
    return await api.ask("POST", "/admin/models", 201, json=body)


async def routes(api: ApiClient, name: str) -> list[Any]:
    found: list[Any] = (await api.ask("GET", "/admin/models/registry", params={"model": name}))["data"]
    return found


class Ingress:
    """An ASGI app at the ingress of a host. Only the host's own key opens it."""

    def __init__(self) -> None:
        self.key = ""
        self.results: dict[str, Any] = {}
        self.asked: list[tuple[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        sent = dict(scope["headers"]).get(b"authorization", b"").decode()
        said = json.loads(body) if body else None
        self.asked.append((scope["path"], said))
        if sent != f"Bearer {self.key}":
            await _answer(send, 401, {"error": {"code": "host_key_invalid"}})
        elif scope["path"] == "/agent/tasks":
            result = self.results.get(said["kind"])
            if isinstance(result, str):
                await _answer(send, 422, {"error": {"code": "task_failed", "message": result}})
            else:
                await _answer(send, 200 if result is not None else 404, result)
        else:
            await _answer(send, 200, COMPLETION)


async def _answer(send: Send, status: int, said: Any) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})
