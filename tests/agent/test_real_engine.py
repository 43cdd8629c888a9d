"""An engine from its start to its end, as Tollgate and an operator see it: llama-server with a tiny model."""

from pathlib import Path

from agent import host
from agent.control_plane import ControlPlane, until
from agent.host import Agent

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
MANY = 4000
"""Tokens: seconds of work, so that a busy agent notices in time that the client has gone."""
PATH = "/d/dep_1/v1/chat/completions"
LIFE = [
    ("starting", "wanted"), ("loading", "first line"), ("running", "answered"),
    ("draining", "unwanted"), ("stopping", "drained"), ("stopped", "gone"),
]  # fmt: skip


def test_a_model_starts_answers_streams_is_cut_and_stops(agent: Agent, plane: ControlPlane, models: Path) -> None:
    plane.want("dep_1", host.spec(models / "tiny.gguf", context_length=4096))
    seen = plane.becomes("dep_1", "running")
    assert seen["ready"]
    assert seen["facts"]["architecture"] == "llama"
    with agent.client() as http:
        answered = http.post(PATH, json=CHAT).json()
        assert answered["usage"]["completion_tokens"] == 8

        with http.stream("POST", PATH, json={**CHAT, "stream": True}) as streamed:
            lines = [line for line in streamed.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        assert len(lines) > 8

        with http.stream("POST", PATH, json={**CHAT, "stream": True, "max_tokens": MANY, "ignore_eos": True}) as cut:
            next(cut.iter_raw())
        until(lambda: agent_is_idle(plane))
        assert 0 < total(plane, "generation_tokens_total") < MANY

        tested = plane.ask("test", deployment_id="dep_1")["result"]
        assert tested["success"]
        failed = http.post("/agent/tasks", json={"kind": "inspect_folder", "arguments": {"folder": ".."}})
        assert (failed.status_code, failed.json()["error"]["code"]) == (422, "task_failed")
        assert http.post("/agent/tasks", json={"kind": "local_folders", "arguments": {}}).json() == []
        logs = http.get("/agent/logs/dep_1?lines=5").json()["lines"]
        assert len(logs) == 5
        assert http.get("/agent/health").json()["phases"] == {"dep_1": "running"}

        plane.poll_seconds, before = 3600, len(plane.syncs)
        until(lambda: len(plane.syncs) > before)
        plane.stop("dep_1")
        assert http.post("/agent/wake").status_code == 200
        plane.becomes("dep_1", "stopped")
        until(lambda: told(plane) == LIFE, lambda: str(told(plane)))
        assert agent.engines() == []
        refused = http.post(PATH, json=CHAT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_stopped")
    assert int(refused.headers["retry-after"]) >= 1


def told(plane: ControlPlane) -> list[tuple[str, str]]:
    """The changes of the phase."""
    seen = [one for sync in plane.syncs for one in sync["observations"]]
    return [(change["phase"], change["why"]) for one in seen for change in one["changes"]]


def agent_is_idle(plane: ControlPlane) -> bool:
    metrics = plane.syncs[-1]["metrics"]
    return bool(metrics) and metrics[0]["in_flight"] == 0 and metrics[0]["requests_running"] == 0


def total(plane: ControlPlane, name: str) -> int:
    value: int = plane.syncs[-1]["metrics"][0][name]
    return value
