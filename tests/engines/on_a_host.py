"""An agent with engines that are installed for `make test-engines`, and models that customers can call there."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import httpx

from agent import host
from agent.control_plane import ControlPlane
from completions.stage import Stage
from people import Person

WAITS = 150
"""Seconds: vLLM reads much before it listens."""


@contextlib.contextmanager
def agent_of(stage: Stage, token: str, programs: Path, *more: str, python: str | None = None) -> Iterator[Path]:
    """With these programs on its PATH. The folder of its models."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        models = Path(folder, "models")
        models.mkdir()
        plane = cast(ControlPlane, SimpleNamespace(address=stage.gateway.address))
        agent = host.Agent(plane, Path(folder, "a"), models, **({"python": python} if python else {}))
        agent.environment["PATH"] = f"{programs}:{agent.environment['PATH']}"
        agent.start(*more, token=token)
        try:
            yield models
        finally:
            host.end(agent)


async def offered(stage: Stage, operator: Person, host_id: str, spec: dict[str, Any], price: dict[str, str]) -> str:
    """A model of the host, as soon as customers can call it. Its id."""
    body = {"host_id": host_id, "spec": spec, "pricing": price, "wanted": "running"}
    made = await stage.post(operator, body, "/admin/models")
    assert made.status_code == 201, made.text
    deployment_id: str = made.json()["id"]
    for _ in range(WAITS):
        if await is_offered(stage, operator, spec["served_name"]):
            return deployment_id
        seen = (await asked(stage, operator, f"/admin/models/{deployment_id}")).json()
        assert seen["phase"] != "failed", (await asked(stage, operator, f"/admin/models/{deployment_id}/logs")).text
        await anyio.sleep(1)
    raise AssertionError(seen)


async def is_offered(stage: Stage, operator: Person, name: str) -> bool:
    return (await asked(stage, operator, f"/v1/models/{name}")).status_code == 200


async def asked(stage: Stage, operator: Person, path: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {operator.secret}"}
    return await stage.http.get(stage.gateway.address + path, headers=headers)


def path(place: Path) -> dict[str, str]:
    return {"type": "path", "path": str(place)}
