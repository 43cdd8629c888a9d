from collections.abc import AsyncIterator

import pytest

from gateway import Upstream
from reconciliation.installation import Faulty, Installation
from sandbox.serving import serving


@pytest.fixture
async def installation(own_database: str) -> AsyncIterator[Installation]:
    faulty = Faulty()
    with serving(faulty) as address:
        async with Installation(own_database, Upstream(faulty.sandbox, address), faulty).running() as made:
            await made.open()
            yield made
