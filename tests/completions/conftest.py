"""The money of every file's tests is audited at its end."""

import asyncio
from collections.abc import Iterator

import pytest

from completions.paid import books_agree


@pytest.fixture(scope="module", autouse=True)
def servers_may_take_their_time_to_close() -> Iterator[None]:
    """One that gives up leaves connections open, which fails a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tollgate.app.CLOSE_SECONDS", 60.0)
        yield


@pytest.fixture(scope="module", autouse=True)
def audit(shared_database: str) -> Iterator[None]:
    yield
    asyncio.run(books_agree(shared_database))
