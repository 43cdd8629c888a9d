"""Real inference servers behind Tollgate: llama.cpp's by default, and those that ENGINES names."""

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Any

import pytest

from completions.stage import Row, Stage, before, staged
from gateway import Upstream
from people import Person
from sandbox.serving import serving, until
from servers.engines import CHATTING, KEY, MODEL, Engine
from tollgate.core.money import NANOS_PER_CREDIT
from tollgate.sandbox.app import create_sandbox

ENGINES = os.environ.get("ENGINES", "llamacpp").split(",")
collect_ignore = [] if "ENGINES" in os.environ else ["test_frameworks.py", "test_sound_engines.py", "test_vllm.py"]
"""They need what `tools/install_engines.py` installs."""

PRICING = {"prompt": "0.000000251", "completion": "0.000001253", "input_cache_read": "0.000000127"}
OURS, TRANSLATED = "engines/ours", "engines/translated"
"""Models of one engine: as the kind of server that it is, and as one that has chat completions only."""


@pytest.fixture(scope="session", params=[name for name in ENGINES if name in CHATTING])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with CHATTING[request.param](tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture(scope="session")
async def stage(engine: Engine, shared_database: str) -> AsyncIterator[Stage]:
    sandbox = create_sandbox()
    with serving(sandbox) as address:
        upstream = Upstream(sandbox, address)
        more = {"PRIVATE_UPSTREAMS": "true", "UPSTREAM_ENGINE_KEY": KEY, "AGENT_KEY": "a6" * 20}
        with before(upstream, shared_database, **more) as gateway:
            async with staged(gateway, shared_database) as made:
                await serves(made, engine.url, OURS, engine.dialect, MODEL, PRICING)
                await serves(made, engine.url, TRANSLATED, "tgi", MODEL, PRICING)
                yield made


async def serves(stage: Stage, url: str, model: str, dialect: str, name: str, pricing: dict[str, str]) -> None:
    """A model of this server's, from now on."""
    operator = await stage.customer(role="admin")
    server = {"name": model, "base_url": url, "dialect": dialect, "secret_name": "UPSTREAM_ENGINE_KEY"}
    made = await stage.post(operator, server, "/admin/upstreams")
    route = {"model": model, "upstream_id": made.json()["id"], "upstream_model": name, "pricing": pricing}
    assert (await stage.post(operator, {**route, "context_tokens": 4096}, "/admin/models/registry")).status_code < 300


@dataclass(frozen=True)
class Said:
    """What a client says that the model said."""

    text: str = ""
    thought: str = ""
    call: tuple[str, Any] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = field(default=0, compare=False)
    """Of the prompt. They depend on what was asked before."""

    @property
    def cost_nanos(self) -> int:
        counts = {
            "prompt": self.prompt_tokens - self.cached_tokens,
            "input_cache_read": self.cached_tokens,
            "completion": self.completion_tokens,
        }
        cost = sum(count * Decimal(PRICING[name]) for name, count in counts.items())
        return int((cost * NANOS_PER_CREDIT).to_integral_value(ROUND_CEILING))


@pytest.fixture
async def someone(stage: Stage) -> Person:
    return await stage.customer()


async def charged(stage: Stage, someone: Person) -> Row:
    """The row of their only call, once it has ended."""

    async def has_ended() -> bool:
        return [row["state"] for row in await stage.rows(someone)] not in ([], ["held"])

    await until(has_ended)
    row = await stage.row(someone)
    assert (row["state"], await stage.money(someone)) == ("settled", (NANOS_PER_CREDIT - row["charge_nanos"], 0))
    assert 0 < row["charge_nanos"] <= row["hold_nanos"]
    return row
