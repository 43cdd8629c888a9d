"""The stack of deploy/ as plain processes: nginx, Tollgate, Postgres, Redis, Prometheus and its node exporter. What we
ship for them passes their own checks."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from completions.stage import staged
from dashboards import DASHBOARDS
from gateway import CHAT, Gateway, Upstream, running
from people import Person
from sandbox.serving import PATIENCE_SECONDS, a_chat, serving, until
from servers import nginx as proxies
from servers import redis as caches
from servers.nginx import nginx
from servers.process import free_port
from servers.prometheus import (
    DEPLOY,
    NODE_EXPORTER,
    PROGRAM,
    PROMTOOL,
    configuration,
    node_exporter,
    prometheus,
    promtool,
)
from servers.redis import redis
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

MISSING = [
    name
    for name, found in (
        ("prometheus", PROGRAM and PROMTOOL),
        ("prometheus-node-exporter", NODE_EXPORTER),
        ("nginx", proxies.PROGRAM),
        ("redis-server", caches.PROGRAM),
    )
    if not found
]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed (CI installs them): {', '.join(MISSING)}")

TOKEN = "metrics-token-of-the-tests"
RULE = "TollgateServerErrors"


def test_promtool_finds_nothing_in_the_rules_and_in_what_dashboards_ask(tmp_path: Path) -> None:
    queries = [query for _, panels in DASHBOARDS.values() for panel in panels for query in panel.queries.values()]
    rules = [{"record": f"dashboard:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "dashboards.yml").write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", tmp_path / "dashboards.yml")
    promtool("check", "rules", "--lint-fatal", DEPLOY / "alerts.yml")
    promtool("check", "config", configuration(tmp_path, "127.0.0.1:1", "127.0.0.1:2", TOKEN))


async def told_path(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.url.path} {request.headers.get('x-script-name')}")


@contextlib.contextmanager
def front(gateway: Gateway, folder: Path) -> Iterator[str]:
    """nginx with what the stack adds, before a Grafana and a pgAdmin that tell their path."""
    pages = Starlette(routes=[Route("/{path:path}", told_path)])
    with serving(pages) as behind:

        def change(shipped: Path) -> None:
            stack = (DEPLOY / "nginx-stack.conf").read_text()
            for name in ("http://grafana:3000", "http://pgadmin:80"):
                assert stack.count(name) == 1, name
                stack = stack.replace(name, behind)
            (folder / "stack.conf").write_text(stack)
            included = "/etc/nginx/tollgate/*.conf"
            assert shipped.read_text().count(included) == 1
            shipped.write_text(shipped.read_text().replace(included, str(folder / "stack.conf")))

        with nginx(gateway.address, folder, change) as address:
            yield address


async def test_the_stack_is_scraped_and_a_rule_fires(shared_database: str, tmp_path: Path) -> None:
    port, sandbox = free_port(), create_sandbox(Habits(list_faults=True))
    with contextlib.ExitStack() as stack:
        given = {
            "DATABASE_URL": shared_database, "METRICS_TOKEN": TOKEN, "TRUSTED_PROXY": "proxy",
            "PROMETHEUS_URL": f"http://127.0.0.1:{port}",
        }  # fmt: skip
        (tmp_path / "redis").mkdir()
        given["REDIS_URL"] = stack.enter_context(redis(tmp_path / "redis")).url
        upstream = Upstream(sandbox, stack.enter_context(serving(sandbox)))
        gateway = stack.enter_context(running(given, upstream))
        address = stack.enter_context(front(gateway, tmp_path))
        node = stack.enter_context(node_exporter(tmp_path))
        file = configuration(tmp_path, urlsplit(gateway.address).netloc, node, TOKEN)
        stack.enter_context(prometheus(file, port))
        async with staged(gateway, shared_database) as stage:
            someone = await stage.customer()
            operator = Person(stage.door, "admin")
            await operator.seed()
            await watched(address, gateway, someone, operator, f"http://127.0.0.1:{port}", node)


async def watched(
    address: str, gateway: Gateway, someone: Person, operator: Person, prometheus_url: str, node: str
) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as http:

        async def asked(path: str, **query: str) -> Any:
            return (await http.get(f"{prometheus_url}/api/v1/{path}", params=query)).json()["data"]

        async def both_are_read() -> bool:
            return len((await asked("query", query="up == 1"))["result"]) == 2

        async def fires() -> bool:
            failing = a_chat(model="sandbox/fault-status")
            answer = await http.post(address + CHAT, json=failing, headers=of(someone))
            assert answer.status_code >= 500
            alerts = (await asked("alerts"))["alerts"]
            return RULE in {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

        assert (await http.get(f"{address}/healthz")).status_code == 200
        assert (await http.get(f"{address}/metrics")).status_code == 404
        assert (await http.get(f"{address}/grafana/d/tollgate")).text == "/grafana/d/tollgate None"
        assert (await http.get(f"{address}/pgadmin/browser/")).text == "/pgadmin/browser/ /pgadmin"
        assert (await http.get(f"{address}/api/v1/models", headers=of(someone))).status_code == 200
        for path in ("/ui", "/ui/"):
            assert "<title>" in (await http.get(f"{address}{path}")).raise_for_status().text
        await until(both_are_read)
        await until(fires)
        scrape = await http.get(f"{gateway.address}/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        assert promtool("check", "metrics", given=scrape.text) == ""

        async def system(path: str, **query: str) -> Any:
            found = await http.get(f"{address}/admin/system/{path}", params=query, headers=of(operator))
            return found.json()

        assert (await system("capabilities", process="this"))["prometheus"]["instances"] == [node]
        machine = await system("host/summary", instance=node)
        assert machine["mem_total_mb"] > machine["mem_used_mb"] > 0
        trends = await system("host/trends", instance=node, minutes="1", step_s="5")
        assert trends["memory_used_bytes"]


def of(someone: Person) -> dict[str, str]:
    return {"authorization": f"Bearer {someone.secret}"}
