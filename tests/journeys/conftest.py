"""What tests of commands share."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from journeys.home import Home, end_at_once, gone, whole_postgres
from tollgate.database import embedded


@pytest.fixture
def home() -> Iterator[Home]:
    """Its path leaves room for the names of sockets. Whatever Postgres still runs in it afterwards is ended."""
    made = Home(Path(tempfile.mkdtemp(prefix="tg-")))
    yield made
    left = whole_postgres(made.data)
    end_at_once(left)
    gone(left)
    shutil.rmtree(Path(unquote(embedded.url(made.data).partition("?host=")[2])), ignore_errors=True)
    shutil.rmtree(made.folder, ignore_errors=True)
