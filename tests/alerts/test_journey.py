"""From requests that fail to a receiver that is told: all of Tollgate on sockets."""

from typing import Any

import httpx
import pytest

from alerts.receivers import Receiver, receiver
from alerts.watch import Watch
from gateway import CHAT, running
from people import Person
from sandbox.serving import until
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.credits import store as credits
from tollgate.keys.authentication import console

pytestmark = pytest.mark.anyio

SCHEDULER = {"authorization": "Bearer a-secret-of-the-scheduler"}


async def test_requests_that_fail_are_told_to_operators_and_their_end_too(
    own_database: str, watch: Watch, sandbox: Any
) -> None:
    admin, customer = Person(watch.door, "admin"), Person(watch.door)
    for one in (admin, customer):
        await one.seed()
    await watch.sql.execute("update tollgate.orgs set plan_id = 'enterprise'")
    granter = console(watch.door, "tests")
    await credits.grant(granter, customer.org_id, NANOS_PER_CREDIT, source="funding", reason="", reference="x")
    more = {"DATABASE_URL": own_database, "PRIVATE_UPSTREAMS": "true", "VAULT_KEY": "ab" * 32}
    with running(more, sandbox, CRON_SECRET="a-secret-of-the-scheduler") as gateway:  # of the tests
        async with receiver() as hook, gateway.client(admin) as operator, gateway.client(customer) as client:
            channel = {"name": "ops", "kind": "webhook", "url": hook.url, "rules": ["error_rate"]}
            assert (await operator.post("/admin/alerts/channels", json=channel)).status_code == 201
            await operator.patch("/admin/alerts/rules/error_rate", json={"for_seconds": 0, "clear_seconds": 0})
            body = {"model": "sandbox/fault-status", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
            for _ in range(25):
                assert (await client.post(CHAT, json=body)).status_code >= 500
            await sweep(operator)
            await until(lambda: told(hook, 1))
            assert [got.json["data"]["alerts"][0]["state"] for got in hook.received] == ["firing"]
            await watch.sql.execute("update tollgate.requests set created_at = created_at - interval '1 hour'")
            await watch.sql.execute("update tollgate.alert_scan set scanned_at = scanned_at - interval '1 minute'")
            await sweep(operator)
            await until(lambda: told(hook, 2))
            assert hook.received[1].json["data"]["resolved"] == hook.received[0].json["data"]["firing"]


async def told(hook: Receiver, times: int) -> bool:
    """The server sweeps by itself too, so another sweep may be the one that tells."""
    return len(hook.received) >= times


async def sweep(client: httpx.AsyncClient) -> None:
    assert (await client.post("/internal/sweep", headers=SCHEDULER)).status_code == 200
