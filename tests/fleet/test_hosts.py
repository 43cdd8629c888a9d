"""Hosts: who may become one, and what its key opens."""

import asyncio
import secrets
from typing import Any

import asyncpg
import pytest

from admin.api_client import ApiClient, admin_api
from fleet.agent import Agent, Ingress, enrol, enrolled, model, routes, tasks_of
from fleet.conftest import AGENT_KEY
from gateway import Upstream
from sandbox.serving import serving
from tollgate.core import host_keys
from tollgate.core.host_keys import HostKey
from tollgate.database import Door


async def refused(api: ApiClient, key: str | None, path: str = "/agent/sync", body: Any = None) -> tuple[int, str]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = body or {"incarnation": "aa", "seq": 1, "agent_version": "0.1.0"}
    answer = await api.http.post(path, json=body, headers=headers)
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_token_makes_one_agent_whoever_comes_at_the_same_time(api: ApiClient) -> None:
    made = await api.ask("POST", "/admin/hosts", 201, json={"name": "gpu", "labels": {"rack": "b4"}})
    token = made["enrolment"]["token"]
    assert made["contact"] == "never"
    assert made["enrolment"]["command"].endswith(f"agent --server http://tollgate --token {token}")
    body = {"token": token, "agent_version": "0.1.0", "capabilities": {}}
    answers = await asyncio.gather(*(api.http.post("/agent/enrol", json=body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [401] * 7
    assert {answer.json()["error"]["code"] for answer in answers if answer.status_code == 401} == {"enrolment_invalid"}
    assert token not in str(await api.events(made["id"]))
    assert [action for action, _ in await api.events(made["id"])] == ["host.created", "host.enrolled"]


async def test_an_old_or_unknown_token_makes_none(api: ApiClient, sql: Any, shared_database: str) -> None:
    made = await api.ask("POST", "/admin/hosts", 201, json={"name": "gpu"})
    await sql(shared_database, "update tollgate.enrolments set expires_at = now() where host_id = $1", made["id"])
    await enrol(api, made["enrolment"]["token"], status=401)
    await enrol(api, "tge_unknown", status=401)
    again = await api.ask("POST", f"/admin/hosts/{made['id']}/enrolments", 201)
    assert (await enrol(api, again["enrolment"]["token"])).host_id == made["id"]


async def test_a_repeated_creation_makes_one_host_and_shows_no_second_token(api: ApiClient) -> None:
    headers = {"authorization": f"Bearer {api.someone.secret}", "idempotency-key": api.someone.number}
    first, second = [await api.http.post("/admin/hosts", json={"name": "gpu"}, headers=headers) for _ in range(2)]
    assert (first.json()["id"], second.headers["idempotency-replayed"]) == (second.json()["id"], "true")
    assert (first.json()["enrolment"] is None, second.json()["enrolment"]) == (False, None)
    await enrol(api, first.json()["enrolment"]["token"])


async def test_only_the_last_key_of_a_host_opens_what_is_its_own(api: ApiClient) -> None:
    agent, other = await enrolled(api), await enrolled(api)
    forged = host_keys.made("another-agent-key-with-at-least-32-chars", HostKey(agent.host_id, 1))
    swapped = agent.key.replace(agent.host_id, other.host_id)
    later = host_keys.made(AGENT_KEY, HostKey(agent.host_id, 2))
    for key in (None, "nonsense", forged, swapped, later, api.someone.secret):
        assert await refused(api, key) == (401, "host_key_invalid")
    await agent.sync()

    rotated = await api.ask("POST", f"/admin/hosts/{agent.host_id}/rotate", 201)
    assert await refused(api, agent.key) == (401, "host_key_invalid")
    renewed = await enrol(api, rotated["enrolment"]["token"])
    await renewed.sync()
    assert renewed.key != agent.key

    await api.ask("POST", f"/admin/hosts/{agent.host_id}/retire")
    assert await refused(api, renewed.key) == (403, "host_retired")
    for path in ("rotate", "enrolments", "uncordon"):
        error = await api.refused("POST", f"/admin/hosts/{agent.host_id}/{path}", 409)
        assert error["reason"] == "host_retired"


async def test_another_agent_key_reaches_the_agents_before_the_former_one_ends(
    api: ApiClient, postgres_door: Door, sandbox: Upstream
) -> None:
    server, other_key = Ingress(), "another-agent-key-of-the-tests-with-40-c"
    with serving(server) as address:
        agent = await enrolled(api, address)
        former = server.key = agent.key
        assert (await agent.sync())["host_keys"] == [former]
        server.results = {"local_folders": ["llama"]}
        folders = {"params": {"host_id": agent.host_id}}

        both = {"AGENT_KEY": other_key, "AGENT_KEY_PREVIOUS": AGENT_KEY}
        async with admin_api(postgres_door, sandbox, api.someone, **both) as rotating:
            agent.http = rotating.http
            keys = (await agent.sync())["host_keys"]
            assert (len(keys), keys[1]) == (2, former)
            assert await rotating.ask("GET", "/admin/models/local-folders", **folders) == ["llama"]
            agent.key = keys[0]
            assert (await agent.sync())["host_keys"] == keys
        async with admin_api(postgres_door, sandbox, api.someone, AGENT_KEY=other_key) as rotated:
            assert await refused(rotated, former) == (401, "host_key_invalid")
            agent.http, server.key = rotated.http, keys[0]
            assert (await agent.sync())["host_keys"] == [keys[0]]
            assert await rotated.ask("GET", "/admin/models/local-folders", **folders) == ["llama"]


async def test_a_refused_key_of_a_host_is_something_to_look_at(
    api: ApiClient, postgres_door: Door, sandbox: Upstream, sql: Any, shared_database: str
) -> None:
    """The counts are written when a server ends."""
    address = f"198.51.100.{secrets.randbelow(250)}"
    behind = {"headers": {"x-forwarded-for": address, "authorization": "Bearer tgh_hst_1_1_" + "0" * 64}}
    async with admin_api(postgres_door, sandbox, api.someone, AGENT_KEY=AGENT_KEY, TRUSTED_PROXY="proxy") as bare:
        assert (await bare.http.post("/agent/sync", json={}, **behind)).status_code == 401
        unknown = {"token": "tge_unknown", "agent_version": "0.1.0", "capabilities": {}}
        assert (await bare.http.post("/agent/enrol", json=unknown, **behind)).status_code == 401
    counted = "select count from tollgate.security_events where kind = 'authentication_failed' and subject = $1"
    assert await sql(shared_database, counted, address) == 2


async def test_the_agent_is_woken_when_something_is_wanted(api: ApiClient) -> None:
    server = Ingress()
    with serving(server) as address:
        agent = await enrolled(api, address)
        made = await model(api, agent)
        assert server.asked == []  # it has never called, so nobody waits for it
        server.key = agent.key
        await agent.sync()
        for path in (f"models/{made['id']}/stop", f"models/{made['id']}/start", f"hosts/{agent.host_id}/cordon"):
            server.asked.clear()
            await api.ask("POST", f"/admin/{path}")
            assert server.asked == [("/agent/wake", {})]
        server.key = "another"
        assert (await api.ask("POST", f"/admin/models/{made['id']}/stop"))["wanted"] == "stopped"


async def test_a_host_is_deleted_with_its_models_once_none_is_wanted(
    api: ApiClient, sql: Any, shared_database: str
) -> None:
    agent = await enrolled(api, "http://127.0.0.1:9")
    made = await model(api, agent)
    await agent.observe(made["id"], "running", sample={"cpu_percent": 1})
    path = f"/admin/hosts/{agent.host_id}"
    confirmed = {"params": {"confirm": agent.host_id}}
    assert (await api.refused("DELETE", path, 400))["param"] == "confirm"
    assert (await api.refused("DELETE", path, 400, params={"confirm": "hst_other"}))["param"] == "confirm"
    error = await api.refused("DELETE", path, 409, **confirmed)
    assert (error["reason"], error["deployment_ids"]) == ("host_still_wanted", [made["id"]])
    await api.ask("POST", f"/admin/models/{made['id']}/stop")
    assert await api.ask("DELETE", path, **confirmed) == {"id": agent.host_id, "status": "deleted", "models": 1}
    await api.refused("DELETE", path, 404, **confirmed)
    await api.refused("GET", f"/admin/models/{made['id']}", 404)
    assert await routes(api, made["served_name"]) == []
    assert await refused(api, agent.key) == (401, "host_key_invalid")
    assert [action for action, _ in await api.events(agent.host_id)][-1] == "host.deleted"


async def test_an_agent_sees_and_changes_nothing_of_another_host(api: ApiClient) -> None:
    agent, other = await enrolled(api), await enrolled(api)
    theirs = await model(api, other, hub_token="default")
    await other.sync()
    task = asyncio.ensure_future(api.ask("GET", "/admin/models/local-folders", params={"host_id": other.host_id}))
    waiting = await tasks_of(other)
    told = await agent.sync(
        observations=[{"deployment_id": theirs["id"], "generation": 1, "phase": "running", "ready": True}],
        metrics=[{"deployment_id": theirs["id"], "in_flight": 7}],
        task_results=[{"task_id": waiting[0]["id"], "status": "done", "result": ["/etc"]}],
    )
    assert (told["deployments"], told["tasks"], told["hub_tokens"]) == ([], [], {})
    await agent.post(f"/agent/tasks/{waiting[0]['id']}", {"status": "done", "result": ["/etc"]}, 404)
    assert (await api.ask("GET", f"/admin/models/{theirs['id']}"))["phase"] == "stopped"
    assert await routes(api, theirs["served_name"]) == []
    await other.post(f"/agent/tasks/{waiting[0]['id']}", {"status": "done", "result": ["/srv"]})
    assert await task == ["/srv"]


async def test_another_run_of_the_agent_waits_for_the_lease(api: ApiClient, sql: Any, shared_database: str) -> None:
    agent = await enrolled(api)
    await agent.sync()
    twin = Agent(api.http, agent.host_id, agent.key, "http://127.0.0.1:9")
    headers = {"authorization": f"Bearer {agent.key}"}
    body = {"incarnation": twin.incarnation, "seq": 99, "agent_version": "0.1.0", "ingress_url": twin.ingress_url}
    answer = await api.http.post("/agent/sync", json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "host_busy")
    assert 0 < int(answer.headers["retry-after"]) <= 45
    assert (await api.ask("GET", f"/admin/hosts/{agent.host_id}"))["ingress_url"] is None
    await agent.sync()

    past = "lease_until = clock_timestamp(), last_seen_at = clock_timestamp() - interval '46 seconds'"
    await sql(shared_database, f"update tollgate.hosts set {past} where id = $1", agent.host_id)
    assert (await api.ask("GET", f"/admin/hosts/{agent.host_id}"))["contact"] == "unseen"
    await twin.sync()
    await agent.sync(status=409)


async def test_a_repeated_sync_changes_nothing_and_is_answered(api: ApiClient, sql: Any, shared_database: str) -> None:
    agent = await enrolled(api)
    made = await model(api, agent)
    await agent.observe(made["id"], "loading")
    agent.seq -= 1
    told = await agent.observe(made["id"], "failed")
    assert told["poll_seconds"] == 2
    assert (await api.ask("GET", f"/admin/models/{made['id']}"))["phase"] == "loading"
    agent.seq += 100  # the syncs between were lost
    await agent.observe(made["id"], "failed", failures=1, retry_in_seconds=10, log_tail="cut\x00 off" + "x" * 9000)
    found = await api.ask("GET", f"/admin/models/{made['id']}")
    assert (found["phase"], found["failures"]) == ("failed", 1)
    silent = "update tollgate.hosts set last_seen_at = now() - interval '46 seconds' where id = $1"
    await sql(shared_database, silent, agent.host_id)
    logs = await api.ask("GET", f"/admin/models/{made['id']}/logs", params={"diagnose": "true"})
    assert len(logs["logs"]) == 8192
    assert (logs["diagnosis"]["detected"], logs["state"]) == (False, "failed")


async def test_without_the_agent_key_there_are_no_hosts(postgres_door: Door, sandbox: Upstream, api: ApiClient) -> None:
    async with admin_api(postgres_door, sandbox, api.someone) as bare:
        assert await refused(bare, None) == (503, "fleet_not_configured")
        assert await refused(bare, None, "/agent/enrol") == (503, "fleet_not_configured")
        error = await bare.refused("POST", "/admin/hosts", 503, json={"name": "gpu"})
        assert "AGENT_KEY" in error["message"]


@pytest.mark.parametrize("base_dir", ["relative", "/with\nbreak", "/" + "x" * 1024])
async def test_a_base_dir_is_one_absolute_path(api: ApiClient, base_dir: str) -> None:
    agent = await enrolled(api)
    asked = {"params": {"host_id": agent.host_id}, "json": {"base_dir": base_dir}}
    assert (await api.refused("PUT", "/admin/models/base-dir", 400, **asked))["param"] == "base_dir"


async def test_what_is_read_of_a_host_waits_for_no_change(api: ApiClient, shared_database: str) -> None:
    agent = await enrolled(api)
    query = {"params": {"host_id": agent.host_id}}
    changing = await asyncpg.connect(shared_database)
    async with changing.transaction():
        await changing.execute("select from tollgate.hosts where id = $1 for update", agent.host_id)
        for path in ("/admin/models/base-dir", "/admin/system/capabilities", "/admin/system/host/summary"):
            assert (await api.ask("GET", path, **query))["host_id"] == agent.host_id
    await changing.close()
