"""A control plane, a model, and an agent that the tests of a file share."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent import control_plane, host
from agent.control_plane import ControlPlane
from agent.host import Agent
from agent.inside import Inside, inside
from engines import tiny_model


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model."""
    folder = tmp_path_factory.mktemp("models")
    tiny_model.write_gguf(folder / "tiny.gguf")
    return folder


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with control_plane.serving() as made:
        yield made


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for the name of a socket."""
    with tempfile.TemporaryDirectory(prefix="tg-") as made:
        yield Path(made)


@pytest.fixture
def agent(plane: ControlPlane, models: Path, short_path: Path) -> Iterator[Agent]:
    with host.running(plane, short_path, models) as made:
        yield made


@pytest.fixture
async def inner(short_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Inside]:
    """A supervisor in this process."""
    async with inside(short_path / "a", models, monkeypatch) as made:
        yield made
