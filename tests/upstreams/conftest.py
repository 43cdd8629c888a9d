from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from upstreams.scripted import Side


@pytest.fixture(params=["httptools", "httpx"])
async def a_side(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Side]]:
    """Makes our side. Each test that asks for it runs once per transport."""
    made: list[Side] = []

    def make(**settings: Any) -> Side:
        made.append(Side(long_lived=request.param == "httptools", **settings))
        return made[-1]

    yield make
    for side in made:
        await side.close()


@pytest.fixture
def side(a_side: Callable[..., Side]) -> Side:
    return a_side()
