"""The money of every file's tests is audited at its end."""

import asyncio
from collections.abc import Iterator

import pytest

from completions.paid import books_agree


@pytest.fixture(scope="module", autouse=True)
def audit(shared_database: str) -> Iterator[None]:
    yield
    asyncio.run(books_agree(shared_database))
