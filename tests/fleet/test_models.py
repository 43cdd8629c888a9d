"""Models on hosts: from their creation to a paid call, and what operators may ask of them."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from admin.api_client import ApiClient, admin_api
from fleet.agent import PRICING, Agent, Ingress, enrolled, model, routes, tasks_of
from fleet.conftest import AGENT_KEY
from gateway import BOTH_DOORS, Upstream
from people import Person
from sandbox.serving import serving
from tollgate.credits import store as credits
from tollgate.database import Door
from tollgate.database.postgres import PostgresDoor
from tollgate.fleet import store
from tollgate.keys.authentication import console

pytestmark = BOTH_DOORS

FACTS = {
    "layers": 32, "heads": 32, "kv_heads": 8, "head_dim": 128, "hidden": 4096, "ffn": 14336, "vocab": 128256,
    "context_length": 8192, "weight_bytes": 16 * 2**30,
}  # fmt: skip


@pytest.fixture
def ingress() -> Iterator[tuple[Ingress, str]]:
    made = Ingress()
    with serving(made) as address:
        yield made, address


async def state_of_routes(api: ApiClient, name: str) -> list[str]:
    return [route["state"] for route in await routes(api, name)]


async def test_a_model_is_offered_while_its_host_says_that_it_runs(api_of_door: ApiClient) -> None:
    api = api_of_door
    agent = await enrolled(api, "http://127.0.0.1:9")
    assert (await agent.sync())["deployments"] == []
    assert (await agent.sync())["deployments"] is None
    made = await model(api, agent, spec={"aliases": ["ours/also"], "context_length": 8192}, context_tokens=8192)
    name, path = made["served_name"], f"/admin/models/{made['id']}"
    told = await agent.sync()
    assert [(one["id"], one["wanted"], one["generation"]) for one in told["deployments"]] == [
        (made["id"], "running", 1)
    ]
    assert (told["deployments"][0]["spec"], told["poll_seconds"]) == (made["spec"], 2)

    await agent.observe(made["id"], "loading", facts=FACTS, progress={"percent": 40})
    assert await routes(api, name) == []
    assert (await agent.observe(made["id"], "running"))["poll_seconds"] == 10
    (route,) = await routes(api, name)
    assert (route["pricing"], route["upstream_model"], route["context_tokens"]) == (PRICING, name, 8192)
    upstream = await api.ask("GET", f"/admin/upstreams/{route['upstream_id']}")
    assert upstream["base_url"] == f"http://127.0.0.1:9/d/{made['id']}/v1"
    assert (upstream["host_id"], upstream["secret_name"], upstream["dialect"]) == (agent.host_id, None, "vllm")
    shown = await api.ask("GET", path)
    assert (shown["state"], shown["facts"]["layers"]) == ("running", 32)
    assert sorted(shown["offered_as"]) == sorted([name, "ours/also"])

    for phase, state in (
        ("draining", "disabled"),
        ("running", "active"),
        ("failed", "disabled"),
        ("running", "active"),
    ):
        await agent.observe(made["id"], phase)
        assert await state_of_routes(api, name) == [state]
    for action, state in (("cordon", "disabled"), ("uncordon", "active")):
        await api.ask("POST", f"/admin/hosts/{agent.host_id}/{action}")
        assert await state_of_routes(api, name) == [state]

    await api.ask("PATCH", path, json={"pricing": {"prompt": "0.5", "completion": "1"}})
    assert (await routes(api, name))[0]["pricing"]["prompt"] == "0.5"
    await api.ask("PATCH", path, json={"pricing": None})
    assert await state_of_routes(api, name) == ["disabled"]
    await api.ask("PATCH", path, json={"pricing": PRICING})
    await api.ask("POST", f"{path}/stop")
    assert await state_of_routes(api, name) == ["disabled"]
    assert (await agent.sync())["deployments"][0]["wanted"] == "stopped"

    await api.ask("POST", f"{path}/start", json={"wanted": "on_demand"})
    await agent.observe(made["id"], "stopped", ready=True)
    assert await state_of_routes(api, name) == ["active"]
    assert (await api.ask("GET", f"{path}/readiness"))["status"] == "ready"
    await api.ask("POST", f"/admin/hosts/{agent.host_id}/retire")
    assert await state_of_routes(api, name) == ["disabled"]


async def test_the_phases_of_a_model_are_kept_with_who_wanted_them(api_of_door: ApiClient) -> None:
    """Each once, however often it is told, and the last 200."""
    api = api_of_door
    agent = await enrolled(api)
    made = await model(api, agent)
    path = f"/admin/models/{made['id']}/phases"
    changes = [change(1, "stopped", "starting", "wanted", 3), change(2, "starting", "failed", "exit: code 3", 1)]
    await agent.observe(made["id"], "failed", changes=changes)
    await agent.observe(made["id"], "failed", changes=changes)
    found = (await api.ask("GET", path))["data"]
    assert [(one["before"], one["phase"], one["why"], one["asked_by"]) for one in found] == [
        ("starting", "failed", "exit: code 3", None),
        ("stopped", "starting", "wanted", api.someone.user_id),
    ]
    assert found[0]["changed_at"] > found[1]["changed_at"]
    many = [change(number, "failed", "starting", "again", 0) for number in range(3, 202)]
    await agent.observe(made["id"], "starting", changes=many)
    pages = await api.pages(path, limit=150)
    assert [len(page) for page in pages] == [150, 50]
    assert pages[-1][-1]["phase"] == "failed"


def change(number: int, before: str, phase: str, why: str, seconds_ago: float) -> dict[str, Any]:
    return {"number": number, "before": before, "phase": phase, "why": why, "seconds_ago": seconds_ago}


async def test_an_edited_spec_waits_for_apply(api: ApiClient) -> None:
    agent = await enrolled(api, "http://127.0.0.1:9")
    made = await model(api, agent)
    path, changed = f"/admin/models/{made['id']}", {**made["spec"], "context_length": 4096}
    await agent.observe(made["id"], "running")
    edited = await api.ask("PATCH", path, json={"spec": changed})
    assert (edited["generation"], edited["applied_generation"]) == (2, 1)
    assert (await agent.sync())["deployments"][0]["spec"]["context_length"] is None
    applied = await api.ask("POST", f"{path}/apply")
    assert (applied["applied_generation"], applied["offered_as"]) == (2, [])
    assert (await agent.sync())["deployments"][0]["spec"]["context_length"] == 4096
    await agent.observe(made["id"], "running", generation=2)
    assert (await api.ask("GET", path))["offered_as"] == [made["served_name"]]
    assert (await api.ask("POST", f"{path}/apply"))["applied_generation"] == 3

    error = await api.refused("DELETE", path, 409)
    assert error["reason"] == "still_wanted"
    assert (await api.ask("POST", f"{path}/archive"))["wanted"] == "stopped"
    assert (await api.refused("POST", f"{path}/start", 409))["reason"] == "archived"
    assert made["id"] not in str(await api.ask("GET", "/admin/models", params={"host_id": agent.host_id}))
    assert (await agent.sync())["deployments"] == []
    await api.ask("PATCH", path, json={"archived": False})
    gone = await api.ask("DELETE", path, params={"files": "true"})
    assert (gone["files_preserved"], await routes(api, made["served_name"])) == (False, [])
    assert [task["kind"] for task in (await agent.sync())["tasks"]] == ["delete_files"]
    assert [action.partition(".")[2] for action, _ in await api.events(made["id"])] == [
        "created", "changed", "applied", "applied", "archived", "changed", "deleted",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"spec": {"engine": "vllm"}}, "spec.source"),
        ({"spec": {"engine": "vllm", "source": {"type": "path", "path": "/m"}, "served_name": "a/b/c"}}, None),
        ({"spec": {"engine": "none", "source": {"type": "path", "path": "/m"}, "served_name": "a"}}, "spec.engine"),
    ],
)
async def test_a_spec_is_checked_in_full(api: ApiClient, given: Any, param: str | None) -> None:
    error = await api.refused("POST", "/admin/models", 400, json=given)
    assert error["code"] == "invalid_request"
    assert param is None or error["param"] == param


async def test_clients_of_cortex_add_models_in_their_own_words(api: ApiClient) -> None:
    agent = await enrolled(api)
    body = {
        "host_id": agent.host_id, "mode": "offline", "local_path": "/srv/models/m.gguf", "engine_type": "llamacpp",
        "name": "M", "served_model_name": "ours/m", "task": "generate", "max_model_len": 4096, "ngl": None,
    }  # fmt: skip
    made = (await api.ask("POST", "/admin/models", 201, json=body))["spec"]
    assert (made["engine"], made["source"]["path"], made["context_length"]) == ("llamacpp", body["local_path"], 4096)
    error = await api.refused("POST", "/admin/models", 400, json={**body, "mode": "online"})
    assert error["param"].endswith("repo_id")


async def test_what_a_model_needs_is_known_before_it_starts(api: ApiClient) -> None:
    agent = await enrolled(api)
    made = await model(api, agent, spec={"context_length": 8192})
    path = f"/admin/models/{made['id']}/dry-run"
    before = await api.ask("POST", path)
    assert (before["command"][:2], before["vram_estimate_gb"], before["valid"]) == (["vllm", "serve"], None, True)
    await agent.observe(made["id"], "stopped", facts=FACTS)
    after = await api.ask("POST", path)
    assert after["vram_estimate_gb"] == after["vram_estimate"]["total_per_gpu_gb"] > 16
    assert after["vram_estimate"]["model_weights_gb"] == 16
    assert after["fits_gpus"] == [0]
    body = {"host_id": agent.host_id, "spec": made["spec"], "facts": FACTS}
    assert await api.ask("POST", "/admin/models/dry-run", json=body) == after
    impossible = {**body, "facts": {**FACTS, "layers": 10**400}}
    assert (await api.refused("POST", "/admin/models/dry-run", 400, json=impossible))["param"] == "facts"
    too_much = {**made["spec"], "tensor_parallel": 2, "arguments": ["--host", "0.0.0.0"]}
    await api.ask("PATCH", f"/admin/models/{made['id']}", json={"spec": too_much})
    refused = await api.ask("POST", path)
    assert not refused["valid"]
    assert {"severity", "category", "title", "message", "fix"} == set(refused["warnings"][0])


async def test_a_dry_run_has_the_host_read_the_files_of_a_path(api: ApiClient, ingress: tuple[Ingress, str]) -> None:
    server, address = ingress
    agent = await enrolled(api, address)
    server.key, server.results = agent.key, {"facts": FACTS}
    source = {"type": "path", "path": "/srv/models/m.gguf"}
    made = await model(api, agent, spec={"source": source, "context_length": 8192})
    given = {"json": {"host_id": agent.host_id, "spec": made["spec"]}}
    at = f"/admin/models/{made['id']}/dry-run"
    assert (await api.ask("POST", at))["vram_estimate_gb"] is None  # the host has never called
    await agent.sync()
    read = await api.ask("POST", at)
    assert read["vram_estimate_gb"] > 16
    assert await api.ask("POST", "/admin/models/dry-run", **given) == read
    assert server.asked[-1][1]["arguments"] == {"source": source}
    server.results = {"facts": "There is no /srv/models/m.gguf on the host."}
    unread = await api.ask("POST", at)
    assert (unread["vram_estimate_gb"], unread["valid"]) == (None, True)
    assert unread["warnings"][-1]["message"] == server.results["facts"]


async def test_a_call_is_sent_with_the_key_of_the_host_and_charged_at_the_price_of_the_model(
    api: ApiClient, postgres_door: Door, ingress: tuple[Ingress, str]
) -> None:
    server, address = ingress
    agent = await enrolled(api, address)
    server.key = agent.key
    made = await model(api, agent)
    await agent.observe(made["id"], "running")
    someone = Person(postgres_door)
    await someone.seed()
    await credits.grant(
        console(postgres_door, "tests"), someone.org_id, 10**9, source="funding", reason="", reference=someone.org_id
    )
    body = {"model": made["served_name"], "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"authorization": f"Bearer {someone.secret}"}
    answer = await api.http.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "Hello"
    nanos = 10 * 1000 + 5 * 2000
    assert nanos <= int(answer.headers["x-tollgate-charge-nanos"]) <= nanos * 1.1
    assert server.asked[-1][0] == f"/d/{made['id']}/v1/chat/completions"
    probed = await api.ask("POST", "/admin/upstreams/refresh-health", json={"ids": [f"ups_{made['id'][4:]}"]})
    assert probed["data"][0]["status"] == "up"
    throughput = await api.ask("GET", "/admin/system/throughput", params={"host_id": agent.host_id})
    assert throughput["generation_tokens_per_sec"] == pytest.approx(5 / 60)

    heard = await model(
        api,
        agent,
        spec={"engine": "whisper", "kind": "transcription"},
        pricing={"prompt": "0", "completion": "0", "second": "0.0001"},
    )
    await agent.observe(heard["id"], "running")
    listed = (await api.http.get(f"/v1/models/{heard['served_name']}", headers=headers)).json()
    assert "/v1/audio/transcriptions" in {one["path"] for one in listed.get("data", listed)["endpoints"]}


async def test_an_operator_cannot_send_the_key_of_a_host_elsewhere(api: ApiClient) -> None:
    agent = await enrolled(api, "http://127.0.0.1:9")
    made = await model(api, agent)
    await agent.observe(made["id"], "running")
    (route,) = await routes(api, made["served_name"])
    upstream = f"/admin/upstreams/{route['upstream_id']}"
    for method, path, body in (
        ("PATCH", upstream, {"base_url": "http://127.0.0.1:7/v1"}),
        ("DELETE", f"{upstream}?routes=true", None),
        ("DELETE", f"/admin/models/registry/{route['id']}", None),
        ("POST", "/admin/models/registry", {"model": "x", "upstream_id": route["upstream_id"], "pricing": PRICING}),
    ):
        error = await api.refused(method, path, 409, **({"json": body} if body else {}))
        assert (error["reason"], error["host_id"]) == ("of_host", agent.host_id)


async def test_a_host_is_asked_through_its_ingress_or_with_its_next_sync(
    api: ApiClient, ingress: tuple[Ingress, str]
) -> None:
    server, address = ingress
    agent = await enrolled(api, address)
    server.key = agent.key
    made = await model(api, agent)
    query = {"params": {"host_id": agent.host_id}}
    assert (await api.refused("GET", "/admin/models/local-folders", 409, **query))["reason"] == "host_unseen"
    await agent.observe(made["id"], "running")
    path = f"/admin/models/{made['id']}"
    server.results = {
        "local_folders": ["llama"],
        "inspect_folder": "The folder is outside the roots that this host allows.",
        "test": {"success": True, "test_type": "chat", "latency_ms": 12},
        "logs": {"lines": ["INFO ready", "WARNING slow"]},
        "hub_config": {"hidden_size": 64},
    }
    assert await api.ask("GET", "/admin/models/local-folders", **query) == ["llama"]
    assert (await agent.sync())["tasks"] == []
    inside = {"params": {"host_id": agent.host_id, "base": "/etc", "folder": "../root"}}
    error = await api.refused("GET", "/admin/models/inspect-folder", 409, **inside)
    assert (error["code"], "outside the roots" in error["reason"]) == ("host_task_failed", True)
    assert server.asked[-1][1]["arguments"] == {"base": "/etc", "folder": "../root"}
    assert (await api.ask("POST", f"{path}/test"))["success"]
    assert (await api.ask("GET", f"{path}/logs", params={"diagnose": "true"}))["logs"] == "INFO ready\nWARNING slow"
    config = {"params": {"host_id": agent.host_id, "repo_id": "a/b"}}
    assert (await api.ask("GET", "/admin/models/hf-config", **config))["hidden_size"] == 64

    server.key = "another"
    waiting = asyncio.ensure_future(api.ask("GET", "/admin/models/local-folders", **query))
    tasks = await tasks_of(agent)
    assert (await agent.sync())["tasks"] == tasks  # an answer may have been lost
    await agent.sync(task_results=[{"task_id": tasks[0]["id"], "status": "done", "result": ["by sync"]}])
    assert await waiting == ["by sync"]


async def test_a_task_that_nobody_took_fails_and_old_samples_go(
    api: ApiClient, postgres_door: Door, sql: Any, shared_database: str
) -> None:
    agent = await enrolled(api)
    sample = {"cpu_percent": 12.5, "memory_used_bytes": 2**30, "disk_used_bytes": 3, "disk_total_bytes": 4,
              "gpus": [{"index": 0, "name": "RTX", "utilization_percent": 71}]}  # fmt: skip
    await agent.sync(sample=sample)
    await agent.sync(sample={**sample, "cpu_percent": 99})  # within the same minute
    query = {"params": {"host_id": agent.host_id}}
    trends = await api.ask("GET", "/admin/system/host/trends", **query)
    assert [point["value"] for point in trends["cpu"]] == [12.5]
    assert [[point["value"] for point in gpu["utilization_percent"]] for gpu in trends["gpus"]] == [[71]]
    summary = await api.ask("GET", "/admin/system/host/summary", **query)
    assert (summary["cpu_util_pct"], summary["mem_used_mb"], summary["disk_used_pct"]) == (12.5, 1024, 75)
    (gpu,) = await api.ask("GET", "/admin/system/gpus", **query)
    assert (gpu["utilization_pct"], gpu["mem_total_mb"], gpu["architecture"]) == (71, 24 * 1024, "Ampere")
    assert (await api.ask("GET", "/admin/system/summary", **query))["cpu_count"] == 8
    assert (await api.ask("GET", "/admin/system/capabilities", **query))["capabilities"]["cpu_count"] == 8

    made = await store.create_task(api.someone.at_the_door(), "logs", {}, host_id=agent.host_id, deployment_id=None)
    old = "update tollgate.{} set {} = now() - interval '25 hours' where host_id = $1"
    await sql(shared_database, old.format("tasks", "created_at"), agent.host_id)
    await sql(shared_database, old.format("host_samples", "sampled_at"), agent.host_id)
    await store.keep(postgres_door, 1000)
    count = "select count(*) from tollgate.{} where host_id = $1"
    assert await sql(shared_database, count.format("host_samples"), agent.host_id) == 0
    outcome = await sql(shared_database, "select state from tollgate.tasks where id = $1", made["task"]["id"])
    assert outcome in (None, "failed")


async def test_a_token_of_hugging_face_is_sent_while_it_is_needed(
    api: ApiClient, postgres_door: Door, sandbox: Upstream
) -> None:
    agent, other = await enrolled(api), await enrolled(api)
    name, value = f"token-{api.someone.number}", "hf_a-token-of-the-tests-never-shown"
    await api.ask("PUT", "/admin/hf-tokens", json={"name": name, "token": value})
    made = await model(api, agent, hub_token=name, wanted="stopped")
    assert (await agent.sync())["hub_tokens"] == {}
    await api.ask("POST", f"/admin/models/{made['id']}/start")
    assert (await agent.sync())["hub_tokens"] == {made["id"]: value}
    assert (await agent.observe(made["id"], "downloading"))["hub_tokens"] == {made["id"]: value}
    assert (await other.sync())["hub_tokens"] == {}
    async with admin_api(postgres_door, sandbox, api.someone, AGENT_KEY=AGENT_KEY) as locked:
        agent.http = locked.http
        assert (await agent.sync())["hub_tokens"] == {}
        agent.http = api.http
    for phase in ("starting", "loading", "running"):
        assert (await agent.observe(made["id"], phase, facts=FACTS))["hub_tokens"] == {}
    assert (await agent.observe(made["id"], "failed"))["hub_tokens"] == {}
    logged = (await api.ask("GET", "/admin/audit-logs", params={"action": "secret.sent"}))["data"]
    assert [event["details"]["host_id"] for event in logged if event["details"]["name"] == name] == [agent.host_id]
    assert value not in str(logged)


async def test_figures_of_engines_have_the_names_that_older_clients_know(api: ApiClient) -> None:
    agent = await enrolled(api)
    made = await model(api, agent)
    await agent.observe(made["id"], "running", metrics=[])
    figures = {"deployment_id": made["id"], "requests_running": 3, "cache_usage": 0.25, "ttft_p95_ms": 80}
    await agent.sync(metrics=[figures])
    path = f"/admin/models/{made['id']}"
    assert (await api.ask("GET", path))["metrics"]["requests_running"] == 3
    listed = (await api.ask("GET", "/admin/models/metrics"))["data"]
    (found,) = [row for row in listed if row["model_id"] == made["id"]]
    assert (found["num_requests_running"], found["gpu_cache_usage_pct"], found["time_to_first_token_p95_ms"]) == (
        3,
        25,
        80,
    )


async def test_clients_of_rk_add_start_and_delete_models_on_the_only_host(own_database: str, sandbox: Upstream) -> None:
    door = PostgresDoor(own_database, pool_size=2, deadline_seconds=30)
    admin = Person(door, "admin")
    await admin.seed()
    async with admin_api(door, sandbox, admin, AGENT_KEY=AGENT_KEY) as api:
        body = {"name": "llama", "repo_id": "a/b", "model_type": "LLM", "files": ["m-Q4.gguf"]}
        assert (await api.refused("POST", "/admin/api/models", 409, json=body))["reason"] == "no_host"
        agent: Agent = await enrolled(api, "http://127.0.0.1:9")
        assert (await api.ask("GET", "/admin/models/base-dir"))["base_dir"] is None
        await api.ask("PUT", "/admin/models/base-dir", json={"base_dir": "/srv/models"})
        assert (await agent.sync())["host"] == {"state": "active", "base_dir": "/srv/models"}
        made = await api.ask("POST", "/admin/api/models", 201, json=body)
        assert (made["status"], made["model_type"], made["revision"]) == ("stopped", "LLM", "main")
        path = f"/admin/api/models/{made['id']}"
        await api.ask("POST", f"{path}/download", json={"files": ["m-Q8.gguf"]})
        told = (await agent.sync())["deployments"][0]
        assert (told["wanted"], told["spec"]["source"]["files"]) == ("on_demand", ["m-Q8.gguf"])
        await api.ask("POST", f"{path}/start", json={"instances": 1})
        await agent.observe(made["id"], "running", told["generation"])
        assert [one["status"] for one in await api.ask("GET", "/admin/api/models")] == ["running"]
        assert (await api.ask("GET", f"/admin/models/{made['id']}"))["offered_as"] == []  # it has no price
        headers = {"authorization": f"Bearer {admin.secret}"}
        assert (await api.http.delete(path, headers=headers)).status_code == 204
        await api.refused("GET", path, 404)
        await enrolled(api)
        assert (await api.refused("POST", "/admin/api/models", 409, json=body))["reason"] == "several_hosts"
    await door.close()
