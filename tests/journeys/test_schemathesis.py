"""Schemathesis goes over the whole document, with a key that may do everything, and finds nothing to complain of."""

import asyncio
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from conftest import TEMPLATE
from gateway import Gateway, Upstream, running
from journeys.walk import Operation, operations
from people import Person
from sandbox.serving import PATIENCE_SECONDS, serving
from servers.postgres import Cluster
from tollgate.credits import store as credits
from tollgate.database.postgres import PostgresDoor
from tollgate.keys.authentication import console
from tollgate.sandbox.app import create_sandbox
from tollgate.sandbox.state import Habits

pytestmark = pytest.mark.slow

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 5
EXPORTED = json.loads((Path(__file__).parents[2] / "src" / "tollgate" / "openapi.json").read_text())
"""As `make exports` wrote it, since making the document takes each worker a second before it has any test."""


@pytest.fixture(scope="module")
def database(postgres: Cluster) -> str:
    return postgres.create(f"tollgate_{secrets.token_hex(6)}", TEMPLATE)


@pytest.fixture(scope="module")
def whole(database: str) -> Iterator[Gateway]:
    made = create_sandbox(Habits(generation_delay_seconds=0.0))
    secrets_of_server = {
        "VAULT_KEY": "5e" * 32,
        "AGENT_KEY": "a" * 32,
        "OPENROUTER_MANAGEMENT_KEY": "sk-or-v1-managing",
    }
    chosen = {"DATABASE_URL": database, **secrets_of_server}
    with serving(made) as address, running(chosen, Upstream(made, address)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def admin(database: str) -> str:
    """The key of one with more credits than all of this can cost."""

    async def seeded() -> str:
        door = PostgresDoor(database, pool_size=1, deadline_seconds=30)
        made = Person(door, "admin")
        await made.seed()
        await credits.grant(console(door, "tests"), made.org_id, 10**15, source="funding", reason="", reference="first")
        await door.close()
        return made.secret

    return asyncio.run(seeded())


@pytest.fixture(scope="module")
def told(whole: Gateway) -> Any:
    return schemathesis.openapi.from_url(f"{whole.address}/openapi.json", timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize("operation", list(operations(EXPORTED)), ids=lambda one: " ".join(one[:2]))
def test_everything_answers_as_it_is_documented(operation: Operation, told: Any, admin: str) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(told[operation.path][operation.method].as_strategy())
    def answers(case: Any) -> None:
        headers = {"authorization": f"Bearer {admin}"}
        case.call_and_validate(headers=headers, checks=CHECKS, timeout=PATIENCE_SECONDS)

    answers()
