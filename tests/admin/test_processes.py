"""What operators see of the processes of Tollgate and their machines, and what rules read."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from admin.api_client import ApiClient, admin_api
from gateway import Upstream
from tollgate.database import Door
from tollgate.health import store as health
from tollgate.health.node_exporter import Unanswered, read_series

SAMPLE = {
    "memory_total_bytes": 4 * 2**30, "memory_used_bytes": 3 * 2**30, "process_memory_bytes": 2**28, "load_1m": 0.5,
    "disk_total_bytes": 100, "disk_used_bytes": 40, "cpu_percent": 12.5, "version": "0.1.0", "kind": "server",
    "memory_source": "container", "process_cpu_percent": 7.5, "loop_delay_ms": 2.5,
}  # fmt: skip
SYSTEM = "/admin/system"


@pytest.fixture
async def api(postgres_door: Door, sandbox: Upstream, person: Any) -> AsyncIterator[ApiClient]:
    async with admin_api(postgres_door, sandbox, await person("admin")) as made:
        yield made


@pytest.fixture
def name(api: ApiClient) -> str:
    return f"web.{api.someone.number}:1"


async def test_each_process_is_seen_with_its_last_sample(
    api: ApiClient, postgres_door: Door, sql: Any, shared_database: str, name: str
) -> None:
    for sample in (SAMPLE, SAMPLE | {"cpu_percent": 99.0}):  # the second is within the same minute
        await health.record_process(postgres_door, name, sample, 1000)
    (seen,) = [one for one in (await api.ask("GET", f"{SYSTEM}/processes"))["data"] if one["process"] == name]
    assert (seen["is_this"], seen["version"], seen["figures"]["process_mem_mb"]) == (False, "0.1.0", 256)
    assert (seen["figures"]["cpu_util_pct"], seen["figures"]["disk_used_pct"]) == (12.5, 40)
    assert (seen["kind"], seen["figures"]["mem_source"]) == ("server", "container")
    assert (seen["figures"]["process_cpu_pct"], seen["figures"]["loop_delay_ms"]) == (7.5, 2.5)
    found = await api.ask("GET", f"{SYSTEM}/host/summary", params={"process": name})
    assert found == seen["figures"]
    trends = await api.ask("GET", f"{SYSTEM}/host/trends", params={"process": name})
    assert [point["value"] for point in trends["memory_used_bytes"]] == [3 * 2**30]
    assert [trends[name][0]["value"] for name in ("process_cpu", "process_memory_bytes", "loop_delay_ms")] == [
        7.5, 2**28, 2.5
    ]  # fmt: skip
    able = await api.ask("GET", f"{SYSTEM}/capabilities", params={"process": name})
    assert able["capabilities"] == {"kind": "server", "version": "0.1.0"}

    readings = "select jsonb_object_agg(signal, value) from tollgate.process_readings({}) where subject = $1"
    read = json.loads(await sql(shared_database, readings.format("now()"), name))
    assert read == {"process_memory_percent": 75, "process_disk_percent": 40}
    assert await sql(shared_database, readings.format("now() + interval '4 minutes'"), name) is None

    old = "update tollgate.process_samples set sampled_at = now() - interval '25 hours' where process = $1"
    await sql(shared_database, old, name)
    await health.record_process(postgres_door, name, SAMPLE, 1000)
    assert await sql(shared_database, "select count(*) from tollgate.process_samples where process = $1", name) == 1


async def test_the_process_that_answers_looks_anew(api: ApiClient) -> None:
    here = await api.ask("GET", f"{SYSTEM}/host/summary", params={"process": "this"})
    assert here["mem_used_mb"] > here["process_mem_mb"] > 1
    able = await api.ask("GET", f"{SYSTEM}/capabilities", params={"process": here["process"]})
    assert able["capabilities"]["cpu_count"] >= 1
    assert able["prometheus"] is None


async def test_one_machine_is_named_and_it_is_known(api: ApiClient, person: Any) -> None:
    refused = await api.refused("GET", f"{SYSTEM}/host/summary", 404, params={"process": "nobody"})
    assert (refused["kind"], refused["id"]) == ("process", "nobody")
    await api.refused("GET", f"{SYSTEM}/host/trends", 404, params={"process": "nobody"})
    both = {"process": "this", "host_id": "h"}
    assert "host_id" in (await api.refused("GET", f"{SYSTEM}/host/summary", 400, params=both))["message"]
    unset = await api.refused("GET", f"{SYSTEM}/host/summary", 400, params={"instance": "node:9100"})
    assert unset["param"] == "instance"
    member = api.of(await person())
    for path in ("processes", "host/summary?process=this", "capabilities?process=this"):
        await member.refused("GET", f"{SYSTEM}/{path}", 403)


async def test_a_prometheus_that_is_away_is_said_so(postgres_door: Door, sandbox: Upstream, person: Any) -> None:
    away = {"PROMETHEUS_URL": "http://127.0.0.1:1"}
    async with admin_api(postgres_door, sandbox, await person("admin"), **away) as api:
        able = await api.ask("GET", f"{SYSTEM}/capabilities", params={"process": "this"})
        found = await api.ask("GET", f"{SYSTEM}/host/summary", params={"instance": "node:9100"})
    assert able["prometheus"] == {"is_up": False, "instances": [], "reason": "Prometheus did not answer."}
    assert (found["reason"], found["mem_total_mb"]) == ("Prometheus did not answer.", None)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data": {}}', b'{"data": {"result": [{"value": [1, "x"]}]}}'])
def test_what_is_no_answer_of_prometheus_is_refused(body: bytes) -> None:
    with pytest.raises(Unanswered):
        read_series(body)
