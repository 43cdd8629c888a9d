from collections.abc import AsyncIterator

import pytest

from reconciliation.installation import Installation, installed


@pytest.fixture
async def installation(own_database: str) -> AsyncIterator[Installation]:
    async with installed(own_database) as made:
        yield made
